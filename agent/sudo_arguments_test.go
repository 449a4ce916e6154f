package main

import (
	"slices"
	"testing"
)

func TestSudoCommandLines(t *testing.T) {
	c, err := parseSudo([]string{"-nE", "-H", "-uuser", "--", "A=b", "env", "-i", "X=y"})
	if err != nil || c.User != "user" || !c.Keep || !c.Home || c.Set["A"] != "b" || !slices.Equal(c.Argv, []string{"env", "-i", "X=y"}) {
		t.Fatal(c, err)
	}
	c, err = parseSudo([]string{"-u", "#1000", "--preserve-env=A,B", "-i", "echo", "a b"})
	if err != nil || c.User != "1000" || !slices.Equal(c.KeepNames, []string{"A", "B"}) {
		t.Fatal(c, err)
	}
	program, argv := c.command("/bin/bash", "/bin/zsh")
	if program != "/bin/bash" || !slices.Equal(argv, []string{"-bash", "-c", `echo a\ b`}) {
		t.Fatal(program, argv)
	}
	c, _ = parseSudo([]string{"-s"})
	if program, argv = c.command("/bin/bash", "/bin/zsh"); program != "/bin/zsh" || !slices.Equal(argv, []string{"/bin/zsh"}) {
		t.Fatal(program, argv)
	}
	if c, err = parseSudo([]string{"-v"}); err != nil || !c.Validate {
		t.Fatal(c, err)
	}
	for _, bad := range [][]string{{}, {"-u"}, {"-Z", "x"}, {"--nonsense", "x"}, {"A=b"}, {"-g", "wheel", "x"}} {
		if c, err := parseSudo(bad); err == nil {
			t.Errorf("%v is %v", bad, c)
		}
	}
}

func TestSudoEnvironment(t *testing.T) {
	caller := []string{"TERM=xterm", "PATH=/evil", "LD_PRELOAD=x", "https_proxy=p", "HOME=/home/user", "broken"}
	c := &sudoCommand{Set: map[string]string{"A": "b"}}
	env := c.environment(caller)
	if len(env) != 3 || env["TERM"] != "xterm" || env["https_proxy"] != "p" || env["A"] != "b" {
		t.Fatal(env)
	}
	c.Keep = true
	if env = c.environment(caller); env["LD_PRELOAD"] != "x" || env["HOME"] != "/home/user" || env["PATH"] != "" {
		t.Fatal(env)
	}
	c.Home = true
	if _, kept := c.environment(caller)["HOME"]; kept {
		t.Fatal("HOME is kept with -H")
	}
}
