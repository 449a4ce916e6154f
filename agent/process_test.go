package main

import (
	"bytes"
	"encoding/binary"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestHelloAndPing(t *testing.T) {
	s := startAgent(t)
	if s.hello["protocol"] != 1.0 || s.hello["token"] != "secret" || len(s.hello["instance"].(string)) != 32 {
		t.Fatal(s.hello)
	}
	if r := s.call("ping", nil); r.code != "" || len(r.result) != 0 {
		t.Fatal(r)
	}
}

func TestExecSeparatesItsStreams(t *testing.T) {
	s := startAgent(t)
	s.shell("echo out; echo err >&2; exit 3", nil).expect(t, "out\n", "err\n", 3)
	s.shell("echo $A $PWD", fields{"env": fields{"A": "b"}, "cwd": "/usr"}).expect(t, "b /usr\n", "", 0)
	s.shell("id -u; id -G; umask", fields{"user": "65534"}).expect(t, "65534\n65534\n0022\n", "", 0)
	s.shell("ls /proc/self/fd | wc -l", nil).expect(t, "4\n", "", 0)
	s.shell("kill -9 $$", nil).expect(t, "", "", 137)
}

func TestChildrenIgnoreNoSignals(t *testing.T) {
	s := startAgent(t)
	if r := s.shell("grep SigIgn /proc/self/status", nil); !strings.HasSuffix(strings.TrimSpace(string(r.stdout)), "0000000000000000") {
		t.Fatalf("%s", r.stdout)
	}
}

func TestWhatCannotStart(t *testing.T) {
	s := startAgent(t)
	for want, f := range map[string]fields{
		"no such command":          {"argv": []string{"no-such-command"}},
		"cwd '/no/dir' does not":   {"argv": []string{"true"}, "cwd": "/no/dir"},
		"may not execute it":       {"argv": []string{"/etc/passwd"}},
		"'/etc/passwd' is not a d": {"argv": []string{"true"}, "cwd": "/etc/passwd"},
	} {
		if f["user"] == nil {
			f["user"] = "0"
		}
		r := s.call("exec", f)
		if r.code != codeCannotStart || !strings.Contains(r.result["message"].(string), want) {
			t.Errorf("%s: %s %v", want, r.code, r.result)
		}
	}
	for _, f := range []fields{{"argv": []string{}}, {"argv": 5}, {"argv": []string{"a\x00b"}}, {"argv": []string{"a"}, "env": fields{"A=": "b"}}} {
		f["user"] = "0"
		if r := s.call("exec", f); r.code != codeInvalid {
			t.Errorf("%v: %v", f, r)
		}
	}
	if r := s.call("exec", fields{"argv": []string{"true"}, "user": "nobody-here"}); r.code != codeNoUser {
		t.Errorf("an unknown user: %s %v", r.code, r.result)
	}
}

func TestTimeoutKillsTheGroup(t *testing.T) {
	s := startAgent(t)
	r := s.shell("sleep 100 & sleep 100", fields{"timeout_ms": 100})
	if r.result["reason"] != "timeout" || r.result["exit_code"] != 137.0 {
		t.Fatal(r.result)
	}
}

func TestStdinAndSignal(t *testing.T) {
	s := startAgent(t)
	process, pid := s.started(fields{"argv": []string{"cat"}, "stdin": true})
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	input := s.open("stdin", fields{"pid": pid, "eof": true})
	s.give(input, data)
	done := s.finish(process)
	if !bytes.Equal(done.stdout, data) {
		t.Fatal(len(done.stdout))
	}
	if r := s.finish(input); r.code != "" {
		t.Fatal(r)
	}
	process, pid = s.started(fields{"argv": []string{"sleep", "100"}})
	if r := s.call("signal", fields{"pid": pid, "signal": 15, "group": true}); r.code != "" {
		t.Fatal(r)
	}
	if r := s.finish(process); r.result["signal"] != 15.0 || r.result["reason"] != "signaled" {
		t.Fatal(r.result)
	}
	if r := s.call("signal", fields{"pid": pid, "signal": 15}); r.code != codeNoProcess {
		t.Fatal(r)
	}
	if r := s.call("signal", fields{"pid": 1, "signal": 15}); r.code != codeNoProcess {
		t.Fatal(r)
	}
}

func TestTerminal(t *testing.T) {
	s := startAgent(t)
	process, pid := s.started(fields{"argv": []string{"sh"}, "pty": fields{"cols": 91, "rows": 22}, "env": fields{"PS1": ""}})
	input := s.open("stdin", fields{"pid": pid})
	s.give(input, []byte("stty -echo; stty size; test -t 0 && echo on $TERM; echo hi > /dev/tty\n"))
	s.finish(input)
	if r := s.call("resize", fields{"pid": pid, "cols": 40, "rows": 10}); r.code != "" {
		t.Fatal(r)
	}
	s.finish(func() uint32 { c := s.open("stdin", fields{"pid": pid, "eof": true}); s.give(c, nil); return c }())
	r := s.finish(process)
	out := string(r.stdout)
	if !strings.Contains(out, "on xterm-256color") || !strings.Contains(out, "hi\r\n") || r.result["exit_code"] != 0.0 {
		t.Fatalf("%q %v", out, r.result)
	}
}

func TestOutputWaitsForCreditAndIsReplayed(t *testing.T) {
	s := startAgent(t)
	process, pid := s.started(fields{"argv": []string{"sh", "-c", "head -c 6000000 /dev/zero; echo end"}})
	got := 0
	for got < initialCredit { // no credit is granted: no more than this may come
		f := s.get(process)
		got += len(f.payload)
	}
	if got != initialCredit {
		t.Fatal(got)
	}
	s.send(kindCredit, process, binary.BigEndian.AppendUint32(nil, 8<<20))
	r := s.finish(process)
	if got+len(r.stdout) != 6_000_004 || r.result["exit_code"] != 0.0 {
		t.Fatal(got+len(r.stdout), r.result)
	}
	r = s.call("attach", fields{"pid": pid, "stdout_offset": 5_999_990})
	r.expect(t, string(zeros(10))+"end\n", "", 0)
	r = s.call("attach", fields{"pid": pid})
	if len(r.stdout) < 1<<20 || len(r.items) != 1 {
		t.Fatal(len(r.stdout), r.items)
	}
	offset := r.items[0]["started"].(map[string]any)["stdout_offset"].(float64)
	if int(offset)+len(r.stdout) != 6_000_004 {
		t.Fatal(offset)
	}
	r = s.call("attach", fields{"pid": pid, "stdout_offset": 0})
	if dropped := r.items[1]["dropped"].(map[string]any); dropped["bytes"] != offset || dropped["stream"] != 1.0 {
		t.Fatal(r.items)
	}
	if r := s.call("attach", fields{"pid": 1}); r.code != codeNoProcess {
		t.Fatal(r)
	}
}

func TestProcessesOutliveTheConnection(t *testing.T) {
	s := startAgent(t)
	_, pid := s.started(fields{"argv": []string{"sh", "-c", "echo one; read x; echo $x; exit 4"}, "stdin": true, "tag": "kept"})
	s.socket.Close()
	s.accept()
	list := s.call("list", nil).result["processes"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["tag"] != "kept" || list[0].(map[string]any)["exit"] != nil {
		t.Fatal(list)
	}
	process := s.open("attach", fields{"pid": pid})
	input := s.open("stdin", fields{"pid": pid})
	s.give(input, []byte("two\n"))
	s.finish(process).expect(t, "one\ntwo\n", "", 4)
}

func TestDetachingLeavesTheProcess(t *testing.T) {
	s := startAgent(t)
	process, pid := s.started(fields{"argv": []string{"sleep", "0.2"}})
	s.send(kindCancel, process, nil)
	s.finish(process)
	s.call("attach", fields{"pid": pid}).expect(t, "", "", 0)
}

func TestEndIsReportedAlthoughADaemonKeepsThePipes(t *testing.T) {
	s := startAgent(t)
	r := s.shell("sleep 30 & echo $!", nil)
	if r.result["exit_code"] != 0.0 || len(r.stdout) == 0 {
		t.Fatal(r.result)
	}
	s.shell("kill "+strings.TrimSpace(string(r.stdout)), nil)
}

func TestManyAtOnce(t *testing.T) {
	s := startAgent(t)
	var channels []uint32
	for range 30 {
		channels = append(channels, s.open("exec", fields{"argv": []string{"sh", "-c", "exit 9"}, "user": "0"}))
	}
	for _, channel := range channels {
		s.finish(channel).expect(t, "", "", 9)
	}
}

func TestViolationsEndTheConnectionOnly(t *testing.T) {
	s := startAgent(t)
	for _, bad := range [][]byte{{255, 255, 255, 255, 2, 0, 0, 0, 1}, frameBytes(kindHello, 0, nil), frameBytes(kindOpen, 0, []byte("{}"))} {
		s.socket.Write(bad)
		if _, _, _, err := s.read(); err == nil {
			t.Fatal("the connection goes on")
		}
		s.accept()
	}
	channel := s.open("stdin", fields{"pid": 1})
	s.finish(channel)
	channel, pid := s.started(fields{"argv": []string{"sleep", "100"}, "stdin": true})
	input := s.open("stdin", fields{"pid": pid})
	for range 20 { // more than the credit: cat does not read
		if _, err := s.socket.Write(frameBytes(kindData, input, zeros(200_000))); err != nil {
			break
		}
	}
	for {
		if _, _, _, err := s.read(); err != nil {
			break
		}
	}
	s.accept()
	s.call("signal", fields{"pid": pid, "signal": int(syscall.SIGKILL)})
	_ = channel
}

func TestQuiesceAndReseed(t *testing.T) {
	s := startAgent(t)
	before := s.hello["instance"]
	if r := s.call("reseed", fields{"entropy": "AAECAw=="}); r.code != "" {
		t.Fatal(r)
	}
	started := time.Now()
	if r := s.call("quiesce", nil); r.code != "" {
		t.Fatal(r)
	}
	s.accept()
	if time.Since(started) < firstBackoff || s.hello["instance"] == before {
		t.Fatal(s.hello)
	}
	if r := s.call("configure", fields{"env": fields{"FROM": "configure"}}); r.code != "" {
		t.Fatal(r)
	}
	s.shell("echo $FROM", nil).expect(t, "configure\n", "", 0)
	if r := s.call("stats", nil); r.result["disk_total_bytes"].(float64) <= 0 || r.result["memory_bytes"].(float64) <= 0 {
		t.Fatal(r)
	}
	for op, f := range map[string]fields{"nonsense": nil, "reseed": {"entropy": "?"}, "configure": {"env": fields{"a=b": ""}}} {
		if r := s.call(op, f); r.code != codeInvalid {
			t.Errorf("%s: %v", op, r)
		}
	}
}

// leave has the agent be quiet, and takes its next connection. It returns what came on a channel before.
func (s *server) leave(channel uint32) []byte {
	s.t.Helper()
	if r := s.call("quiesce", nil); r.code != "" {
		s.t.Fatal(r)
	}
	var left []byte
	for _, f := range s.waiting[channel] {
		if f.kind == kindData {
			left = append(left, f.payload...)
		}
	}
	s.accept()
	return left
}

func TestOutputWaitsForItsReaderThroughAHold(t *testing.T) {
	s := startAgent(t)
	process, pid := s.started(fields{"argv": []string{"sh", "-c", "seq 1000000; echo end >&2"}})
	var all []byte
	for len(all) < 500_000 {
		all = append(all, s.get(process).payload...)
	}
	all = append(all, s.leave(process)...)
	time.Sleep(200 * time.Millisecond) // more than the ring holds could be written
	channel := s.open("attach", fields{"pid": pid, "stdout_offset": len(all), "stderr_offset": 0})
	r := s.finish(channel)
	all = append(all, r.stdout...)
	if len(r.items) != 1 || len(all) != 6_888_896 || !strings.HasSuffix(string(all), "\n1000000\n") || string(r.stderr) != "end\n" {
		t.Fatal(r.items, len(all), len(r.stderr))
	}
}

func TestACopyWaitsForNobody(t *testing.T) {
	s := startAgent(t)
	process, pid := s.started(fields{"argv": []string{"sh", "-c", "seq 1000000"}})
	s.get(process)
	s.leave(process)
	if r := s.call("reseed", fields{"entropy": "AAECAw=="}); r.code != "" {
		t.Fatal(r)
	}
	for ended := false; !ended; {
		for _, p := range s.call("list", nil).result["processes"].([]any) {
			p := p.(map[string]any)
			ended = ended || p["pid"] == float64(pid) && p["exit"] != nil
		}
	}
}

func TestAnInterruptedWriteSaysHowFarItCame(t *testing.T) {
	s := startAgent(t)
	_, pid := s.started(fields{"argv": []string{"sh", "-c", "read x; sleep 0.3; cat"}, "stdin": true})
	data := []byte(strings.Repeat("0123456789abcde\n", 50_000))
	input := s.open("stdin", fields{"pid": pid, "eof": true})
	s.send(kindData, input, data[:100_000])
	s.send(kindData, input, data[100_000:300_000])
	waiting := s.open("stdin", fields{"pid": pid})
	time.Sleep(50 * time.Millisecond)
	quiet := s.open("quiesce", nil)
	taken := int(s.finish(input).result["taken"].(float64))
	if r := s.finish(waiting); r.result["taken"] != 0.0 {
		t.Fatal(r)
	}
	s.finish(quiet)
	s.accept()
	if taken <= 0 || taken >= 300_000 {
		t.Fatal(taken)
	}
	s.upload("stdin", fields{"pid": pid, "eof": true}, data[taken:])
	if r := s.call("attach", fields{"pid": pid, "stdout_offset": 0, "stderr_offset": 0}); string(r.stdout) != string(data[16:]) {
		t.Fatal(len(r.stdout), taken)
	}
}

func TestTimeoutsStandStillWithTheSandbox(t *testing.T) {
	s := startAgent(t)
	process, _ := s.started(fields{"argv": []string{"sleep", "100"}, "timeout_ms": 200})
	if r := s.call("still", nil); r.code != "" {
		t.Fatal(r)
	}
	time.Sleep(400 * time.Millisecond)
	s.call("ping", nil)
	if len(s.waiting[process]) > 0 {
		t.Fatal("ended early")
	}
	if r := s.finish(process); r.result["reason"] != "timeout" {
		t.Fatal(r.result)
	}
}
