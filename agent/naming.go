package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	firstHostname  = "sandbox"   // what the files say that the server has written
	ownAddress     = "127.0.1.1" // of the host name, in the server's line of /etc/hosts
	maxNamingBytes = 1 << 20     // a longer file is not ours
)

// setHostname sets the kernel's host name. The files follow: see nameFiles.
func (m *machine) setHostname(name *string) error {
	if name == nil {
		return nil
	}
	if err := syscall.Sethostname([]byte(*name)); err != nil {
		return fail(codeInvalid, "cannot set the host name: %v", err)
	}
	m.mu.Lock()
	m.hostname = *name
	m.mu.Unlock()
	return nil
}

// nameFiles writes the last host name that was set to /etc/hostname, where there is that file, and changes it in the line of
// /etc/hosts that the server has written. Other lines stay.
func (m *machine) nameFiles() error {
	if !m.ownsFiles() {
		return nil
	}
	m.naming.Lock()
	defer m.naming.Unlock()
	m.mu.Lock()
	name := m.hostname
	m.mu.Unlock()
	if name == "" {
		return nil
	}
	old := firstHostname
	err := m.rewrite("hostname", func(text string) string {
		old = strings.TrimSpace(text)
		return name + "\n"
	})
	if err != nil {
		return err
	}
	return m.rewrite("hosts", func(text string) string {
		lines := strings.SplitAfter(text, "\n")
		for i, line := range lines {
			words := strings.Fields(line)
			if len(words) == 2 && words[0] == ownAddress && (words[1] == old || words[1] == firstHostname) {
				lines[i] = ownAddress + " " + name + "\n"
			}
		}
		return strings.Join(lines, "")
	})
}

// renewMachineID gives the machine a new id, if it has one.
func (m *machine) renewMachineID(seed string) error {
	if !m.ownsFiles() {
		return nil
	}
	return m.rewrite("machine-id", func(string) string { return hashName([]byte("machine-id "+seed)) + "\n" })
}

// ownsFiles is false where the agent is tested on somebody's machine.
func (m *machine) ownsFiles() bool { return os.Getpid() == 1 || m.etc != "/etc" }

// rewrite replaces a file below /etc, if there is one and it changes.
func (m *machine) rewrite(name string, change func(string) string) error {
	path := filepath.Join(m.etc, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Size() > maxNamingBytes) {
		return nil
	}
	text, err := os.ReadFile(path)
	if err == nil {
		changed := change(string(text))
		if changed == string(text) {
			return nil
		}
		err = replace(path, []byte(changed), info.Mode().Perm())
	}
	if err != nil {
		return fail(codeInternal, "cannot name the sandbox: %v", err)
	}
	return nil
}

func replace(path string, content []byte, mode fs.FileMode) error {
	temporary := path + ".skerry"
	os.Remove(temporary)
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Chmod(mode), file.Close())
	if err != nil {
		os.Remove(temporary)
		return err
	}
	return os.Rename(temporary, path)
}
