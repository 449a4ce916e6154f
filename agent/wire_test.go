package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

func frameBytes(kind byte, channel uint32, payload []byte) []byte {
	raw := make([]byte, headerSize, headerSize+len(payload))
	putHeader(raw, kind, channel, len(payload))
	return append(raw, payload...)
}

func TestFramesArriveAsTheyWereSent(t *testing.T) {
	long := bytes.Repeat([]byte("x"), maxPayload)
	source := bytes.NewReader(append(frameBytes(kindOpen, 7, []byte("{}")), frameBytes(kindData, 7, long)...))
	h, c, err := readFrame(source)
	if err != nil || h != (header{kindOpen, 7, 2}) || string(c.data) != "{}" {
		t.Fatal(h, c, err)
	}
	h, c, err = readFrame(source)
	if err != nil || h.size != maxPayload || !bytes.Equal(c.data, long) {
		t.Fatal(h, err)
	}
	c.free()
	if _, _, err = readFrame(source); err != io.EOF {
		t.Fatal(err)
	}
}

func TestBadFramesAreViolations(t *testing.T) {
	tooLong := frameBytes(kindData, 1, nil)
	binary.BigEndian.PutUint32(tooLong, maxPayload+headerSize-4+1)
	tooShort := frameBytes(kindData, 1, nil)
	binary.BigEndian.PutUint32(tooShort, headerSize-4-1)
	for name, raw := range map[string][]byte{
		"length beyond the limit": tooLong,
		"length below a header":   tooShort,
		"kind of the agent's":     frameBytes(kindResult, 1, []byte("{}")),
		"unknown kind":            frameBytes(0, 1, nil),
		"request on channel 0":    frameBytes(kindOpen, 0, []byte("{}")),
		"CREDIT of 3 bytes":       frameBytes(kindCredit, 1, []byte("abc")),
		"END with a payload":      frameBytes(kindEnd, 1, []byte("a")),
		"WELCOME on a channel":    frameBytes(kindWelcome, 1, []byte("{}")),
		"CANCEL with a payload":   frameBytes(kindCancel, 1, []byte("a")),
	} {
		if _, _, err := readFrame(bytes.NewReader(raw)); !errors.Is(err, errProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(frameBytes(kindOpen, 1, []byte(`{"op":"ping"}`)))
	f.Add(frameBytes(kindCredit, 9, []byte{0, 0, 1, 0}))
	f.Add([]byte{0, 4, 0, 5, 2, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		source := bytes.NewReader(raw)
		for {
			before := source.Len()
			h, c, err := readFrame(source)
			if err != nil {
				return
			}
			if h.size > maxPayload || len(c.data) != h.size || before-source.Len() != headerSize+h.size {
				t.Fatal(h, len(c.data))
			}
			c.free()
		}
	})
}
