// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testAS = 64500

var (
	localID  = netip.MustParseAddr("192.0.2.5")
	remoteID = netip.MustParseAddr("192.0.2.9")
)

// rig runs one Peer in a bubble of fake time against ends that a test plays.
type rig struct {
	t       *testing.T
	peer    *Peer
	stop    context.CancelCauseFunc
	done    chan struct{}  // closed when Run has returned
	dialled chan *remote   // what Dial made
	room    int            // of new connections
	helpers sync.WaitGroup // goroutines of the test

	mu    sync.Mutex
	dials []time.Duration // when Dial was called, since the start
	fail  bool            // Dial fails

	*consumer
}

var errRefused = errors.New("connection refused")

// run makes a rig in a bubble, starts its peer and calls f. At the end the peer
// must stop without leaving anything.
func run(t *testing.T, change func(*Config), f func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, change)
		t.Cleanup(r.helpers.Wait)
		t.Cleanup(func() { r.shutdown(nil) })
		f(r)
		r.shutdown(nil)
		r.checkFlows()
	})
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, done: make(chan struct{}), dialled: make(chan *remote, 100), room: 1 << 18, consumer: &consumer{t: t}}
	start := time.Now()
	c := Config{
		Peer: netip.MustParseAddr("192.0.2.9"), Local: netip.MustParseAddr("192.0.2.5"), Port: 179,
		LocalAS: testAS, PeerAS: testAS, RouterID: localID, HoldTime: 90, RetryMax: 8 * time.Second,
		Families: []wire.Family{wire.EVPN, wire.RTC}, Consumer: r.consumer,
		Dial: func(ctx context.Context) (net.Conn, error) {
			r.mu.Lock()
			r.dials = append(r.dials, time.Since(start))
			fail := r.fail
			r.mu.Unlock()
			if fail {
				return nil, errRefused
			}
			ours, theirs := pipe(r.room)
			r.dialled <- &remote{t: t, end: theirs, helpers: &r.helpers}
			return ours, nil
		},
	}
	if change != nil {
		change(&c)
	}
	r.peer = New(c)
	var ctx context.Context
	ctx, r.stop = context.WithCancelCause(t.Context())
	go func() {
		defer close(r.done)
		r.peer.Run(ctx)
	}()
	return r
}

// failDials makes Dial fail from now on, or work again.
func (r *rig) failDials(fail bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = fail
}

func (r *rig) dialTimes() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.dials)
}

// shutdown stops the peer and returns how long that took.
func (r *rig) shutdown(cause error) time.Duration {
	start := time.Now()
	r.stop(cause)
	<-r.done
	return time.Since(start)
}

// outgoing returns the far end of the next connection that the peer makes.
func (r *rig) outgoing() *remote {
	r.t.Helper()
	select {
	case c := <-r.dialled:
		return c
	case <-time.After(time.Hour):
		r.t.Fatal("the peer does not dial")
		return nil
	}
}

// incoming connects to the peer.
func (r *rig) incoming() *remote {
	ours, theirs := pipe(r.room)
	r.helpers.Go(func() { r.peer.Accept(r.t.Context(), ours) })
	synctest.Wait() // until it was taken or refused
	return &remote{t: r.t, end: theirs, helpers: &r.helpers}
}

// state waits until nothing moves and compares the peer's state.
func (r *rig) state(want State) {
	r.t.Helper()
	synctest.Wait()
	if got := r.peer.Status().State; got != want {
		r.t.Fatalf("state is %s: want %s (last error: %s)", got, want, r.peer.Status().LastError)
	}
}

// remoteOpen is the OPEN of the other side.
func remoteOpen() wire.Open {
	return wire.Open{
		AS: testAS, HoldTime: 90, RouterID: remoteID, Families: []wire.Family{wire.RTC, wire.EVPN},
		FourOctetAS: true, RouteRefresh: true, ExtendedMessage: true,
	}
}

