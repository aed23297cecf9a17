// SPDX-License-Identifier: Apache-2.0

package faultcall

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// execArg is the first argument of a test binary that is to become another program.
const execArg = "faultcall-exec"

// Exec becomes the program of Supervisor.Command when this process was started by it;
// otherwise it does nothing. Call it in init or first in TestMain.
func Exec() {
	if len(os.Args) < 4 || os.Args[1] != execArg {
		return
	}
	err := become(os.Args[2], os.Args[3:])
	fmt.Fprintf(os.Stderr, "run %s under supervision: %v\n", os.Args[3], err)
	os.Exit(125)
}

// become hands the listener of a filter to the supervisor and runs the program in place
// of this process. The filter is on one thread, which is the one that stays.
func become(socket string, args []string) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	listener, sent := make(chan int), make(chan error)
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		fd, err := install()
		if err != nil {
			failed <- err
			return
		}
		listener <- fd
		// From here on this thread makes no call of the filter but those of the program.
		if err := <-sent; err != nil {
			failed <- err
			return
		}
		failed <- unix.Exec(args[0], args, os.Environ())
	}()
	select {
	case err := <-failed:
		return err
	case fd := <-listener:
		_, _, err := conn.WriteMsgUnix([]byte(strconv.Itoa(os.Getpid())), unix.UnixRights(fd), nil)
		if err == nil {
			_, _ = conn.Read(make([]byte, 1)) // until the supervisor has a hold of this process
		}
		sent <- err
		return <-failed
	}
}

// install puts the filter on the calling thread and returns its listener. A signal does
// not interrupt a call that the supervisor has taken, so that each is taken once.
func install() (int, error) {
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // seccomp_data.nr
	for nr := range calls {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(nr), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&f)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return 0, fmt.Errorf("install seccomp filter: %w", errno)
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}
