package main

import (
	"errors"
	"fmt"
	"strings"
)

// sudoCommand is what a `sudo` command line asks for.
type sudoCommand struct {
	User      string            // target
	Argv      []string          // command; may be empty with shell, login or validate
	Set       map[string]string // VAR=value before the command
	Keep      bool              // -E: the caller's environment
	KeepNames []string          // --preserve-env=A,B
	Home      bool              // -H
	Shell     bool              // -s
	Login     bool              // -i
	Validate  bool              // -v, -k, -K: nothing to run
	Directory string            // -D
	Version   bool              // -V
}

var errSudoUsage = errors.New("usage: sudo [-EHnSkisv] [-u user] [-D directory] [--preserve-env[=list]] [VAR=value] [command [arg ...]]")

// parseSudo understands what scripts use of sudo(8). There are no passwords, so -n, -S, -A, -p change nothing.
func parseSudo(arguments []string) (*sudoCommand, error) {
	c := &sudoCommand{User: "root", Set: map[string]string{}}
	for len(arguments) > 0 && strings.HasPrefix(arguments[0], "-") && arguments[0] != "-" {
		word := arguments[0]
		arguments = arguments[1:]
		if word == "--" {
			break
		}
		var err error
		if strings.HasPrefix(word, "--") {
			arguments, err = c.long(word[2:], arguments)
		} else {
			arguments, err = c.short(word[1:], arguments)
		}
		if err != nil {
			return nil, err
		}
	}
	for len(arguments) > 0 {
		name, value, found := strings.Cut(arguments[0], "=")
		if !found || name == "" || strings.Contains(name, "/") {
			break
		}
		c.Set[name] = value
		arguments = arguments[1:]
	}
	c.Argv = arguments
	if len(c.Argv) == 0 && !c.Shell && !c.Login && !c.Validate && !c.Version {
		return nil, errSudoUsage
	}
	return c, nil
}

func (c *sudoCommand) short(flags string, rest []string) ([]string, error) {
	for i, flag := range flags {
		if strings.ContainsRune("upDgCTrt", flag) {
			value := flags[i+1:]
			if value == "" {
				if len(rest) == 0 {
					return nil, errSudoUsage
				}
				value, rest = rest[0], rest[1:]
			}
			return rest, c.valued(flag, value)
		}
		switch flag {
		case 'n', 'S', 'A', 'B', 'P', 'b':
		case 'E':
			c.Keep = true
		case 'H':
			c.Home = true
		case 's':
			c.Shell = true
		case 'i':
			c.Login = true
		case 'v', 'k', 'K', 'l':
			c.Validate = true
		case 'V', 'h':
			c.Version = true
		default:
			return nil, fmt.Errorf("invalid option -- '%c'\n%w", flag, errSudoUsage)
		}
	}
	return rest, nil
}

func (c *sudoCommand) valued(flag rune, value string) error {
	switch flag {
	case 'u':
		c.User = strings.TrimPrefix(value, "#")
	case 'D':
		c.Directory = value
	case 'p':
	default:
		return fmt.Errorf("option -%c is not supported", flag)
	}
	return nil
}

func (c *sudoCommand) long(word string, rest []string) ([]string, error) {
	name, value, given := strings.Cut(word, "=")
	switch name {
	case "user", "chdir", "prompt":
		if !given {
			if len(rest) == 0 {
				return nil, errSudoUsage
			}
			value, rest = rest[0], rest[1:]
		}
		return rest, c.valued(map[string]rune{"user": 'u', "chdir": 'D', "prompt": 'p'}[name], value)
	case "preserve-env":
		if given {
			c.KeepNames = append(c.KeepNames, strings.Split(value, ",")...)
		} else {
			c.Keep = true
		}
	case "set-home":
		c.Home = true
	case "login":
		c.Login = true
	case "shell":
		c.Shell = true
	case "validate", "reset-timestamp", "remove-timestamp", "list":
		c.Validate = true
	case "version", "help":
		c.Version = true
	case "non-interactive", "stdin", "askpass", "background", "preserve-groups":
	default:
		return nil, fmt.Errorf("unrecognized option '--%s'\n%w", name, errSudoUsage)
	}
	return rest, nil
}

// command is the argv to run; shell is the target's login shell. `program` differs from argv[0] for a login shell.
func (c *sudoCommand) command(loginShell, callerShell string) (program string, argv []string) {
	if !c.Shell && !c.Login {
		return c.Argv[0], c.Argv
	}
	program = loginShell
	if !c.Login && strings.HasPrefix(callerShell, "/") {
		program = callerShell
	}
	argv = []string{program}
	if c.Login {
		argv[0] = "-" + program[strings.LastIndexByte(program, '/')+1:]
	}
	if len(c.Argv) > 0 {
		quoted := make([]string, len(c.Argv))
		for i, word := range c.Argv {
			quoted[i] = shellQuoted(word)
		}
		argv = append(argv, "-c", strings.Join(quoted, " "))
	}
	return program, argv
}

// shellQuoted quotes as sudo does: everything but letters, digits, `_`, `-` and `$` is escaped.
func shellQuoted(word string) string {
	var out strings.Builder
	for i := 0; i < len(word); i++ {
		b := word[i]
		plain := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' || b == '-' || b == '$'
		if !plain && b < 0x80 {
			out.WriteByte('\\')
		}
		out.WriteByte(b)
	}
	return out.String()
}

// sudoEnvironment is what goes on of the caller's environment, beside the target's own variables.
func (c *sudoCommand) environment(caller []string) map[string]string {
	kept := map[string]string{}
	for _, entry := range caller {
		name, value, found := strings.Cut(entry, "=")
		if !found || name == "" || name == "PATH" || name == "USER" || name == "LOGNAME" {
			continue
		}
		if c.Keep && !(c.Home && name == "HOME") && !c.Login || keptBySudo(name) {
			kept[name] = value
		}
		for _, wanted := range c.KeepNames {
			if wanted == name {
				kept[name] = value
			}
		}
	}
	for name, value := range c.Set {
		kept[name] = value
	}
	return kept
}

func keptBySudo(name string) bool {
	switch name {
	case "TERM", "COLORTERM", "LANG", "LANGUAGE", "TZ", "DEBIAN_FRONTEND", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
		"REQUESTS_CA_BUNDLE", "PIP_INDEX_URL", "PIP_CERT", "PIP_TRUSTED_HOST":
		return true
	}
	return strings.HasPrefix(name, "LC_") || strings.HasSuffix(strings.ToLower(name), "_proxy")
}
