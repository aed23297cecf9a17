// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	good := config(ourAddr, theirAddr)
	for _, tt := range []struct {
		change func(*Config)
		want   string // "" when it is valid
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.Local = netip.Addr{} }, "local address invalid IP: a unicast"},
		{func(c *Config) { c.Local = netip.IPv4Unspecified() }, "local address 0.0.0.0: a unicast"},
		{func(c *Config) { c.Remote = ip("ff02::1") }, "remote address ff02::1: a unicast"},
		{func(c *Config) { c.Remote = ip("2001:db8::1") }, "remote address 2001:db8::1: an address of the family of the local one, 192.0.2.1"},
		{func(c *Config) { c.Remote = ip("::ffff:192.0.2.2") }, ""},
		{func(c *Config) { c.Remote = ip("::ffff:192.0.2.1") }, "another than the local"},
		{func(c *Config) { c.Local, c.Remote = ip("2001:db8::1"), ip("fe80::1") }, "remote address fe80::1: link-local needs a zone or a device"},
		{func(c *Config) { c.Local, c.Remote = ip("2001:db8::1"), ip("fe80::1%eth0") }, ""},
		{func(c *Config) { c.Local, c.Remote, c.Device = ip("fe80::2"), ip("fe80::1"), "eth0" }, ""},
		{func(c *Config) { c.Device = "a-device-of-16-oc" }, `device "a-device-of-16-oc": at most 15`},
		{func(c *Config) { c.MinTTL = 254 }, "minimum TTL 254: 0 or 255"},
		{func(c *Config) { c.MinTTL = 255 }, ""},
		{func(c *Config) { c.MinTTL, c.Multihop = 1, true }, ""},
		{func(c *Config) { c.Multiplier = 0 }, "multiplier 0: 1 to 255"},
		{func(c *Config) { c.MinTx = 9 * ms }, "minimum transmit interval 9ms: 10ms to 1m0s"},
		{func(c *Config) { c.MinRx = 61 * time.Second }, "minimum receive interval 1m1s: 10ms to 1m0s"},
	} {
		c := good
		tt.change(&c)
		err := c.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: error %v: want %q", c, err, tt.want)
		}
		added, addErr := newNode(nil, newFabric()).Add(c, nil)
		if (addErr == nil) != (err == nil) {
			t.Errorf("%+v: error of Add %v: want as from Validate, %v", c, addErr, err)
		}
		if added != nil {
			added.Close()
		}
	}
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestNormal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ local, remote, device, wantLocal, wantRemote, wantDevice string }{
		{"::ffff:192.0.2.1", "192.0.2.2", "", "192.0.2.1", "192.0.2.2", ""},
		{"2001:db8::1", "2001:db8::2", "", "2001:db8::1", "2001:db8::2", ""},
		{"2001:db8::1", "fe80::2%eth0", "", "2001:db8::1", "fe80::2%eth0", "eth0"},
		{"fe80::1%eth0", "fe80::2", "", "fe80::1%eth0", "fe80::2%eth0", "eth0"},
		{"fe80::1", "fe80::2", "eth0", "fe80::1%eth0", "fe80::2%eth0", "eth0"},
		{"fe80::1", "fe80::2%eth0", "vrf1", "fe80::1%eth0", "fe80::2%eth0", "vrf1"},
		{"fe80::1%1", "fe80::2", "", "fe80::1%lo", "fe80::2%lo", "lo"},
	} {
		c := Config{Local: ip(tt.local), Remote: ip(tt.remote), Device: tt.device}.normal()
		if c.Local != ip(tt.wantLocal) || c.Remote != ip(tt.wantRemote) || c.Device != tt.wantDevice || c.MinTTL != 255 {
			t.Errorf("%+v: got %+v", tt, c)
		}
	}
}

var (
	stranger   = ip("192.0.2.9")
	rightDiscr = func(s *side, p *packet) { p.yours = s.vars.discr }
	wrongDiscr = func(s *side, p *packet) { p.yours = s.vars.discr ^ 1 }
)

var dropCases = []struct {
	name   string
	change func(s *side, p *packet)
	raw    func([]byte) []byte
	from   netip.Addr
	ttl    uint8
	multi  bool // comes in at the multihop port
	want   Reason
	node   bool // counted there
}{
	{name: "good"},
	{name: "known by discriminator", change: rightDiscr, from: stranger},
	{name: "stranger", from: stranger, want: UnknownSession, node: true},
	{name: "wrong discriminator", change: wrongDiscr, want: UnknownSession},
	{name: "wrong discriminator of a stranger", change: wrongDiscr, from: stranger, want: UnknownSession, node: true},
	{name: "by way of another port", change: rightDiscr, multi: true, want: UnknownSession, node: true},
	{name: "no discriminator and Init", change: func(_ *side, p *packet) { p.state = Init }, want: BadState},
	{name: "no discriminator and Up", change: func(_ *side, p *packet) { p.state = Up }, want: BadState},
	{name: "no discriminator and AdminDown", change: func(_ *side, p *packet) { p.state = AdminDown }},
	{name: "low TTL", ttl: 254, want: LowTTL},
	{name: "no TTL", ttl: 0, want: LowTTL},
	{name: "short", raw: func(b []byte) []byte { return b[:23] }, want: BadLength},
	{name: "short, of a stranger", raw: func(b []byte) []byte { return b[:23] }, from: stranger, want: BadLength, node: true},
	{name: "authenticated", raw: func(b []byte) []byte { b[1] |= bitAuth; b[3] = 26; return append(b, 0, 2) }, want: Authenticated},
}

