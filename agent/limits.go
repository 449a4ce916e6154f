package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Capabilities that processes may get: those a container has by default. The agent has CAP_SYS_ADMIN too, for the host name and
// the control group; nothing it starts has.
var granted = map[int]bool{
	0:  true, // CHOWN
	1:  true, // DAC_OVERRIDE
	3:  true, // FOWNER
	4:  true, // FSETID
	5:  true, // KILL
	6:  true, // SETGID
	7:  true, // SETUID
	8:  true, // SETPCAP
	10: true, // NET_BIND_SERVICE
	13: true, // NET_RAW
	18: true, // SYS_CHROOT
	27: true, // MKNOD
	29: true, // AUDIT_WRITE
	31: true, // SETFCAP
}

const prCapbsetDrop = 24

// boundCapabilities reduces the bounding set of the calling thread, and so of everything it starts.
func boundCapabilities() error {
	for number := 0; number < 64; number++ {
		if granted[number] {
			continue
		}
		_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prCapbsetDrop, uintptr(number), 0)
		if errno == syscall.EINVAL { // the kernel knows no capability of this number
			return nil
		}
		if errno != 0 {
			return errno
		}
	}
	return nil
}

// pidsGroup is a control group inside the sandbox that limits the number of processes and threads. It is mounted only while it
// is changed, and only a read-only file of it stays open (which keeps it): no process of the sandbox, not even root's, which
// may follow /proc/1/fd, finds a way out of it.
type pidsGroup struct {
	anchor *os.File
}

// openPidsGroup returns nil when the kernel has no pids controller to mount.
func openPidsGroup() *pidsGroup {
	if os.Getpid() != 1 {
		return nil
	}
	g := &pidsGroup{}
	err := withPidsMount(func(directory string) error {
		err := os.Mkdir(directory, 0o755)
		if err != nil && !os.IsExist(err) {
			return err
		}
		g.anchor, err = os.Open(directory + "/pids.current")
		return err
	})
	if err != nil {
		log.Printf("cannot use the pids control group: %v", err)
		return nil
	}
	return g
}

// withPidsMount calls act with the group's directory while the controller is mounted.
func withPidsMount(act func(directory string) error) error {
	mountPoint, err := os.MkdirTemp("/tmp", ".skerry-")
	if err != nil {
		if mountPoint, err = os.MkdirTemp("/run", ".skerry-"); err != nil {
			return err
		}
	}
	defer os.Remove(mountPoint)
	err = syscall.Mount("none", mountPoint, "cgroup", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "pids")
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	defer syscall.Unmount(mountPoint, syscall.MNT_DETACH)
	return act(mountPoint + "/processes")
}

func (g *pidsGroup) write(file string, number int) error {
	return withPidsMount(func(directory string) error {
		return os.WriteFile(directory+"/"+file, []byte(strconv.Itoa(number)), 0)
	})
}

func (g *pidsGroup) enter(tid int) error { return g.write("tasks", tid) }

// limit allows n processes and threads, beside the thread that starts them.
func (g *pidsGroup) limit(n int) error { return g.write("pids.max", n+1) }

// Processes of one user are limited by RLIMIT_NPROC too: gVisor's pids controller lets most forks beyond its limit pass (it
// charges one of the task's control groups, picked at random; seen in 20240729), the resource limit is exact.
const (
	rlimitNproc  = 6
	agentThreads = 32 // root's processes share their count with the agent's own threads
)

// limitUserProcesses sets what the next process started will have; only the spawner's thread calls it. Zero: no limit.
func limitUserProcesses(uid, n int) error {
	if n == 0 {
		return nil
	}
	if uid == 0 {
		n += agentThreads
	}
	return syscall.Setrlimit(rlimitNproc, &syscall.Rlimit{Cur: uint64(n), Max: uint64(n)})
}

// limitRunningProcesses gives the new limit to all processes there are but this one.
func limitRunningProcesses(n int) {
	directory, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer directory.Close()
	names, _ := directory.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		limit := syscall.Rlimit{Cur: uint64(n), Max: uint64(n)}
		var owner syscall.Stat_t
		if syscall.Stat("/proc/"+name, &owner) == nil && owner.Uid == 0 {
			limit.Cur, limit.Max = limit.Cur+agentThreads, limit.Max+agentThreads
		}
		// A process that ends meanwhile needs none.
		syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), rlimitNproc, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	}
}

func hashName(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
