package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	shownArgv   = 32 << 10    // bytes of argv that PROCESS shows at most
	longestText = 128<<10 - 1 // bytes of one argument or variable: Linux's MAX_ARG_STRLEN without its NUL
)

// launch is what the spawner needs to start a process.
type launch struct {
	path  string
	argv  []string
	env   []string
	cwd   string
	user  *account
	files []uintptr // its descriptors 0, 1, 2
	pty   bool      // descriptor 0 becomes its controlling terminal
}

type spawnOrder struct {
	launch
	answer chan spawned
}

type spawned struct {
	pid int
	err error
}

// spawner starts every process from one thread, which has fewer rights than the agent: no capability outside `granted` is in its
// bounding set, and it is in the control group that limits processes. Children inherit both.
type spawner struct {
	orders chan spawnOrder
	table  *table
}

func newSpawner(t *table, enterGroup func(tid int) error, limitNext func(uid int) error) *spawner {
	s := &spawner{orders: make(chan spawnOrder), table: t}
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread() // for ever
		if err := boundCapabilities(); err != nil && os.Getpid() == 1 {
			log.Fatalf("cannot reduce the capabilities of processes: %v", err)
		}
		if err := enterGroup(syscall.Gettid()); err != nil {
			log.Printf("processes are not limited in number: %v", err)
		}
		close(ready)
		for order := range s.orders {
			err := limitNext(order.user.uid)
			pid := 0
			if err == nil {
				pid, err = forkExec(&order.launch)
			}
			order.answer <- spawned{pid, err}
		}
	}()
	<-ready
	return s
}

func (s *spawner) run(l launch) (int, error) {
	order := spawnOrder{l, make(chan spawned, 1)}
	s.orders <- order
	result := <-order.answer
	return result.pid, result.err
}

func forkExec(l *launch) (int, error) {
	attributes := &syscall.SysProcAttr{Setsid: true, Setctty: l.pty, Ctty: 0}
	if os.Geteuid() == 0 {
		attributes.Credential = &syscall.Credential{Uid: uint32(l.user.uid), Gid: uint32(l.user.gid), Groups: l.user.groups}
	}
	return syscall.ForkExec(l.path, l.argv, &syscall.ProcAttr{Dir: l.cwd, Env: l.env, Files: l.files, Sys: attributes})
}

// launchFor makes a launch of a command: finds the program, and fills in the environment and the working directory.
func (a *agent) launchFor(u *account, argv []string, cwd string, env map[string]string, pty bool) (launch, error) {
	l := launch{argv: argv, user: u, pty: pty}
	if len(argv) == 0 || argv[0] == "" {
		return l, fail(codeInvalid, "cannot start a process: argv is empty")
	}
	for _, text := range argv {
		if strings.ContainsRune(text, 0) {
			return l, fail(codeInvalid, "cannot start a process: an argument has a NUL character")
		}
		if len(text) > longestText {
			return l, fail(codeInvalid, "cannot start a process: an argument of %d bytes exceeds the kernel's limit of %d; "+
				"put large input into a file or send it as standard input", len(text), longestText)
		}
	}
	if cwd == "" {
		l.cwd = u.home
		if as(u, func() error { return enter(l.cwd) }) != nil {
			l.cwd = "/" // as login(1) does
		}
	} else {
		var err error
		if l.cwd, err = u.place(cwd); err != nil {
			return l, fail(codeInvalid, "cannot start a process: cwd: %v", err)
		}
	}
	path, list, err := a.environment(u, env, pty)
	if err != nil {
		return l, err
	}
	l.env = list
	l.path, err = lookUp(argv[0], path)
	return l, err
}

