package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

const keep = ^uintptr(0) // -1: leave this id as it is

// as calls act with the file access rights of u and of nobody else. Identity is a property of the thread in Linux, so the
// goroutine stays on one thread meanwhile. Only the effective ids change: the real and saved ones stay root's, so that u can
// neither signal nor trace the thread. act must not start goroutines or processes.
func as(u *account, act func() error) error {
	if u.uid == os.Geteuid() {
		return act()
	}
	runtime.LockOSThread()
	if err := assume(u.uid, u.gid, u.groups); err != nil {
		// Not unlocking ends the thread together with this goroutine: nobody goes on with a half-changed identity.
		if assume(0, os.Getgid(), ownGroups) == nil {
			runtime.UnlockOSThread()
		}
		return fmt.Errorf("cannot become user %s: %w", u.name, err)
	}
	defer func() {
		if assume(0, os.Getgid(), ownGroups) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return act()
}

var ownGroups = func() []uint32 {
	list, _ := syscall.Getgroups()
	groups := make([]uint32, len(list))
	for i, g := range list {
		groups[i] = uint32(g)
	}
	return groups
}()

// assume sets the thread's effective ids and its groups. It becomes root first: only root may change groups.
func assume(uid, gid int, groups []uint32) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, 0, keep); errno != 0 {
		return errno
	}
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, keep, uintptr(gid), keep); errno != 0 {
		return errno
	}
	if uid == 0 {
		return nil
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return errno
	}
	return nil
}
