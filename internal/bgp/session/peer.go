// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
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
	// Restart returns the graceful restart capability for an OPEN (RFC 4724 §3);
	// nil, or a nil result, offers none.
	Restart func() *wire.GracefulRestart
	// LongLived offers long-lived graceful restart, as a helper (RFC 9494).
	LongLived bool
	// NextHops lists next hops of another family that we take (RFC 8950).
	NextHops []wire.ExtendedNextHop
	// Hostname is told to the peer; "" is not.
	Hostname string
	// Passive peers are not dialled.
	Passive bool
	// Linger is set for neighbours that are known only because they connected: Run
	// returns when there has been no connection for that long, unless it is Needed,
	// or held down.
	Linger time.Duration
	// Needed tells whether the peer must not be forgotten; nil means no.
	Needed func() bool
	// Disabled peers stay down until Enable.
	Disabled bool
	// DisabledText is what Status says about a peer that is Disabled.
	DisabledText string
	// PrefixPause is how long the peer is held down after it sent more routes
	// than allowed; 0: until Enable. SetPauses changes it.
	PrefixPause time.Duration
	// RetryMax is the longest pause between two attempts to connect. SetPauses
	// changes it.
	RetryMax time.Duration
	// Dial makes the TCP connection; nil means a plain dial from Local.
	Dial func(ctx context.Context) (net.Conn, error)
	// Consumer gets the established sessions.
	Consumer Consumer
	Log      *slog.Logger
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
	// Flush is called when no further message is at hand. An error ends the session.
	Flush() *wire.Error
	// Refresh handles a ROUTE-REFRESH (RFC 2918; subtype of RFC 7313).
	Refresh(f wire.Family, subtype uint8)
	// Fill adds messages to p and tells whether there are more to send now.
	Fill(p *wire.Packer) (more bool)
	// Wake returns the channel that signals that Fill has something.
	Wake() <-chan struct{}
	// Down is called once, after the last call of all others, with how the session
	// ended.
	Down(Loss)
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
	commands chan func()
	ended    chan struct{} // closed when Run returns

	out, in  *track
	retry    *time.Timer // ConnectRetryTimer or idle back-off
	starting bool        // retry is the idle back-off
	backOff  time.Duration
	upSince  time.Time
	flaps    int // sessions in a row that did not live for stableAfter
	stopping bool
	disabled bool        // by the operator, or for too many routes
	resume   *time.Timer // end of the latter
	linger   *time.Timer // of neighbours that only connect
	wg       sync.WaitGroup

	counters counters

	retryMax, prefixPause atomic.Int64 // nanoseconds

	mu     sync.Mutex
	status Status
}

// track is one of the two connections a peer can have.
type track struct {
	name     string
	m        machine
	conn     *conn
	dialling context.CancelFunc
	sent     wire.Open // ours
	sentOpen []byte    // as a message
	open     wire.Open // the peer's
	deal     Negotiated
	loss     Loss // how the session ended
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
	raw   []byte      // the OPEN message
	keep  bool        // routes may be kept whatever the event says (RFC 5882 §4.3)
	reply chan<- Flow // of the reader, which waits until the event was handled
}

// New returns a peer that does nothing until Run.
func New(c Config) *Peer {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("peer", c.Peer.String())
	p := &Peer{Config: c, events: make(chan incident), accepted: make(chan net.Conn), commands: make(chan func()),
		ended: make(chan struct{}), backOff: firstRetry, retry: stoppedTimer(), resume: stoppedTimer(), linger: stoppedTimer(), disabled: c.Disabled}
	p.out = &track{name: "out", m: machine{passive: c.Passive}, hold: stoppedTimer(), keep: stoppedTimer()}
	p.in = &track{name: "in", m: machine{passive: true}, hold: stoppedTimer(), keep: stoppedTimer()}
	p.SetPauses(c.RetryMax, c.PrefixPause)
	p.status = Status{Peer: c.Peer, State: Idle, Since: time.Now()}
	if c.Disabled {
		p.status.Hold, p.status.HeldDown = ByOperator, c.DisabledText
	}
	return p
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// Run keeps a session with the peer until ctx ends; then it closes the session
// with a Cease whose communication is the cause of ctx, with the one for
// ErrDeconfigured or ErrReconfigured, or without a word when the cause is
// ErrRestarting and the peer will keep our routes. It returns when
// all its goroutines have ended.
func (p *Peer) Run(ctx context.Context) {
	defer close(p.ended)
	p.start()
	p.lingerOn()
	for {
		select {
		case <-ctx.Done():
			p.shutdown(ctx)
			return
		case c := <-p.accepted:
			p.accept(c)
		case f := <-p.commands:
			f()
		case i := <-p.events:
			p.handle(i)
		case <-p.retry.C:
			p.retryExpired()
		case <-p.resume.C:
			p.enable()
		case <-p.out.hold.C:
			p.holdExpired(p.out)
		case <-p.in.hold.C:
			p.holdExpired(p.in)
		case <-p.out.keep.C:
			p.drive(p.out, incident{ev: evKeepaliveTimer})
		case <-p.in.keep.C:
			p.drive(p.in, incident{ev: evKeepaliveTimer})
		case <-p.linger.C:
			if p.unconnected() && !p.disabled && (p.Needed == nil || !p.Needed()) {
				p.shutdown(ctx)
				return
			}
			p.lingerOn()
		}
		p.publish()
	}
}

// unconnected tells whether there is no connection.
func (p *Peer) unconnected() bool { return p.out.m.state <= Active && p.in.m.state <= Active }

// lingerOn starts the time after which a neighbour without a connection is
// forgotten.
func (p *Peer) lingerOn() {
	if p.Linger > 0 {
		p.linger.Reset(p.Linger)
	}
}

// Accept hands over a connection that the peer made, and returns false when
// Run has returned and cannot take it. The connection is closed when ctx ends.
func (p *Peer) Accept(ctx context.Context, c net.Conn) bool {
	select {
	case p.accepted <- c:
	case <-ctx.Done():
		_ = c.Close()
	case <-p.ended:
		return false
	}
	return true
}

func (p *Peer) start() {
	p.starting = false
	if !p.disabled {
		p.drive(p.out, incident{ev: evStart})
		p.drive(p.in, incident{ev: evStart})
	}
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
	cause := context.Cause(ctx)
	for _, t := range []*track{p.out, p.in} {
		stop := incident{ev: evStop}
		if !errors.Is(cause, ErrRestarting) || !t.deal.KeepsOurs() {
			stop.bad = t.final(farewell(cause))
		}
		p.drive(t, stop)
	}
	p.resume.Stop()
	p.linger.Stop()
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
		case <-p.commands: // too late
		case <-done:
			return
		}
	}
}

