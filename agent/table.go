package main

import (
	"os"
	"os/signal"
	"runtime/debug"
	"sort"
	"sync"
	"syscall"
	"time"
)

const (
	retention   = 60 * time.Second // how long ended processes are kept
	retainStep  = 15 * time.Second // what a pause may take of that
	maxRetained = 256              // and how many of them
	maxOutput   = 32 << 20         // and how many bytes of output for all of them
)

// table knows all processes the server (or `sudo`) started, and reaps every child, also those that were orphaned inside the
// sandbox. There is one reaper, so no exit status is stolen; a child that ends before its start is registered is remembered.
type table struct {
	clock     *clock
	mu        sync.Mutex
	processes map[int]*process
	ended     []*process                       // oldest first
	children  map[int]func(syscall.WaitStatus) // called with mu held, when the child was reaped
	spawning  int                              // starts under way
	early     map[int]syscall.WaitStatus       // ended before they were registered
}

func newTable() *table {
	return &table{
		clock: newClock(), processes: map[int]*process{}, children: map[int]func(syscall.WaitStatus){}, early: map[int]syscall.WaitStatus{},
	}
}

// reapForever must be started before the first process.
func (t *table) reapForever() {
	notices := make(chan os.Signal, 1)
	signal.Notify(notices, syscall.SIGCHLD)
	for range notices {
		for t.reapOne() {
		}
	}
}

func (t *table) reapOne() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if !status.Exited() && !status.Signaled() {
		return true
	}
	if ended := t.children[pid]; ended != nil {
		delete(t.children, pid)
		ended(status)
	} else if t.spawning > 0 {
		t.early[pid] = status
	}
	return true
}

// start runs spawn, which returns the pid of a new child, and has ended called (with the table locked) when that was reaped.
func (t *table) start(spawn func() (int, error), register func(pid int), ended func(syscall.WaitStatus)) error {
	t.mu.Lock()
	t.spawning++
	t.mu.Unlock()
	pid, err := spawn()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spawning--
	status, over := t.early[pid]
	over = over && syscall.Kill(pid, 0) == syscall.ESRCH // else it was another process, with the same pid
	delete(t.early, pid)
	if t.spawning == 0 {
		clear(t.early) // orphans' and failed starts'
	}
	if err != nil {
		return err
	}
	register(pid)
	if over {
		ended(status)
	} else {
		t.children[pid] = ended
	}
	return nil
}

// add registers a started process; table locked.
func (t *table) add(p *process) {
	p.alive = true
	t.processes[p.info.PID] = p
}

// retire keeps an ended process for a while; table locked.
func (t *table) retire(p *process) {
	p.alive = false
	t.ended = append(t.ended, p)
	output := 0
	for _, other := range t.ended {
		output += other.outputMemory()
	}
	for len(t.ended) > 1 && (len(t.ended) > maxRetained || output > maxOutput) {
		output -= t.ended[0].outputMemory()
		t.drop(t.ended[0])
	}
	t.clock.after(retention, retainStep, func() {
		t.mu.Lock()
		t.drop(p)
		t.mu.Unlock()
		if p.outputMemory() > ringHeld {
			debug.FreeOSMemory()
		}
	})
}

func (t *table) drop(p *process) {
	for i, other := range t.ended {
		if other == p {
			t.ended = append(t.ended[:i:i], t.ended[i+1:]...)
			break
		}
	}
	if t.processes[p.info.PID] == p {
		delete(t.processes, p.info.PID)
	}
}

// forgetKept lets go of readers that have not come back after a hold.
func (t *table) forgetKept() {
	t.mu.Lock()
	all := make([]*process, 0, len(t.processes))
	for _, p := range t.processes {
		all = append(all, p)
	}
	t.mu.Unlock()
	for _, p := range all {
		p.forgetKept()
	}
}

// find returns a process that runs or is still kept.
func (t *table) find(pid int) (*process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.processes[pid]; p != nil {
		return p, nil
	}
	return nil, fail(codeNoProcess, "cannot find process %d: it was not started through the server or ended long ago", pid)
}

// signal sends to a process, or its group. The table is locked meanwhile: its pid cannot be another's.
func (t *table) signal(pid int, number syscall.Signal, group bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.processes[pid]
	if p == nil || !p.alive {
		return fail(codeNoProcess, "cannot signal process %d: it does not run", pid)
	}
	if group && number == syscall.SIGKILL {
		go killGroup(pid)
		return nil
	}
	if group {
		pid = -pid
	}
	if err := syscall.Kill(pid, number); err != nil && err != syscall.ESRCH {
		return fail(codeInvalid, "cannot send signal %d: %v", number, err)
	}
	return nil
}

func (t *table) expire(p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.alive {
		p.timedOut = true
		go killGroup(p.info.PID)
	}
}

// killGroup kills a process group until nothing is left of it. Once is not enough in gVisor: a process that forks at that moment
// may leave a child alive. The number is not another group's meanwhile: it stays taken while the group has a member, and is not
// given again so soon after.
func killGroup(pgid int) {
	for wait := time.Millisecond; wait < 10*time.Second; wait *= 2 {
		if syscall.Kill(-pgid, syscall.SIGKILL) == syscall.ESRCH {
			return
		}
		time.Sleep(wait)
	}
}

func (t *table) list() []processInfo {
	t.mu.Lock()
	all := make([]*process, 0, len(t.processes))
	for _, p := range t.processes {
		all = append(all, p)
	}
	t.mu.Unlock()
	sort.Slice(all, func(i, j int) bool { return all[i].started.Before(all[j].started) })
	list := make([]processInfo, len(all))
	for i, p := range all {
		list[i] = p.snapshot()
		list[i].Argv = shortened(list[i].Argv, 150_000/len(all)) // the list must fit one frame
	}
	return list
}
