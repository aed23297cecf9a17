// SPDX-License-Identifier: Apache-2.0

// Package faultcall runs a program under supervision of its system calls: a test
// sees each call that writes a file, changes the forwarding plane or opens a
// descriptor before the kernel carries it out, and lets it pass, fails it, or kills
// the program at that point. Only tests import it.
//
// The calls are held up by a seccomp filter with user notification (Linux 5.19 and
// later). The filter is put in place by the test binary itself, run once more and then
// replaced by the program: a test package that uses this one calls Exec first thing.
package faultcall

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Class says what a call is about.
type Class uint8

// Classes of calls. Writes to other descriptors pass without being asked about.
const (
	// File makes, writes at an offset, syncs, cuts, renames or removes a file, or makes a directory.
	File Class = 1 + iota
	// Netlink sends messages to the kernel's routing (NETLINK_ROUTE) and other families.
	Netlink
	// BPF is bpf(2).
	BPF
	// Unix writes to a unix socket.
	Unix
	// Open makes a descriptor: openat without O_CREAT, socket, accept4.
	Open
)

// Call is a system call that is about to be made.
type Call struct {
	// Name is that of the system call, e.g. "pwrite64".
	Name  string
	Class Class
	// Path is the file that a File or Open call is about; empty for sockets.
	Path string
	// Change is set when a Netlink or BPF call changes the kernel's state, and does
	// not just read it.
	Change bool
}

// String returns name and path.
func (c Call) String() string { return strings.TrimSpace(c.Name + " " + c.Path) }

// Verdict is what becomes of a call.
type Verdict struct {
	errno unix.Errno
	kill  bool
}

// Pass has the kernel carry out the call. Kill ends the program by SIGKILL before that.
var (
	Pass = Verdict{}
	Kill = Verdict{kill: true}
)

// Fail has the call return an error, without any effect.
func Fail(errno unix.Errno) Verdict { return Verdict{errno: errno} }

// calls are the supervised system calls.
var calls = map[int32]string{
	unix.SYS_PWRITE64: "pwrite64", unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FTRUNCATE: "ftruncate",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKDIRAT: "mkdirat",
	unix.SYS_OPENAT: "openat", unix.SYS_SOCKET: "socket", unix.SYS_ACCEPT4: "accept4",
	unix.SYS_WRITE: "write", unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg", unix.SYS_BPF: "bpf",
}

// Supervisor decides on the calls of one program.
type Supervisor struct {
	t      testing.TB
	decide func(Call) Verdict
	dir    string // has the socket that the listener comes by
	socket *net.UnixListener
	stop   [2]int // a pipe
	done   sync.WaitGroup
}

// New returns a supervisor whose function is called with one call at a time, from
// another goroutine, in the order in which the kernel took them from all threads.
// A program is to be started once, by Command, and to be ended before the test is: by
// a cleanup that was asked for later than New.
func New(t testing.TB, decide func(Call) Verdict) *Supervisor {
	t.Helper()
	s := &Supervisor{t: t, decide: decide}
	var err error
	if s.dir, err = os.MkdirTemp("", "bpfault"); err != nil { // short: socket paths have 107 octets
		t.Fatal(err)
	}
	if s.socket, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(s.dir, "s"), Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Pipe2(s.stop[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	s.done.Go(s.run)
	t.Cleanup(s.close)
	return s
}

// Wait waits until the program has ended, and with it all calls of the function.
func (s *Supervisor) Wait() { s.done.Wait() }

func (s *Supervisor) close() {
	_ = s.socket.Close()
	_ = unix.Close(s.stop[1])
	s.done.Wait()
	_ = unix.Close(s.stop[0])
	_ = os.RemoveAll(s.dir)
}

// Command returns the command that runs a program under supervision, given by its path
// and arguments. Its process id becomes the program's.
func (s *Supervisor) Command(args ...string) []string {
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	return append([]string{exe, execArg, s.socket.Addr().String()}, args...)
}

// run takes the listener and then decides until the program has ended.
func (s *Supervisor) run() {
	conn, err := s.socket.AcceptUnix()
	if err != nil {
		return // never started
	}
	listener, pid, err := receive(conn)
	if err != nil {
		_ = conn.Close()
		s.t.Errorf("supervise system calls: %v", err)
		return
	}
	defer func() { _ = unix.Close(listener) }()
	p, err := open(pid)
	_ = conn.Close() // it goes on
	if err != nil {
		s.t.Errorf("supervise system calls of process %d: %v", pid, err)
		return
	}
	defer p.close()
	for s.next(listener) {
		switch killed, err := s.answer(listener, p); {
		case err != nil:
			s.t.Errorf("supervise system calls of process %d: %v", pid, err)
			return
		case killed: // what other threads ask meanwhile they will not do
			return
		}
	}
}

// receive reads the listener and the number of the process that sends it.
func receive(conn *net.UnixConn) (listener, pid int, err error) {
	b, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return 0, 0, fmt.Errorf("read listener: %w", err)
	}
	list, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(list) != 1 {
		return 0, 0, fmt.Errorf("read listener: %d messages, %w", len(list), err)
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil || len(fds) != 1 {
		return 0, 0, fmt.Errorf("read listener: %d descriptors, %w", len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	pid, err = strconv.Atoi(string(b[:n]))
	return fds[0], pid, err
}

// next waits for a call, and returns false when there will be none.
func (s *Supervisor) next(listener int) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}, {Fd: int32(s.stop[0]), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if err == unix.EINTR {
				continue
			}
			return false
		}
		switch {
		case fds[0].Revents&unix.POLLIN != 0:
			return true
		case fds[0].Revents != 0 || fds[1].Revents != 0:
			return false
		}
	}
}

// notification and response are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// answer takes one call and decides on it. A call whose thread is gone is no error.
func (s *Supervisor) answer(listener int, p *process) (killed bool, err error) {
	var n notification
	if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err != nil {
		if err == unix.ENOENT || err == unix.EINTR {
			return false, nil
		}
		return false, fmt.Errorf("take a call: %w", err)
	}
	r := response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	v := Pass
	if c := p.call(&n); c.Class != 0 {
		v = s.decide(c)
	}
	switch {
	case v.kill:
		return true, unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	case v.errno != 0:
		r.error, r.flags = -int32(v.errno), 0
	}
	if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && err != unix.ENOENT {
		return false, fmt.Errorf("answer a call: %w", err)
	}
	return false, nil
}

func ioctl(fd int, req uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// process is the program, whose memory and descriptors tell what a call is about.
type process struct {
	pid, pidfd int
	mem        *os.File
}

func open(pid int) (*process, error) {
	p := &process{pid: pid}
	var err error
	if p.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) close() {
	_ = unix.Close(p.pidfd)
	if p.mem != nil {
		_ = p.mem.Close()
	}
}

// call tells what a call is about.
func (p *process) call(n *notification) Call {
	c := Call{Name: calls[n.nr]}
	switch n.nr {
	case unix.SYS_BPF:
		c.Class, c.Change = BPF, bpfChanges(n.args[0])
	case unix.SYS_SOCKET, unix.SYS_ACCEPT4:
		c.Class = Open
	case unix.SYS_OPENAT:
		c.Class, c.Path = Open, p.text(n.args[1])
		if n.args[2]&unix.O_CREAT != 0 {
			c.Class = File
		}
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT:
		c.Class, c.Path = File, p.text(n.args[1])
	case unix.SYS_PWRITE64, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FTRUNCATE:
		c.Class = File
		c.Path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.pid, int32(n.args[0])))
	default:
		p.send(n, &c)
	}
	return c
}