// accept starts a connection that the peer made, unless one is under way on which
// it has sent its OPEN: one that is silent may be of a host that died. Where there
// is a session and the peer has graceful restart, it may have restarted before we
// noticed: its OPEN will tell (RFC 4724 §4.2).
func (p *Peer) accept(nc net.Conn) {
	t := p.in
	old := p.established()
	if old == p.in {
		t = p.out
	}
	switch {
	case p.disabled:
		refuse(nc, wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseRejected})
		return
	case t.m.state > OpenSent, old != nil && !old.deal.GracefulRestart():
		refuse(nc, wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseCollision})
		return
	}
	if t.m.state == OpenSent {
		p.drive(t, incident{ev: evCollision, conn: t.conn})
	}
	t.m.state = Active // also out of the back-off after an error
	t.conn = p.newConn(t, nc)
	p.drive(t, incident{ev: evConnected, conn: t.conn})
}

// established returns the track that has the session, or nil.
func (p *Peer) established() *track {
	for _, t := range []*track{p.out, p.in} {
		if t.m.state == Established {
			return t
		}
	}
	return nil
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
		if tooManyPrefixes(i) {
			i.bad = t.final(i.bad)
			p.holdDown()
		}
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
	case other.m.state == Established && other.deal.GracefulRestart():
		p.drive(other, incident{ev: evClosed, conn: other.conn, err: errors.New("peer opened a new connection: it has restarted")})
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
	p.negotiate(t, i.raw)
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
	o := wire.Open{
		AS: p.LocalAS, HoldTime: p.HoldTime, RouterID: p.RouterID, Families: p.Families, NextHops: p.NextHops, Hostname: p.Hostname,
		FourOctetAS: true, RouteRefresh: true, EnhancedRefresh: true, ExtendedMessage: true,
	}
	if p.Restart != nil {
		o.GracefulRestart = p.Restart()
	}
	if p.LongLived && o.GracefulRestart != nil {
		o.LongLived = []wire.LongLived{} // we keep the peer's routes, and ask it to keep none of ours
	}
	return o
}

// negotiate computes what both OPENs add up to; raw is the peer's message.
func (p *Peer) negotiate(t *track, raw []byte) {
	t.deal = Negotiated{
		Local: p.Local, Peer: p.Peer, LocalPort: port(t.conn.nc.LocalAddr()), PeerPort: port(t.conn.nc.RemoteAddr()),
		PeerAS: t.open.AS, PeerID: t.open.RouterID,
		HoldTime:    time.Duration(min(p.HoldTime, t.open.HoldTime)) * time.Second,
		FourOctetAS: t.open.FourOctetAS, RouteRefresh: t.open.RouteRefresh, ExtendedMessage: t.open.ExtendedMessage,
		Ours: t.sent, Theirs: t.open, SentOpen: t.sentOpen, ReceivedOpen: raw,
	}
	for _, f := range p.Families {
		if slices.Contains(t.open.Families, f) {
			t.deal.Families = append(t.deal.Families, f)
		}
	}
}

func port(a net.Addr) uint16 {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Port()
	}
	return 0
}

// jitter spreads a time over 75 to 100 percent (RFC 4271 §10).
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}
