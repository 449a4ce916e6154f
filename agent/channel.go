package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"sync"
)

// creditStep is how many consumed bytes are granted again at once.
const creditStep = 256 << 10

var errStopped = errors.New("the server wants no more, or the connection ended")

// channel is one request of the server's. The connection's reader feeds it; the goroutine of the request uses it.
type channel struct {
	id   uint32
	link *link

	mu       sync.Mutex
	changed  sync.Cond
	credit   int64   // bytes of DATA and DATA2 that may be sent
	received []chunk // not yet taken by the request
	window   int64   // bytes the server may still send
	consumed int64   // bytes taken and not yet granted again
	ended    bool    // END was received
	stopped  bool    // CANCEL was received or the connection ended
	onStop   []func()

	interrupted bool          // a write to a process shall say how much it has written: the server writes the rest later
	answered    chan struct{} // of such a request; guarded by link.mu
}

func newChannel(l *link, id uint32) *channel {
	ch := &channel{id: id, link: l, credit: initialCredit, window: initialCredit}
	ch.changed.L = &ch.mu
	return ch
}

// feed takes over a DATA payload. It reports whether the server kept to its credit and sent nothing after END.
func (ch *channel) feed(c chunk) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.window -= int64(len(c.data))
	if ch.ended || ch.window < 0 {
		c.free()
		return false
	}
	if ch.stopped || len(c.data) == 0 {
		c.free()
		return true
	}
	ch.received = append(ch.received, c)
	ch.changed.Broadcast()
	return true
}

func (ch *channel) end() {
	ch.mu.Lock()
	ch.ended = true
	ch.changed.Broadcast()
	ch.mu.Unlock()
}

func (ch *channel) grant(n uint32) {
	ch.mu.Lock()
	ch.credit += int64(n)
	ch.changed.Broadcast()
	ch.mu.Unlock()
}

// stop ends every wait of the request and calls what whenStopped registered.
func (ch *channel) stop() {
	ch.mu.Lock()
	if ch.stopped {
		ch.mu.Unlock()
		return
	}
	ch.stopped = true
	calls := ch.onStop
	ch.onStop = nil
	ch.changed.Broadcast()
	ch.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// interrupt stops the request, and lets it answer with what it has done.
func (ch *channel) interrupt() {
	ch.mu.Lock()
	ch.interrupted = !ch.stopped
	ch.mu.Unlock()
	ch.stop()
}

func (ch *channel) isInterrupted() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.interrupted
}

func (ch *channel) isStopped() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.stopped
}

// whenStopped has call called once, when the channel stops (at once when it has).
func (ch *channel) whenStopped(call func()) {
	ch.mu.Lock()
	if !ch.stopped {
		ch.onStop = append(ch.onStop, call)
		ch.mu.Unlock()
		return
	}
	ch.mu.Unlock()
	call()
}

// acquire waits for credit and takes up to `want` bytes of it.
func (ch *channel) acquire(want int) (int, error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for ch.credit <= 0 && !ch.stopped {
		ch.changed.Wait()
	}
	if ch.stopped {
		return 0, errStopped
	}
	n := min(int64(want), ch.credit)
	ch.credit -= n
	return int(n), nil
}

// refund gives back credit that was acquired and not used.
func (ch *channel) refund(n int) {
	if n > 0 {
		ch.grant(uint32(n))
	}
}

// receive returns the next DATA payload, io.EOF after END, or errStopped. The caller frees the chunk and calls took.
func (ch *channel) receive() (chunk, error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for {
		switch {
		case ch.stopped:
			return chunk{}, errStopped
		case len(ch.received) > 0:
			c := ch.received[0]
			ch.received[0] = chunk{}
			ch.received = ch.received[1:]
			return c, nil
		case ch.ended:
			return chunk{}, io.EOF
		}
		ch.changed.Wait()
	}
}

// took tells that n received bytes are dealt with, so that the server may send as many more.
func (ch *channel) took(n int) {
	ch.mu.Lock()
	ch.consumed += int64(n)
	granted := int64(0)
	if ch.consumed >= creditStep && !ch.ended {
		granted, ch.consumed = ch.consumed, 0
		ch.window += granted
	}
	ch.mu.Unlock()
	if granted > 0 {
		var raw [headerSize + 4]byte
		putHeader(raw[:], kindCredit, ch.id, 4)
		binary.BigEndian.PutUint32(raw[headerSize:], uint32(granted))
		ch.link.write(raw[:])
	}
}

// send sends the first n bytes of the buffer's payload. Their credit must have been acquired.
func (ch *channel) send(kind byte, b *buffer, n int) error {
	if ch.isStopped() {
		return errStopped
	}
	putHeader(b[:], kind, ch.id, n)
	return ch.link.write(b[:headerSize+n])
}

func (ch *channel) sendEnd() error {
	var raw [headerSize]byte
	putHeader(raw[:], kindEnd, ch.id, 0)
	return ch.link.write(raw[:])
}

func (ch *channel) item(value any) error {
	if ch.isStopped() {
		return errStopped
	}
	return ch.link.writeJSON(kindItem, ch.id, value)
}

// finish answers the request. Nothing may be sent on the channel afterwards.
func (ch *channel) finish(result any, err error) {
	ch.link.forget(ch.id)
	ch.mu.Lock()
	left := ch.received
	ch.received, ch.stopped = nil, true
	ch.mu.Unlock()
	for _, c := range left {
		c.free()
	}
	switch {
	case errors.Is(err, errStopped):
		ch.link.writeJSON(kindResult, ch.id, empty{})
	case err != nil:
		ch.link.writeJSON(kindError, ch.id, asFailure(err))
	default:
		ch.link.writeJSON(kindResult, ch.id, result)
	}
}

// empty is the answer `{}`.
type empty struct{}

func encode(kind byte, channel uint32, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	if len(text) > maxPayload {
		return nil, errors.New("an answer is longer than a frame")
	}
	raw := make([]byte, headerSize+len(text))
	putHeader(raw, kind, channel, len(text))
	copy(raw[headerSize:], text)
	return raw, nil
}
