package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

// listed is what a tar holds: names with the kind and size of each.
func listed(t *testing.T, data []byte, prefix string) string {
	t.Helper()
	var found []string
	for archive := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return strings.Join(found, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(archive)
		name := strings.TrimPrefix("/"+strings.TrimPrefix(h.Name, "/"), prefix)
		found = append(found, fmt.Sprintf("%s=%c%s%s", name, h.Typeflag, content, h.Linkname))
	}
}

func TestPackTakesWhatMatches(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	os.MkdirAll(d+"/src/deep", 0o755)
	os.WriteFile(d+"/src/a.txt", []byte("A"), 0o644)
	os.WriteFile(d+"/src/deep/b", []byte("B"), 0o600)
	os.Symlink("a.txt", d+"/src/link")
	os.Symlink("src", d+"/other")
	syscall.Mkfifo(d+"/src/fifo", 0o644)
	for pattern, expected := range map[string]string{
		"/src":        "/src=5 /src/a.txt=0A /src/deep=5 /src/deep/b=0B /src/link=2a.txt",
		"/src/*.txt":  "/src/a.txt=0A",
		"/src/link":   "/src/link=0A", // it stands for what it leads to
		"/other":      "/other=5 /other/a.txt=0A /other/deep=5 /other/deep/b=0B /other/link=2a.txt",
		"/src/./deep": "/src/deep=5 /src/deep/b=0B",
		"/nosuch*":    "",
	} {
		r := s.call("pack", fields{"path": d + pattern, "user": "0"})
		if r.code != "" || strings.ReplaceAll(listed(t, r.stdout, d), "/=5", "=5") != expected {
			t.Fatal(pattern, r.code, r.result, listed(t, r.stdout, d))
		}
		if n := len(strings.Fields(expected)); r.result["entries"] != float64(n) {
			t.Fatal(pattern, r.result)
		}
	}
	if r := s.call("pack", fields{"path": d + "/[", "user": "0"}); r.code != codeInvalid {
		t.Fatal(r.code, r.result)
	}
}

func TestWhatIsPackedIsUnpackedAgain(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	os.MkdirAll(d+"/from", 0o755)
	large := bytes.Repeat([]byte("0123456789"), 300_000) // more than the credit of a channel
	os.WriteFile(d+"/from/large", large, 0o750)
	r := s.call("pack", fields{"path": d + "/from", "user": "0"})
	if r.code != "" {
		t.Fatal(r.code, r.result)
	}
	if u := s.upload("unpack", fields{"path": d + "/to/", "source": d + "/from", "user": "0"}, r.stdout); u.code != "" {
		t.Fatal(u.code, u.result)
	}
	info, err := os.Stat(d + "/to/large")
	if err != nil || info.Mode().Perm() != 0o750 || contentOf(d+"/to/large") != string(large) {
		t.Fatal(err, info)
	}
}
