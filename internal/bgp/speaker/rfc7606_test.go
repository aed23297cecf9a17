// SPDX-License-Identifier: Apache-2.0

package speaker

import (
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// clause is a line of the file that the wire package's test has of its cases.
type clause struct {
	name, session, want string
	body                []byte
}

func clauses(t *testing.T) []clause {
	t.Helper()
	b, err := os.ReadFile("../wire/testdata/rfc7606.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []clause
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(f) != 5 {
			continue
		}
		body, err := hex.DecodeString(f[3])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, clause{f[0] + ": " + f[1], f[2], f[4], body})
	}
	if len(all) < 200 {
		t.Fatalf("%d cases: want all of them", len(all))
	}
	return all
}

// externalAS is in the AS_PATH of the cases for external peers.
const externalAS = 64512

// open brings a session up as a case needs it.
func (c clause) open(t *testing.T) (*node, *rawPeer) {
	t.Helper()
	o := peerOpen(wire.Families...)
	o.FourOctetAS = c.session != "iBGP with two-octet AS numbers"
	if c.external() {
		o.AS = externalAS
	}
	n := startNode(t, func(cfg *Config) {
		passivePeer(wire.Families...)(cfg)
		cfg.Settings.AS = o.AS
	})
	p := connect(t, n, peerAddr)
	p.open(o)
	return n, p
}

func (c clause) external() bool { return c.session == "eBGP" }

// update makes an UPDATE that announces a route, as the session wants it.
func (c clause) update(r wire.Route) []byte {
	a := wire.LocalAttrs{NextHop: peerAddr, RTs: []wire.RT{rt100}}.Build()
	raw := a.Raw
	if c.external() {
		raw = wire.ExternalAttrs(a, externalAS, true)
	}
	p := wire.NewPacker(wire.MaxMessage)
	p.Announce(r.NLRI.Kind.Family(), raw, peerAddr)
	p.Add(r)
	return slices.Clone(p.Flush())
}

// families returns the routes of the neighbour by name, with their families.
func (n *node) families() map[string]wire.Family {
	m := map[string]wire.Family{}
	for name, p := range n.received(peerAddr) {
		m[name] = p.NLRI.Kind.Family()
	}
	return m
}

// TestRFC7606Live sends the case of every clause and attribute to a live session
// that has the route already, and looks at what becomes of the session, of the
// routes of the case, and of other routes.
func TestRFC7606Live(t *testing.T) {
	t.Parallel()
	all := clauses(t)
	good := map[bool][]byte{all[0].external(): all[0].body, all[1].external(): all[1].body}
	vpn6 := wire.Route{NLRI: wire.VPNRoute(rd1, netip.MustParsePrefix("2001:db8:9::/48")), Label: 0x11}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, p := c.open(t)
			p.write(message(good[c.external()]), c.update(macRoute(1)))
			eventually(t, "the routes before the case", func() bool { return len(n.names(peerAddr)) == 2 })
			want := n.families()
			p.write(message(c.body))
			class, _, _ := strings.Cut(c.want, " 3/")
			if class == wire.SessionReset.String() {
				p.expectNotification(strings.Fields(c.want)[2])
				eventuallyEqual(t, "after the reset", []string{}, func() []string { return n.names(peerAddr) })
				c.checkFaults(t, n, class)
				return
			}
			// Routes of two families behind it show that it was handled.
			p.write(c.update(macRoute(2)), c.update(vpn6))
			c.expect(t, want)
			want[macRoute(2).NLRI.String()], want[vpn6.NLRI.String()] = wire.EVPN, wire.VPNv6
			var disabled []wire.Family
			eventuallyEqual(t, "after", []string{}, func() []string {
				disabled = n.neighbour(peerAddr).Disabled()
				return difference(want, n.families(), disabled)
			})
			if one := class == wire.DisableFamily.String(); one != (len(disabled) == 1) {
				t.Errorf("families disabled: %v; want one: %t", disabled, one)
			}
			if st := n.neighbour(peerAddr).Status(); st.State != session.Established || st.Established != 1 {
				t.Errorf("the session suffered: %s, %s", st.State, st.LastError)
			}
			c.checkFaults(t, n, class)
		})
	}
}

// message puts the header before an UPDATE.
func message(body []byte) []byte {
	return append(wire.AppendHeader(nil, wire.MsgUpdate, len(body)), body...)
}

// expect changes the routes there are to those there should be after the case.
func (c clause) expect(t *testing.T, routes map[string]wire.Family) {
	t.Helper()
	u, _ := wire.ParseUpdate(c.body, nil)
	for _, r := range wholeRoutes(u.Unreach, true) {
		delete(routes, r.NLRI.String())
	}
	for _, r := range wholeRoutes(u.Reach, false) {
		if strings.HasPrefix(c.want, wire.TreatAsWithdraw.String()) {
			delete(routes, r.NLRI.String())
		} else {
			routes[r.NLRI.String()] = u.Reach.Family
		}
	}
}

// wholeRoutes returns the routes of an attribute up to one that is cut off.
func wholeRoutes(part wire.MPNLRI, withdraw bool) (all []wire.Route) {
	for r := wire.NewNLRIReader(part.Family, part.NLRI, withdraw); ; {
		var route wire.Route
		if ok, err := r.Next(&route); !ok || err != nil {
			return all
		}
		all = append(all, route)
	}
}

// difference lists what is missing and what is too much; of disabled families
// there must be nothing.
func difference(want, got map[string]wire.Family, disabled []wire.Family) []string {
	diff := []string{}
	for name, f := range want {
		if _, ok := got[name]; !ok && !slices.Contains(disabled, f) {
			diff = append(diff, "missing "+name)
		}
	}
	for name, f := range got {
		if _, ok := want[name]; !ok || slices.Contains(disabled, f) {
			diff = append(diff, "too much "+name)
		}
	}
	return diff
}

// checkFaults checks that the strongest fault counted is of a class, if that is
// one, and whether routes were ignored.
func (c clause) checkFaults(t *testing.T, n *node, class string) {
	t.Helper()
	nb := n.neighbour(peerAddr)
	strongest := wire.Class(0)
	for k, count := range nb.Faults() {
		if count > 0 {
			strongest = max(strongest, k)
		}
	}
	if strongest != 0 && strongest.String() != class || strongest == 0 && !strings.HasPrefix(class, "ok ") {
		t.Errorf("the strongest fault is of %s: want %s", strongest, class)
	}
	if ignored := strings.Contains(c.want, "skipped"); ignored != (nb.Ignored() > 0) {
		t.Errorf("%d routes ignored; want some: %t", nb.Ignored(), ignored)
	}
}
