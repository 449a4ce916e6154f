package main

import (
	"sync"
	"time"
)

const (
	alarmStep  = time.Second            // how often a timeout looks at the time, at most
	alarmSlack = 500 * time.Millisecond // a look that comes later than this has slept with the whole sandbox
)

// clock counts the time that the sandbox has run, for timeouts. gVisor's clocks, the monotonic ones too, go on while a sandbox
// is frozen, paused or saved, so a kernel's timer fires at once when it runs again. This one stands still from `quiesce` or
// `still` until the server asks again; a pause that was not announced counts as one step of each alarm, at most.
// It costs nothing while no alarm is set.
type clock struct {
	mu      sync.Mutex
	counted time.Duration // up to `last`
	last    time.Time
	halted  bool
	alarms  map[*alarm]struct{}
	timer   *time.Timer
	armed   time.Duration // what the timer was set to
}

// alarm is one call to make.
type alarm struct {
	clock *clock
	due   time.Duration
	step  time.Duration
	call  func()
}

func newClock() *clock {
	c := &clock{alarms: map[*alarm]struct{}{}}
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.timer.Stop()
	return c
}

// after has call called, in its own goroutine, when the sandbox has run for d more. step is how much an unannounced pause may
// take of that.
func (c *clock) after(d, step time.Duration, call func()) *alarm {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.alarms) == 0 {
		c.last = time.Now() // nobody counted
	} else {
		c.count()
	}
	a := &alarm{clock: c, due: c.counted + d, step: max(step, time.Millisecond), call: call}
	c.alarms[a] = struct{}{}
	c.arm()
	return a
}

// stop forgets an alarm; it may just have begun.
func (a *alarm) stop() {
	c := a.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.alarms, a)
	if len(c.alarms) == 0 {
		c.timer.Stop()
	}
}

// halt lets the time stand still until resume.
func (c *clock) halt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.halted {
		c.count()
		c.halted = true
		c.timer.Stop()
	}
}

func (c *clock) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.halted {
		c.halted = false
		c.last = time.Now()
		c.arm()
	}
}

// count adds the time since it was last called, as far as the sandbox has run; locked.
func (c *clock) count() {
	if c.halted || len(c.alarms) == 0 {
		return
	}
	now := time.Now()
	elapsed := now.Sub(c.last)
	if elapsed > c.armed+alarmSlack {
		elapsed = c.armed
	}
	c.counted += elapsed
	c.last = now
}

// arm sets the timer to the next look; locked, and just counted.
func (c *clock) arm() {
	if c.halted || len(c.alarms) == 0 {
		return
	}
	next := time.Hour
	for a := range c.alarms {
		next = min(next, a.step, a.due-c.counted)
	}
	c.armed = max(next, 0)
	c.timer.Reset(c.armed)
}

func (c *clock) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.halted {
		return
	}
	c.count()
	for a := range c.alarms {
		if a.due <= c.counted {
			delete(c.alarms, a)
			go a.call()
		}
	}
	c.arm()
}
