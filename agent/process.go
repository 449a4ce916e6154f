package main

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// lingerTime is how long after its leader's end a process's output may go on before the end is reported.
const lingerTime = 200 * time.Millisecond

// exitStatus is EXIT of the protocol.
type exitStatus struct {
	ExitCode   int    `json:"exit_code"`
	Signal     *int   `json:"signal"`
	Reason     string `json:"reason"`
	DurationMS int64  `json:"duration_ms"`
}

// processInfo is PROCESS of the protocol.
type processInfo struct {
	PID          int         `json:"pid"`
	Argv         []string    `json:"argv"`
	Cwd          string      `json:"cwd"`
	User         string      `json:"user"`
	Tag          *string     `json:"tag"`
	PTY          bool        `json:"pty"`
	Started      int64       `json:"started_unix_ns"`
	StdoutOffset int64       `json:"stdout_offset"`
	StderrOffset int64       `json:"stderr_offset"`
	Exit         *exitStatus `json:"exit"`
}

// process is one that the server asked for. Its output is read by one goroutine per stream, into rings.
type process struct {
	info    processInfo // fixed after the start, but for the offsets and Exit, which stay zero here
	started time.Time
	stdin   *os.File   // write end of its standard input, or its terminal; nil without
	inputs  sync.Mutex // held by the one request that writes to stdin

	alive    bool // not yet reaped; guarded by table.mu: only then may its pid be signalled
	timedOut bool // guarded by table.mu
	timer    *alarm

	mu      sync.Mutex
	changed sync.Cond
	streams []*stream            // standard output and error, or the terminal
	readers map[*reader]struct{} // also those that are kept
	status  *exitStatus          // set when it was reaped
	done    bool                 // its end may be reported
}

// stream is one output of a process. Guarded by process.mu.
type stream struct {
	ring
	source  *os.File
	closed  bool  // at its end
	waiting bool  // its reader waits for room
	owed    int64 // offset that was already in the pipe when the process ended
}

// reader is somebody attached. One that the server left for a hold is kept: output waits for it, and it comes back.
type reader struct {
	position [2]int64
	kept     bool
}

func newProcess(info processInfo, sources []*os.File, stdin *os.File) *process {
	p := &process{info: info, started: time.Now(), stdin: stdin, readers: map[*reader]struct{}{}}
	p.info.Started = p.started.UnixNano()
	p.changed.L = &p.mu
	for _, source := range sources {
		p.streams = append(p.streams, &stream{source: source})
	}
	return p
}

// needed is the oldest offset of a stream that somebody attached has not got yet.
func (p *process) needed(index int) int64 {
	oldest := p.streams[index].end
	for r := range p.readers {
		oldest = min(oldest, r.position[index])
	}
	return oldest
}

// pump reads one stream to its end.
func (p *process) pump(index int) {
	s := p.streams[index]
	p.mu.Lock()
	for {
		region := s.room(p.needed(index))
		if region == nil {
			s.waiting = true
			p.changed.Wait()
			s.waiting = false
			continue
		}
		p.mu.Unlock()
		n, err := s.source.Read(region)
		p.mu.Lock()
		s.commit(max(n, 0))
		if err != nil { // EIO on a terminal: nobody has it open any more
			break
		}
		p.changed.Broadcast()
	}
	s.closed = true
	p.finishIfComplete(false)
	p.changed.Broadcast()
	p.mu.Unlock()
	s.source.Close()
}

// reaped records how the process ended.
func (p *process) reaped(status syscall.WaitStatus, timedOut bool) {
	exit := &exitStatus{Reason: "exited", ExitCode: status.ExitStatus(), DurationMS: time.Since(p.started).Milliseconds()}
	if status.Signaled() {
		number := int(status.Signal())
		exit.Signal, exit.ExitCode, exit.Reason = &number, 128+number, "signaled"
	}
	if timedOut {
		exit.Reason = "timeout"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = exit
	for _, s := range p.streams {
		if !s.closed {
			s.owed = s.end + int64(unread(s.source))
		}
	}
	if p.stdin != nil && !p.info.PTY {
		p.stdin.Close()
	}
	p.finishIfComplete(false)
	if !p.done {
		time.AfterFunc(lingerTime, p.lingered)
	}
}

// lingered reports the end although a stream is still open, unless output from the process's lifetime is still under way.
func (p *process) lingered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		if !s.closed && (s.waiting || s.end < s.owed) {
			time.AfterFunc(lingerTime, p.lingered)
			return
		}
	}
	p.finishIfComplete(true)
}

