package main

import (
	"io"
	"net"
	"testing"
)

// testChannel is a channel whose frames go nowhere.
func testChannel(t *testing.T) *channel {
	ours, theirs := net.Pipe()
	go io.Copy(io.Discard, theirs)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return newChannel(&link{socket: ours, channels: map[uint32]*channel{}}, 1)
}

func TestSendingWaitsForCredit(t *testing.T) {
	ch := testChannel(t)
	if n, err := ch.acquire(2 << 20); n != initialCredit || err != nil {
		t.Fatal(n, err)
	}
	got := make(chan int)
	go func() {
		n, _ := ch.acquire(100)
		got <- n
	}()
	ch.grant(7)
	if n := <-got; n != 7 {
		t.Fatal(n)
	}
	ch.refund(3)
	if n, _ := ch.acquire(100); n != 3 {
		t.Fatal(n)
	}
	go func() {
		_, err := ch.acquire(1)
		if err == errStopped {
			got <- 0
		}
	}()
	ch.stop()
	<-got
}

func TestReceivingEnforcesCredit(t *testing.T) {
	ch := testChannel(t)
	piece := chunk{data: make([]byte, 256<<10)}
	for range 4 {
		if !ch.feed(piece) {
			t.Fatal("refused within the credit")
		}
	}
	c, err := ch.receive()
	if err != nil || len(c.data) != 256<<10 {
		t.Fatal(err)
	}
	if ch.feed(chunk{data: []byte("x")}) {
		t.Fatal("accepted beyond the credit")
	}
	ch = testChannel(t)
	ch.feed(piece)
	ch.receive()
	ch.took(256 << 10)
	for range 4 {
		if !ch.feed(piece) {
			t.Fatal("granted credit is not counted")
		}
	}
	ch.end()
	if ch.feed(chunk{data: []byte("x")}) {
		t.Fatal("accepted after END")
	}
	for range 4 {
		ch.receive()
	}
	if _, err := ch.receive(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestStoppedChannelsCallBackOnce(t *testing.T) {
	ch := testChannel(t)
	calls := 0
	ch.whenStopped(func() { calls++ })
	ch.stop()
	ch.stop()
	ch.whenStopped(func() { calls++ })
	if calls != 2 {
		t.Fatal(calls)
	}
	if _, err := ch.receive(); err != errStopped {
		t.Fatal(err)
	}
}
