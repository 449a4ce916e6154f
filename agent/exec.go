package main

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

type size struct {
	Cols uint16 `json:"cols"`
	Rows uint16 `json:"rows"`
}

type execRequest struct {
	Argv      []string          `json:"argv"`
	Env       map[string]string `json:"env"`
	Cwd       *string           `json:"cwd"`
	User      *string           `json:"user"`
	TimeoutMS *int64            `json:"timeout_ms"`
	Stdin     bool              `json:"stdin"`
	PTY       *size             `json:"pty"`
	Tag       *string           `json:"tag"`
}

type attachRequest struct {
	PID          int    `json:"pid"`
	StdoutOffset *int64 `json:"stdout_offset"`
	StderrOffset *int64 `json:"stderr_offset"`
}

type stdinRequest struct {
	PID int  `json:"pid"`
	EOF bool `json:"eof"`
}

type signalRequest struct {
	PID    int  `json:"pid"`
	Signal int  `json:"signal"`
	Group  bool `json:"group"`
}

type resizeRequest struct {
	PID int `json:"pid"`
	size
}

// ends are a new process's descriptors: those it gets, and the other ends, which stay here.
type ends struct {
	child   []uintptr
	close   []int // of the child's: to close after the start
	sources []*os.File
	stdin   *os.File
}

func (e *ends) closeChild() {
	for _, fd := range e.close {
		syscall.Close(fd)
	}
}

func (e *ends) closeAll() {
	e.closeChild()
	for _, file := range e.sources {
		file.Close()
	}
	if e.stdin != nil {
		e.stdin.Close()
	}
}

// pipe makes a pipe whose agent's end (0: read, 1: write) does not block.
func (e *ends) pipe(own int) (ours *os.File, theirs int, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, 0, err
	}
	syscall.SetNonblock(fds[own], true)
	e.close = append(e.close, fds[1-own])
	return os.NewFile(uintptr(fds[own]), "pipe"), fds[1-own], nil
}

func (a *agent) pipes(stdin bool) (*ends, error) {
	e := &ends{child: []uintptr{uintptr(a.null), 0, 0}}
	for i := 1; i <= 2; i++ {
		ours, theirs, err := e.pipe(0)
		if err != nil {
			e.closeAll()
			return nil, err
		}
		e.sources = append(e.sources, ours)
		e.child[i] = uintptr(theirs)
	}
	if stdin {
		ours, theirs, err := e.pipe(1)
		if err != nil {
			e.closeAll()
			return nil, err
		}
		e.stdin = ours
		e.child[0] = uintptr(theirs)
	}
	return e, nil
}

func (a *agent) exec(ch *channel, r *execRequest) (any, error) {
	u, err := a.user(r.User)
	if err != nil {
		return nil, err
	}
	cwd := ""
	if r.Cwd != nil {
		cwd = *r.Cwd
	}
	l, err := a.launchFor(u, r.Argv, cwd, r.Env, r.PTY != nil)
	if err != nil {
		return nil, err
	}
	var e *ends
	if r.PTY != nil {
		e, err = openTerminal(u, *r.PTY)
	} else {
		e, err = a.pipes(r.Stdin)
	}
	if err != nil {
		return nil, fail(codeCannotStart, "cannot start '%s': %v", r.Argv[0], err)
	}
	l.files = e.child
	info := processInfo{Argv: shortened(r.Argv, shownArgv), Cwd: l.cwd, User: u.name, Tag: r.Tag, PTY: r.PTY != nil}
	timeout := time.Duration(0)
	if r.TimeoutMS != nil {
		timeout = time.Duration(max(*r.TimeoutMS, 1)) * time.Millisecond
	}
	p, err := a.start(l, info, e.sources, e.stdin, timeout)
	if err != nil {
		e.closeAll()
		return nil, err
	}
	e.closeChild()
	zero := int64(0)
	return p.follow(ch, [2]*int64{&zero, &zero})
}

func (a *agent) attach(ch *channel, r *attachRequest) (any, error) {
	p, err := a.table.find(r.PID)
	if err != nil {
		return nil, err
	}
	return p.follow(ch, [2]*int64{r.StdoutOffset, r.StderrOffset})
}

func (a *agent) stdin(ch *channel, r *stdinRequest) (any, error) {
	p, err := a.table.find(r.PID)
	if err != nil {
		return nil, err
	}
	if p.stdin == nil {
		return nil, fail(codeInvalid, "cannot write to process %d: it was started without stdin", r.PID)
	}
	ch.link.isInput(ch)
	p.inputs.Lock() // one writer after the other
	defer p.inputs.Unlock()
	p.stdin.SetWriteDeadline(time.Time{})
	ch.whenStopped(func() { p.stdin.SetWriteDeadline(time.Now()) })
	taken, err := p.take(ch)
	if errors.Is(err, errStopped) && ch.isInterrupted() {
		return map[string]int64{"taken": taken}, nil
	}
	if err != nil {
		return nil, err
	}
	if r.EOF && p.info.PTY {
		p.stdin.Write([]byte{4})
	} else if r.EOF {
		p.stdin.Close()
	}
	return empty{}, nil
}

// take writes what the server sends to a process's standard input, up to END, and counts what the process's pipe has taken.
func (p *process) take(ch *channel) (taken int64, err error) {
	for {
		c, err := ch.receive()
		if err == io.EOF {
			return taken, nil
		}
		if err != nil {
			return taken, err
		}
		n, err := writeUntil(ch, p.stdin, c.data)
		size := len(c.data)
		c.free()
		taken += int64(n)
		if n < size && ch.isStopped() {
			return taken, errStopped
		}
		if err != nil {
			return taken, fail(codeInvalid, "cannot write to process %d: it reads no more input", p.info.PID)
		}
		ch.took(size)
	}
}

// writeUntil writes all, unless the channel stops. Another writer's channel may have stopped this late, and set the deadline.
func writeUntil(ch *channel, file *os.File, data []byte) (written int, err error) {
	for {
		n, err := file.Write(data[written:])
		written += n
		if !errors.Is(err, os.ErrDeadlineExceeded) || ch.isStopped() {
			return written, err
		}
		file.SetWriteDeadline(time.Time{})
	}
}

func (a *agent) signal(r *signalRequest) (any, error) {
	if r.Signal < 1 || r.Signal > 64 {
		return nil, fail(codeInvalid, "cannot send signal %d: signals are 1 to 64", r.Signal)
	}
	return empty{}, a.table.signal(r.PID, syscall.Signal(r.Signal), r.Group)
}

func (a *agent) resize(r *resizeRequest) (any, error) {
	p, err := a.table.find(r.PID)
	if err != nil {
		return nil, err
	}
	if !p.info.PTY {
		return nil, fail(codeInvalid, "cannot resize process %d: it has no terminal", r.PID)
	}
	if err := resizeTerminal(p.stdin, r.PID, r.size); err != nil {
		return nil, fail(codeInvalid, "cannot resize process %d: %v", r.PID, err)
	}
	return empty{}, nil
}
