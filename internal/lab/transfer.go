// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// transferTimeout bounds the life of a receiver whose sender never comes.
const transferTimeout = 30 * time.Second

// Receive listens on an address, writes a line "listening", takes one
// connection, sends as much back as came, and writes the digest of what came. It is the far
// end of Send, run inside a machine of the lab.
func Receive(ctx context.Context, w io.Writer, address netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address.String())
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if _, err := fmt.Fprintln(w, "listening"); err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return fmt.Errorf("wait for a connection: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(transferTimeout))
	hash := sha256.New()
	n, err := io.Copy(hash, conn)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if _, err := io.Copy(conn, io.LimitReader(&pattern{}, n)); err != nil {
		return fmt.Errorf("send back: %w", err)
	}
	if err := conn.Close(); err != nil { // the other end waits for this, and the reader of w perhaps for it
		return fmt.Errorf("send back: %w", err)
	}
	_, err = fmt.Fprintln(w, digest(n, hash.Sum(nil)))
	return err
}

// Send connects to an address, sends bytes of a known pattern, reads the same back and
// writes their digest.
func Send(ctx context.Context, w io.Writer, address netip.AddrPort, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(transferTimeout))
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(conn, hash), io.LimitReader(&pattern{}, size))
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	back := sha256.New()
	if got, err := io.Copy(back, conn); err != nil || got != n || !bytes.Equal(back.Sum(nil), hash.Sum(nil)) {
		return errors.Join(fmt.Errorf("%d octets came back, and not the %d sent", got, n), err)
	}
	_, err = fmt.Fprintln(w, digest(n, hash.Sum(nil)))
	return err
}

func digest(n int64, sum []byte) string { return fmt.Sprintf("%d:%x", n, sum[:8]) }

// pattern is an endless stream in which bytes that are lost or swapped show.
type pattern struct{ next uint32 }

// Read implements io.Reader.
func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte((p.next * 2654435761) >> 24)
		p.next++
	}
	return len(b), nil
}