// send tells what is written to a descriptor.
func (p *process) send(n *notification, c *Call) {
	fd, err := unix.PidfdGetfd(p.pidfd, int(int32(n.args[0])), 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return // no socket
	}
	switch domain {
	case unix.AF_UNIX:
		c.Class = Unix
	case unix.AF_NETLINK:
		c.Class = Netlink
		protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		at, size := n.args[1], n.args[2]
		if n.nr == unix.SYS_SENDMSG { // the first buffer of struct msghdr
			at = p.word(n.args[1] + 16)
			at, size = p.word(at), p.word(at+8)
		}
		c.Change = protocol != unix.NETLINK_ROUTE || p.routeChanges(at, size)
	}
}

// routeChanges tells whether one of the rtnetlink messages in a buffer changes anything:
// of the four types of each object the third is the question (RTM_NEW, DEL, GET, SET).
func (p *process) routeChanges(at, size uint64) bool {
	b := p.read(at, min(size, 1<<20))
	for len(b) >= unix.SizeofNlMsghdr {
		length, typ := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint16(b[4:])
		if typ >= unix.RTM_BASE && (typ-unix.RTM_BASE)%4 != 2 {
			return true
		}
		if length < unix.SizeofNlMsghdr {
			break
		}
		b = b[min(int(length+3)&^3, len(b)):]
	}
	return false
}

// bpfChanges tells whether a command of bpf(2) makes or changes something.
func bpfChanges(cmd uint64) bool {
	switch cmd {
	case unix.BPF_MAP_CREATE, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_DELETE_ELEM, unix.BPF_PROG_LOAD, unix.BPF_OBJ_PIN,
		unix.BPF_PROG_ATTACH, unix.BPF_PROG_DETACH, unix.BPF_MAP_LOOKUP_AND_DELETE_ELEM, unix.BPF_MAP_UPDATE_BATCH, unix.BPF_MAP_DELETE_BATCH,
		unix.BPF_LINK_CREATE, unix.BPF_LINK_UPDATE, unix.BPF_LINK_DETACH:
		return true
	}
	return false
}

// read returns memory of the program, or none when it cannot be read.
func (p *process) read(at, size uint64) []byte {
	if p.mem == nil {
		var err error // opened with the first call: it is the memory of the program, and no longer of the test binary
		if p.mem, err = os.Open(fmt.Sprintf("/proc/%d/mem", p.pid)); err != nil {
			return nil
		}
	}
	b := make([]byte, size)
	n, _ := p.mem.ReadAt(b, int64(at))
	return b[:n]
}

// word returns eight octets of the program's memory.
func (p *process) word(at uint64) uint64 {
	if b := p.read(at, 8); len(b) == 8 {
		return binary.NativeEndian.Uint64(b)
	}
	return 0
}

// text returns a string of the program's memory.
func (p *process) text(at uint64) string {
	s, _, _ := strings.Cut(string(p.read(at, unix.PathMax)), "\x00")
	return s
}
