// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// Config describes a peer.
type Config struct {
	// Peer is the other side's address; Port its TCP port.
	Peer netip.Addr
	Port uint16
	// Local is the source address of our connections.
	Local netip.Addr
	// LocalAS is ours; PeerAS the one that the peer must have.
	LocalAS, PeerAS uint32
	// RouterID is our BGP identifier, IPv4.
	RouterID netip.Addr
	// HoldTime is what we propose, in seconds: 0, or at least 3.
	HoldTime uint16
	// Families that we offer.
	Families []wire.Family
	// Passive peers are not dialled.
	Passive bool
	// Once makes Run return when the first connection has ended: for neighbours
	// that are known only because they connected.
	Once bool
	// RetryMax is the longest pause between two attempts to connect.
	RetryMax time.Duration
	// Dial makes the TCP connection; nil means a plain dial from Local.
	Dial func(ctx context.Context) (net.Conn, error)
	// Consumer gets the established sessions.
	Consumer Consumer
	Log      *slog.Logger
}

// Negotiated is what both sides of a session agreed on.
type Negotiated struct {
	Local, Peer               netip.Addr
	PeerAS                    uint32
	PeerID                    netip.Addr
	HoldTime                  time.Duration // 0: no keepalives
	Families                  []wire.Family // in our order
	FourOctetAS, RouteRefresh bool
	ExtendedMessage           bool
}

// MaxMessage returns the longest message allowed on the session, in octets.
func (n Negotiated) MaxMessage() int {
	if n.ExtendedMessage {
		return wire.MaxExtMessage
	}
	return wire.MaxMessage
}

// Consumer is told of established sessions.
type Consumer interface {
	// Up is called when a session is established, before its first UPDATE is
	// read. The returned Flow serves this session only.
	Up(Negotiated) Flow
}

// Flow takes the routes of a session and gives those to send. Update, Flush
// and Refresh are called by the reader, Fill by the writer, each from one
// goroutine at a time.
type Flow interface {
	// Update handles the body of an UPDATE, valid during the call only. An error
	// (of class SessionReset) ends the session.
	Update(body []byte) *wire.Error
	// Flush is called when no further message is at hand.
	Flush()
	// Refresh handles a ROUTE-REFRESH (RFC 2918; subtype of RFC 7313).
	Refresh(f wire.Family, subtype uint8)
	// Fill adds messages to p and tells whether there are more to send now.
	Fill(p *wire.Packer) (more bool)
	// Wake returns the channel that signals that Fill has something.
	Wake() <-chan struct{}
	// Down is called once, after the last call of all others.
	Down()
}

// Timing that is not configurable.
const (
	dialTimeout  = 15 * time.Second
	firstRetry   = 500 * time.Millisecond
	stableAfter  = time.Minute // a session that lived so long resets the back-off
	flapsAllowed = 3           // shorter sessions in a row, before pauses grow beyond RetryMax
	flapRetry    = time.Minute // to this at most: each flap costs both sides a full exchange of routes
	closeTimeout = time.Second // for the last NOTIFICATION
)

// Peer is one BGP neighbour. Make it with New, then Run it.
type Peer struct {
	Config
	events   chan incident
	accepted chan net.Conn
	ended    chan struct{} // closed when Run returns

	out, in  *track
	retry    *time.Timer // ConnectRetryTimer or idle back-off
	starting bool        // retry is the idle back-off
	backOff  time.Duration
	upSince  time.Time
	flaps    int // sessions in a row that did not live for stableAfter
	stopping bool
	used     bool // there was a connection
	wg       sync.WaitGroup

	counters counters
	mu       sync.Mutex
	status   Status
}

// track is one of the two connections a peer can have.
type track struct {
	name     string
	m        machine
	conn     *conn
	dialling context.CancelFunc
	open     wire.Open // the peer's
	deal     Negotiated
	hold     *time.Timer
	keep     *time.Timer
}

// incident is an event with what came along.
type incident struct {
	ev    event
	conn  *conn // whose event it is; nil for dials
	dial  net.Conn
	err   error
	bad   wire.Notification
	open  wire.Open
	reply chan<- Flow // of the reader, which waits until the event was handled
}

