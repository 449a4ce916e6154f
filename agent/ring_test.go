package main

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func fill(r *ring, data []byte, needed func() int64) int {
	written := 0
	for written < len(data) {
		region := r.room(needed())
		if region == nil {
			break
		}
		n := copy(region, data[written:])
		r.commit(n)
		written += n
	}
	return written
}

func contents(r *ring) []byte {
	var all []byte
	for at := r.start; at < r.end; {
		piece := r.at(at)
		all = append(all, piece...)
		at += int64(len(piece))
	}
	return all
}

func TestRingHoldsTheNewestMebibyteWhenNobodyReads(t *testing.T) {
	r := &ring{}
	var all []byte
	random := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		piece := make([]byte, 1+random.IntN(20_000))
		for i := range piece {
			piece[i] = byte(random.Uint32())
		}
		all = append(all, piece...)
		if fill(r, piece, func() int64 { return r.end }) != len(piece) {
			t.Fatal("the ring refused output although nobody needs the old")
		}
		if held := contents(r); !bytes.Equal(held, all[r.start:]) {
			t.Fatalf("wrong contents at %d", len(all))
		}
		if r.end-r.start < min(int64(len(all)), ringHeld) {
			t.Fatalf("only %d bytes held of %d", r.end-r.start, len(all))
		}
	}
	if len(r.memory) != ringHeld+ringSlack {
		t.Fatal(len(r.memory))
	}
}

func TestRingKeepsWhatAReaderNeeds(t *testing.T) {
	r := &ring{}
	written := fill(r, make([]byte, 3<<20), func() int64 { return 100 })
	if r.start > 100 || written != ringHeld+ringSlack+100 || r.room(100) != nil {
		t.Fatal(r.start, written)
	}
}

func TestRingIsSmallForSmallOutput(t *testing.T) {
	r := &ring{}
	fill(r, []byte("hello"), func() int64 { return 0 })
	if len(r.memory) != ringFirst || string(contents(r)) != "hello" {
		t.Fatal(len(r.memory))
	}
}
