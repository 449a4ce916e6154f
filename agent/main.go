// The agent: the only code of Skerry's inside a sandbox, and its process 1.
//
// Theory of operation. The agent dials the server over a Unix socket (link.go) and sends a token; from then on the server
// asks and the agent answers, many requests at a time, each on its own channel (channel.go) of the one connection. Frames
// (wire.go) are parsed by the connection's reader, which only hands them to channels; one goroutine per request (requests.go)
// acts. docs/reference/agent-protocol.md is the contract. What a slow reader does not take is held back by credit, so neither
// side's memory grows.
//
// Processes (exec.go, spawn.go) are started by one thread with fewer rights than the agent itself: children inherit its
// reduced capability bounding set and its control group, which limits their number, so that a fork bomb leaves the agent
// working. Output goes through rings (ring.go, process.go), which outlive the connection. One reaper (table.go) waits for all
// children, orphans of the sandbox included, and pids are signalled only while they are known not to be reaped.
//
// Files (files.go, content.go, watch.go) are touched with the effective ids of the user of the request (identity.go): the
// kernel, not the agent, decides what is allowed, and a path cannot be swapped between a check and its use to gain anything.
//
// Programs inside can ask it one thing, over HTTP: whether the code interpreter is there (health.go).
//
// `sudo` (sudo.go, sudo_server.go) is this program under another name: a client of the agent in process 1.
//
// The agent sleeps when nothing happens: no tickers, so a sandbox that is idle costs no CPU.
package main

import (
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
)

const version = "1"

// agent holds what all requests share.
type agent struct {
	accounts *accounts
	table    *table
	spawner  *spawner
	machine  *machine
	notes    *notes
	null     int // descriptor of /dev/null
	silenced bool
	token    string // of the last server that welcomed it
	held     bool   // the server has asked for quiet, and has not come back
}

func main() {
	if filepath.Base(os.Args[0]) == "sudo" {
		os.Exit(sudo(os.Args[1:]))
	}
	linkDirectory := flag.String("link", "/run/skerry/link", "directory with the server's `link.sock` and `token`")
	runDirectory := flag.String("run", "/run/skerry", "directory for the agent's own sockets")
	etc := flag.String("etc", "/etc", "directory of passwd and group")
	healthAddress := flag.String("health", interpreterAddress, "where programs inside ask for the code interpreter's health")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("agent: ")
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(64 << 20)
	ignoreNothing()
	syscall.Umask(0o022)
	keepDescriptors()
	runtime.LockOSThread() // the spawner must not take the main thread

	a, err := newAgent(*etc)
	if err != nil {
		log.Fatal(err)
	}
	runtime.UnlockOSThread()
	if err := os.MkdirAll(*runDirectory, 0o755); err != nil {
		log.Printf("cannot make %s: %v", *runDirectory, err)
	}
	if err := a.serveSudo(filepath.Join(*runDirectory, "sudo.sock")); err != nil {
		log.Printf("sudo is not available: %v", err)
	}
	if listener, err := net.Listen("tcp4", *healthAddress); err != nil {
		log.Printf("cannot tell programs inside about the interpreter: %v", err)
	} else {
		go serveHealth(listener)
	}
	a.serveForever(*linkDirectory)
}

func newAgent(etc string) (*agent, error) {
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	a := &agent{accounts: &accounts{directory: etc, files: map[string]*accountFile{}}, table: newTable(), null: null}
	a.machine, a.notes = newMachine(etc), newNotes()
	go a.table.reapForever()
	a.spawner = newSpawner(a.table, a.machine.limitThread, a.machine.limitNext)
	return a, nil
}

// silence turns the standard streams of process 1 to /dev/null once the agent works: they are files of the host's, and root
// inside could fill them by way of /proc/1/fd.
func (a *agent) silence() {
	if a.silenced || os.Getpid() != 1 {
		return
	}
	a.silenced = true
	for fd := range 3 {
		syscall.Dup3(a.null, fd, 0)
	}
}

// keepDescriptors keeps what this process inherited, but for its standard streams, from being inherited further.
func keepDescriptors() {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
