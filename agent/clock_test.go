package main

import (
	"testing"
	"time"
)

// slept pretends that the sandbox stood still for d.
func (c *clock) slept(d time.Duration) {
	c.mu.Lock()
	c.last = c.last.Add(-d)
	c.mu.Unlock()
}

func TestAlarmsCountTheTimeThatTheSandboxRuns(t *testing.T) {
	for name, pause := range map[string]func(c *clock){
		"announced": func(c *clock) { c.halt(); c.slept(time.Hour); c.resume() },
		"not":       func(c *clock) { c.slept(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			began, fired := time.Now(), make(chan struct{})
			c.after(300*time.Millisecond, 20*time.Millisecond, func() { close(fired) })
			time.Sleep(100 * time.Millisecond)
			pause(c)
			<-fired
			if took := time.Since(began); took < 270*time.Millisecond {
				t.Fatal(took)
			}
		})
	}
}

func TestAnAlarmStandsStillWhileHaltedAndCanBeStopped(t *testing.T) {
	c := newClock()
	fired := make(chan string, 2)
	c.after(50*time.Millisecond, time.Second, func() { fired <- "kept" })
	stopped := c.after(40*time.Millisecond, time.Second, func() { fired <- "stopped" })
	c.halt()
	c.halt()
	time.Sleep(150 * time.Millisecond)
	if len(fired) > 0 {
		t.Fatal(<-fired)
	}
	stopped.stop()
	c.resume()
	c.resume()
	if name := <-fired; name != "kept" {
		t.Fatal(name)
	}
	c.halt()
	c.after(10*time.Millisecond, time.Second, func() { fired <- "set while halted" })
	time.Sleep(50 * time.Millisecond)
	if len(fired) > 0 {
		t.Fatal(<-fired)
	}
	c.resume()
	<-fired
}
