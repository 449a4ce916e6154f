package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// machine is the sandbox as a whole: its name, environment, limits and identity.
type machine struct {
	mu       sync.Mutex
	env      map[string]string // environment of every process; replaced as a whole, never changed
	id       string
	etc      string
	hostname string     // the last that was set
	naming   sync.Mutex // held by who changes the files that name the sandbox
	group    *pidsGroup // nil where the kernel has none
	pids     int        // limit of processes; zero: none was set
	binds    binds
}

type configureRequest struct {
	Env      *map[string]string `json:"env"`
	Hostname *string            `json:"hostname"`
	Pids     *int               `json:"pids"`
}

type reseedRequest struct {
	Entropy  string  `json:"entropy"`
	Hostname *string `json:"hostname"`
	Time     *int64  `json:"time_unix_ns"`
}

func newMachine(etc string) *machine {
	m := &machine{id: randomName(), etc: etc}
	m.group = openPidsGroup()
	return m
}

// randomName is 128 random bits. After a restore the kernel's generator gives what it gave in the snapshot until `reseed`.
func randomName() string {
	var raw [16]byte
	rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
}

func (m *machine) instance() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

func (m *machine) environment() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.env
}

// limitThread puts a thread, and so all processes it starts, into the group of limited processes.
func (m *machine) limitThread(tid int) error {
	if m.group == nil {
		return errors.New("this kernel has no pids control group")
	}
	return m.group.enter(tid)
}

// limitNext limits what the next process of a user may start.
func (m *machine) limitNext(uid int) error {
	m.mu.Lock()
	n := m.pids
	m.mu.Unlock()
	return limitUserProcesses(uid, n)
}

func (m *machine) configure(r *configureRequest) (any, error) {
	if r.Env != nil {
		for name, value := range *r.Env {
			if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
				return nil, fail(codeInvalid, "cannot set the environment: '%s' is no valid variable", name)
			}
		}
		m.mu.Lock()
		m.env = *r.Env
		m.mu.Unlock()
	}
	if r.Pids != nil {
		if *r.Pids < 1 {
			return nil, fail(codeInvalid, "cannot limit processes to %d", *r.Pids)
		}
		if m.group == nil {
			return nil, fail(codeInternal, "cannot limit processes: this kernel has no pids control group")
		}
		m.mu.Lock()
		changed := m.pids != *r.Pids
		m.pids = *r.Pids
		m.mu.Unlock()
		if changed { // a claim from a pool seldom changes it, and must be quick
			if err := m.group.limit(*r.Pids); err != nil {
				return nil, fail(codeInternal, "cannot limit processes: %v", err)
			}
			limitRunningProcesses(*r.Pids)
		}
	}
	if err := m.setHostname(r.Hostname); err != nil {
		return nil, err
	}
	if r.Hostname != nil { // a claim from a pool must be quick, and nobody reads the files at once
		go func() {
			if err := m.nameFiles(); err != nil {
				log.Print(err)
			}
		}()
	}
	return empty{}, nil
}

// reseed makes a restored copy differ from its twin: fresh entropy, name, clock and instance.
func (m *machine) reseed(r *reseedRequest) (any, error) {
	entropy, err := base64.StdEncoding.DecodeString(r.Entropy)
	if err != nil {
		return nil, fail(codeInvalid, "cannot use the entropy: it is not base64")
	}
	if err := os.WriteFile("/dev/urandom", entropy, 0); err != nil {
		return nil, fail(codeInternal, "cannot add entropy: %v", err)
	}
	if r.Time != nil {
		now := syscall.NsecToTimeval(*r.Time)
		if err := syscall.Settimeofday(&now); err != nil && err != syscall.EPERM && err != syscall.ENOSYS {
			return nil, fail(codeInternal, "cannot set the clock: %v", err)
		}
	}
	fresh := randomName()
	if len(entropy) > 0 { // independent of the kernel's generator, which a snapshot may share with other restores
		for i := range entropy {
			entropy[i] ^= fresh[i%len(fresh)]
		}
		fresh = hashName(entropy)
	}
	m.mu.Lock()
	m.id = fresh
	m.mu.Unlock()
	if err := m.setHostname(r.Hostname); err != nil {
		return nil, err
	}
	if err := m.nameFiles(); err != nil {
		return nil, err
	}
	return empty{}, m.renewMachineID(fresh)
}

type machineStats struct {
	Processes int   `json:"processes"`
	Memory    int64 `json:"memory_bytes"`
	DiskTotal int64 `json:"disk_total_bytes"`
	DiskUsed  int64 `json:"disk_used_bytes"`
}

func (m *machine) stats() (any, error) {
	s := &machineStats{}
	if directory, err := os.Open("/proc"); err == nil {
		names, _ := directory.Readdirnames(-1)
		directory.Close()
		for _, name := range names {
			if _, err := strconv.Atoi(name); err == nil {
				s.Processes++
			}
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		fields := parseMeminfo(string(text))
		s.Memory = max(fields["MemTotal"]-fields["MemAvailable"], 0)
	}
	var disk syscall.Statfs_t
	if syscall.Statfs("/", &disk) == nil {
		s.DiskTotal = int64(disk.Blocks) * disk.Bsize
		s.DiskUsed = int64(disk.Blocks-disk.Bfree) * disk.Bsize
	}
	return s, nil
}

// parseMeminfo returns bytes by name.
func parseMeminfo(text string) map[string]int64 {
	values := map[string]int64{}
	for line := range strings.Lines(text) {
		name, rest, found := strings.Cut(line, ":")
		number, kib := strings.CutSuffix(strings.TrimSpace(rest), " kB")
		if n, err := strconv.ParseInt(number, 10, 64); found && kib && err == nil {
			values[name] = n << 10
		}
	}
	return values
}
