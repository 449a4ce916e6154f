package main

import (
	"errors"
	"os"
	"path"
	"sort"
	"strings"
	"syscall"
)

// fileInfo is FILE of the protocol.
type fileInfo struct {
	Name       string  `json:"name"`
	Path       string  `json:"path"`
	Type       string  `json:"type"`
	Size       int64   `json:"size"`
	Mode       uint32  `json:"mode"`
	UID        uint32  `json:"uid"`
	GID        uint32  `json:"gid"`
	Owner      string  `json:"owner"`
	Group      string  `json:"group"`
	Modified   int64   `json:"modified_unix_ns"`
	Target     *string `json:"target"`
	TargetType *string `json:"target_type"`

	Metadata map[string]string `json:"metadata,omitempty"`
}

type infoAnswer struct {
	Info *fileInfo `json:"info"`
}

type pathRequest struct {
	Path string  `json:"path"`
	User *string `json:"user"`
}

type listRequest struct {
	pathRequest
	Depth *int `json:"depth"`
	Limit *int `json:"limit"`
}

type mkdirRequest struct {
	pathRequest
	Parents bool    `json:"parents"`
	Mode    *uint32 `json:"mode"`
}

type renameRequest struct {
	Source string  `json:"source"`
	Target string  `json:"target"`
	User   *string `json:"user"`
}

type removeRequest struct {
	pathRequest
	Recursive bool `json:"recursive"`
}

type setattrRequest struct {
	pathRequest
	Mode  *uint32 `json:"mode"`
	Owner *string `json:"owner"`
	Group *string `json:"group"`
}

const (
	itemEntries = 256     // entries in one ITEM at most
	itemBytes   = 100_000 // and about so many bytes of names
)

// at finds a request's user and absolute path.
func (a *agent) at(user *string, path string) (*account, string, error) {
	u, err := a.user(user)
	if err != nil {
		return nil, "", err
	}
	path, err = u.place(path)
	return u, path, err
}

func fileType(mode uint32) string {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return "file"
	case syscall.S_IFDIR:
		return "directory"
	case syscall.S_IFLNK:
		return "symlink"
	}
	return "other"
}

// shown is a path as answers show it: without what only makes it longer, but with `..`, which may lead through a link.
func shown(full string) string {
	if strings.Contains(full+"/", "/../") {
		return full
	}
	return path.Clean(full)
}

func (a *agent) describe(full string, s *syscall.Stat_t) *fileInfo {
	full = shown(full)
	return &fileInfo{
		Name: path.Base(full), Path: full, Type: fileType(s.Mode), Size: s.Size, Mode: s.Mode & 0o7777, UID: s.Uid, GID: s.Gid,
		Owner: a.accounts.nameOf("passwd", s.Uid), Group: a.accounts.nameOf("group", s.Gid), Modified: s.Mtim.Nano(),
		Metadata: a.notes.of(s),
	}
}

// look describes the entry itself; call it as the user.
func (a *agent) look(full string) (*fileInfo, error) {
	var s syscall.Stat_t
	if err := syscall.Lstat(full, &s); err != nil {
		return nil, err
	}
	info := a.describe(full, &s)
	if s.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		return info, nil
	}
	if target, err := os.Readlink(full); err == nil {
		info.Target = &target
	}
	if syscall.Stat(full, &s) == nil {
		kind := fileType(s.Mode)
		info.TargetType = &kind
	}
	return info, nil
}

// change acts as the user and returns what is at the path afterwards.
func (a *agent) change(u *account, doing, full string, act func() error) (any, error) {
	var info *fileInfo
	err := as(u, func() (err error) {
		if err = act(); err == nil {
			info, err = a.look(full)
		}
		return err
	})
	if err != nil {
		return nil, fileFailure(doing+" '"+full+"'", err)
	}
	return infoAnswer{info}, nil
}

func (a *agent) stat(r *pathRequest) (any, error) {
	u, full, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	return a.change(u, "stat", full, func() error { return nil })
}

func (a *agent) makeDirectory(r *mkdirRequest) (any, error) {
	u, full, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	mode := uint32(0o755)
	if r.Mode != nil {
		mode = *r.Mode
	}
	return a.change(u, "make directory", full, func() error {
		if r.Parents {
			if err := makeParents(full); err != nil {
				return err
			}
		}
		err := syscall.Mkdir(full, mode&0o7777)
		var s syscall.Stat_t
		switch {
		case err == syscall.EEXIST && r.Parents && syscall.Stat(full, &s) == nil && s.Mode&syscall.S_IFMT == syscall.S_IFDIR:
			return nil
		case err != nil:
			return err
		}
		return syscall.Chmod(full, mode&0o7777) // whatever the umask
	})
}

// makeParents makes the missing directories above a path.
func makeParents(full string) error {
	parent := path.Dir(strings.TrimRight(full, "/"))
	var s syscall.Stat_t
	err := syscall.Stat(parent, &s)
	switch {
	case err == nil && s.Mode&syscall.S_IFMT != syscall.S_IFDIR:
		return syscall.ENOTDIR
	case err == nil:
		return nil
	case err != syscall.ENOENT || parent == "/":
		return err
	}
	if err := makeParents(parent); err != nil {
		return err
	}
	if err := syscall.Mkdir(parent, 0o755); err != nil && err != syscall.EEXIST {
		return err
	}
	return nil
}

