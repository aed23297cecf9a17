// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// link is the peer's end of a connection.
type link struct {
	addr netip.Addr
	nc   *net.TCPConn
	r    *bufio.Reader
	mu   sync.Mutex // held by who writes messages that belong together
}

// dial connects from an address to a node.
func dial(tb testing.TB, from netip.Addr, to netip.AddrPort) *link {
	tb.Helper()
	var nc net.Conn
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	eventually(tb, "node listens", func() (ok bool) {
		var err error
		nc, err = d.Dial("tcp", to.String())
		return err == nil
	})
	return &link{addr: from, nc: nc.(*net.TCPConn), r: bufio.NewReaderSize(nc, 1<<17)}
}

// peerOpen is the OPEN of a peer without graceful restart.
func peerOpen(from netip.Addr, families ...wire.Family) wire.Open {
	id := from.As4()
	id[0] = 10
	return wire.Open{
		AS: nodeAS, HoldTime: 90, RouterID: netip.AddrFrom4(id), Families: families,
		FourOctetAS: true, RouteRefresh: true, EnhancedRefresh: true, ExtendedMessage: true,
	}
}

// open brings a session up.
func (l *link) open(o wire.Open) error {
	msg, err := o.Message()
	if err == nil {
		err = l.write(msg)
	}
	for _, want := range []wire.MsgType{wire.MsgOpen, wire.MsgKeepalive} {
		if err != nil {
			return fmt.Errorf("%s: session: %w", l.addr, err)
		}
		var typ wire.MsgType
		var body []byte
		if typ, body, err = l.read(); err == nil && typ != want {
			err = fmt.Errorf("%s %x instead of %s", typ, body, want)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: session: %w", l.addr, err)
	}
	return l.write(wire.Keepalive())
}

// write writes messages, for as long as the node takes them.
func (l *link) write(msgs ...[]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.put(msgs...)
}

// put is write for who holds mu.
func (l *link) put(msgs ...[]byte) error {
	_ = l.nc.SetWriteDeadline(time.Now().Add(patience))
	_, err := l.nc.Write(slices.Concat(msgs...))
	return err
}

// read returns the next message.
func (l *link) read() (wire.MsgType, []byte, error) {
	var head [wire.HeaderLen]byte
	_ = l.nc.SetReadDeadline(time.Now().Add(2 * patience))
	if _, err := io.ReadFull(l.r, head[:]); err != nil {
		return 0, nil, err
	}
	typ, length, werr := wire.ParseHeader(head[:], wire.MaxExtMessage)
	if werr != nil {
		return 0, nil, werr
	}
	body := make([]byte, length-wire.HeaderLen)
	_, err := io.ReadFull(l.r, body)
	return typ, body, err
}

// notification reads to the NOTIFICATION that ends the session.
func (l *link) notification() (wire.Notification, error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		typ, body, err := l.read()
		if err != nil {
			return wire.Notification{}, err
		}
		if typ == wire.MsgNotification {
			n, werr := wire.ParseNotification(body)
			if werr != nil {
				return n, werr
			}
			return n, nil
		}
	}
	return wire.Notification{}, errors.New("no NOTIFICATION, and the session goes on")
}

// abort ends the connection with a RST.
func (l *link) abort() {
	_ = l.nc.SetLinger(0)
	_ = l.nc.Close()
}

// follower is a peer that reads all it is sent, and answers KEEPALIVEs.
type follower struct {
	*link
	*view
	ended chan struct{}
	// refresh, if set, answers the node's requests. It is called by the reader.
	refresh func(wire.Family)
	fault   error // of what the node sent; for after ended
}

// follow brings a session up and reads from then on.
func follow(tb testing.TB, from netip.Addr, to netip.AddrPort, o wire.Open, refresh func(wire.Family)) *follower {
	tb.Helper()
	f := &follower{link: dial(tb, from, to), view: newView(), ended: make(chan struct{}), refresh: refresh}
	if err := f.open(o); err != nil {
		close(f.ended)
		tb.Fatal(err)
	}
	go f.loop()
	tb.Cleanup(func() {
		f.abort()
		<-f.ended
		if f.fault != nil {
			tb.Errorf("peer %s: %v", from, f.fault)
		}
	})
	return f
}

func (f *follower) loop() {
	defer close(f.ended)
	for {
		typ, body, err := f.read()
		if err != nil {
			var werr *wire.Error
			if errors.As(err, &werr) {
				f.fault = err
			}
			return
		}
		switch typ {
		case wire.MsgKeepalive:
			_ = f.write(wire.Keepalive())
		case wire.MsgUpdate:
			err = f.update(body)
		case wire.MsgRouteRefresh:
			err = f.refreshed(body)
		}
		if err != nil {
			f.fault = err
			f.abort()
			return
		}
	}
}

// refreshed handles a ROUTE-REFRESH.
func (f *follower) refreshed(body []byte) error {
	fam, subtype, err := wire.ParseRouteRefresh(body)
	switch {
	case err != nil:
		return err
	case subtype == wire.RefreshRequest && f.refresh != nil:
		f.refresh(fam)
	case subtype == wire.RefreshBegin:
		f.begin(fam)
	case subtype == wire.RefreshEnd:
		return f.end(fam)
	}
	return nil
}

// finish half-closes, so that the node reads all that was written, and waits for
// the node to close too. The follower's memory is given up: the test holds on to
// it to its end.
func (f *follower) finish() {
	_ = f.nc.CloseWrite()
	<-f.ended
	_ = f.nc.Close()
	f.r, f.view = nil, nil
}
