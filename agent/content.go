package main

import (
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

type readRequest struct {
	pathRequest
	Offset int64  `json:"offset"`
	Length *int64 `json:"length"`
}

type writeRequest struct {
	pathRequest
	Mode     *uint32           `json:"mode"`
	Parents  bool              `json:"parents"`
	Metadata map[string]string `json:"metadata"`
}

const (
	maxLinks   = 40 // symbolic links followed to the file that is written, as the kernel does
	tempPrefix = ".skerry-"
	tempNew    = tempPrefix + "new-" // content of a file that is not there yet
	tempOld    = tempPrefix + "old-" // content that will replace a file's
)

// regular refuses what is not a regular file: a FIFO or device must not be opened, since that may wait or do something.
func regular(s *syscall.Stat_t) error {
	switch s.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return nil
	case syscall.S_IFDIR:
		return syscall.EISDIR
	}
	return syscall.ENXIO
}

// isOwn tells whether an open file is one of the agent's own in /proc: its memory, its environment. The kernel lets every
// thread of a process read those, whoever it acts for; another process of that user could not.
func isOwn(fd int) bool {
	opened, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return err == nil && strings.HasPrefix(opened, "/proc/"+strconv.Itoa(os.Getpid())+"/")
}

// openRegular opens an existing regular file; call it as the user.
func openRegular(full string, flags int) (*os.File, *syscall.Stat_t, error) {
	s := &syscall.Stat_t{}
	if err := syscall.Stat(full, s); err != nil {
		return nil, nil, err
	}
	if err := regular(s); err != nil {
		return nil, nil, err
	}
	fd, err := syscall.Open(full, flags|syscall.O_NONBLOCK|syscall.O_CLOEXEC|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if err = syscall.Fstat(fd, s); err == nil {
		err = regular(s) // it may have been exchanged since
	}
	if err == nil && os.Geteuid() != 0 && isOwn(fd) {
		err = syscall.EACCES
	}
	if err != nil {
		syscall.Close(fd)
		return nil, nil, err
	}
	syscall.SetNonblock(fd, false)
	return os.NewFile(uintptr(fd), full), s, nil
}

func (a *agent) read(ch *channel, r *readRequest) (any, error) {
	u, full, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	if r.Offset < 0 || r.Length != nil && *r.Length < 0 {
		return nil, fail(codeInvalid, "cannot read '%s': offset and length must not be negative", full)
	}
	var file *os.File
	var s *syscall.Stat_t
	err = as(u, func() (err error) {
		file, s, err = openRegular(full, syscall.O_RDONLY)
		return err
	})
	if err != nil {
		return nil, fileFailure("read '"+full+"'", err)
	}
	defer file.Close()
	if err := ch.item(infoAnswer{a.describe(full, s)}); err != nil {
		return nil, err
	}
	left := int64(1) << 62
	if r.Length != nil {
		left = *r.Length
	}
	if err := sendFile(ch, file, r.Offset, left); err != nil {
		return nil, fileFailureUnlessStopped("read '"+full+"'", err)
	}
	return empty{}, nil
}

func fileFailureUnlessStopped(doing string, err error) error {
	if errors.Is(err, errStopped) {
		return err
	}
	return fileFailure(doing, err)
}

// sendFile sends up to `left` bytes from an offset on.
func sendFile(ch *channel, file *os.File, offset, left int64) error {
	b := newBuffer()
	defer b.free()
	for left > 0 {
		allowed, err := ch.acquire(int(min(left, maxPayload)))
		if err != nil {
			return err
		}
		n, err := file.ReadAt(b.payload()[:allowed], offset)
		ch.refund(allowed - n)
		if n > 0 {
			if err := ch.send(kindData, b, n); err != nil {
				return err
			}
			offset += int64(n)
			left -= int64(n)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replacement is a file's new content under way: a temporary file in the same directory, renamed at the end.
type replacement struct {
	user   *account
	target string // the file itself, not a link to it
	temp   string
	file   *os.File
}

func (a *agent) write(ch *channel, r *writeRequest) (any, error) {
	u, full, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	doing := "write '" + full + "'"
	var w *replacement
	err = as(u, func() (err error) {
		w, err = beginReplacement(u, full, r)
		return err
	})
	if err != nil {
		return nil, fileFailure(doing, err)
	}
	err = receiveFile(ch, w.file)
	// Not synced: a host that goes down takes the sandbox with it, and what is to outlive that is synced as a whole (quiesce).
	if err == nil && len(r.Metadata) > 0 {
		err = a.note(w, r.Metadata)
	}
	if closed := w.file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		w.abandon()
		return nil, fileFailureUnlessStopped(doing, err)
	}
	answer, err := a.change(u, "write", w.target, func() error { return syscall.Rename(w.temp, w.target) })
	if err != nil {
		w.abandon()
	}
	return answer, err
}

// note keeps metadata on the new content; it belongs to the file whatever its name.
func (a *agent) note(w *replacement, metadata map[string]string) error {
	var s syscall.Stat_t
	if err := syscall.Fstat(int(w.file.Fd()), &s); err != nil {
		return err
	}
	return a.notes.set(int(w.file.Fd()), &s, metadata)
}

func (w *replacement) abandon() {
	as(w.user, func() error { return syscall.Unlink(w.temp) })
}

// receiveFile writes DATA to a file until END.
func receiveFile(ch *channel, file *os.File) error {
	for {
		c, err := ch.receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		n := len(c.data)
		_, err = file.Write(c.data)
		c.free()
		if err != nil {
			return err
		}
		ch.took(n)
	}
}

// beginReplacement checks that the user may write the file, and makes the temporary one; call it as the user.
func beginReplacement(u *account, full string, r *writeRequest) (*replacement, error) {
	if strings.HasSuffix(full, "/") {
		return nil, syscall.EISDIR
	}
	target, err := followLinks(full)
	if err != nil {
		return nil, err
	}
	old, s, err := openRegular(target, syscall.O_WRONLY) // as a program would: fails when the user may not write it
	exists := err == nil
	if exists {
		old.Close()
	} else if err != syscall.ENOENT {
		return nil, err
	} else if r.Parents {
		if err := makeParents(target); err != nil {
			return nil, err
		}
	}
	w := &replacement{user: u, target: target}
	prefix := tempNew
	if exists {
		prefix = tempOld
	}
	w.temp = path.Dir(target) + "/" + prefix + randomName()[:12]
	fd, err := syscall.Open(w.temp, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	w.file = os.NewFile(uintptr(fd), w.temp)
	mode := uint32(0o644)
	if exists {
		mode = s.Mode & 0o7777
		syscall.Fchown(fd, int(s.Uid), int(s.Gid)) // keeps root's writes from taking a user's files away
	}
	if r.Mode != nil {
		mode = *r.Mode & 0o7777
	}
	if err := syscall.Fchmod(fd, mode); err != nil {
		w.file.Close()
		syscall.Unlink(w.temp)
		return nil, err
	}
	return w, nil
}

// followLinks returns the path of the file that writing to `full` would write, following the last component's links.
func followLinks(full string) (string, error) {
	for range maxLinks {
		target, err := os.Readlink(full)
		if err != nil { // no link, or not there
			return full, nil
		}
		if !strings.HasPrefix(target, "/") {
			target = path.Dir(full) + "/" + target
		}
		full = target
	}
	return "", syscall.ELOOP
}
