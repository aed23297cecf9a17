// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/rr"
)

// faultsFull asks for the long form of tests of faults.
var faultsFull = os.Getenv("BAGPIPE_FAULTS") == "full"

// holdTime is what the nodes of these tests propose, in seconds.
const holdTime = 6

// second is so many packets of a probe.
const second = int(time.Second / probeEvery)

// reflector is "bagpipe rr" on a host of its own, so that it can be cut off while the nodes
// still reach each other.
type reflector struct {
	f     *fabric
	ns    *nstest.NS
	label string
	addr  netip.Addr
	proc  *process
}

// reflector adds a reflector to the fabric and starts it.
func (f *fabric) reflector(label string, number int) *reflector {
	f.t.Helper()
	r := &reflector{f: f, ns: f.host(label, number), label: label, addr: f.addr(number)}
	r.start()
	return r
}

// start starts the program and waits until it takes clients.
func (r *reflector) start() {
	r.f.t.Helper()
	r.proc = startProcess(r.f.t, r.ns, r.label, program("bagpipe"), "rr", "--as", fmt.Sprint(asn),
		"--router-id", r.addr.String(), "--listen", r.addr.String(), "--client-prefix", r.f.prefix(0).Masked().String())
	r.proc.ready(func() error { return r.proc.logged(rr.ListeningMessage) })
}

// link sets the fabric's end of the reflector's cable "up" or "down".
func (r *reflector) link(state string) {
	r.f.t.Helper()
	ip(r.f.t, r.f.hub, "link set to-"+r.label+" "+state)
}

// couple is two nodes with two machines on one and one on the other, in an E-VPN of driver
// linux and in a VRF of driver ebpf, with traffic between all of them.
type couple struct {
	t          *testing.T
	a, b       *node
	reflectors []*reflector
	evpn, vrf  []*vm // a1, a2, b1
	traffic    map[string]traffic
}

// newCouple makes a fabric with reflectors and starts the traffic.
func newCouple(t *testing.T, reflectors int) *couple {
	t.Helper()
	c := &couple{t: t}
	f := bareFabric(t, 4, enoughMTU)
	s := settings{bgp: []string{fmt.Sprintf("hold_time = %d", holdTime)}, ipvpn: []string{"dataplane_driver = ebpf"}}
	for n := range reflectors {
		r := f.reflector(fmt.Sprintf("rr%d", n+1), reflectorNumber+1+n)
		c.reflectors, s.peers = append(c.reflectors, r), append(s.peers, r.addr)
	}
	c.a, c.b = f.nodeWith("a", 11, s), f.nodeWith("b", 12, s)
	c.evpn = []*vm{c.a.vm("a1", 11), c.a.vm("a2", 12), c.b.vm("b1", 21)}
	c.vrf = []*vm{c.a.routed("ra1", 1, 1500), c.a.routed("ra2", 2, 1500), c.b.routed("rb1", 3, 1500)}
	for n := range c.evpn {
		c.evpn[n].attach(red)
		c.vrf[n].join(blue)
	}
	c.joined()
	c.traffic = map[string]traffic{linuxEVPN.name: c.start(c.evpn), ebpfPlane.name: c.start(c.vrf)}
	return c
}

func (c *couple) start(m []*vm) traffic {
	c.t.Helper()
	m[0].reaches(m[1], m[2])
	m[1].reaches(m[2])
	return startTraffic(c.t, m[0], m[1], m[2])
}

// joined waits until each node has all sessions and forwards to the other's machines, no more and no less.
func (c *couple) joined() {
	c.t.Helper()
	for _, n := range []*node{c.a, c.b} {
		for _, r := range c.reflectors {
			eventually(c.t, recovery, func() error { return n.has(r, "Established") })
		}
	}
	c.a.forwards(red, forwarding{}.behind(c.b.addr, c.evpn[2]))
	c.b.forwards(red, forwarding{}.behind(c.a.addr, c.evpn[0], c.evpn[1]))
	for _, n := range []*node{c.a, c.b} {
		if status, body := n.get("/readyz"); status != 200 {
			c.t.Errorf("/readyz of %s with a session: %d %s", n.label, status, body)
		}
	}
}

