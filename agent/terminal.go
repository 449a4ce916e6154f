package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const ttyGroup = 5 // group `tty` of Debian; others use the same number

func ioctl(fd uintptr, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// openTerminal makes a pseudo-terminal that belongs to u.
func openTerminal(u *account, s size) (*ends, error) {
	master, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	file := os.NewFile(uintptr(master), "/dev/ptmx")
	var number, unlock uint32
	if err := ioctl(uintptr(master), syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)); err != nil {
		file.Close()
		return nil, err
	}
	if err := ioctl(uintptr(master), syscall.TIOCGPTN, unsafe.Pointer(&number)); err != nil {
		file.Close()
		return nil, err
	}
	path := "/dev/pts/" + strconv.FormatUint(uint64(number), 10)
	slave, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOCTTY, 0)
	if err != nil {
		file.Close()
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	syscall.Fchown(slave, u.uid, ttyGroup) // so that the user may open it by name
	syscall.Fchmod(slave, 0o620)
	setSize(file, s)
	fd := uintptr(slave)
	return &ends{child: []uintptr{fd, fd, fd}, close: []int{slave}, sources: []*os.File{file}, stdin: file}, nil
}

// resizeTerminal sets the size and tells the processes of the terminal's session, which gVisor does not do by itself.
func resizeTerminal(terminal *os.File, session int, s size) error {
	if err := setSize(terminal, s); err != nil {
		return err
	}
	announceSize(session)
	return nil
}

// announceSize sends SIGWINCH to all processes of a session: which group is in the foreground cannot be asked from outside in
// gVisor, and those that do not care ignore the signal.
func announceSize(session int) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid <= 1 {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err == nil && parseSession(string(text)) == session {
			syscall.Kill(pid, syscall.SIGWINCH)
		}
	}
}

// parseSession returns the session of a /proc/PID/stat line, 0 when there is none in it.
func parseSession(stat string) int {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // a name may have blanks and parentheses
	if len(fields) < 4 {
		return 0
	}
	session, _ := strconv.Atoi(fields[3])
	return session
}

// setSize sets a terminal's size.
func setSize(terminal *os.File, s size) error {
	connection, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	window := [4]uint16{s.Rows, s.Cols}
	var failed error
	err = connection.Control(func(fd uintptr) {
		failed = ioctl(fd, syscall.TIOCSWINSZ, unsafe.Pointer(&window))
	})
	if err != nil {
		return err
	}
	return failed
}

// unread returns the number of bytes that a pipe or terminal holds.
func unread(file *os.File) int {
	var n int32
	if connection, err := file.SyscallConn(); err == nil {
		connection.Control(func(fd uintptr) { ioctl(fd, syscall.TIOCINQ, unsafe.Pointer(&n)) })
	}
	return int(n)
}
