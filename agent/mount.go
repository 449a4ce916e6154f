package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

const volumesDirectory = "/run/skerry/volumes/"

// binds are the mounts that the agent has made: target to source. They are part of the sandbox's memory, as the mounts are, so
// that after a restore a repeated request finds its work done.
type binds struct {
	mu   sync.Mutex
	made map[string]string
}

type mountRequest struct {
	Source string `json:"source"`
	Target string `json:"target"`
	// ReadOnly is for programs that ask: without it gVisor says yes to a chmod that the host's mount then refuses.
	ReadOnly bool `json:"read_only"`
}

// mount lets a volume, which the server has attached to the sandbox, be seen at the path where programs look for it.
func (m *machine) mount(r *mountRequest) (any, error) {
	name, found := strings.CutPrefix(r.Source, volumesDirectory)
	if !found || name == "" || name == ".." || strings.Contains(name, "/") {
		return nil, fail(codeInvalid, "cannot mount '%s': only what is in %s", r.Source, volumesDirectory)
	}
	if !filepath.IsAbs(r.Target) || filepath.Clean(r.Target) != r.Target || r.Target == "/" {
		return nil, fail(codeInvalid, "cannot mount at '%s': it must be an absolute path", r.Target)
	}
	m.binds.mu.Lock()
	defer m.binds.mu.Unlock()
	if m.binds.made[r.Target] == r.Source {
		return empty{}, nil
	}
	if err := os.MkdirAll(r.Target, 0o755); err != nil {
		return nil, fileFailure("mount at '"+r.Target+"'", err)
	}
	if err := syscall.Mount(r.Source, r.Target, "", syscall.MS_BIND, ""); err != nil {
		return nil, fileFailure("mount at '"+r.Target+"'", err)
	}
	if r.ReadOnly {
		flags := uintptr(syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY)
		if err := syscall.Mount("none", r.Target, "", flags, ""); err != nil {
			syscall.Unmount(r.Target, syscall.MNT_DETACH)
			return nil, fileFailure("mount at '"+r.Target+"'", err)
		}
	}
	if m.binds.made == nil {
		m.binds.made = map[string]string{}
	}
	m.binds.made[r.Target] = r.Source
	return empty{}, nil
}
