package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestMain lets the test binary be the agent, so that the tests run the real program in a process of its own.
func TestMain(m *testing.M) {
	switch os.Getenv("AGENT_UNDER_TEST") {
	case "liar":
		lie(os.Args[1])
		return
	case "1":
		os.Unsetenv("AGENT_UNDER_TEST")
		main()
		return
	}
	os.Exit(m.Run())
}

// server is a scripted peer of an agent: one connection, and a patience of 20 s for everything.
type server struct {
	t        *testing.T
	listener *net.UnixListener
	socket   *net.UnixConn
	hello    map[string]any
	next     uint32
	waiting  map[uint32][]received
	run      string
}

type received struct {
	kind    byte
	payload []byte
}

// reply is all that came on a channel.
type reply struct {
	items          []map[string]any
	stdout, stderr []byte
	result         map[string]any
	code           string // of an ERROR
}

func startAgent(t *testing.T) *server {
	t.Helper()
	directory, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	s := &server{t: t, run: filepath.Join(directory, "run")}
	link := filepath.Join(directory, "link")
	os.Mkdir(link, 0o700)
	os.Chmod(directory, 0o755)
	os.WriteFile(filepath.Join(link, "token"), []byte("secret\n"), 0o600)
	if s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(link, "link.sock"), Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.listener.Close() })
	command := exec.Command(os.Args[0], "-link", link, "-run", s.run)
	command.Env = append(os.Environ(), "AGENT_UNDER_TEST=1")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { command.Process.Kill(); command.Wait() })
	s.accept()
	return s
}

// accept takes the agent's next connection and welcomes it.
func (s *server) accept() {
	s.t.Helper()
	s.listener.SetDeadline(time.Now().Add(20 * time.Second))
	socket, err := s.listener.AcceptUnix()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { socket.Close() })
	s.socket, s.waiting = socket, map[uint32][]received{}
	kind, channel, payload, err := s.read()
	if err != nil || kind != kindHello || channel != 0 || json.Unmarshal(payload, &s.hello) != nil {
		s.t.Fatal(kind, channel, err)
	}
	s.send(kindWelcome, 0, []byte("{}"))
}

func (s *server) send(kind byte, channel uint32, payload []byte) {
	s.socket.SetWriteDeadline(time.Now().Add(20 * time.Second))
	if _, err := s.socket.Write(frameBytes(kind, channel, payload)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) read() (kind byte, channel uint32, payload []byte, err error) {
	s.socket.SetReadDeadline(time.Now().Add(20 * time.Second))
	raw := make([]byte, headerSize)
	if _, err = io.ReadFull(s.socket, raw); err != nil {
		return
	}
	payload = make([]byte, binary.BigEndian.Uint32(raw)-(headerSize-4))
	_, err = io.ReadFull(s.socket, payload)
	return raw[4], binary.BigEndian.Uint32(raw[5:]), payload, err
}

type fields map[string]any

func (s *server) open(op string, f fields) uint32 {
	s.next++
	request := fields{"op": op}
	for name, value := range f {
		request[name] = value
	}
	text, _ := json.Marshal(request)
	s.send(kindOpen, s.next, text)
	return s.next
}

// get returns the next frame of a channel.
func (s *server) get(channel uint32) received {
	s.t.Helper()
	for len(s.waiting[channel]) == 0 {
		kind, at, payload, err := s.read()
		if err != nil {
			s.t.Fatal(err)
		}
		s.waiting[at] = append(s.waiting[at], received{kind, payload})
	}
	first := s.waiting[channel][0]
	s.waiting[channel] = s.waiting[channel][1:]
	return first
}

// finish collects a channel up to its RESULT or ERROR, granting credit for what comes.
func (s *server) finish(channel uint32) reply {
	s.t.Helper()
	var r reply
	for {
		f := s.get(channel)
		switch f.kind {
		case kindItem:
			var item map[string]any
			json.Unmarshal(f.payload, &item)
			r.items = append(r.items, item)
		case kindData:
			r.stdout = append(r.stdout, f.payload...)
		case kindData2:
			r.stderr = append(r.stderr, f.payload...)
		case kindResult:
			if err := json.Unmarshal(f.payload, &r.result); err != nil {
				s.t.Fatal(err)
			}
			return r
		case kindError:
			var e failure
			json.Unmarshal(f.payload, &e)
			r.code, r.result = e.Code, map[string]any{"message": e.Message}
			return r
		}
		if f.kind == kindData || f.kind == kindData2 {
			s.send(kindCredit, channel, binary.BigEndian.AppendUint32(nil, uint32(len(f.payload))))
		}
	}
}

func (s *server) call(op string, f fields) reply {
	s.t.Helper()
	return s.finish(s.open(op, f))
}

// give sends data within the credit, then END.
func (s *server) give(channel uint32, data []byte) {
	s.t.Helper()
	credit := initialCredit
	for len(data) > 0 {
		for credit == 0 {
			f := s.get(channel)
			if f.kind != kindCredit {
				s.waiting[channel] = append([]received{f}, s.waiting[channel]...)
				return
			}
			credit += int(binary.BigEndian.Uint32(f.payload))
		}
		n := min(len(data), credit, maxPayload)
		s.send(kindData, channel, data[:n])
		data, credit = data[n:], credit-n
	}
	s.send(kindEnd, channel, nil)
}

func (s *server) write(path string, data []byte, f fields) reply {
	s.t.Helper()
	request := fields{"path": path, "user": "0"}
	for name, value := range f {
		request[name] = value
	}
	return s.upload("write", request, data)
}

// upload makes a request that data follows.
func (s *server) upload(op string, request fields, data []byte) reply {
	s.t.Helper()
	channel := s.open(op, request)
	s.give(channel, data)
	return s.finish(channel)
}

func (s *server) shell(script string, f fields) reply {
	s.t.Helper()
	request := fields{"argv": []string{"/bin/sh", "-c", script}, "user": "0"}
	for name, value := range f {
		request[name] = value
	}
	return s.call("exec", request)
}

// started opens a process and returns its channel and pid.
func (s *server) started(f fields) (uint32, int) {
	s.t.Helper()
	if f["user"] == nil {
		f["user"] = "0"
	}
	channel := s.open("exec", f)
	first := s.get(channel)
	var item struct{ Started processInfo }
	if first.kind != kindItem || json.Unmarshal(first.payload, &item) != nil {
		s.t.Fatalf("kind %d: %s", first.kind, first.payload)
	}
	return channel, item.Started.PID
}

func (r reply) expect(t *testing.T, stdout, stderr string, code float64) {
	t.Helper()
	if string(r.stdout) != stdout || string(r.stderr) != stderr || r.result["exit_code"] != code {
		t.Fatalf("%q %q %v %s", r.stdout, r.stderr, r.result, r.code)
	}
}

func zeros(n int) []byte { return bytes.Repeat([]byte{0}, n) }
