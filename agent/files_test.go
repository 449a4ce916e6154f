package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const nobody = "65534"

// openDirectory is a directory that belongs to nobody.
func openDirectory(t *testing.T) string {
	if os.Geteuid() != 0 {
		t.Skip("acting as several users needs root")
	}
	directory, err := os.MkdirTemp("", "files")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	os.Chown(directory, 65534, 65534)
	return directory
}

func TestWriteAndReadAsAUser(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	data := bytes.Repeat([]byte("0123456789abcde\n"), 200_000)
	r := s.write(d+"/a/b/f", data, fields{"user": nobody, "parents": true})
	info := r.result["info"].(map[string]any)
	if info["uid"] != 65534.0 || info["mode"] != float64(0o644) || info["size"] != float64(len(data)) || info["path"] != d+"/a/b/f" {
		t.Fatal(info)
	}
	if r := s.call("read", fields{"path": d + "/a/b/f", "user": nobody}); !bytes.Equal(r.stdout, data) || len(r.items) != 1 {
		t.Fatal(len(r.stdout), r.code)
	}
	if r := s.call("read", fields{"path": d + "/a/b/f", "user": nobody, "offset": 3, "length": 5}); string(r.stdout) != "34567" {
		t.Fatal(string(r.stdout))
	}
	if r := s.call("read", fields{"path": d + "/a/b/f", "user": nobody, "offset": 1 << 40}); len(r.stdout) != 0 || r.code != "" {
		t.Fatal(r)
	}
	os.WriteFile(d+"/secret", nil, 0o600)
	for _, r := range []reply{
		s.call("read", fields{"path": d + "/secret", "user": nobody}),
		s.write("/etc/agent-test", nil, fields{"user": nobody}),
		s.write(d+"/secret", nil, fields{"user": nobody}),
		s.call("remove", fields{"path": "/etc/passwd", "user": nobody}),
		s.call("setattr", fields{"path": d + "/secret", "user": nobody, "mode": 0o666}),
	} {
		if r.code != codeDenied {
			t.Errorf("%s %v", r.code, r.result)
		}
	}
	if r := s.call("read", fields{"path": d + "/secret", "user": "0"}); r.code != "" { // identity was restored
		t.Fatal(r)
	}
}

func TestReplacingKeepsModeAndOwnerAndFollowsLinks(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	os.WriteFile(d+"/real", []byte("old"), 0o644)
	os.Chmod(d+"/real", 0o751)
	os.Chown(d+"/real", 65534, 65534)
	os.Symlink("real", d+"/link")
	os.Symlink("new", d+"/dangling")
	os.Symlink("loop", d+"/loop")
	if r := s.write(d+"/link", []byte("new"), nil); r.code != "" {
		t.Fatal(r)
	}
	info, _ := os.Lstat(d + "/link")
	real, _ := os.Stat(d + "/real")
	text, _ := os.ReadFile(d + "/real")
	if info.Mode()&os.ModeSymlink == 0 || real.Mode().Perm() != 0o751 || real.Sys().(*syscall.Stat_t).Uid != 65534 || string(text) != "new" {
		t.Fatal(info.Mode(), real.Mode(), string(text))
	}
	if r := s.write(d+"/dangling", []byte("x"), fields{"mode": 0o600}); r.code != "" || r.result["info"].(map[string]any)["path"] != d+"/new" {
		t.Fatal(r)
	}
	if r := s.write(d+"/loop", nil, nil); r.code != codeInvalidPath {
		t.Fatal(r)
	}
}

func TestCancelledWriteChangesNothing(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	os.WriteFile(d+"/f", []byte("old"), 0o644)
	channel := s.open("write", fields{"path": d + "/f", "user": "0"})
	s.send(kindData, channel, []byte("new"))
	s.send(kindCancel, channel, nil)
	s.finish(channel)
	entries, _ := os.ReadDir(d)
	if text, _ := os.ReadFile(d + "/f"); string(text) != "old" || len(entries) != 1 {
		t.Fatal(string(text), entries)
	}
}

