package main

import (
	"encoding/binary"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

type watchRequest struct {
	pathRequest
	Recursive bool `json:"recursive"`
}

type watchEvent struct {
	Type string `json:"type"`
	Path string `json:"path"`
}

const (
	maxHeldEvents = 4096 // events that wait for the connection at most; then they are dropped for one `overflow`
	itemEvents    = 256  // events in one ITEM at most
	maxWatches    = 8192 // directories watched at most
	watchMask     = syscall.IN_CREATE | syscall.IN_DELETE | syscall.IN_MODIFY | syscall.IN_ATTRIB | syscall.IN_MOVED_FROM |
		syscall.IN_MOVED_TO | syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF
)

// watcher turns what inotify reports about a directory, or a file, into events.
type watcher struct {
	user      *account
	root      string
	recursive bool
	inotify   *os.File
	fd        int
	paths     map[int32]string  // by watch descriptor
	ours      map[uint32]string // moves of the agent's temporary files under way: cookie → prefix

	mu      sync.Mutex
	changed sync.Cond
	held    []watchEvent
	over    bool
	failed  error
}

func (a *agent) watch(ch *channel, r *watchRequest) (any, error) {
	u, full, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fail(codeInternal, "cannot watch '%s': %v", full, err)
	}
	w := &watcher{
		user: u, root: strings.TrimRight(shown(full), "/"), recursive: r.Recursive, fd: fd, inotify: os.NewFile(uintptr(fd), "inotify"),
		paths: map[int32]string{}, ours: map[uint32]string{},
	}
	w.changed.L = &w.mu
	if err := w.add(w.root, nil); err != nil {
		w.inotify.Close()
		return nil, fileFailure("watch '"+full+"'", err)
	}
	ch.whenStopped(func() {
		w.inotify.SetReadDeadline(time.Now()) // its reader closes it: nobody else may get its descriptor meanwhile
		w.stop(errStopped)
	})
	err = ch.item(map[string]bool{"ready": true})
	go w.readForever()
	if err != nil {
		return nil, err
	}
	return nil, w.send(ch)
}

