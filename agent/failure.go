package main

import (
	"errors"
	"fmt"
	"syscall"
)

// Codes of the errors the agent reports; the server refuses any other.
const (
	codeInternal    = "internal"
	codeInvalid     = "request.invalid"
	codeCannotStart = "process.cannot_start"
	codeNoUser      = "user.not_found"
	codeNoProcess   = "process.not_found"
	codeNotOpen     = "port.not_open"
	codeFile        = "file.error"
	codeMissing     = "file.not_found"
	codeExists      = "file.exists"
	codeIsDirectory = "file.is_directory"
	codeNoDirectory = "file.not_directory"
	codeNotEmpty    = "file.not_empty"
	codeNotRegular  = "file.not_regular"
	codeDenied      = "file.permission_denied"
	codeInvalidPath = "file.invalid_path"
	codeNoSpace     = "file.no_space"
)

// failure is an error for the server.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (f *failure) Error() string { return f.Message }

func fail(code, format string, values ...any) *failure {
	return &failure{code, fmt.Sprintf(format, values...)}
}

func asFailure(err error) *failure {
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{codeInternal, err.Error()}
	}
	if len(f.Message) > 8192 {
		return &failure{f.Code, f.Message[:8192] + "…"}
	}
	return f
}

// fileFailure turns an error of the operating system's into one of the protocol's. `doing` is like "read '/x'".
func fileFailure(doing string, err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	code := codeFile
	var errno syscall.Errno
	if errors.As(err, &errno) {
		code = fileCode(errno)
		err = errno
		if code == codeNotRegular {
			err = errors.New("it is a FIFO, socket or device")
		}
	}
	return fail(code, "cannot %s: %v", doing, err)
}

func fileCode(errno syscall.Errno) string {
	switch errno {
	case syscall.ENOENT:
		return codeMissing
	case syscall.EEXIST:
		return codeExists
	case syscall.EISDIR:
		return codeIsDirectory
	case syscall.ENOTDIR:
		return codeNoDirectory
	case syscall.ENOTEMPTY:
		return codeNotEmpty
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		return codeDenied
	case syscall.ENAMETOOLONG, syscall.ELOOP:
		return codeInvalidPath
	case syscall.ENOSPC, syscall.EDQUOT:
		return codeNoSpace
	case syscall.ENXIO, syscall.ENODEV:
		return codeNotRegular
	}
	return codeFile
}