func TestWhatIsNoFile(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	syscall.Mkfifo(d+"/fifo", 0o666)
	for path, want := range map[string]string{
		d + "/fifo": codeNotRegular, "/dev/zero": codeNotRegular, d: codeIsDirectory, d + "/none/x": codeMissing,
		d + "/fifo/x": codeNoDirectory, "": codeInvalidPath, "/a\x00": codeInvalidPath, "/" + strings.Repeat("x", 300): codeInvalidPath,
		"/" + strings.Repeat("x/", 3000): codeInvalidPath,
	} {
		if r := s.call("read", fields{"path": path, "user": "0"}); r.code != want {
			t.Errorf("read %.20q: %v", path, r)
		}
		if r := s.write(path, nil, nil); r.code != want {
			t.Errorf("write %.20q: %v", path, r)
		}
	}
	if r := s.call("stat", fields{"path": d + "/fifo", "user": "0"}); r.result["info"].(map[string]any)["type"] != "other" {
		t.Fatal(r)
	}
}

func TestDirectories(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	at := func(op, path string, f fields) reply {
		request := fields{"path": d + path, "user": nobody}
		for name, value := range f {
			request[name] = value
		}
		return s.call(op, request)
	}
	for _, step := range []struct {
		op, path string
		f        fields
		code     string
	}{
		{"mkdir", "/a/b", fields{"mode": 0o700}, codeMissing},
		{"mkdir", "/a/b", fields{"mode": 0o700, "parents": true}, ""},
		{"mkdir", "/a/b", fields{"mode": 0o755, "parents": true}, ""},
		{"mkdir", "/a/b", nil, codeExists},
		{"remove", "/a", nil, codeNotEmpty},
		{"setattr", "/a", fields{"mode": 0o711}, ""},
		{"setattr", "/a", fields{"owner": "0"}, codeDenied},
		{"setattr", "/a", fields{"user": "0", "owner": "0", "group": "0"}, ""},
		{"setattr", "/a", fields{"owner": "no-such-user"}, codeInvalid},
		{"remove", "/a/none", nil, codeMissing},
	} {
		if r := at(step.op, step.path, step.f); r.code != step.code {
			t.Errorf("%v: %v", step, r)
		}
	}
	var s1 syscall.Stat_t
	syscall.Stat(d+"/a", &s1)
	if s1.Mode&0o7777 != 0o711 || s1.Uid != 0 {
		t.Fatal(s1)
	}
	os.Symlink("/etc", d+"/a/z")
	os.WriteFile(d+"/a/b/f", nil, 0o644)
	r := at("listdir", "", fields{"depth": 3, "user": "0"})
	var names []string
	for _, item := range r.items {
		for _, entry := range item["entries"].([]any) {
			names = append(names, strings.TrimPrefix(entry.(map[string]any)["path"].(string), d))
		}
	}
	if !slices.Equal(names, []string{"/a", "/a/b", "/a/b/f", "/a/z"}) || r.result["truncated"] != false {
		t.Fatal(names, r)
	}
	if r := at("listdir", "", fields{"depth": 3, "limit": 2, "user": "0"}); r.result["truncated"] != true {
		t.Fatal(r)
	}
	if r := at("listdir", "/a/b/f", fields{"user": "0"}); r.code != codeNoDirectory {
		t.Fatal(r)
	}
	if r := s.call("rename", fields{"source": d + "/a/b/f", "target": d + "/g", "user": "0"}); r.code != "" {
		t.Fatal(r)
	}
	if r := at("remove", "/a", fields{"recursive": true, "user": "0"}); r.code != "" {
		t.Fatal(r)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	channel := s.open("watch", fields{"path": d, "user": nobody, "recursive": true})
	s.get(channel)
	os.MkdirAll(d+"/a/b", 0o755)
	os.WriteFile(d+"/a/b/f", []byte("x"), 0o644)
	os.Rename(d+"/a/b/f", d+"/g")
	os.Remove(d + "/g")
	s.write(d+"/api", nil, nil)
	s.write(d+"/api", nil, nil)
	os.WriteFile(filepath.Join(d, "last"), nil, 0o644)
	var got []string
	for !slices.Contains(got, "create /last") {
		var item struct{ Events []watchEvent }
		if f := s.get(channel); json.Unmarshal(f.payload, &item) != nil || f.kind != kindItem {
			t.Fatalf("%d %s", f.kind, f.payload)
		}
		for _, event := range item.Events {
			got = append(got, event.Type+" "+strings.TrimPrefix(event.Path, d))
		}
	}
	for _, want := range []string{"create /a", "create /a/b", "create /g", "remove /g", "create /api", "chmod /api", "write /api"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %v", want, got)
		}
	}
	for _, event := range got {
		if strings.Contains(event, tempPrefix) {
			t.Error(event)
		}
	}
	s.send(kindCancel, channel, nil)
	s.finish(channel)
	if r := s.call("watch", fields{"path": d + "/none", "user": nobody}); r.code != codeMissing {
		t.Fatal(r)
	}
}
