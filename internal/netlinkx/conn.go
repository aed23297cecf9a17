// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is the number of messages per sendmsg; measured best between 100 and 200.
	batchSize = 128
	// pieceSize is what a batch is cut into when the kernel could not answer it.
	pieceSize = 8
	// answerTimeout ends the wait for an answer that was lost. The kernel works
	// inside sendmsg, so that answers are there before we look.
	answerTimeout = 10 // seconds
	// receiveBuffer holds the answers of a batch in which every message fails:
	// one answer occupies about 1 kB of socket memory.
	receiveBuffer = 1 << 20
)

// Conn is a NETLINK_ROUTE socket.
type Conn struct {
	mu  sync.Mutex
	fd  int // -1 when closed
	seq uint32
	out []byte
	in  []byte
	// batches counts sendmsg calls of Exec, for tests.
	batches int
}

// Dial opens a socket in the network namespace of the calling thread. A caller
// that changed its thread's namespace holds it with runtime.LockOSThread.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &Conn{fd: fd, out: make([]byte, 0, 16<<10), in: make([]byte, 64<<10)}
	if err := c.configure(); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return c, nil
}

func (c *Conn) configure() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind netlink socket: %w", err)
	}
	// Answers without the request's octets, and with a text.
	for _, opt := range []int{unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK} {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, opt, 1); err != nil {
			return fmt.Errorf("set netlink socket option %d: %w", opt, err)
		}
	}
	// Filtered dumps need kernel 5.0; without, we filter ourselves.
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	tv := unix.Timeval{Sec: answerTimeout}
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("set netlink receive timeout: %w", err)
	}
	return nil
}

// Close closes the socket. Later calls fail.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// Request is one change that can go to the kernel in a batch.
type Request interface {
	fmt.Stringer
	// appendTo appends the wire form. With ack the kernel answers also when all went well.
	appendTo(b []byte, seq uint32, ack bool) []byte
}

// Exec carries out msgs in order, in as few system calls as possible, and sets
// errs[i] to the result of msgs[i]: nil, an *Error, or why there was no answer.
// errs must be as long as msgs.
//
// A batch whose answers were lost is sent again in small pieces; so a message
// may be carried out twice, which Replace and Append do not notice, and which a
// Delete answers with ENOENT.
func (c *Conn) Exec(msgs []Message, errs []error) { execAll(c, msgs, errs) }

// Do does what Exec does, with requests of all kinds.
func (c *Conn) Do(reqs []Request, errs []error) { execAll(c, reqs, errs) }

func execAll[R Request](c *Conn, reqs []R, errs []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(reqs) > 0 {
		n := min(batchSize, len(reqs))
		execBatch(c, reqs[:n], errs[:n])
		reqs, errs = reqs[n:], errs[n:]
	}
}

// execBatch sends one batch; when its answers do not fit the socket's memory
// (ENOBUFS), again in pieces in which every message is acknowledged, and those
// again one by one.
func execBatch[R Request](c *Conn, reqs []R, errs []error) {
	err := exchange(c, reqs, errs, false)
	for at := 0; errors.Is(err, unix.ENOBUFS) && at < len(reqs); at += pieceSize {
		end := min(at+pieceSize, len(reqs))
		if e := exchange(c, reqs[at:end], errs[at:end], true); e == nil {
			continue
		}
		for i := at; i < end; i++ {
			if e := exchange(c, reqs[i:i+1], errs[i:i+1], true); e != nil {
				errs[i] = fmt.Errorf("%s: %w", reqs[i], e)
			}
		}
	}
	if err != nil && !errors.Is(err, unix.ENOBUFS) {
		for i := range errs {
			errs[i] = fmt.Errorf("%s: %w", reqs[i], err)
		}
	}
}

// exchange sends reqs and reads their answers into errs.
func exchange[R Request](c *Conn, reqs []R, errs []error, ackAll bool) error {
	clear(errs)
	first := c.seq + 1
	last := first + uint32(len(reqs)) - 1
	c.seq = last
	c.out = c.out[:0]
	for i := range reqs {
		seq := first + uint32(i)
		c.out = reqs[i].appendTo(c.out, seq, ackAll || seq == last)
	}
	c.batches++
	if err := c.send(); err != nil {
		return err
	}
	return c.receive(func(h header, body []byte) (bool, error) {
		// Sequence numbers may wrap; what is not ours is a late answer of before.
		i := h.seq - first
		if h.typ != unix.NLMSG_ERROR || i >= uint32(len(reqs)) {
			return false, nil
		}
		answer, err := parseAnswer(h, body)
		if answer != nil {
			answer.Request = reqs[i]
			errs[i] = answer
		}
		return h.seq == last, err
	})
}

// send writes c.out to the kernel.
func (c *Conn) send() error {
	if c.fd < 0 {
		return fmt.Errorf("netlink socket: %w", unix.EBADF)
	}
	for {
		_, err := unix.Write(c.fd, c.out)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive reads messages until handle says that it has seen the last one. On
// an error all that is still waiting is thrown away.
func (c *Conn) receive(handle func(header, []byte) (done bool, err error)) error {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.in, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("no answer from the kernel in %d s", answerTimeout)
		case err == nil && n > len(c.in):
			err = errShort
		}
		done := false
		for b := c.in[:min(max(n, 0), len(c.in))]; err == nil && !done; {
			var h header
			var body []byte
			var ok bool
			if h, body, b, ok, err = nextMessage(b); err != nil || !ok {
				break
			}
			done, err = handle(h, body)
		}
		if err != nil {
			c.drain()
			return err
		}
		if done {
			return nil
		}
	}
}

// drain throws away waiting answers, which also ends the congestion in which
// the kernel drops further ones.
func (c *Conn) drain() {
	for {
		if _, _, err := unix.Recvfrom(c.fd, c.in, unix.MSG_DONTWAIT); err != nil &&
			!errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
