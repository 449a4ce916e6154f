package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// unpackRequest asks for the entries of a tar that match a source pattern, put where COPY of a Dockerfile would put them.
type unpackRequest struct {
	pathRequest         // where to
	Source      string  `json:"source"` // pattern over the archive's paths, component by component
	Owner       *string `json:"owner"`  // of all that is made: user or user:group
	Mode        *uint32 `json:"mode"`   // of all files
}

// channelReader reads DATA up to END.
type channelReader struct {
	ch   *channel
	held chunk
	left []byte
}

func (r *channelReader) Read(p []byte) (int, error) {
	for len(r.left) == 0 {
		c, err := r.ch.receive()
		if err != nil {
			return 0, err
		}
		r.held, r.left = c, c.data
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	r.ch.took(n)
	if len(r.left) == 0 {
		r.held.free()
	}
	return n, nil
}

// unpacking is one such request under way.
type unpacking struct {
	source   []string
	target   string
	isFolder bool // entries go into the target, under their own names
	uid, gid int
	mode     *uint32
	entries  int
}

func (a *agent) unpack(ch *channel, r *unpackRequest) (any, error) {
	u, full, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	w := &unpacking{source: components(r.Source), target: shown(full), uid: u.uid, gid: u.gid, mode: r.Mode}
	w.isFolder = strings.HasSuffix(r.Path, "/") || strings.ContainsAny(r.Source, "*?[")
	if r.Owner != nil {
		name, group, hasGroup := strings.Cut(*r.Owner, ":")
		owner, err := a.accounts.user(name)
		if err != nil {
			return nil, err
		}
		w.uid, w.gid = owner.uid, owner.gid
		if hasGroup {
			if w.gid, err = a.accounts.group(group); err != nil {
				return nil, fail(codeInvalid, "cannot unpack: %v", err)
			}
		}
	}
	reader := &channelReader{ch: ch}
	if err := as(u, func() error { return w.all(reader) }); err != nil {
		var errno syscall.Errno
		var known *failure
		if !errors.As(err, &errno) && !errors.As(err, &known) && !errors.Is(err, errStopped) {
			return nil, fail(codeInvalid, "cannot unpack to '%s': it is no whole tar: %v", w.target, err)
		}
		return nil, fileFailureUnlessStopped("unpack to '"+w.target+"'", err)
	}
	_, err = io.Copy(io.Discard, reader) // what follows the archive's end
	return map[string]int{"entries": w.entries}, err
}

func components(name string) []string {
	var parts []string
	for _, part := range strings.Split(name, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

// all takes every entry of a tar, compressed by gzip or not.
func (w *unpacking) all(source io.Reader) error {
	if s, err := os.Stat(w.target); err == nil && s.IsDir() {
		w.isFolder = true
	}
	buffered := bufio.NewReader(source)
	var plain io.Reader = buffered
	if magic, err := buffered.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		unzipped, err := gzip.NewReader(buffered)
		if err != nil {
			return err
		}
		plain = unzipped
	}
	archive := tar.NewReader(plain)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if target, wanted := w.place(header); wanted {
			if err := w.put(archive, header, target); err != nil {
				return err
			}
			w.entries++
		}
	}
}

// place tells where an entry goes: what the pattern matches is put at the target, or below it; of a directory, its content.
func (w *unpacking) place(header *tar.Header) (string, bool) {
	name := components(header.Name)
	if len(name) < len(w.source) {
		return "", false
	}
	for i, pattern := range w.source {
		if matched, err := path.Match(pattern, name[i]); name[i] == ".." || err != nil || !matched {
			return "", false
		}
	}
	rest := name[len(w.source):]
	for _, part := range rest {
		if part == ".." {
			return "", false
		}
	}
	switch {
	case len(rest) > 0:
		return w.target + "/" + strings.Join(rest, "/"), true
	case header.Typeflag == tar.TypeDir || !w.isFolder:
		return w.target, true
	}
	return w.target + "/" + name[len(name)-1], true
}

func (w *unpacking) put(archive io.Reader, header *tar.Header, target string) error {
	if err := w.makeParents(target); err != nil {
		return err
	}
	mode := uint32(header.Mode) & 0o7777
	switch header.Typeflag {
	case tar.TypeDir:
		if s, err := os.Stat(target); err == nil && s.IsDir() {
			return nil // as COPY does, it leaves what is there
		}
		if err := w.makeDirectory(target); err != nil {
			return err
		}
		return syscall.Chmod(target, mode)
	case tar.TypeLink: // of a file that has been unpacked before
		from, wanted := w.place(&tar.Header{Name: header.Linkname, Typeflag: tar.TypeReg})
		if !wanted {
			return fail(codeInvalid, "cannot unpack '%.200s': it is a link to '%.200s', which is not copied", header.Name, header.Linkname)
		}
		os.Remove(target)
		return os.Link(from, target)
	case tar.TypeSymlink:
		os.Remove(target)
		if err := os.Symlink(header.Linkname, target); err != nil {
			return err
		}
		return os.Lchown(target, w.uid, w.gid)
	case tar.TypeReg:
		if w.mode != nil {
			mode = *w.mode & 0o7777
		}
		return w.file(archive, target, mode, header.ModTime)
	}
	return fail(codeInvalid, "cannot unpack '%.200s': it is no file, directory or symbolic link", header.Name)
}

func (w *unpacking) file(content io.Reader, target string, mode uint32, modified time.Time) error {
	os.Remove(target) // not through a link, and not over a program that runs
	file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Chown(target, w.uid, w.gid)
	}
	if err == nil {
		err = syscall.Chmod(target, mode)
	}
	if err == nil {
		err = os.Chtimes(target, modified, modified)
	}
	return err
}

// makeParents makes what is missing above a path; it belongs to the owner too.
func (w *unpacking) makeParents(target string) error {
	parent := path.Dir(target)
	if s, err := os.Stat(parent); err == nil && s.IsDir() || parent == "/" {
		return nil
	}
	if err := w.makeParents(parent); err != nil {
		return err
	}
	return w.makeDirectory(parent)
}

func (w *unpacking) makeDirectory(target string) error {
	if s, err := os.Stat(target); err == nil && s.IsDir() {
		return nil
	}
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	return os.Chown(target, w.uid, w.gid)
}
