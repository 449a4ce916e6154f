package main

import (
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

type dialRequest struct {
	Port *int    `json:"port"`
	Path *string `json:"path"`
}

// halfCloser is what TCP and Unix connections can do.
type halfCloser interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

func (a *agent) dial(ch *channel, r *dialRequest) (any, error) {
	connection, err := connect(r)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ch.whenStopped(func() { connection.Close() })
	if err := ch.item(map[string]bool{"connected": true}); err != nil {
		return nil, err
	}
	var outwards sync.WaitGroup
	outwards.Go(func() { receiveTo(ch, connection) })
	sendFrom(ch, connection)
	outwards.Wait()
	if ch.isStopped() {
		return nil, errStopped
	}
	return empty{}, nil
}

func connect(r *dialRequest) (halfCloser, error) {
	switch {
	case r.Port != nil && r.Path == nil && *r.Port >= 1 && *r.Port <= 65535:
		var first error
		for _, host := range []string{"127.0.0.1", "::1"} {
			connection, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(*r.Port)))
			if err == nil {
				return connection.(halfCloser), nil
			}
			if first == nil {
				first = err
			}
		}
		return nil, fail(codeNotOpen, "cannot connect to port %d: %v", *r.Port, first)
	case r.Path != nil && r.Port == nil && strings.HasPrefix(*r.Path, "/") && !strings.ContainsRune(*r.Path, 0):
		connection, err := net.Dial("unix", *r.Path)
		if err != nil {
			return nil, fail(codeNotOpen, "cannot connect to '%s': %v", *r.Path, err)
		}
		return connection.(halfCloser), nil
	}
	return nil, fail(codeInvalid, "cannot connect: a port from 1 to 65535 or the absolute path of a socket is needed")
}

// sendFrom sends what the connection gives, then END.
func sendFrom(ch *channel, connection syscall.Conn) {
	raw, err := connection.SyscallConn()
	if err != nil {
		return
	}
	for {
		allowed, err := ch.acquire(maxPayload)
		if err != nil {
			return
		}
		b, n, err := readWhenReady(raw, allowed)
		ch.refund(allowed - n)
		if n > 0 {
			err = ch.send(kindData, b, n)
			b.free()
			if err != nil {
				return
			}
			continue
		}
		if !ch.isStopped() {
			ch.sendEnd()
		}
		return
	}
}

// readWhenReady waits until there is something to read and only then takes a buffer, so that idle connections hold none. It
// returns no buffer at the end and after errors.
func readWhenReady(raw syscall.RawConn, limit int) (b *buffer, n int, err error) {
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		b = newBuffer()
		for failed = syscall.EINTR; failed == syscall.EINTR; {
			n, failed = syscall.Read(int(fd), b.payload()[:limit])
		}
		if n > 0 {
			return true
		}
		b.free()
		b, n = nil, 0
		return failed != syscall.EAGAIN
	})
	return b, n, errors.Join(err, failed)
}

// receiveTo gives the connection what comes on the channel, then closes its half. When the connection takes no more, the rest
// is thrown away, as it would be in the network.
func receiveTo(ch *channel, connection halfCloser) {
	broken := false
	for {
		c, err := ch.receive()
		if err == io.EOF {
			connection.CloseWrite()
			return
		}
		if err != nil {
			return
		}
		n := len(c.data)
		if !broken {
			_, err = connection.Write(c.data)
			broken = err != nil
		}
		c.free()
		ch.took(n)
	}
}
