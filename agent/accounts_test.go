package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func testAccounts(t *testing.T) *accounts {
	directory := t.TempDir()
	passwd := "root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken:x\nuser:x:1000:1000:,,,:/home/user:\n\nodd:x:-5:3::/:/bin/sh\n" +
		"12:x:77:78::relative:/bin/sh\n"
	group := "root:x:0:\nsudo:x:27:user,other\nuser:x:1000:\nbad:x:y:user\ndocker:x:99:someuser,user\n"
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &accounts{directory: directory, files: map[string]*accountFile{}}
}

func TestUserByNameAndByID(t *testing.T) {
	a := testAccounts(t)
	for _, name := range []string{"user", "1000"} {
		u, err := a.user(name)
		if err != nil || u.uid != 1000 || u.home != "/home/user" || u.shell != "/bin/sh" || !slices.Equal(u.groups, []uint32{1000, 27, 99}) {
			t.Fatal(u, err)
		}
		if !a.inGroup(u, "sudo") || a.inGroup(u, "root") || a.inGroup(u, "none") {
			t.Fatal("groups")
		}
	}
	if u, err := a.user("12"); err != nil || u.uid != 77 || u.home != "/" { // a name of digits comes first, as in chown(1)
		t.Fatal(u, err)
	}
	if u, err := a.user("4242"); err != nil || u.uid != 4242 || u.gid != 4242 || u.home != "/" {
		t.Fatal(u, err)
	}
	for _, name := range []string{"", "nobody-here", "odd", "-1", "4294967295", "broken"} {
		if u, err := a.user(name); err == nil {
			t.Errorf("%q is %v", name, u)
		}
	}
}

func TestAccountFilesAreReadAnew(t *testing.T) {
	a := testAccounts(t)
	if a.nameOf("passwd", 1000) != "user" || a.nameOf("group", 27) != "sudo" || a.nameOf("passwd", 5) != "5" {
		t.Fatal("names")
	}
	path := filepath.Join(a.directory, "passwd")
	if err := os.WriteFile(path, []byte("other:x:1000:1000::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Chtimes(path, time.Now(), time.Now().Add(time.Hour))
	if a.nameOf("passwd", 1000) != "other" {
		t.Fatal("stale")
	}
}

func TestPlacesOfPaths(t *testing.T) {
	u := &account{home: "/home/user"}
	for path, want := range map[string]string{
		"/a/b": "/a/b", "~": "/home/user", "~/x": "/home/user/x", "x/y": "/home/user/x/y", "~other": "/home/user/~other",
	} {
		if got, err := u.place(path); err != nil || got != want {
			t.Errorf("%s: %s %v", path, got, err)
		}
	}
	for _, path := range []string{"", "/a\x00b", string(make([]byte, 5000))} {
		if _, err := u.place(path); asFailure(err).Code != codeInvalidPath {
			t.Errorf("%.10q: %v", path, err)
		}
	}
}
