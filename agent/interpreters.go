package main

import (
	"strings"
	"syscall"
)

// interpreterPath is in the command of each interpreter of the server's, and of nothing else.
const interpreterPath = "/opt/skerry/interpreter/"

// stopInterpreters stops the interpreters, with what is in their process groups, until the sandbox was saved: a copy of it must
// run none of their code before they have changed the numbers they draw.
func (a *agent) stopInterpreters() {
	a.signalInterpreters(syscall.SIGSTOP)
}

// wakeInterpreters lets them go on; those of a copy are told to draw other numbers first. SIGURG does nothing in programs that do
// not know of it, so children of theirs are told too.
func (a *agent) wakeInterpreters(copied bool) {
	if copied {
		a.signalInterpreters(syscall.SIGURG)
	}
	a.signalInterpreters(syscall.SIGCONT)
}

func (a *agent) signalInterpreters(number syscall.Signal) {
	a.table.mu.Lock()
	defer a.table.mu.Unlock()
	for pid, p := range a.table.processes {
		if p.alive && p.isInterpreter() {
			syscall.Kill(-pid, number)
		}
	}
}

func (p *process) isInterpreter() bool {
	for _, argument := range p.info.Argv {
		if strings.HasPrefix(argument, interpreterPath) {
			return true
		}
	}
	return false
}
