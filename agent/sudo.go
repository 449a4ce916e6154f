package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	sudoSocket     = "/run/skerry/sudo.sock"
	sudoMaxRequest = 8 << 20 // bytes: arguments and environment
	sudoReady      = 'R'     // server: the caller's credentials are recorded from now on
	sudoTerminal   = 'T'     // server: the command runs on the terminal that comes with this
	sudoExit       = 'X'     // server: u32 exit code
	sudoError      = 'E'     // server: u32 length, text
)

// sudoRequest goes from `sudo` to the agent, behind its length (u32) and with the three standard streams as descriptors.
type sudoRequest struct {
	Arguments []string `json:"arguments"`
	Env       []string `json:"env"`
	Cwd       string   `json:"cwd"`
	Terminal  *size    `json:"terminal"` // when input and output are a terminal
}

// sudo is the client: it has the agent run a command as another user on its own standard streams.
func sudo(arguments []string) int {
	command, err := parseSudo(arguments)
	if err == nil && command.Version {
		fmt.Println("Sudo of Skerry's agent", version)
		return 0
	}
	if err == nil {
		var code int
		if code, err = runSudo(arguments); err == nil {
			return code
		}
	}
	fmt.Fprintf(os.Stderr, "sudo: %v\n", err)
	return 1
}

func runSudo(arguments []string) (int, error) {
	path := sudoSocket
	if other := os.Getenv("SKERRY_SUDO_SOCKET"); other != "" { // the agent decides by itself whom it trusts
		path = other
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGWINCH)
	socket, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	window := terminalSize(0)
	if terminalSize(1) == nil {
		window = nil
	}
	if err := sendSudoRequest(socket, arguments, window); err != nil {
		return 0, err
	}
	var terminal atomic.Pointer[os.File]
	go relaySignals(socket, signals, &terminal)
	kind, file, err := receiveSudoReply(socket)
	if err != nil {
		return 0, err
	}
	var drained <-chan struct{}
	if kind == sudoTerminal && file != nil {
		terminal.Store(file)
		var restore func()
		restore, drained = relayTerminal(file)
		defer restore()
		if kind, _, err = receiveSudoReply(socket); err != nil {
			return 0, err
		}
	}
	var code [4]byte
	if _, err := io.ReadFull(socket, code[:]); err != nil || kind != sudoExit {
		return 0, errors.New("the agent went away")
	}
	if drained != nil {
		select {
		case <-drained:
		case <-time.After(lingerTime):
		}
	}
	return int(binary.BigEndian.Uint32(code[:])), nil
}

func sendSudoRequest(socket *net.UnixConn, arguments []string, window *size) error {
	var ready [1]byte
	if _, err := io.ReadFull(socket, ready[:]); err != nil || ready[0] != sudoReady {
		return errors.New("the agent refuses the connection")
	}
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "/"
	}
	text, err := json.Marshal(&sudoRequest{Arguments: arguments, Env: os.Environ(), Cwd: cwd, Terminal: window})
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	if _, _, err := socket.WriteMsgUnix(head, syscall.UnixRights(0, 1, 2), nil); err != nil {
		return err
	}
	socket.Write(text) // when the agent has refused already, its answer says why
	return nil
}

// receiveSudoReply returns the kind of the next message, and the terminal that came with it.
func receiveSudoReply(socket *net.UnixConn) (byte, *os.File, error) {
	kind, control := make([]byte, 1), make([]byte, 64)
	n, controlSize, _, _, err := socket.ReadMsgUnix(kind, control)
	if err != nil || n != 1 {
		return 0, nil, errors.New("the agent went away")
	}
	var terminal *os.File
	if messages, err := syscall.ParseSocketControlMessage(control[:controlSize]); err == nil {
		for _, message := range messages {
			if fds, err := syscall.ParseUnixRights(&message); err == nil && len(fds) == 1 {
				syscall.SetNonblock(fds[0], true)
				terminal = os.NewFile(uintptr(fds[0]), "terminal")
			}
		}
	}
	if kind[0] != sudoError {
		return kind[0], terminal, nil
	}
	var length [4]byte
	if _, err := io.ReadFull(socket, length[:]); err != nil {
		return 0, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(socket, int64(binary.BigEndian.Uint32(length[:]))))
	if err != nil {
		return 0, nil, err
	}
	return 0, nil, errors.New(strings.TrimSpace(string(text)))
}

// relaySignals passes signals on to the command; a signal to stop also stops this process, as the shell expects.
func relaySignals(socket *net.UnixConn, signals <-chan os.Signal, terminal *atomic.Pointer[os.File]) {
	for received := range signals {
		number := received.(syscall.Signal)
		switch {
		case number == syscall.SIGWINCH:
			file, window := terminal.Load(), terminalSize(0)
			if file != nil && window != nil {
				setSize(file, *window)
				socket.Write([]byte{byte(number)}) // the agent tells the command, which this process may not signal
			}
		default:
			socket.Write([]byte{byte(number)})
		}
		if number == syscall.SIGTSTP {
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
	}
}

// relayTerminal connects this terminal, made raw, with the command's. The returned function restores it; the channel closes
// when the command's terminal has no more output.
func relayTerminal(terminal *os.File) (restore func(), drained <-chan struct{}) {
	var saved syscall.Termios
	restore = func() {}
	if ioctl(0, syscall.TCGETS, unsafe.Pointer(&saved)) == nil {
		raw := saved
		raw.Iflag &^= syscall.IGNBRK | syscall.BRKINT | syscall.PARMRK | syscall.ISTRIP | syscall.INLCR | syscall.IGNCR | syscall.ICRNL | syscall.IXON
		raw.Oflag &^= syscall.OPOST
		raw.Lflag &^= syscall.ECHO | syscall.ECHONL | syscall.ICANON | syscall.ISIG | syscall.IEXTEN
		raw.Cc[syscall.VMIN], raw.Cc[syscall.VTIME] = 1, 0
		for _, key := range []int{syscall.VINTR, syscall.VQUIT, syscall.VSUSP} {
			raw.Cc[key] = 0xff // gVisor makes signals of these even without ISIG; no text has this byte
		}
		if ioctl(0, syscall.TCSETS, unsafe.Pointer(&raw)) == nil {
			restore = func() { ioctl(0, syscall.TCSETS, unsafe.Pointer(&saved)) }
		}
	}
	over := make(chan struct{})
	go func() {
		io.Copy(terminal, os.Stdin)
		terminal.Write([]byte{4})
	}()
	go func() {
		io.Copy(os.Stdout, terminal)
		close(over)
	}()
	return restore, over
}

// terminalSize returns nil when the descriptor is no terminal.
func terminalSize(fd uintptr) *size {
	var window [4]uint16
	if ioctl(fd, syscall.TIOCGWINSZ, unsafe.Pointer(&window)) != nil {
		return nil
	}
	return &size{Rows: window[0], Cols: window[1]}
}
