package main

import (
	"os"
	"path/filepath"
	"testing"
)

// machineWith is a machine whose /etc has these files.
func machineWith(t *testing.T, files map[string]string) *machine {
	etc := t.TempDir()
	for name, text := range files {
		os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644)
	}
	return &machine{etc: etc}
}

func (m *machine) expectFiles(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if found, _ := os.ReadFile(filepath.Join(m.etc, name)); string(found) != text {
			t.Errorf("%s: %q", name, found)
		}
	}
	if entries, _ := os.ReadDir(m.etc); len(entries) != len(files) {
		t.Error(entries)
	}
}

func TestTheHostNameIsChangedWhereItIsOurs(t *testing.T) {
	m := machineWith(t, map[string]string{"hostname": "sandbox\n", "hosts": "127.0.1.1 sandbox\n127.0.0.1 localhost\n127.0.1.1 mine sandbox\n"})
	for _, m.hostname = range []string{"one", "one", "two"} {
		if err := m.nameFiles(); err != nil {
			t.Fatal(err)
		}
	}
	m.expectFiles(t, map[string]string{"hostname": "two\n", "hosts": "127.0.1.1 two\n127.0.0.1 localhost\n127.0.1.1 mine sandbox\n"})
	theirs := map[string]string{"hosts": "# nothing of ours\n127.0.1.1 theirs"}
	m = machineWith(t, theirs)
	m.hostname = "three"
	if err := m.nameFiles(); err != nil {
		t.Fatal(err)
	}
	m.expectFiles(t, theirs)
}

func TestAMachineIDIsRenewedWhereThereIsOne(t *testing.T) {
	m := machineWith(t, map[string]string{"machine-id": "0\n"})
	seen := map[string]bool{}
	for _, seed := range []string{"a", "b"} {
		if err := m.renewMachineID(seed); err != nil {
			t.Fatal(err)
		}
		id, _ := os.ReadFile(filepath.Join(m.etc, "machine-id"))
		if len(id) != 33 || seen[string(id)] {
			t.Fatalf("%q", id)
		}
		seen[string(id)] = true
	}
	m = machineWith(t, nil)
	if err := m.renewMachineID("a"); err != nil {
		t.Fatal(err)
	}
	m.expectFiles(t, nil)
}
