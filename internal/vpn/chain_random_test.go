// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// hopRun is a random sequence of requests for a VRF, and of routes of a peer that it
// announces again or follows.
type hopRun struct {
	*rapid.T
	n      *node
	p      *peer
	routes map[wire.NLRI]hopRoute
	ends   []vpn.Attachment // endpoints that there are, in order
	chain  vpn.Attachment   // Readvertise and Attract as they are now
	failed bool
}

type hopRoute struct {
	wire.Route
	comms []wire.ExtCommunity
}

var (
	hopRTs     = []string{"64512:1", "64512:2", "64512:3", "64512:4"}
	hopClasses = []wire.Flow{{}, tcp80, {Source: prefix("10.0.0.0/8")}, {Source: prefix("2001:db8::/32"), Protocols: tcp80.Protocols}}
)

func (r *hopRun) targets(least, most int, what string) string {
	return strings.Join(rapid.SliceOfNDistinct(rapid.SampledFrom(hopRTs), least, most, rapid.ID[string]).Draw(r.T, what), " ")
}

// to returns mostly the same one, so that readvertise and attract_traffic agree.
func (r *hopRun) to() string {
	if rapid.Bool().Draw(r.T, "to") {
		return hopRTs[1]
	}
	return r.targets(1, 2, "to")
}

// attach attaches an endpoint, one that there is or a new one, and often changes the chain.
func (r *hopRun) attach() {
	m := rapid.IntRange(1, 3).Draw(r.T, "mac")
	ip := rapid.SampledFrom([]string{"10.1.0.%d", "2001:db8:1::%d"}).Draw(r.T, "ip")
	a := hop(m, fmt.Sprintf(ip, m), order(rapid.Uint32Range(0, 2).Draw(r.T, "order")), imports("64512:1", "64512:4"),
		direction(rapid.SampledFrom([]dataplane.Direction{dataplane.Both, dataplane.Both, dataplane.ToPort, dataplane.FromPort}).Draw(r.T, "direction")))
	switch rapid.IntRange(0, 3).Draw(r.T, "readvertise") {
	case 0:
		readvertise("", "")(&a)
	case 1, 2:
		readvertise(r.targets(0, 2, "from"), r.to())(&a)
	}
	class := rapid.SampledFrom(hopClasses).Draw(r.T, "class")
	switch rapid.IntRange(0, 4).Draw(r.T, "attract") {
	case 0:
		attract("", "", wire.Flow{})(&a)
	case 1:
		attract(r.targets(1, 2, "redirect"), "", class)(&a)
	case 2:
		attract(r.targets(1, 2, "redirect"), r.to(), class, rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
			"203.0.113.0/24", "192.0.2.0/24", "2001:db8:2::/48",
		}), 1, 2, rapid.ID[string]).Draw(r.T, "static")...)(&a)
	}
	var refused *vpn.RequestError
	if err := r.n.Attach(context.Background(), a); errors.As(err, &refused) {
		return // it contradicts what there is
	} else if err != nil {
		r.Fatal(err)
	}
	if a.Readvertise != nil {
		r.chain.Readvertise = a.Readvertise
	}
	if a.Attract != nil {
		r.chain.Attract = a.Attract
	}
	r.drop(a)
	r.ends = append(r.ends, a)
}

func (r *hopRun) drop(a vpn.Attachment) {
	r.ends = slices.DeleteFunc(r.ends, func(b vpn.Attachment) bool { return a.IP == b.IP })
}

func (r *hopRun) detach() {
	if len(r.ends) == 0 {
		return
	}
	a := rapid.SampledFrom(r.ends).Draw(r.T, "endpoint")
	if err := r.n.Detach(context.Background(), detachment(a)); err != nil {
		r.Fatal(err)
	}
	if r.drop(a); len(r.ends) == 0 {
		r.chain = vpn.Attachment{}
	}
}

// announce announces a route of the peer, or withdraws it.
func (r *hopRun) announce() {
	rd := wire.RD{7: rapid.Byte().Draw(r.T, "rd") % 2}
	var route wire.Route
	pfx := prefix(rapid.SampledFrom([]string{"203.0.113.0/24", "198.51.100.0/24", "2001:db8:2::/48"}).Draw(r.T, "prefix"))
	var comms []wire.ExtCommunity
	switch rapid.IntRange(0, 3).Draw(r.T, "kind") {
	case 0: // the octets are the same for both IP versions
		route = wire.FlowRoute(rd, wire.Flow{Protocols: tcp80.Protocols, IPv6: pfx.Addr().Is6()})
		comms = append(comms, redirect(rapid.SampledFrom(hopRTs).Draw(r.T, "redirect")))
	case 1:
		route = wire.FlowRoute(rd, wire.Flow{Destination: pfx, IPv6: pfx.Addr().Is6()})
		comms = append(comms, redirect(rapid.SampledFrom(hopRTs).Draw(r.T, "redirect")))
	default:
		route = wire.Route{NLRI: wire.VPNRoute(rd, pfx), Label: wire.LabelField(99)}
	}
	if rapid.IntRange(0, 2).Draw(r.T, "withdraw") == 0 {
		delete(r.routes, route.NLRI)
		r.p.withdraw(route)
		return
	}
	for _, s := range words(r.targets(1, 2, "targets")) {
		comms = append(comms, target(s))
	}
	for _, s := range words(r.targets(0, 2, "records")) {
		comms = append(comms, record(s))
	}
	r.routes[route.NLRI] = hopRoute{route, comms}
	r.put(r.p, r.routes[route.NLRI])
}

