package main

import (
	"encoding/json"
	"fmt"
	"log"
	"runtime/debug"
	"syscall"
)

// answer decodes a request, carries it out and answers it.
func (a *agent) answer(ch *channel, c chunk) {
	text := append([]byte(nil), c.data...)
	c.free()
	defer func() {
		if fault := recover(); fault != nil {
			log.Printf("fault: %v\n%s", fault, debug.Stack())
			ch.finish(nil, fail(codeInternal, "fault in the agent: %v", fault))
		}
	}()
	result, err := a.carryOut(ch, text)
	if _, quiet := result.(quiet); quiet {
		ch.link.quiesce(ch)
		return
	}
	ch.finish(result, err)
	if ch.answered != nil {
		close(ch.answered)
	}
}

// decoded parses a request's fields; unknown ones are ignored, so that an older agent serves a newer server.
func decoded[T any](text []byte) (*T, error) {
	request := new(T)
	if err := json.Unmarshal(text, request); err != nil {
		return nil, fail(codeInvalid, "cannot understand the request: %v", err)
	}
	return request, nil
}

// with decodes a request and acts on it.
func with[T any](text []byte, act func(*T) (any, error)) (any, error) {
	request, err := decoded[T](text)
	if err != nil {
		return nil, err
	}
	return act(request)
}

// streaming decodes a request and acts on it and its channel.
func streaming[T any](ch *channel, text []byte, act func(*channel, *T) (any, error)) (any, error) {
	request, err := decoded[T](text)
	if err != nil {
		return nil, err
	}
	return act(ch, request)
}

func (a *agent) carryOut(ch *channel, text []byte) (any, error) {
	kind, err := decoded[struct {
		Op string `json:"op"`
	}](text)
	if err != nil {
		return nil, err
	}
	if kind.Op != "still" {
		a.table.clock.resume()
	}
	switch kind.Op {
	case "exec":
		return streaming(ch, text, a.exec)
	case "attach":
		return streaming(ch, text, a.attach)
	case "list":
		return map[string]any{"processes": a.table.list()}, nil
	case "stdin":
		return streaming(ch, text, a.stdin)
	case "signal":
		return with(text, a.signal)
	case "resize":
		return with(text, a.resize)
	case "read":
		return streaming(ch, text, a.read)
	case "write":
		return streaming(ch, text, a.write)
	case "unpack":
		return streaming(ch, text, a.unpack)
	case "pack":
		return streaming(ch, text, a.pack)
	case "stat":
		return with(text, a.stat)
	case "listdir":
		return streaming(ch, text, a.listDirectory)
	case "mkdir":
		return with(text, a.makeDirectory)
	case "rename":
		return with(text, a.rename)
	case "remove":
		return with(text, a.remove)
	case "setattr":
		return with(text, a.setAttributes)
	case "watch":
		return streaming(ch, text, a.watch)
	case "dial":
		return streaming(ch, text, a.dial)
	case "configure":
		return with(text, a.machine.configure)
	case "mount":
		return with(text, a.machine.mount)
	case "stats":
		return a.machine.stats()
	case "ping":
		return empty{}, nil
	case "still":
		a.table.clock.halt()
		return empty{}, nil
	case "quiesce":
		debug.FreeOSMemory() // less to save
		syscall.Sync()       // the host may take the disk alone
		return quiet{}, nil
	case "reseed":
		a.table.forgetKept() // nobody comes back to a copy
		return with(text, a.machine.reseed)
	}
	return nil, fail(codeInvalid, "cannot carry out '%.64s': no such operation", kind.Op)
}

// quiet is the result of an operation after which the connection closes.
type quiet struct{}

// user finds the user of a request.
func (a *agent) user(name *string) (*account, error) {
	wanted := "user"
	if name != nil {
		wanted = *name
	}
	u, err := a.accounts.user(wanted)
	if err != nil {
		return nil, fmt.Errorf("%w", err)
	}
	return u, nil
}
