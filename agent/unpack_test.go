package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"syscall"
	"testing"
)

// packed is a tar of regular files ("name": content), directories ("name/"), links ("name>": target) and hard links ("name=": target).
func packed(t *testing.T, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		name, content := entries[i], entries[i+1]
		h := &tar.Header{Name: name, Mode: 0o640, Size: int64(len(content)), Typeflag: tar.TypeReg}
		switch name[len(name)-1] {
		case '/':
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o700, 0
		case '=':
			h.Name, h.Typeflag, h.Linkname, h.Size = name[:len(name)-1], tar.TypeLink, content, 0
		case '>':
			h.Name, h.Typeflag, h.Linkname, h.Size = name[:len(name)-1], tar.TypeSymlink, content, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte(content))
		}
	}
	w.Close()
	return b.Bytes()
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func contentOf(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func TestUnpackPutsFilesAsCopyDoes(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	archive := packed(t, "src/", "", "src/a.txt", "A", "src/b.py", "B", "src/deep/c.txt", "C", "src/link>", "a.txt", "one.txt", "1")
	cases := []struct{ source, target, path, content string }{
		{"src", d + "/folder", d + "/folder/deep/c.txt", "C"},
		{"src/", d + "/folder2", d + "/folder2/link", "A"},
		{"src/*", d + "/matched", d + "/matched/a.txt", "A"},
		{"src/*.py", d + "/python", d + "/python/b.py", "B"},
		{"one.txt", d + "/renamed.txt", d + "/renamed.txt", "1"},
		{"one.txt", d + "/into/", d + "/into/one.txt", "1"},
		{"./one.txt", d + "/folder", d + "/folder/one.txt", "1"},
		{".", d + "/all", d + "/all/src/a.txt", "A"},
	}
	for i, c := range cases {
		data := archive
		if i%2 == 1 {
			data = zipped(archive)
		}
		r := s.upload("unpack", fields{"path": c.target, "source": c.source, "user": "0", "owner": nobody}, data)
		if r.code != "" || contentOf(c.path) != c.content {
			t.Fatal(c, r.code, r.result, contentOf(c.path))
		}
		var status syscall.Stat_t
		if syscall.Lstat(c.path, &status); status.Uid != 65534 {
			t.Fatal(c, status.Uid)
		}
	}
	if _, err := os.Stat(d + "/python/a.txt"); err == nil {
		t.Fatal("what does not match was unpacked")
	}
	if r := s.upload("unpack", fields{"path": d + "/m", "source": "one.txt", "user": "0", "mode": 0o755}, archive); r.code != "" {
		t.Fatal(r.result)
	}
	if info, _ := os.Stat(d + "/m"); info.Mode().Perm() != 0o755 {
		t.Fatal(info.Mode())
	}
}

func TestUnpackRefusesWhatIsNoArchive(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	broken := zipped(packed(t, "a", string(bytes.Repeat([]byte("x"), 100_000))))
	for _, data := range [][]byte{bytes.Repeat([]byte("no archive"), 1000), broken[:len(broken)/2], {0x1f, 0x8b, 0}} {
		if r := s.upload("unpack", fields{"path": d + "/x", "source": ".", "user": "0"}, data); r.code != codeInvalid {
			t.Fatal(r.code, r.result)
		}
	}
	if r := s.upload("unpack", fields{"path": d + "/x", "source": "nosuch", "user": "0"}, packed(t, "a", "A")); r.result["entries"] != 0.0 {
		t.Fatal(r.result)
	}
	up := packed(t, "../escaped", "x", "src/../../escaped", "x")
	if r := s.upload("unpack", fields{"path": d + "/y", "source": ".", "user": "0"}, up); r.result["entries"] != 0.0 {
		t.Fatal(r.result)
	}
}

func TestUnpackKeepsHardLinksAndModesOfDirectories(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	archive := packed(t, "src/", "", "src/private/", "", "src/a", "A", "src/private/twin=", "src/a", "outside", "x")
	if r := s.upload("unpack", fields{"path": d + "/to", "source": "src", "user": "0"}, archive); r.code != "" {
		t.Fatal(r.code, r.result)
	}
	if contentOf(d+"/to/private/twin") != "A" {
		t.Fatal(contentOf(d + "/to/private/twin"))
	}
	if info, _ := os.Stat(d + "/to/private"); info.Mode().Perm() != 0o700 {
		t.Fatal(info.Mode())
	}
	foreign := packed(t, "outside", "x", "src/", "", "src/link=", "outside")
	if r := s.upload("unpack", fields{"path": d + "/to", "source": "src", "user": "0"}, foreign); r.code != codeInvalid {
		t.Fatal(r.code, r.result)
	}
}
