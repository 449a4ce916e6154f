package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	sudoSessions = 256              // at a time; more are turned away
	sudoPatience = 10 * time.Second // for the request of a connection
)

// serveSudo accepts `sudo` clients for ever, in the background.
func (a *agent) serveSudo(path string) error {
	os.Remove(path)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o666); err != nil { // everybody may ask; who is answered is decided by credentials
		return err
	}
	slots := make(chan struct{}, sudoSessions)
	go func() {
		for {
			socket, err := listener.AcceptUnix()
			if err != nil {
				time.Sleep(lastBackoff) // no descriptors left
				continue
			}
			select {
			case slots <- struct{}{}:
				go func() {
					defer func() { socket.Close(); <-slots }()
					if err := a.elevate(socket); err != nil {
						sendSudoError(socket, err)
					}
				}()
			default:
				socket.Close()
			}
		}
	}()
	return nil
}

func sendSudoError(socket *net.UnixConn, err error) {
	text := err.Error()
	message := binary.BigEndian.AppendUint32([]byte{sudoError}, uint32(len(text)))
	socket.SetWriteDeadline(time.Now().Add(sudoPatience))
	socket.Write(append(message, text...))
}

// sudoCaller is who connected, as the kernel says, and its standard streams.
type sudoCaller struct {
	uid, gid int
	files    []int
	size     int // bytes of its request
}

func (c *sudoCaller) close() {
	for _, fd := range c.files {
		syscall.Close(fd)
	}
}

// elevate serves one client from its request to the end of its command.
func (a *agent) elevate(socket *net.UnixConn) error {
	socket.SetDeadline(time.Now().Add(sudoPatience))
	caller, err := greetSudo(socket)
	if err != nil {
		return err
	}
	defer caller.close()
	name := a.accounts.nameOf("passwd", uint32(caller.uid))
	if caller.uid != 0 {
		u, err := a.accounts.user(name)
		if err != nil || u.uid != caller.uid || !a.accounts.inGroup(u, "sudo") {
			return fmt.Errorf("%s is not in the sudo group", name)
		}
	}
	if len(caller.files) != 3 {
		return errors.New("three standard streams are needed")
	}
	request, err := readSudoRequest(socket, caller.size)
	if err != nil {
		return err
	}
	socket.SetDeadline(time.Time{})
	command, err := parseSudo(request.Arguments)
	if err != nil {
		return err
	}
	target, err := a.accounts.user(command.User)
	if err != nil {
		return fmt.Errorf("unknown user %s", command.User)
	}
	if command.Validate {
		_, err := socket.Write([]byte{sudoExit, 0, 0, 0, 0})
		return err
	}
	l, err := a.elevatedLaunch(command, request, target, caller, name)
	if err != nil {
		return err
	}
	return a.runElevated(socket, l, request.Terminal, caller)
}

// greetSudo asks the kernel for the caller's credentials with its message: gVisor's SO_PEERCRED answers with the asker's own.
func greetSudo(socket *net.UnixConn) (*sudoCaller, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1)
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	if _, err := socket.Write([]byte{sudoReady}); err != nil {
		return nil, err
	}
	head, control := make([]byte, 4), make([]byte, 256)
	n, controlSize, flags, _, err := socket.ReadMsgUnix(head, control)
	if err != nil || n != len(head) {
		return nil, errors.New("no request came")
	}
	messages, err := syscall.ParseSocketControlMessage(control[:controlSize])
	if err != nil {
		return nil, err
	}
	caller := &sudoCaller{uid: -1}
	for _, message := range messages {
		if fds, err := syscall.ParseUnixRights(&message); err == nil {
			caller.files = append(caller.files, fds...)
		}
		if credentials, err := syscall.ParseUnixCredentials(&message); err == nil {
			caller.uid, caller.gid = int(credentials.Uid), int(credentials.Gid)
		}
	}
	if caller.uid < 0 || flags&syscall.MSG_CTRUNC != 0 {
		caller.close()
		return nil, errors.New("the kernel does not say who is asking")
	}
	caller.size = int(binary.BigEndian.Uint32(head))
	if caller.size > sudoMaxRequest {
		caller.close()
		return nil, errors.New("the arguments and environment are too long")
	}
	return caller, nil
}