func (r *hopRun) put(p *peer, x hopRoute) {
	a := wire.LocalAttrs{Communities: x.comms}
	if !x.NLRI.Kind.IsFlow() {
		a.NextHop = addr("10.77.2.9")
	}
	p.announce(x.Route, a)
}

var (
	numberedRD = regexp.MustCompile(`rd 10\.77\.0\.1:(\d+)`)
	ownLabel   = regexp.MustCompile(`( label |10\.77\.2\.1/)\d+`)
)

// outcome is what others see of a node, without numbers that depend on what was before.
func outcome(n *node) []string {
	owners := n.RDs()
	var out []string
	for _, line := range n.chainLines("hop") {
		out = append(out, numberedRD.ReplaceAllStringFunc(line, func(s string) string {
			var number uint32
			_, _ = fmt.Sscanf(s, "rd 10.77.0.1:%d", &number)
			_, owner, _ := strings.Cut(owners[number], " ")
			return "rd of " + owner
		}))
	}
	for _, s := range n.routes() {
		if strings.HasPrefix(s, "BGPManager") {
			out = append(out, s)
		}
	}
	for _, i := range n.Instances() {
		out = append(out, "instance "+i.ID)
		for _, e := range n.plane.Entries(dataplane.IPVPN, i.ID) {
			out = append(out, i.ID+": "+ownLabel.ReplaceAllString(e, "$1"))
		}
	}
	slices.Sort(out)
	return out
}

// check compares the node with a new one that is given the routes and the last requests only.
func (r *hopRun) check() {
	settle()
	fresh := newNode(r.n.tb, setup{rtc: true})
	defer fresh.stopOnce()
	p := fresh.peer("BGP-10.77.0.9")
	for _, k := range slices.SortedFunc(maps.Keys(r.routes), func(a, b wire.NLRI) int { return strings.Compare(a.String(), b.String()) }) {
		r.put(p, r.routes[k])
	}
	for _, a := range r.ends {
		a.Readvertise, a.Attract = r.chain.Readvertise, r.chain.Attract
		fresh.attach(a)
	}
	if diff := cmp.Diff(outcome(fresh), outcome(r.n)); diff != "" {
		r.Fatalf("chain %+v (-fresh +node):\n%s", r.chain, diff)
	}
	if b := r.n.plane.Breaches(); len(b) > 0 {
		r.Fatalf("contract of the driver broken: %v", b)
	}
}

// fail has redirect instances or redirects fail for some time.
func (r *hopRun) fail() {
	if r.failed {
		return
	}
	r.failed = true
	verb := rapid.SampledFrom([]string{"open", "apply"}).Draw(r.T, "verb")
	r.n.plane.Fail(rapid.IntRange(1, 3).Draw(r.T, "times"), func(o fake.Op) bool {
		return o.Verb == verb && (verb == "open" && strings.HasPrefix(o.Instance, "redirect-") || o.Change.Entry.Kind == dataplane.Redirect)
	})
}

// restart kills the node and starts another one, which gets the routes again.
func (r *hopRun) restart() {
	if r.n.setup.store == "" {
		return
	}
	r.heal()
	before := r.n.routes()
	r.n = r.n.restarted()
	r.n.Restore(context.Background())
	r.p = r.n.peer("BGP-10.77.0.9")
	for _, x := range r.routes {
		r.put(r.p, x)
	}
	r.check()
	r.n.reconciler.Sweep(context.Background())
	r.check()
	if diff := cmp.Diff(before, r.n.routes()); diff != "" || !r.n.Kept() {
		r.Fatalf("a restart changed something (-before +after):\n%s", diff)
	}
}

// heal ends failures and lets all be tried again.
func (r *hopRun) heal() {
	if r.n.plane.Heal(); r.failed {
		r.failed = false
		pass()
	}
	r.check()
}

// TestRandomHops runs random sequences of requests and routes. What a VRF announces of others, and what it
// redirects, does not depend on what was before.
func TestRandomHops(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		rapid.Check(plainTB{t}, func(rt *rapid.T) {
			s := setup{rtc: true}
			if rapid.IntRange(0, 7).Draw(rt, "store") == 0 {
				s.store = t.TempDir()
			}
			r := &hopRun{T: rt, n: newNode(t, s), routes: map[wire.NLRI]hopRoute{}}
			defer func() { r.n.stopOnce() }()
			r.p = r.n.peer("BGP-10.77.0.9")
			step := func(f func()) func(*rapid.T) { return func(rt *rapid.T) { r.T = rt; f() } }
			rt.Repeat(map[string]func(*rapid.T){
				"restart": step(r.restart), "attach": step(r.attach), "attach 2": step(r.attach), "detach": step(r.detach), "fail": step(r.fail), "heal": step(r.heal),
				"announce": step(r.announce), "announce 2": step(r.announce), "announce 3": step(r.announce),
			})
			r.T = rt
			r.heal()
			for len(r.ends) > 0 {
				r.detach()
			}
			for _, x := range r.routes {
				r.p.withdraw(x.Route)
			}
			if st := r.n.rib.Stats(); st.Paths+st.Sets+len(r.n.RDs())+len(r.n.Labels())+r.n.Count() != 0 || r.n.plane.String() != "" {
				rt.Fatalf("left: %+v, RDs %v, labels %v\n%s", st, r.n.RDs(), r.n.Labels(), r.n.plane)
			}
		})
	})
}
