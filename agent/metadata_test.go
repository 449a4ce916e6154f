package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func metadataOf(r reply) string {
	info, _ := r.result["info"].(map[string]any)
	return fmt.Sprint(info["metadata"])
}

func TestMetadataBelongsToTheFile(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	stat := func(path string) string { return metadataOf(s.call("stat", fields{"path": path, "user": "0"})) }
	const noted = "map[author:somebody]"
	r := s.write(d+"/a", []byte("x"), fields{"metadata": fields{"author": "somebody"}})
	if metadataOf(r) != noted || stat(d+"/a") != noted {
		t.Fatal(r, stat(d+"/a"))
	}
	if r := s.call("rename", fields{"source": d + "/a", "target": d + "/b", "user": "0"}); metadataOf(r) != noted {
		t.Fatal(r)
	}
	os.Rename(d+"/b", d+"/c") // as a program would
	if stat(d+"/c") != noted {
		t.Fatal(stat(d + "/c"))
	}
	list := s.call("listdir", fields{"path": d, "user": "0"})
	if !strings.Contains(fmt.Sprint(list.items), noted) {
		t.Fatal(list.items)
	}
	s.write(d+"/c", []byte("new"), nil)
	if stat(d+"/c") != "<nil>" {
		t.Fatal("content that was replaced kept its metadata")
	}
}

func TestMetadataEndsWithTheFile(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	for i := range 50 { // file systems use numbers again soon
		path := fmt.Sprintf("%s/%d", d, i)
		if r := s.write(path, nil, fields{"metadata": fields{"n": "1"}}); r.code != "" {
			t.Fatal(r.code, r.result)
		}
		os.Remove(path)
		os.WriteFile(path, nil, 0o644)
		if got := metadataOf(s.call("stat", fields{"path": path, "user": "0"})); got != "<nil>" {
			t.Fatal(i, got)
		}
	}
}

func TestTooMuchMetadataIsRefusedAndNothingIsWritten(t *testing.T) {
	s, d := startAgent(t), openDirectory(t)
	r := s.write(d+"/a", []byte("x"), fields{"metadata": fields{"a": strings.Repeat("x", maxMetadataBytes)}})
	if r.code != codeInvalid || !strings.Contains(fmt.Sprint(r.result), "the limit is 4096") {
		t.Fatal(r.code, r.result)
	}
	if left, _ := os.ReadDir(d); len(left) != 0 {
		t.Fatal(left)
	}
}
