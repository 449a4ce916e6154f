package main

import (
	"crypto/sha256"
	"encoding/hex"
	"log"
	"os"
	"strconv"
	"syscall"
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

// pidsGroup is a control group inside the sandbox that limits the number of processes and threads. Its files are kept open and
// its mount is detached, so that no process of the sandbox, not even root's, finds a way out of it.
type pidsGroup struct {
	tasks   *os.File
	maximum *os.File
}

// openPidsGroup returns nil when the kernel has no pids controller to mount.
func openPidsGroup() *pidsGroup {
	if os.Getpid() != 1 {
		return nil
	}
	directory, err := os.MkdirTemp("/tmp", ".skerry-")
	if err != nil {
		directory, err = os.MkdirTemp("/run", ".skerry-")
	}
	if err != nil {
		log.Printf("no place for the control group: %v", err)
		return nil
	}
	defer os.Remove(directory)
	if err := syscall.Mount("none", directory, "cgroup", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "pids"); err != nil {
		log.Printf("cannot mount the pids control group: %v", err)
		return nil
	}
	defer syscall.Unmount(directory, syscall.MNT_DETACH)
	group := directory + "/processes"
	if err := os.Mkdir(group, 0o755); err != nil && !os.IsExist(err) {
		log.Printf("cannot make the pids control group: %v", err)
		return nil
	}
	tasks, err := os.OpenFile(group+"/tasks", os.O_WRONLY, 0)
	if err != nil {
		log.Printf("cannot use the pids control group: %v", err)
		return nil
	}
	maximum, err := os.OpenFile(group+"/pids.max", os.O_WRONLY, 0)
	if err != nil {
		tasks.Close()
		log.Printf("cannot use the pids control group: %v", err)
		return nil
	}
	return &pidsGroup{tasks, maximum}
}

func (g *pidsGroup) enter(tid int) error {
	_, err := g.tasks.WriteAt([]byte(strconv.Itoa(tid)), 0)
	return err
}

// limit allows n processes and threads, beside the thread that starts them.
func (g *pidsGroup) limit(n int) error {
	_, err := g.maximum.WriteAt([]byte(strconv.Itoa(n+1)), 0)
	return err
}

func hashName(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