func (p *process) finishIfComplete(despiteOpen bool) {
	if p.status == nil || p.done {
		return
	}
	for _, s := range p.streams {
		if !s.closed && !despiteOpen {
			return
		}
	}
	p.done = true
	p.changed.Broadcast()
}

// follow sends a process's output to a channel until all of it is sent, and returns EXIT. With offsets nil, from the oldest held.
func (p *process) follow(ch *channel, from [2]*int64) (any, error) {
	r := &reader{}
	p.mu.Lock()
	for i, s := range p.streams {
		r.position[i] = s.start
		if from[i] != nil {
			r.position[i] = min(max(*from[i], 0), s.end)
		}
	}
	p.readers[r] = struct{}{}
	for other := range p.readers {
		if other.kept && other.position == r.position {
			delete(p.readers, other) // it is back
			break
		}
	}
	started := p.info
	started.StdoutOffset, started.StderrOffset = r.position[0], r.position[1]
	started.Exit = p.status
	p.mu.Unlock()
	defer p.detach(ch, r)
	ch.whenStopped(p.wake)
	if err := ch.item(map[string]processInfo{"started": started}); err != nil {
		return nil, err
	}
	for {
		index, err := p.awaitOutput(ch, r)
		if err != nil {
			return nil, err
		}
		if index < 0 {
			return p.status, nil
		}
		if err := p.sendOutput(ch, r, index); err != nil {
			return nil, err
		}
	}
}

func (p *process) detach(ch *channel, r *reader) {
	quiesced := ch.link.isQuiesced()
	p.mu.Lock()
	if quiesced {
		r.kept = true
	} else {
		delete(p.readers, r)
	}
	p.changed.Broadcast()
	p.mu.Unlock()
}

// forgetKept lets output go on for which nobody has come back.
func (p *process) forgetKept() {
	p.mu.Lock()
	for r := range p.readers {
		if r.kept {
			delete(p.readers, r)
		}
	}
	p.changed.Broadcast()
	p.mu.Unlock()
}

func (p *process) wake() {
	p.mu.Lock()
	p.changed.Broadcast()
	p.mu.Unlock()
}

// awaitOutput returns the index of a stream that has output for r, or -1 when there will be none.
func (p *process) awaitOutput(ch *channel, r *reader) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for i, s := range p.streams {
			if r.position[i] < s.end {
				return i, nil
			}
		}
		if p.done {
			return -1, nil
		}
		if ch.isStopped() {
			return 0, errStopped
		}
		p.changed.Wait()
	}
}

// sendOutput sends one frame of output, after the note of a gap when there is one.
func (p *process) sendOutput(ch *channel, r *reader, index int) error {
	allowed, err := ch.acquire(maxPayload)
	if err != nil {
		return err
	}
	b := newBuffer()
	defer b.free()
	s := p.streams[index]
	p.mu.Lock()
	dropped := max(s.start-r.position[index], 0)
	position, n := r.position[index]+dropped, 0
	for n < allowed && position < s.end {
		copied := copy(b.payload()[n:allowed], s.at(position))
		n += copied
		position += int64(copied)
	}
	p.mu.Unlock()
	ch.refund(allowed - n)
	if dropped > 0 {
		note := map[string]int64{"stream": int64(index + 1), "bytes": dropped}
		if err := ch.item(map[string]any{"dropped": note}); err != nil {
			return err
		}
	}
	if n > 0 {
		if err := ch.send(byte(kindData+index), b, n); err != nil {
			return err
		}
	}
	p.mu.Lock()
	r.position[index] = position // not before it was sent: who is kept must be so where the server is
	if s.waiting {
		p.changed.Broadcast()
	}
	p.mu.Unlock()
	return nil
}

// snapshot is PROCESS as `list` shows it.
func (p *process) snapshot() processInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	info := p.info
	info.StdoutOffset = p.streams[0].start
	if len(p.streams) > 1 {
		info.StderrOffset = p.streams[1].start
	}
	info.Exit = p.status
	return info
}

// outputMemory is the number of bytes that its output occupies here.
func (p *process) outputMemory() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	total := 0
	for _, s := range p.streams {
		total += len(s.memory)
	}
	return total
}
