package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// account is a user of the sandbox's, as its /etc/passwd and /etc/group say.
type account struct {
	name   string
	uid    int
	gid    int
	groups []uint32 // supplementary, with gid
	home   string
	shell  string
}

// accountFile is a parsed /etc/passwd or /etc/group: lines split at the colons.
type accountFile struct {
	rows     [][]string
	modified time.Time
	size     int64
}

// accounts reads the two files anew whenever they change.
type accounts struct {
	directory string // /etc
	mu        sync.Mutex
	files     map[string]*accountFile
}

// parseAccountRows splits the text of /etc/passwd or /etc/group; lines with fewer than `fields` fields are left out.
func parseAccountRows(text string, fields int) [][]string {
	var rows [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if row := strings.Split(line, ":"); len(row) >= fields && row[0] != "" {
			rows = append(rows, row)
		}
	}
	return rows
}

func parseID(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return int(n), err == nil && n != 1<<32-1 // -1 means "leave unchanged" to the kernel
}

func (a *accounts) load(name string, fields int) [][]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	path := filepath.Join(a.directory, name)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 4<<20 {
		return nil
	}
	if f := a.files[name]; f != nil && f.size == info.Size() && f.modified.Equal(info.ModTime()) {
		return f.rows
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	f := &accountFile{parseAccountRows(string(text), fields), info.ModTime(), info.Size()}
	a.files[name] = f
	return f.rows
}

// user finds a user by name, else by decimal uid. A uid without an entry is a user without a home and groups.
func (a *accounts) user(name string) (*account, error) {
	uid, isID := parseID(name)
	var found []string
	for _, row := range a.load("passwd", 7) {
		if row[0] == name {
			found = row
			break
		}
		if id, ok := parseID(row[2]); found == nil && isID && ok && id == uid {
			found = row
		}
	}
	if found == nil {
		if !isID {
			return nil, fail(codeNoUser, "user '%.256s' does not exist in the sandbox", name)
		}
		return &account{name: name, uid: uid, gid: uid, groups: []uint32{uint32(uid)}, home: "/", shell: "/bin/sh"}, nil
	}
	uid, okUID := parseID(found[2])
	gid, okGID := parseID(found[3])
	if !okUID || !okGID {
		return nil, fmt.Errorf("user '%s' has no valid uid and gid in /etc/passwd", name)
	}
	u := &account{name: found[0], uid: uid, gid: gid, home: found[5], shell: found[6]}
	if !strings.HasPrefix(u.home, "/") {
		u.home = "/"
	}
	if u.shell == "" {
		u.shell = "/bin/sh"
	}
	u.groups = a.groupsOf(u)
	return u, nil
}

func (a *accounts) groupsOf(u *account) []uint32 {
	groups := []uint32{uint32(u.gid)}
	for _, row := range a.load("group", 4) {
		gid, ok := parseID(row[2])
		if !ok || gid == u.gid || len(groups) >= 1024 {
			continue
		}
		for _, member := range strings.Split(row[3], ",") {
			if member == u.name {
				groups = append(groups, uint32(gid))
				break
			}
		}
	}
	return groups
}

// group finds a group by name, else by decimal gid.
func (a *accounts) group(name string) (int, error) {
	for _, row := range a.load("group", 3) {
		if row[0] == name {
			if gid, ok := parseID(row[2]); ok {
				return gid, nil
			}
		}
	}
	if gid, ok := parseID(name); ok {
		return gid, nil
	}
	return 0, fmt.Errorf("group '%s' does not exist", name)
}

// nameOf returns the name of a uid ("passwd") or gid ("group"), or its decimal form.
func (a *accounts) nameOf(file string, id uint32) string {
	text := strconv.FormatUint(uint64(id), 10)
	for _, row := range a.load(file, 3) {
		if row[2] == text {
			return row[0]
		}
	}
	return text
}

// inGroup tells whether a user belongs to the group of that name.
func (a *accounts) inGroup(u *account, name string) bool {
	for _, row := range a.load("group", 3) {
		if row[0] != name {
			continue
		}
		gid, ok := parseID(row[2])
		for _, g := range u.groups {
			if ok && g == uint32(gid) {
				return true
			}
		}
	}
	return false
}

// place makes an absolute path of one that a request names.
func (u *account) place(path string) (string, error) {
	switch {
	case path == "":
		return "", fail(codeInvalidPath, "cannot use an empty path")
	case strings.ContainsRune(path, 0):
		return "", fail(codeInvalidPath, "cannot use a path with a NUL character")
	case path == "~":
		path = u.home
	case strings.HasPrefix(path, "~/"):
		path = u.home + path[1:]
	case path[0] != '/':
		path = strings.TrimRight(u.home, "/") + "/" + path
	}
	if len(path) > 4095 {
		return "", fail(codeInvalidPath, "cannot use a path of %d bytes: the limit is 4095", len(path))
	}
	return path, nil
}