// recovery is how long a node may take until it is back with a reflector that flapped: a pause
// of a minute at most, and what it takes to connect.
const recovery = 70 * time.Second

// has returns an error unless the session with a reflector is in a state.
func (n *node) has(r *reflector, state string) error {
	s, err := n.session(r.addr)
	if err == nil && s.State != state {
		err = fmt.Errorf("session of %s with %s is %s, want %s", n.label, r.label, s.State, state)
	}
	return err
}

// apart waits until no node reaches the other's machines, and checks that both say so.
func (c *couple) apart() {
	c.t.Helper()
	for _, n := range []*node{c.a, c.b} {
		n.forwards(red, forwarding{})
		if status, body := n.get("/readyz"); status != 503 || !strings.Contains(body, "bgp peer "+c.reflectors[0].addr.String()) {
			c.t.Errorf("/readyz of %s without any session: %d %s", n.label, status, body)
		}
	}
	for _, tr := range c.traffic {
		for _, p := range slices.Concat(tr.from, tr.to) {
			p.stopped(20)
		}
	}
}

// passes lets some seconds pass, by the packets that must arrive within the node meanwhile.
func (c *couple) passes(seconds int) {
	c.t.Helper()
	c.traffic[linuxEVPN.name].within[0].flows(seconds * second)
}

// fault makes a row for each dataplane of what is done. Afterwards all traffic must flow
// again, without anybody's help, before limits are looked at.
func (c *couple) fault(what string, allowed limits, do func()) {
	c.t.Helper()
	var rows []*fault
	for _, dataplane := range slices.Sorted(maps.Keys(c.traffic)) {
		rows = append(rows, c.traffic[dataplane].fault(c.t, what, dataplane, "bagpipe rr"))
	}
	do()
	c.joined()
	for _, tr := range c.traffic {
		tr.flows(40)
	}
	for _, f := range rows {
		f.end(allowed)
	}
}

// reconnects are the longest gaps when a reflector is away for some time: it counts from the moment
// that the session is lost, and a node dials again within a second.
func reconnects(away time.Duration) limits {
	return limits{from: away + 5*time.Second, to: away + 5*time.Second}
}

// TestReflectorRestart ends the only reflector, which keeps nothing, and starts it again.
// Remote traffic stops until it is back; what is local to a node goes on.
func TestReflectorRestart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what string
		sig  syscall.Signal
		away time.Duration
	}{
		{"reflector killed, started again at once", syscall.SIGKILL, 0},
		{"reflector stopped, started again at once", syscall.SIGTERM, 0},
		{"reflector killed, started again after 3 s", syscall.SIGKILL, 3 * time.Second},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			c := newCouple(t, 1)
			c.fault(tt.what, reconnects(tt.away), func() {
				c.reflectors[0].proc.end(tt.sig)
				if tt.away > 0 {
					c.apart()
					c.passes(int(tt.away / time.Second))
				}
				c.reflectors[0].start()
			})
		})
	}
}