// environment returns PATH's value and all variables: defaults, then the sandbox's, then the request's.
func (a *agent) environment(u *account, extra map[string]string, pty bool) (path string, list []string, err error) {
	all := map[string]string{
		"PATH": defaultPath, "HOME": u.home, "USER": u.name, "LOGNAME": u.name, "SHELL": u.shell, "LANG": "C.UTF-8",
	}
	if pty {
		all["TERM"] = "xterm-256color"
	}
	for _, layer := range []map[string]string{a.machine.environment(), extra} {
		for name, value := range layer {
			if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
				return "", nil, fail(codeInvalid, "cannot start a process: '%s' is no valid environment variable", name)
			}
			all[name] = value
		}
	}
	list = make([]string, 0, len(all))
	for name, value := range all {
		text := name + "=" + value
		if len(text) > longestText {
			return "", nil, fail(codeInvalid, "cannot start a process: variable '%.64s' of %d bytes exceeds the kernel's limit of %d",
				name, len(text), longestText)
		}
		list = append(list, text)
	}
	return all["PATH"], list, nil
}

// lookUp finds a program as a shell does.
func lookUp(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, directory := range strings.Split(path, ":") {
		if directory == "" {
			directory = "."
		}
		candidate := directory + "/" + name
		var info syscall.Stat_t
		if syscall.Stat(candidate, &info) == nil && info.Mode&syscall.S_IFMT == syscall.S_IFREG && info.Mode&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fail(codeCannotStart, "cannot start '%s': no such command in PATH", name)
}

// startFailure says what was missing when an exec failed.
func startFailure(l *launch, err error) *failure {
	var info os.FileInfo
	cwdErr := as(l.user, func() (err error) {
		if info, err = os.Stat(l.cwd); err == nil && info.IsDir() {
			err = enter(l.cwd)
		}
		return err
	})
	name := l.argv[0]
	switch {
	case errors.Is(cwdErr, syscall.ENOENT):
		return fail(codeCannotStart, "cannot start '%s': cwd '%s' does not exist", name, l.cwd)
	case cwdErr == nil && !info.IsDir():
		return fail(codeCannotStart, "cannot start '%s': cwd '%s' is not a directory", name, l.cwd)
	case errors.Is(cwdErr, syscall.EACCES):
		return fail(codeCannotStart, "cannot start '%s': user '%s' may not enter cwd '%s'", name, l.user.name, l.cwd)
	case err == syscall.ENOENT:
		return fail(codeCannotStart, "cannot start '%s': no such command, or its interpreter is missing", name)
	case err == syscall.EACCES:
		return fail(codeCannotStart, "cannot start '%s': user '%s' may not execute it", name, l.user.name)
	case err == syscall.EAGAIN:
		return fail(codeCannotStart, "cannot start '%s': the sandbox's limit of processes is reached", name)
	case err == syscall.E2BIG:
		return fail(codeCannotStart, "cannot start '%s': its arguments and environment are too long", name)
	}
	return fail(codeCannotStart, "cannot start '%s': %v", name, err)
}

// start starts a process of the server's. Closes nothing of files; sources and stdin become the process's.
func (a *agent) start(l launch, info processInfo, sources []*os.File, stdin *os.File, timeout time.Duration) (*process, error) {
	p := newProcess(info, sources, stdin)
	err := a.table.start(
		func() (int, error) { return a.spawner.run(l) },
		func(pid int) {
			p.info.PID = pid
			a.table.add(p)
		},
		func(status syscall.WaitStatus) {
			if p.timer != nil {
				p.timer.stop()
			}
			a.table.retire(p)
			p.reaped(status, p.timedOut)
		},
	)
	if err != nil {
		return nil, startFailure(&l, err)
	}
	if timeout > 0 {
		a.table.mu.Lock()
		if p.alive {
			step := min(max(timeout/20, firstBackoff), alarmStep)
			p.timer = a.table.clock.after(timeout, step, func() { a.table.expire(p) })
		}
		a.table.mu.Unlock()
	}
	for i := range p.streams {
		go p.pump(i)
	}
	return p, nil
}

// enter tells whether the thread's user may work in a directory.
func enter(directory string) error {
	var s syscall.Stat_t
	return syscall.Stat(directory+"/.", &s)
}

func shortened(argv []string, limit int) []string {
	for i, text := range argv {
		if limit -= len(text) + 4; limit < 0 {
			cut := append([]string{}, argv[:i]...)
			return append(cut, fmt.Sprintf("… (%d arguments more)", len(argv)-i))
		}
	}
	return argv
}
