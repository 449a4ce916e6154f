package main

import (
	"encoding/binary"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	maxNotedFiles    = 8192
	maxMetadataBytes = 4096 // of one file: what a file system with extended attributes holds
)

// inode tells a file from all others, while it exists.
type inode struct{ device, number uint64 }

func inodeOf(s *syscall.Stat_t) inode { return inode{uint64(s.Dev), s.Ino} }

type note struct {
	metadata map[string]string
	watch    int32
}

// notes holds what users have noted on files. The root file system of a gVisor sandbox has no extended attributes, which
// would be the place for it. As there, notes belong to the file itself: they go with it when it is renamed, and end with it.
type notes struct {
	count   atomic.Int32 // lets every description of a file pass when there are none
	mu      sync.Mutex
	inotify int
	files   map[inode]*note
	watches map[int32]inode
}

func newNotes() *notes {
	return &notes{inotify: -1, files: map[inode]*note{}, watches: map[int32]inode{}}
}

// of returns a file's notes; nil when it has none.
func (n *notes) of(s *syscall.Stat_t) map[string]string {
	if n.count.Load() == 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetRemoved()
	if found := n.files[inodeOf(s)]; found != nil {
		return found.metadata
	}
	return nil
}

// set notes something on an open file that has no notes.
func (n *notes) set(file int, s *syscall.Stat_t, metadata map[string]string) error {
	size := 0
	for key, value := range metadata {
		size += len(key) + len(value)
	}
	if size > maxMetadataBytes {
		return fail(codeInvalid, "cannot keep %d bytes of metadata on a file: the limit is %d", size, maxMetadataBytes)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.inotify < 0 {
		fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
		if err != nil {
			return err
		}
		n.inotify = fd
	}
	n.forgetRemoved()
	if len(n.files) >= maxNotedFiles {
		return fail(codeInvalid, "cannot keep metadata on another file: %d have some, which is the limit", maxNotedFiles)
	}
	// Numbers of files are used again: the kernel tells when the file itself has gone.
	// By its descriptor: a name can mean another file by now.
	descriptor, err := syscall.InotifyAddWatch(n.inotify, "/proc/self/fd/"+strconv.Itoa(file), syscall.IN_DELETE_SELF)
	if err != nil {
		return err
	}
	n.files[inodeOf(s)] = &note{metadata, int32(descriptor)}
	n.watches[int32(descriptor)] = inodeOf(s)
	n.count.Store(int32(len(n.files)))
	return nil
}

// forgetRemoved drops the notes of files that are no more: what the kernel has told until now.
func (n *notes) forgetRemoved() {
	var raw [64 * syscall.SizeofInotifyEvent]byte
	for {
		size, err := syscall.Read(n.inotify, raw[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || size <= 0 {
			return
		}
		for at := 0; at+syscall.SizeofInotifyEvent <= size; {
			descriptor := int32(binary.NativeEndian.Uint32(raw[at:]))
			length := int(binary.NativeEndian.Uint32(raw[at+12:]))
			at += syscall.SizeofInotifyEvent + length
			file, known := n.watches[descriptor]
			if !known {
				continue
			}
			delete(n.watches, descriptor)
			if found := n.files[file]; found != nil && found.watch == descriptor {
				delete(n.files, file)
			}
		}
		n.count.Store(int32(len(n.files)))
	}
}