func readSudoRequest(socket *net.UnixConn, size int) (*sudoRequest, error) {
	text := make([]byte, size)
	if _, err := io.ReadFull(socket, text); err != nil {
		return nil, err
	}
	request := &sudoRequest{}
	return request, json.Unmarshal(text, request)
}

// elevatedLaunch makes the launch of a command for its target user.
func (a *agent) elevatedLaunch(c *sudoCommand, r *sudoRequest, target *account, caller *sudoCaller, name string) (launch, error) {
	env := c.environment(r.Env)
	callerShell := ""
	for _, entry := range r.Env {
		if value, found := strings.CutPrefix(entry, "SHELL="); found {
			callerShell = value
		}
	}
	program, argv := c.command(target.shell, callerShell)
	env["SUDO_USER"], env["SUDO_UID"], env["SUDO_GID"] = name, strconv.Itoa(caller.uid), strconv.Itoa(caller.gid)
	env["SUDO_COMMAND"] = strings.Join(argv, " ")
	cwd := r.Cwd
	if c.Login {
		cwd = target.home
	}
	if c.Directory != "" {
		cwd = c.Directory
	}
	err := as(target, func() error { return enter(cwd) })
	if err != nil && c.Directory == "" {
		cwd = "/" // the caller's, where the target may not be
	}
	lookup := append([]string{program}, argv[1:]...)
	l, err := a.launchFor(target, lookup, cwd, env, false)
	l.argv = argv
	return l, err
}

// runElevated runs the command on the caller's streams, or on a terminal of its own when those are one, whose other end the
// caller gets: job control and /dev/tty need a terminal of the command's session.
func (a *agent) runElevated(socket *net.UnixConn, l launch, window *size, caller *sudoCaller) error {
	for _, fd := range caller.files {
		l.files = append(l.files, uintptr(fd))
	}
	var terminal *ends
	if window != nil {
		var err error
		if terminal, err = openTerminal(l.user, *window); err != nil {
			return err
		}
		l.files, l.pty = terminal.child, true
	}
	ended := make(chan syscall.WaitStatus, 1)
	pid, alive := 0, false
	err := a.table.start(
		func() (int, error) { return a.spawner.run(l) },
		func(child int) { pid, alive = child, true },
		func(status syscall.WaitStatus) { alive = false; ended <- status },
	)
	if err != nil {
		if terminal != nil {
			terminal.closeAll()
		}
		return startFailure(&l, err)
	}
	caller.close()
	caller.files = nil
	sendSignal := func(number syscall.Signal) {
		a.table.mu.Lock()
		if alive && number == syscall.SIGKILL {
			go killGroup(pid)
		} else if alive {
			syscall.Kill(-pid, number)
		}
		a.table.mu.Unlock()
	}
	if terminal != nil {
		defer terminal.stdin.Close()
		if err := handOver(socket, terminal); err != nil {
			sendSignal(syscall.SIGKILL)
		}
	}
	go func() {
		var number [1]byte
		for {
			if n, err := socket.Read(number[:]); err != nil || n != 1 {
				sendSignal(syscall.SIGKILL) // its caller is gone or was killed: what it ran goes too
				return
			}
			if syscall.Signal(number[0]) == syscall.SIGWINCH && terminal != nil {
				announceSize(pid)
				continue
			}
			sendSignal(syscall.Signal(number[0]))
		}
	}()
	status := <-ended
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	socket.SetWriteDeadline(time.Now().Add(sudoPatience))
	_, err = socket.Write(binary.BigEndian.AppendUint32([]byte{sudoExit}, uint32(code)))
	return err
}

// handOver gives the caller the command's terminal.
func handOver(socket *net.UnixConn, terminal *ends) error {
	terminal.closeChild()
	raw, err := terminal.stdin.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		_, _, failed = socket.WriteMsgUnix([]byte{sudoTerminal}, syscall.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, failed)
}
