package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Frame kinds; see docs/reference/agent-protocol.md.
const (
	kindOpen    = 1
	kindData    = 2
	kindData2   = 3
	kindItem    = 4
	kindEnd     = 5
	kindResult  = 6
	kindError   = 7
	kindCancel  = 8
	kindCredit  = 9
	kindHello   = 10
	kindWelcome = 11
)

const (
	headerSize    = 9       // bytes: u32 length, u8 kind, u32 channel
	maxPayload    = 262_144 // bytes in one frame, at most
	initialCredit = 1 << 20 // bytes of DATA and DATA2 that may be sent on a new channel
	smallPayload  = 8 << 10 // payloads up to this are allocated by size; larger ones use pooled buffers
)

var errProtocol = errors.New("protocol violation")

// header is the fixed part of a frame.
type header struct {
	kind    byte
	channel uint32
	size    int // bytes of payload
}

// parseHeader checks everything about a frame from the server that can be checked without its payload.
func parseHeader(raw []byte) (header, error) {
	length := binary.BigEndian.Uint32(raw)
	h := header{kind: raw[4], channel: binary.BigEndian.Uint32(raw[5:])}
	if length < headerSize-4 || length > headerSize-4+maxPayload {
		return h, fmt.Errorf("%w: frame length %d", errProtocol, length)
	}
	h.size = int(length) - (headerSize - 4)
	switch h.kind {
	case kindOpen, kindData:
	case kindEnd, kindCancel:
		if h.size != 0 {
			return h, fmt.Errorf("%w: kind %d with a payload", errProtocol, h.kind)
		}
	case kindCredit:
		if h.size != 4 {
			return h, fmt.Errorf("%w: CREDIT of %d bytes", errProtocol, h.size)
		}
	case kindWelcome:
		if h.channel != 0 {
			return h, fmt.Errorf("%w: WELCOME on channel %d", errProtocol, h.channel)
		}
		return h, nil
	default:
		return h, fmt.Errorf("%w: kind %d from the server", errProtocol, h.kind)
	}
	if h.channel == 0 {
		return h, fmt.Errorf("%w: kind %d on channel 0", errProtocol, h.kind)
	}
	return h, nil
}

// putHeader writes the header of a frame with `size` bytes of payload into raw.
func putHeader(raw []byte, kind byte, channel uint32, size int) {
	binary.BigEndian.PutUint32(raw, uint32(size+headerSize-4))
	raw[4] = kind
	binary.BigEndian.PutUint32(raw[5:], channel)
}

// buffer is room for one frame of the largest size: payload is read to its place behind the header and goes out in one write.
type buffer [headerSize + maxPayload]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func newBuffer() *buffer          { return buffers.Get().(*buffer) }
func (b *buffer) payload() []byte { return b[headerSize:] }
func (b *buffer) free()           { buffers.Put(b) }

// chunk is a received payload. free returns its memory; the data must not be used afterwards.
type chunk struct {
	data   []byte
	pooled *buffer
}

func (c chunk) free() {
	if c.pooled != nil {
		c.pooled.free()
	}
}

// readFrame reads one frame from the server.
func readFrame(source io.Reader) (header, chunk, error) {
	var raw [headerSize]byte
	if _, err := io.ReadFull(source, raw[:]); err != nil {
		return header{}, chunk{}, err
	}
	h, err := parseHeader(raw[:])
	if err != nil || h.size == 0 {
		return h, chunk{}, err
	}
	var c chunk
	if h.size <= smallPayload {
		c.data = make([]byte, h.size)
	} else {
		c.pooled = newBuffer()
		c.data = c.pooled[:h.size]
	}
	if _, err := io.ReadFull(source, c.data); err != nil {
		c.free()
		return h, chunk{}, err
	}
	return h, c, nil
}