// add watches a path, and with `recursive` the directories below. found is called for everything that is there already.
func (w *watcher) add(path string, found func(string)) error {
	name := path
	if name == "" {
		name = "/"
	}
	var descriptor int
	var below []os.DirEntry
	err := as(w.user, func() (err error) {
		if descriptor, err = syscall.InotifyAddWatch(w.fd, name, watchMask); err != nil {
			return err
		}
		if w.recursive || found != nil {
			below, _ = os.ReadDir(name) // fails for a file: nothing is below
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.paths[int32(descriptor)] = path
	for _, entry := range below {
		child := path + "/" + entry.Name()
		if found != nil && !strings.HasPrefix(entry.Name(), tempPrefix) {
			found(child)
		}
		if !w.recursive || !entry.IsDir() {
			continue
		}
		if len(w.paths) >= maxWatches {
			w.overflow()
			return nil
		}
		w.add(child, found) // forbidden or gone: the rest is still worth watching
	}
	return nil
}

func (w *watcher) readForever() {
	defer w.inotify.Close()
	raw := make([]byte, 64<<10)
	for {
		n, err := w.inotify.Read(raw)
		if err != nil {
			w.stop(errStopped)
			return
		}
		for at := 0; at+syscall.SizeofInotifyEvent <= n; {
			length := int(binary.NativeEndian.Uint32(raw[at+12:]))
			end := at + syscall.SizeofInotifyEvent + length
			if end > n {
				break
			}
			name, _, _ := strings.Cut(string(raw[at+syscall.SizeofInotifyEvent:end]), "\x00")
			w.notice(int32(binary.NativeEndian.Uint32(raw[at:])), binary.NativeEndian.Uint32(raw[at+4:]),
				binary.NativeEndian.Uint32(raw[at+8:]), name)
			at = end
		}
	}
}

// notice handles one inotify event.
func (w *watcher) notice(descriptor int32, mask, cookie uint32, name string) {
	if mask&syscall.IN_Q_OVERFLOW != 0 {
		w.overflow()
		return
	}
	directory, known := w.paths[descriptor]
	if mask&syscall.IN_IGNORED != 0 {
		delete(w.paths, descriptor)
		return
	}
	if !known {
		return
	}
	path := directory
	if name != "" {
		path += "/" + name
	} else if directory != w.root { // about a directory below: its parent's watch reports it too
		return
	}
	if strings.HasPrefix(name, tempPrefix) {
		if mask&syscall.IN_MOVED_FROM != 0 {
			w.ours[cookie] = name
		}
		return
	}
	if temp, ours := w.ours[cookie]; ours && mask&syscall.IN_MOVED_TO != 0 { // the agent replaced a file
		delete(w.ours, cookie)
		if strings.HasPrefix(temp, tempNew) {
			w.hold("create", path)
			w.hold("chmod", path)
		}
		w.hold("write", path)
		return
	}
	w.report(mask, path)
}

func (w *watcher) report(mask uint32, path string) {
	switch {
	case mask&(syscall.IN_CREATE|syscall.IN_MOVED_TO) != 0:
		w.hold("create", path)
		if w.recursive && mask&syscall.IN_ISDIR != 0 {
			w.add(path, func(found string) { w.hold("create", found) })
		}
	case mask&syscall.IN_MODIFY != 0:
		w.hold("write", path)
	case mask&(syscall.IN_DELETE|syscall.IN_DELETE_SELF) != 0:
		w.hold("remove", path)
	case mask&(syscall.IN_MOVED_FROM|syscall.IN_MOVE_SELF) != 0:
		w.hold("rename", path)
		if mask&syscall.IN_ISDIR != 0 {
			w.forget(path)
		}
	case mask&syscall.IN_ATTRIB != 0:
		w.hold("chmod", path)
	}
}

// forget stops watching a directory that was moved away, and those below it: their paths are no longer true.
func (w *watcher) forget(path string) {
	for descriptor, known := range w.paths {
		if known != w.root && (known == path || strings.HasPrefix(known, path+"/")) {
			syscall.InotifyRmWatch(w.fd, uint32(descriptor))
			delete(w.paths, descriptor)
		}
	}
}

func (w *watcher) hold(kind, path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	event := watchEvent{kind, path}
	if w.over || len(w.held) > 0 && w.held[len(w.held)-1] == event {
		return
	}
	if len(w.held) >= maxHeldEvents {
		w.lose()
	}
	if !w.over {
		w.held = append(w.held, event)
	}
	w.changed.Signal()
}

func (w *watcher) overflow() {
	w.mu.Lock()
	w.lose()
	w.changed.Signal()
	w.mu.Unlock()
}

// lose drops what is held: the reader has to look for itself.
func (w *watcher) lose() {
	w.held = []watchEvent{{"overflow", w.shownRoot()}}
	w.over = true
}

func (w *watcher) shownRoot() string {
	if w.root == "" {
		return "/"
	}
	return w.root
}

func (w *watcher) stop(err error) {
	w.mu.Lock()
	w.failed = err
	w.changed.Signal()
	w.mu.Unlock()
}

// send passes on events as they come, until the channel stops.
func (w *watcher) send(ch *channel) error {
	for {
		w.mu.Lock()
		for len(w.held) == 0 && w.failed == nil {
			w.changed.Wait()
		}
		if w.failed != nil {
			w.mu.Unlock()
			return w.failed
		}
		n, bytes := 0, 0
		for n < min(len(w.held), itemEvents) && bytes < itemBytes {
			bytes += 64 + 2*len(w.held[n].Path)
			n++
		}
		batch := w.held[:n:n]
		w.held = w.held[n:]
		w.over = w.over && len(w.held) > 0
		w.mu.Unlock()
		if err := ch.item(map[string]any{"events": batch}); err != nil {
			return err
		}
	}
}
