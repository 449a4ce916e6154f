package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestMountRefusesWhatItMustNotMount(t *testing.T) {
	m := &machine{}
	target := filepath.Join(t.TempDir(), "target")
	for _, source := range []string{"", "/", "/etc", volumesDirectory, volumesDirectory + "..", volumesDirectory + "a/b", "volumes/a"} {
		expectInvalid(t, m, source, target)
	}
	for _, target := range []string{"", "/", "relative", "/a/../b", "/a/", "//a"} {
		expectInvalid(t, m, volumesDirectory+"a", target)
	}
	if _, err := os.Stat(target); !os.IsNotExist(err) {
		t.Fatal("a refused request made its target")
	}
}

func expectInvalid(t *testing.T, m *machine, source, target string) {
	t.Helper()
	_, err := m.mount(&mountRequest{Source: source, Target: target})
	var f *failure
	if !errors.As(err, &f) || f.Code != codeInvalid {
		t.Errorf("mount of %q at %q: %v", source, target, err)
	}
}

func TestMountSaysWhatIsInTheWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := (&machine{}).mount(&mountRequest{Source: volumesDirectory + "a", Target: file})
	var f *failure
	if !errors.As(err, &f) || f.Code != codeNoDirectory {
		t.Errorf("mount at a file: %v", err)
	}
}

func TestMountIsDoneOnce(t *testing.T) {
	m := &machine{binds: binds{made: map[string]string{"/data": volumesDirectory + "a"}}}
	if _, err := m.mount(&mountRequest{Source: volumesDirectory + "a", Target: "/data"}); err != nil {
		t.Errorf("a repeated mount: %v", err)
	}
}
