package main

import "testing"

func TestPaceAfterQuietIsEagerThenSlowsDown(t *testing.T) {
	var p pace
	if wait := p.next(true, true); wait != firstBackoff {
		t.Fatal(wait)
	}
	for range eagerTries {
		if wait := p.next(false, false); wait != firstBackoff {
			t.Fatal(wait)
		}
	}
	for range 20 {
		p.next(false, false)
	}
	if wait := p.next(false, false); wait < lastBackoff/2 || wait > 2*lastBackoff {
		t.Fatal(wait)
	}
	if wait := p.next(true, false); wait != 0 {
		t.Fatal(wait)
	}
}
