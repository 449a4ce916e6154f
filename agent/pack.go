package main

import (
	"archive/tar"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
)

// packRequest asks for a tar of all that matches a pattern, named by their whole paths.
type packRequest struct {
	pathRequest // a pattern
}

// channelWriter sends what is written as DATA.
type channelWriter struct {
	ch *channel
	b  *buffer
}

func (w *channelWriter) Write(p []byte) (int, error) {
	for written := 0; written < len(p); {
		n, err := w.ch.acquire(min(len(p)-written, maxPayload))
		if err != nil {
			return written, err
		}
		copy(w.b.payload(), p[written:written+n])
		if err := w.ch.send(kindData, w.b, n); err != nil {
			return written, err
		}
		written += n
	}
	return len(p), nil
}

// packing is one such request under way.
type packing struct {
	archive *tar.Writer
	entries int
}

func (a *agent) pack(ch *channel, r *packRequest) (any, error) {
	u, pattern, err := a.at(r.User, r.Path)
	if err != nil {
		return nil, err
	}
	w := &channelWriter{ch: ch, b: newBuffer()}
	defer w.b.free()
	p := &packing{archive: tar.NewWriter(w)}
	err = as(u, func() error {
		matches, err := filepath.Glob(shown(pattern))
		if err != nil {
			return fail(codeInvalid, "cannot pack '%s': %v", pattern, err)
		}
		for _, match := range matches {
			if err := p.tree(match); err != nil {
				return err
			}
		}
		return p.archive.Close()
	})
	if err != nil {
		return nil, fileFailureUnlessStopped("pack '"+pattern+"'", err)
	}
	return map[string]int{"entries": p.entries}, nil
}

// tree takes one match and what is below it. A match that is a symbolic link stands for what it leads to, as COPY takes it.
func (p *packing) tree(match string) error {
	root, err := filepath.EvalSymlinks(match)
	if err != nil {
		return err
	}
	var top syscall.Stat_t
	if err := syscall.Lstat(root, &top); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(full string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Sys().(*syscall.Stat_t).Dev != top.Dev { // a mount, such as /proc: no part of the image
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		below, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		return p.entry(full, path.Join(match, below), info)
	})
}

func (p *packing) entry(full, name string, info fs.FileInfo) error {
	target := ""
	switch kind := info.Mode() & fs.ModeType; kind {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		var err error
		if target, err = os.Readlink(full); err != nil {
			return err
		}
	default: // sockets and devices are no content
		return nil
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name, header.Format = name, tar.FormatPAX
	if err := p.archive.WriteHeader(header); err != nil {
		return err
	}
	p.entries++
	if !info.Mode().IsRegular() {
		return nil
	}
	file, err := os.Open(full)
	if err != nil {
		return err
	}
	defer file.Close()
	// One that has grown or shrunk meanwhile must not break the archive: exactly the size that was told.
	n, err := io.CopyN(p.archive, file, header.Size)
	if err == io.EOF {
		_, err = io.CopyN(p.archive, noughts{}, header.Size-n)
	}
	return err
}

// noughts is read for ever.
type noughts struct{}

func (noughts) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