func (a *agent) rename(r *renameRequest) (any, error) {
	u, source, err := a.at(r.User, r.Source)
	if err != nil {
		return nil, err
	}
	target, err := u.place(r.Target)
	if err != nil {
		return nil, err
	}
	return a.change(u, "rename '"+source+"' to", target, func() error { return syscall.Rename(source, target) })
}

func (a *agent) remove(r *removeRequest) (any, error) {
	u, full, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	full = shown(full)
	err = as(u, func() error {
		var s syscall.Stat_t
		if err := syscall.Lstat(full, &s); err != nil {
			return err
		}
		switch {
		case s.Mode&syscall.S_IFMT != syscall.S_IFDIR:
			return syscall.Unlink(full)
		case r.Recursive:
			return os.RemoveAll(full)
		}
		return syscall.Rmdir(full)
	})
	if err != nil {
		return nil, fileFailure("remove '"+full+"'", err)
	}
	return empty{}, nil
}

func (a *agent) setAttributes(r *setattrRequest) (any, error) {
	u, full, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	uid, gid := -1, -1
	if r.Owner != nil {
		owner, err := a.accounts.user(*r.Owner)
		if err != nil {
			return nil, fail(codeInvalid, "cannot change '%s': %v", full, err)
		}
		uid = owner.uid
	}
	if r.Group != nil {
		if gid, err = a.accounts.group(*r.Group); err != nil {
			return nil, fail(codeInvalid, "cannot change '%s': %v", full, err)
		}
	}
	return a.change(u, "change", full, func() error {
		if uid >= 0 || gid >= 0 {
			if err := syscall.Chown(full, uid, gid); err != nil {
				return err
			}
		}
		if r.Mode == nil {
			return nil
		}
		return syscall.Chmod(full, *r.Mode&0o7777) // after chown, which takes set-id bits away
	})
}

// lister walks a directory and sends what it finds.
type lister struct {
	agent     *agent
	channel   *channel
	user      *account
	depth     int
	left      int // entries that may still be sent
	truncated bool
	batch     []*fileInfo
	bytes     int
}

func (a *agent) listDirectory(ch *channel, r *listRequest) (any, error) {
	u, full, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	l := &lister{agent: a, channel: ch, user: u, depth: 1, left: 100_000}
	if r.Depth != nil {
		l.depth = *r.Depth
	}
	if r.Limit != nil {
		l.left = *r.Limit
	}
	if l.depth < 1 || l.left < 0 {
		return nil, fail(codeInvalid, "cannot list '%s': depth must be at least 1 and limit at least 0", full)
	}
	if err := l.walk(full, 1); err != nil {
		return nil, err
	}
	if err := l.flush(); err != nil {
		return nil, err
	}
	return map[string]bool{"truncated": l.truncated}, nil
}

// walk sends the entries of a directory in lexical order, each directory followed by what is in it.
func (l *lister) walk(directory string, level int) error {
	entries, err := l.entries(directory)
	if err != nil && level > 1 { // forbidden or just removed: the rest of the list is worth more than an error
		return nil
	}
	if err != nil {
		return fileFailure("list '"+directory+"'", err)
	}
	for _, entry := range entries {
		if l.left == 0 {
			l.truncated = true
			return nil
		}
		l.left--
		if err := l.add(entry); err != nil {
			return err
		}
		if entry.Type == "directory" && level < l.depth {
			if err := l.walk(entry.Path, level+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// entries reads one directory as the user; at most one entry more than may be sent is described.
func (l *lister) entries(directory string) ([]*fileInfo, error) {
	var found []*fileInfo
	err := as(l.user, func() error {
		var s syscall.Stat_t
		if err := syscall.Stat(directory, &s); err != nil {
			return err
		}
		if s.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			return syscall.ENOTDIR
		}
		opened, err := os.Open(directory)
		if err != nil {
			return err
		}
		names, err := opened.Readdirnames(-1)
		opened.Close()
		if err != nil && len(names) == 0 {
			return err
		}
		sort.Strings(names)
		for _, name := range names[:min(len(names), l.left+1)] {
			info, err := l.agent.look(strings.TrimRight(directory, "/") + "/" + name)
			if errors.Is(err, syscall.ENOENT) {
				continue
			}
			if err != nil {
				return err
			}
			info.Name = name
			found = append(found, info)
		}
		return nil
	})
	return found, err
}

func (l *lister) add(entry *fileInfo) error {
	l.batch = append(l.batch, entry)
	l.bytes += 300 + 2*len(entry.Path)
	if entry.Target != nil {
		l.bytes += len(*entry.Target)
	}
	if len(l.batch) >= itemEntries || l.bytes >= itemBytes {
		return l.flush()
	}
	return nil
}

func (l *lister) flush() error {
	if l.channel.isStopped() {
		return errStopped
	}
	if len(l.batch) == 0 {
		return nil
	}
	batch := l.batch
	l.batch, l.bytes = nil, 0
	return l.channel.item(map[string]any{"entries": batch})
}