// TestReflectorUnreachable drops all packets between the reflector and its clients: first for a
// moment, which nobody must notice, then until the hold time is over on all sides.
func TestReflectorUnreachable(t *testing.T) {
	t.Parallel()
	c := newCouple(t, 1)
	r := c.reflectors[0]
	before, err := c.a.session(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.fault("reflector unreachable for 1 s", limits{}, func() {
		r.link("down")
		c.passes(1)
		r.link("up")
		c.passes(3)
	})
	if now, err := c.a.session(r.addr); err != nil || now != before {
		t.Errorf("session after a second without the reflector: %v %v, was %v", now, err, before)
	}
	c.fault("reflector unreachable for the hold time and 3 s", reconnects(3*time.Second), func() {
		r.link("down")
		c.apart()
		eventually(t, routeTimeout, func() error { return r.proc.logged("clients=0") })
		c.passes(3)
		r.link("up")
	})
}

// TestReflectorFlaps kills the only reflector every second and starts it again. Afterwards each
// node is as it was.
func TestReflectorFlaps(t *testing.T) {
	t.Parallel()
	flaps := 8
	if faultsFull {
		flaps = 30
	}
	c := newCouple(t, 1)
	before := map[*node]footprint{c.a: c.a.footprint(), c.b: c.b.footprint()}
	gap := time.Duration(2*flaps)*time.Second + recovery
	c.fault("reflector killed every other second, started again in between", limits{from: gap, to: gap}, func() {
		for range flaps {
			c.reflectors[0].proc.end(syscall.SIGKILL)
			c.passes(1)
			c.reflectors[0].start()
			c.passes(1)
		}
	})
	for n, was := range before {
		n.level(was)
	}
	c.wantRoutes()
}

// TestTwoReflectors takes one of two reflectors away, and the other one when it is back: the routes
// of the one that is left are used all the time.
func TestTwoReflectors(t *testing.T) {
	t.Parallel()
	c := newCouple(t, 2)
	c.wantRoutes()
	w := c.a.watch(red)
	kill := func(r *reflector) {
		r.proc.end(syscall.SIGKILL)
		c.gone(r)
		c.passes(1)
		r.start()
		c.wantRoutes()
	}
	c.fault("one of two reflectors killed, started again", limits{}, func() { kill(c.reflectors[0]) })
	c.fault("the other of two reflectors killed, started again", limits{}, func() { kill(c.reflectors[1]) })
	c.fault("one of two reflectors unreachable for the hold time", limits{}, func() {
		c.reflectors[0].link("down")
		c.gone(c.reflectors[0])
		eventually(t, routeTimeout, func() error { return c.reflectors[0].proc.logged("clients=0") })
		c.reflectors[0].link("up")
		c.wantRoutes()
	})
	w.never(gone, c.evpn[2])
	c.fault("both reflectors unreachable for the hold time and 3 s", reconnects(3*time.Second), func() {
		for _, r := range c.reflectors {
			r.link("down")
		}
		c.apart()
		c.passes(3)
		for _, r := range c.reflectors {
			r.link("up")
		}
	})
	c.wantRoutes()
}

// gone waits until no node has a session with a reflector.
func (c *couple) gone(r *reflector) {
	c.t.Helper()
	for _, n := range []*node{c.a, c.b} {
		eventually(c.t, routeTimeout, func() error {
			if n.has(r, "Established") == nil {
				return fmt.Errorf("%s still has a session with %s", n.label, r.label)
			}
			return nil
		})
	}
}

// wantRoutes waits until each node has all routes of the other from each reflector: for the E-VPN,
// per machine 2, and 1 to flood; for the VRF 1 per machine and IP version.
func (c *couple) wantRoutes() {
	c.t.Helper()
	for n, machines := range map[*node]int{c.a: 1, c.b: 2} {
		for _, r := range c.reflectors {
			eventually(c.t, recovery, func() error {
				var out struct {
					Counts struct {
						Received map[string]int `json:"received"`
					} `json:"route_counts"`
				}
				err := n.glass(&out, "bgp", "peers", r.addr.String())
				want := map[string]int{"l2vpn/evpn": 2*machines + 1, "ipv4/mpls-vpn": machines, "ipv6/mpls-vpn": machines}
				for family, routes := range want {
					if got := out.Counts.Received[family]; err == nil && got != routes {
						err = fmt.Errorf("%s has %d routes of %s from %s, want %d: %v", n.label, got, family, r.label, routes, out.Counts)
					}
				}
				return err
			})
		}
	}
}

// footprint is what a daemon takes of its host.
type footprint struct{ goroutines, memory, files float64 }

func (n *node) footprint() footprint {
	n.t.Helper()
	return footprint{n.metric("go_goroutines"), n.metric("process_resident_memory_bytes"), n.metric("process_open_fds")}
}

// level waits until the daemon takes no more of its host than before: as many goroutines and
// files, but for those of the request itself, and 20 MB more at most.
func (n *node) level(was footprint) {
	n.t.Helper()
	eventually(n.t, routeTimeout, func() error {
		now := n.footprint()
		if now.goroutines > was.goroutines+2 || now.files > was.files+2 || now.memory > was.memory+20e6 {
			return fmt.Errorf("%s takes %+v, took %+v", n.label, now, was)
		}
		return nil
	})
}