// Packets that must not get to a session are counted, where it can be told at
// the session with the sender.
func TestDrops(t *testing.T) {
	t.Parallel()
	for _, tt := range dropCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			alone(t, nil, func(t *testing.T, s *side) {
				p, at, from, ttl := packet{state: Down, mult: 3, mine: 77}, s.place(), theirAddr, uint8(255)
				at.multihop = tt.multi
				if tt.change != nil {
					tt.change(s, &p)
				}
				b := p.append(nil)
				if tt.raw != nil {
					b = tt.raw(b)
				}
				if tt.from.IsValid() {
					from = tt.from
				}
				if tt.want == LowTTL {
					ttl = tt.ttl
				}
				s.Node.accept(at, b, from, ttl)
				synctest.Wait()
				atSession, atNode := counted(s.Status().Dropped), counted(s.Dropped())
				want := ""
				if tt.want != notDropped {
					want = tt.want.String()
				}
				if tt.node {
					atSession, atNode = atNode, atSession
				}
				if st := s.Status(); atSession != want || atNode != "" || (st.In == 1) != (want == "") {
					t.Errorf("dropped for %q, elsewhere %q, %d accepted: want %q", atSession, atNode, st.In, want)
				}
			})
		})
	}
}

// counted names the reasons that are not 0.
func counted(m map[Reason]uint64) string {
	var names []string
	for r := range reasons {
		if m[r] > 0 {
			names = append(names, r.String())
		}
	}
	return strings.Join(names, ", ")
}

func TestMinTTL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		least, ttl uint8
		ok         bool
	}{{0, 1, true}, {0, 0, false}, {250, 250, true}, {250, 249, false}, {255, 255, true}} {
		alone(t, func(c *Config) { c.Multihop, c.MinTTL = true, tt.least }, func(t *testing.T, s *side) {
			s.Node.accept(s.place(), packet{state: Down, mult: 3, mine: 77}.append(nil), theirAddr, tt.ttl)
			synctest.Wait()
			if got := s.Status().In == 1; got != tt.ok {
				t.Errorf("TTL %d with minimum %d: accepted %t: want %t", tt.ttl, tt.least, got, tt.ok)
			}
		})
	}
}

// One socket serves all sessions of a place, and goes with the last.
func TestPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFabric()
		n := newNode(nil, f)
		sockets := func(want int) {
			t.Helper()
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.ears) != want {
				t.Errorf("%d listening sockets: want %d", len(f.ears), want)
			}
		}
		var all []*Session
		for i, want := range []int{1, 2, 3, 3} {
			c := config(ourAddr, theirAddr)
			c.Multihop = i == 1
			c.Device = []string{"", "", "eth0", ""}[i]
			c.Remote = []netip.Addr{theirAddr, theirAddr, theirAddr, ip("192.0.2.3")}[i]
			s, err := n.Add(c, nil)
			if err != nil {
				t.Fatal(err)
			}
			sockets(want)
			all = append(all, s)
		}
		seen := map[uint32]bool{0: true}
		for _, s := range all {
			d := s.Status().Discriminator
			if seen[d] {
				t.Errorf("discriminator %d is 0 or used twice", d)
			}
			seen[d] = true
		}
		var wg sync.WaitGroup
		for _, s := range append(all, all...) {
			wg.Go(s.Close)
		}
		wg.Wait()
		sockets(0)
		if len(n.byAddr)+len(n.byDiscr)+len(n.endpoints) > 0 {
			t.Error("something is left in the node")
		}
	})
}

func TestAddTwice(t *testing.T) {
	t.Parallel()
	alone(t, nil, func(t *testing.T, s *side) {
		_, err := s.Add(config(ourAddr, theirAddr), nil)
		if err == nil || !strings.Contains(err.Error(), "192.0.2.2: there is one") {
			t.Errorf("error %v for the second of a kind", err)
		}
		s.raise() // which did not disturb the first
	})
}

// brokenNet fails to open what it is told to.
type brokenNet struct {
	*fabric
	listening, dialling bool
}

var errBroken = errors.New("broken")

func (n brokenNet) listen(p place) (receiver, error) {
	if n.listening {
		return nil, errBroken
	}
	return n.fabric.listen(p)
}

func (n brokenNet) dial(p place, to netip.Addr) (sender, error) {
	if n.dialling {
		return nil, errBroken
	}
	return n.fabric.dial(p, to)
}

func TestAddFails(t *testing.T) {
	t.Parallel()
	for _, b := range []brokenNet{{listening: true}, {dialling: true}} {
		b.fabric = newFabric()
		n := newNode(nil, b)
		if _, err := n.Add(config(ourAddr, theirAddr), nil); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "192.0.2.2") {
			t.Errorf("error %v", err)
		}
		if len(n.byAddr)+len(n.byDiscr)+len(n.endpoints)+len(b.ears) > 0 {
			t.Error("something is left in the node")
		}
	}
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// logged runs a lone side with a log.
func logged(t *testing.T, test func(t *testing.T, s *side, log *syncBuffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := &syncBuffer{}
		s := newSide(t, newFabric(), config(ourAddr, theirAddr), slog.New(slog.NewTextHandler(log, nil)))
		defer s.Close()
		test(t, s, log)
	})
}
