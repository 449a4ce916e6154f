package main

import (
	"os"
	"os/signal"
	"syscall"
	"unsafe"
)

// The signals that C libraries use between threads; posix_spawn of the GNU C library leaves them ignored in what it starts.
var threadSignals = []int{32, 33}

const sigIgn = 1

// signalAction is the kernel's struct sigaction.
type signalAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// ignoreNothing makes sure that no signal is ignored: what a process ignores, everything it starts ignores too.
func ignoreNothing() {
	// Caught and thrown away. The runtime installs a handler for these.
	signal.Notify(make(chan os.Signal), syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU)
	for _, number := range threadSignals {
		var action signalAction
		if sigaction(number, nil, &action) && action.handler == sigIgn {
			action = signalAction{}
			sigaction(number, &action, nil)
		}
	}
}

func sigaction(number int, set, get *signalAction) bool {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(number), uintptr(unsafe.Pointer(set)),
		uintptr(unsafe.Pointer(get)), unsafe.Sizeof(signalAction{}.mask), 0, 0)
	return errno == 0
}
