package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	readAhead     = 64 << 10 // bytes of the connection's read buffer; larger payloads bypass it
	firstBackoff  = 10 * time.Millisecond
	lastBackoff   = 2 * time.Second
	keptTime      = 30 * time.Second // how long after a hold output waits for who has followed it before
	inputPatience = time.Second      // how long a write to a process may take to notice that it is interrupted
	eagerTries    = 500              // every firstBackoff, after the server has asked for quiet: it will listen again soon
)

// link is one connection to the server.
type link struct {
	agent  *agent
	socket net.Conn
	token  string

	writing sync.Mutex
	hushed  bool // guarded by writing: nothing is sent any more

	mu       sync.Mutex
	channels map[uint32]*channel
	closed   bool
	quiesced bool // closed on request: wait before dialling again
}

// serveForever dials the server, serves the connection until it ends, and dials again.
func (a *agent) serveForever(directory string) {
	var p pace
	for {
		welcomed, quiesced := a.serveOnce(directory)
		if quiesced {
			a.held = true
		} else if welcomed {
			a.held = false
		}
		wait := p.next(welcomed, quiesced)
		began := time.Now()
		time.Sleep(wait)
		if time.Since(began) > wait+lastBackoff {
			p = pace{} // the sandbox stood still, and is wanted now
		}
	}
}

// pace says how long to wait before dialling again.
type pace struct {
	backoff time.Duration
	eager   int // tries left that follow each other closely
}

func (p *pace) next(welcomed, quiesced bool) time.Duration {
	switch {
	case quiesced:
		p.backoff, p.eager = firstBackoff, eagerTries
		return firstBackoff
	case welcomed:
		p.backoff, p.eager = 0, 0
		return 0
	case p.eager > 0:
		p.eager--
		return firstBackoff
	case p.backoff == 0:
		p.backoff = firstBackoff
	default:
		p.backoff = min(2*p.backoff, lastBackoff)
	}
	return p.backoff/2 + rand.N(p.backoff)
}

// welcomed is called when the server is there, again. Another token is another server, or this is a copy.
func (a *agent) welcomed(token string) {
	a.silence()
	a.table.clock.resume()
	if a.held {
		a.table.clock.after(keptTime, keptTime, a.table.forgetKept)
		a.wakeInterpreters(token != a.token)
	}
	a.token = token
}

// serveOnce reports whether the server welcomed the agent, and whether it asked for quiet before the connection ended.
func (a *agent) serveOnce(directory string) (welcomed, quiesced bool) {
	token, err := os.ReadFile(filepath.Join(directory, "token"))
	if err != nil {
		return false, false
	}
	socket, err := net.Dial("unix", filepath.Join(directory, "link.sock"))
	if err != nil {
		return false, false
	}
	l := &link{agent: a, socket: socket, token: string(token), channels: map[uint32]*channel{}}
	defer l.close()
	hello := map[string]any{
		"protocol": 1, "token": strings.TrimSpace(string(token)), "agent_version": version, "instance": a.machine.instance(),
	}
	if l.writeJSON(kindHello, 0, hello) != nil {
		return false, false
	}
	welcomed, err = l.read()
	if errors.Is(err, errProtocol) {
		log.Printf("closing the connection: %v", err)
	}
	l.close()
	return welcomed, l.quiesced
}

// read handles what the server sends until the connection ends.
func (l *link) read() (welcomed bool, err error) {
	source := bufio.NewReaderSize(l.socket, readAhead)
	for {
		h, c, err := readFrame(source)
		if err != nil {
			return welcomed, err
		}
		if h.kind == kindWelcome {
			c.free()
			welcomed = true
			l.agent.welcomed(l.token)
			continue
		}
		if !welcomed {
			c.free()
			return false, fmt.Errorf("%w: kind %d before WELCOME", errProtocol, h.kind)
		}
		if err := l.handle(h, c); err != nil {
			return welcomed, err
		}
	}
}

func (l *link) handle(h header, c chunk) error {
	l.mu.Lock()
	ch := l.channels[h.channel]
	if h.kind == kindOpen {
		defer l.mu.Unlock()
		if ch != nil {
			return fmt.Errorf("%w: channel %d is in use", errProtocol, h.channel)
		}
		ch = newChannel(l, h.channel)
		l.channels[h.channel] = ch
		go l.agent.answer(ch, c)
		return nil
	}
	l.mu.Unlock()
	if ch == nil { // sent before the server saw the end of the channel
		c.free()
		return nil
	}
	switch h.kind {
	case kindData:
		if !ch.feed(c) {
			return fmt.Errorf("%w: more DATA on channel %d than allowed", errProtocol, h.channel)
		}
	case kindEnd:
		ch.end()
	case kindCredit:
		ch.grant(binary.BigEndian.Uint32(c.data))
	case kindCancel:
		ch.stop()
	}
	return nil
}

// write sends whole frames; after an error the connection is closed.
func (l *link) write(frames []byte) error {
	l.writing.Lock()
	if l.hushed {
		l.writing.Unlock()
		return errStopped
	}
	_, err := l.socket.Write(frames)
	l.writing.Unlock()
	if err != nil {
		l.socket.Close()
		return errStopped
	}
	return nil
}

// quiesce answers the request that asks for it and closes the connection. Nothing is sent after the answer, so the server knows
// how far each stream has come; who writes to a process is told how much it has taken before.
func (l *link) quiesce(ch *channel) {
	l.interruptInputs()
	l.agent.stopInterpreters()
	l.mu.Lock()
	l.quiesced = true
	l.mu.Unlock()
	l.agent.table.clock.halt()
	l.forget(ch.id)
	answer, _ := encode(kindResult, ch.id, empty{})
	l.writing.Lock()
	l.hushed = true
	l.socket.Write(answer)
	l.writing.Unlock()
	l.close()
}

func (l *link) interruptInputs() {
	l.mu.Lock()
	var inputs []*channel
	for _, ch := range l.channels {
		if ch.answered != nil {
			inputs = append(inputs, ch)
		}
	}
	l.mu.Unlock()
	for _, ch := range inputs {
		ch.interrupt()
	}
	patience := time.After(inputPatience)
	for _, ch := range inputs {
		select {
		case <-ch.answered:
		case <-patience:
			return
		}
	}
}

// isInput marks a request that `interruptInputs` ends.
func (l *link) isInput(ch *channel) {
	l.mu.Lock()
	ch.answered = make(chan struct{})
	l.mu.Unlock()
}

func (l *link) isQuiesced() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.quiesced
}

func (l *link) writeJSON(kind byte, channel uint32, value any) error {
	frame, err := encode(kind, channel, value)
	if err != nil {
		if kind == kindItem {
			return err
		}
		frame, _ = encode(kindError, channel, &failure{codeInternal, err.Error()})
	}
	return l.write(frame)
}

func (l *link) forget(id uint32) {
	l.mu.Lock()
	delete(l.channels, id)
	l.mu.Unlock()
}

// close ends the connection and every request on it; processes go on.
func (l *link) close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	channels := l.channels
	l.channels = map[uint32]*channel{}
	l.mu.Unlock()
	l.socket.Close()
	for _, ch := range channels {
		ch.stop()
	}
}
