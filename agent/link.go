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
	readAhead    = 64 << 10 // bytes of the connection's read buffer; larger payloads bypass it
	firstBackoff = 10 * time.Millisecond
	lastBackoff  = 2 * time.Second
	eagerTries   = 500 // every firstBackoff, after the server has asked for quiet: it will listen again soon
)

// link is one connection to the server.
type link struct {
	agent  *agent
	socket net.Conn

	writing sync.Mutex

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
	l := &link{agent: a, socket: socket, channels: map[uint32]*channel{}}
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
			l.agent.silence()
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
	_, err := l.socket.Write(frames)
	l.writing.Unlock()
	if err != nil {
		l.socket.Close()
		return errStopped
	}
	return nil
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
