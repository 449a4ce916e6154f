package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// echoOnce answers one connection with all that it sent, after it half-closed.
func echoOnce(t *testing.T, listener net.Listener) {
	t.Cleanup(func() { listener.Close() })
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		data, _ := io.ReadAll(connection)
		connection.Write(data)
		connection.Close()
	}()
}

func TestDial(t *testing.T) {
	s := startAgent(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(filepath.Dir(s.run), "echo.sock")
	local, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	echoOnce(t, tcp)
	echoOnce(t, local)
	data := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	for _, f := range []fields{{"port": tcp.Addr().(*net.TCPAddr).Port}, {"path": socket}} {
		channel := s.open("dial", f)
		s.get(channel)
		s.give(channel, data)
		if r := s.finish(channel); !bytes.Equal(r.stdout, data) || r.code != "" {
			t.Fatal(len(r.stdout), r.code)
		}
	}
	for want, f := range map[string]fields{codeNotOpen: {"port": 1}, codeInvalid: {"port": 70000}} {
		if r := s.call("dial", f); r.code != want {
			t.Error(r)
		}
	}
	if r := s.call("dial", fields{"path": "/none"}); r.code != codeNotOpen {
		t.Error(r)
	}
}

// sudoCommandLine makes a `sudo` of this binary that talks to the agent under test.
func sudoCommandLine(t *testing.T, s *server) (path string, env fields) {
	directory := filepath.Dir(s.run)
	path = filepath.Join(directory, "sudo")
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path, fields{"AGENT_UNDER_TEST": "1", "SKERRY_SUDO_SOCKET": s.run + "/sudo.sock"}
}

func TestSudo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("running commands as several users needs root")
	}
	s := startAgent(t)
	path, env := sudoCommandLine(t, s)
	run := func(script, user string) reply {
		return s.shell(strings.ReplaceAll(script, "sudo ", path+" "), fields{"env": env, "user": user})
	}
	run("echo in | sudo -u '#65534' -n sh -c 'id -u; cat; echo err >&2; exit 7'", "0").expect(t, "65534\nin\n", "err\n", 7)
	run("sudo A=b sh -c 'echo $A $SUDO_UID $HOME'", "0").expect(t, "b 0 /root\n", "", 0)
	run("sudo sh -c 'kill -9 $$'", "0").expect(t, "", "", 137)
	run("sudo sleep 100 & x=$!; sleep 0.5; kill -TERM $x; wait $x", "0").expect(t, "", "", 143)
	if r := run("sudo id", nobody); r.result["exit_code"] != 1.0 || !strings.Contains(string(r.stderr), "not in the sudo group") {
		t.Fatalf("%s %v", r.stderr, r.result)
	}
	r := s.shell(path+" sh -c 'tty; stty size; exit 3'", fields{"env": env, "pty": fields{"cols": 77, "rows": 11}})
	if r.result["exit_code"] != 3.0 || !strings.Contains(string(r.stdout), "11 77") {
		t.Fatalf("%q %v", r.stdout, r.result)
	}
}

func TestSudoTrustsTheKernelAndNotTheCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s := startAgent(t)
	path, _ := sudoCommandLine(t, s)
	r := s.call("exec", fields{"argv": []string{path, s.run + "/sudo.sock"}, "user": nobody, "env": fields{"AGENT_UNDER_TEST": "liar"}})
	r.expect(t, "operation not permitted\n", "", 0)
}

// lie asks for elevation with credentials of root, which only root may send.
func lie(path string) {
	socket, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		socket.Read(make([]byte, 1))
		control := append(syscall.UnixCredentials(&syscall.Ucred{Pid: 1}), syscall.UnixRights(0, 1, 2)...)
		_, _, err = socket.WriteMsgUnix([]byte{0, 0, 0, 2}, control, nil)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		fmt.Println(errno)
	}
}
