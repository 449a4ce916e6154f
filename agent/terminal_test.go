package main

import "testing"

func TestSessionOfAStatLine(t *testing.T) {
	for line, want := range map[string]int{
		"7 (sh) S 1 7 5 0 -1": 5, "7 (a) b (c)) R 1 2 3 4": 3, "": 0, "7 (sh": 0, "7 (sh) S": 0,
	} {
		if got := parseSession(line); got != want {
			t.Errorf("%q: %d", line, got)
		}
	}
}