// establish brings a session up on a connection whose other end c is.
func (r *rig) establish(c *remote, open wire.Open) {
	r.t.Helper()
	c.expect(wire.MsgOpen)
	c.sendOpen(open)
	c.expect(wire.MsgKeepalive)
	c.write(wire.Keepalive())
	r.state(Established)
}

// remote is the other side of a connection, played by the test.
type remote struct {
	*end
	t       *testing.T
	helpers *sync.WaitGroup
}

// patience is longer than any timer of a session.
const patience = time.Hour

// read returns the next message; ok is false when the connection has ended.
func (c *remote) read() (typ wire.MsgType, body []byte, ok bool) {
	c.t.Helper()
	head := make([]byte, wire.HeaderLen)
	if !c.fill(head) {
		return 0, nil, false
	}
	typ, length, err := wire.ParseHeader(head, wire.MaxExtMessage)
	if err != nil {
		c.t.Fatal("message of the peer: ", err)
	}
	body = make([]byte, length-wire.HeaderLen)
	if !c.fill(body) {
		return 0, nil, false
	}
	return typ, body, true
}

func (c *remote) fill(b []byte) bool {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	for n := 0; n < len(b); {
		k, err := c.Read(b[n:])
		if err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				c.t.Fatal("the peer neither sends nor closes")
			}
			return false
		}
		n += k
	}
	return true
}

// expect reads a message of one type and returns its body.
func (c *remote) expect(want wire.MsgType) []byte {
	c.t.Helper()
	typ, body, ok := c.read()
	if !ok || typ != want {
		detail := ""
		if typ == wire.MsgNotification {
			n, _ := wire.ParseNotification(body)
			detail = n.String()
		}
		c.t.Fatalf("got %s %s (open: %t): want %s", typ, detail, ok, want)
	}
	return body
}

// expectNotification reads over KEEPALIVEs and UPDATEs to a NOTIFICATION, behind
// which the connection must end.
func (c *remote) expectNotification(want string) wire.Notification {
	c.t.Helper()
	for {
		typ, body, ok := c.read()
		switch {
		case !ok:
			c.t.Fatalf("connection ended without NOTIFICATION %s", want)
		case typ == wire.MsgKeepalive || typ == wire.MsgUpdate:
			continue
		case typ != wire.MsgNotification:
			c.t.Fatalf("got %s: want NOTIFICATION %s", typ, want)
		}
		n, _ := wire.ParseNotification(body)
		if got := fmt.Sprintf("%d/%d", n.Code, n.Subcode); got != want {
			c.t.Errorf("NOTIFICATION %s: want %s", n, want)
		}
		c.expectEnd()
		return n
	}
}

// expectEnd fails when there is another message before the end.
func (c *remote) expectEnd() {
	c.t.Helper()
	if typ, _, ok := c.read(); ok {
		c.t.Errorf("%s instead of the end of the connection", typ)
	}
}

func (c *remote) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal("write to the peer: ", err)
	}
}

func (c *remote) sendOpen(o wire.Open) {
	c.t.Helper()
	c.write(openMessage(c.t, o))
}

// absorb reads and forgets messages until the connection ends.
func (c *remote) absorb() {
	c.helpers.Go(func() {
		b := make([]byte, 4096)
		for err := error(nil); err == nil; {
			_, err = c.Read(b)
		}
	})
}

// repeat sends a message over and over until the connection ends.
func (c *remote) repeat(every time.Duration, msg []byte) {
	c.helpers.Go(func() {
		for err := error(nil); err == nil; time.Sleep(every) {
			_, err = c.Write(msg)
		}
	})
}

func openMessage(t *testing.T, o wire.Open) []byte {
	t.Helper()
	b, err := o.Message()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// update makes an UPDATE of the given whole length, filled with a number.
func update(n byte, length int) []byte {
	b := wire.AppendHeader(nil, wire.MsgUpdate, length-wire.HeaderLen)
	for len(b) < length {
		b = append(b, n)
	}
	return b
}