// New returns a peer that does nothing until Run.
func New(c Config) *Peer {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("peer", c.Peer.String())
	p := &Peer{Config: c, events: make(chan incident), accepted: make(chan net.Conn), ended: make(chan struct{}), backOff: firstRetry, retry: stoppedTimer()}
	p.out = &track{name: "out", m: machine{passive: c.Passive}, hold: stoppedTimer(), keep: stoppedTimer()}
	p.in = &track{name: "in", m: machine{passive: true}, hold: stoppedTimer(), keep: stoppedTimer()}
	p.status = Status{Peer: c.Peer, State: Idle, Since: time.Now()}
	return p
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// Run keeps a session with the peer until ctx ends; then it closes the session
// with a Cease whose communication is the cause of ctx, and returns when all
// its goroutines have ended.
func (p *Peer) Run(ctx context.Context) {
	defer close(p.ended)
	p.start()
	for {
		select {
		case <-ctx.Done():
			p.shutdown(ctx)
			return
		case c := <-p.accepted:
			p.accept(c)
		case i := <-p.events:
			p.handle(i)
		case <-p.retry.C:
			p.retryExpired()
		case <-p.out.hold.C:
			p.holdExpired(p.out)
		case <-p.in.hold.C:
			p.holdExpired(p.in)
		case <-p.out.keep.C:
			p.drive(p.out, incident{ev: evKeepaliveTimer})
		case <-p.in.keep.C:
			p.drive(p.in, incident{ev: evKeepaliveTimer})
		}
		p.publish()
		if p.Once && p.used && p.in.m.state <= Active {
			p.shutdown(ctx)
			return
		}
	}
}

// Accept hands over a connection that the peer made. It is closed when ctx ends
// or the peer cannot use it, for example because Run has returned.
func (p *Peer) Accept(ctx context.Context, c net.Conn) {
	select {
	case p.accepted <- c:
	case <-ctx.Done():
		_ = c.Close()
	case <-p.ended:
		_ = c.Close()
	}
}

func (p *Peer) start() {
	p.starting = false
	p.drive(p.out, incident{ev: evStart})
	p.drive(p.in, incident{ev: evStart})
	p.publish()
}

func (p *Peer) retryExpired() {
	if p.starting {
		p.start()
		return
	}
	p.drive(p.out, incident{ev: evRetry})
}

func (p *Peer) shutdown(ctx context.Context) {
	p.stopping = true
	text := ""
	if cause := context.Cause(ctx); cause != nil && cause != context.Canceled {
		text = cause.Error()
	}
	stop := incident{ev: evStop, bad: wire.Shutdown(wire.CeaseAdminShutdown, text)}
	p.drive(p.out, stop)
	p.drive(p.in, stop)
	p.retry.Stop()
	p.publish()
	done := make(chan struct{})
	go func() { p.wg.Wait(); close(done) }()
	for {
		select {
		case i := <-p.events: // late events of readers and dials that are ending
			if i.dial != nil {
				_ = i.dial.Close()
			}
			if i.reply != nil {
				close(i.reply)
			}
		case c := <-p.accepted:
			_ = c.Close()
		case <-done:
			return
		}
	}
}

// accept starts a connection that the peer made, unless one is under way.
func (p *Peer) accept(nc net.Conn) {
	switch {
	case p.out.m.state == Established || p.in.m.state > Active:
		refuse(nc, wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseCollision})
		return
	case p.in.m.state == Idle: // in the back-off after an error
		p.in.m.on(evStart, wire.Notification{})
	}
	p.used = true
	p.in.conn = p.newConn(p.in, nc)
	p.drive(p.in, incident{ev: evConnected, conn: p.in.conn})
}

func refuse(nc net.Conn, n wire.Notification) {
	_ = nc.SetWriteDeadline(time.Now().Add(closeTimeout))
	_, _ = nc.Write(n.Message())
	_ = nc.Close()
}

// handle deals with an event of a reader or a dial.
func (p *Peer) handle(i incident) {
	t := p.out
	if i.conn != nil {
		t = i.conn.track
	}
	stale := i.conn != nil && t.conn != i.conn
	switch {
	case stale:
	case i.ev == evConnected && t.m.state != Connect:
		_ = i.dial.Close()
	case i.ev == evConnected:
		t.dialling()
		t.conn = p.newConn(t, i.dial)
		i.conn = t.conn
		p.drive(t, i)
	case i.ev == evOpen && t.m.state == OpenSent:
		p.opened(t, i)
	default:
		p.drive(t, i)
	}
	if i.reply != nil {
		var f Flow
		if !stale && t.conn == i.conn && t.m.state == Established {
			f = i.conn.flow
		}
		i.reply <- f
	}
}

// opened checks the peer's OPEN and resolves a collision before the FSM sees it.
func (p *Peer) opened(t *track, i incident) {
	if subcode, err := p.unacceptable(i.open); err != nil {
		i.ev, i.err = evBadMessage, err
		i.bad = wire.Notification{Code: wire.CodeOpen, Subcode: subcode}
		p.drive(t, i)
		return
	}
	t.open = i.open
	other := p.out
	if t == p.out {
		other = p.in
	}
	switch {
	case other.m.state == Established:
		p.drive(t, incident{ev: evCollision, conn: t.conn})
		return
	case other.m.state == OpenConfirm:
		loser := p.in
		if collisionLoser(p.localOpen(), i.open) {
			loser = p.out
		}
		p.drive(loser, incident{ev: evCollision, conn: loser.conn})
		if loser == t {
			return
		}
	}
	p.negotiate(t)
	p.drive(t, i)
}

// unacceptable returns what is wrong with an OPEN that is valid by itself, and
// the subcode for it (RFC 4271 §6.2).
func (p *Peer) unacceptable(o wire.Open) (subcode uint8, err error) {
	switch {
	case o.AS != p.PeerAS:
		return wire.OpenBadPeerAS, fmt.Errorf("peer has AS %d: want %d", o.AS, p.PeerAS)
	case o.RouterID == p.RouterID && p.LocalAS == p.PeerAS:
		return wire.OpenBadIdentifier, fmt.Errorf("peer has our own BGP identifier %s", p.RouterID)
	}
	return 0, nil
}

func (p *Peer) localOpen() wire.Open {
	return wire.Open{
		AS: p.LocalAS, HoldTime: p.HoldTime, RouterID: p.RouterID, Families: p.Families,
		FourOctetAS: true, RouteRefresh: true, ExtendedMessage: true,
	}
}

// negotiate computes what both OPENs add up to.
func (p *Peer) negotiate(t *track) {
	t.deal = Negotiated{
		Local: p.Local, Peer: p.Peer, PeerAS: t.open.AS, PeerID: t.open.RouterID,
		HoldTime:    time.Duration(min(p.HoldTime, t.open.HoldTime)) * time.Second,
		FourOctetAS: t.open.FourOctetAS, RouteRefresh: t.open.RouteRefresh, ExtendedMessage: t.open.ExtendedMessage,
	}
	for _, f := range p.Families {
		if slices.Contains(t.open.Families, f) {
			t.deal.Families = append(t.deal.Families, f)
		}
	}
}

// jitter spreads a time over 75 to 100 percent (RFC 4271 §10).
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}
