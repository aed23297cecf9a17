// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

const redirect300 = "redirect-to-ipvpn-64512_300"

// A redirect instance that cannot be opened is tried again after pauses that get longer, once for
// all who need it.
func TestRedirectRetries(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(vrf(1, "10.1.0.1"), vrf(2, "10.2.0.1", named("green"), onPort("tap2")))
		flow := func(octet int) wire.Flow { return wire.Flow{Destination: prefix(fmt.Sprintf("203.0.%d.0/24", octet))} }
		for range 2 {
			n.plane.Heal()
			n.plane.Log()
			n.plane.Fail(fake.Forever, func(o fake.Op) bool { return o.Verb == "open" && o.Instance == redirect300 })
			p.flow(1, flow(1), redirect("64512:300"), target("64512:1"))
			p.flow(1, flow(2), redirect("64512:300"), target("64512:1"))
			p.flow(1, flow(2), redirect("64512:300"), target("64512:1"), record("64512:9"))
			attempts := 0
			for _, step := range []struct {
				after    time.Duration
				attempts int
			}{{0, 1}, {9 * time.Second, 1}, {2 * time.Second, 2}, {18 * time.Second, 2}, {2 * time.Second, 3}, {35 * time.Minute, 12}} {
				time.Sleep(step.after)
				settle()
				for _, line := range n.plane.Log() {
					if strings.HasPrefix(line, "! "+redirect300) {
						attempts++
					}
				}
				if attempts != step.attempts {
					t.Errorf("%s later: %d attempts, want %d", step.after, attempts, step.attempts)
				}
			}
			n.wantInstances("blue", "green")
			n.plane.Heal()
			time.Sleep(5 * time.Minute)
			settle()
			n.wantInstances("blue", "green", redirect300)
			n.wantRedirects("blue", "to 203.0.1.0/24 in "+redirect300, "to 203.0.2.0/24 in "+redirect300)
			n.wantRedirects("green", "to 203.0.1.0/24 in "+redirect300, "to 203.0.2.0/24 in "+redirect300)
			p.withdraw(wire.FlowRoute(wire.RD{0, 0, 0xfc, 0, 0, 0, 0, 1}, flow(1)), wire.FlowRoute(wire.RD{0, 0, 0xfc, 0, 0, 0, 0, 1}, flow(2)))
			n.wantInstances("blue", "green")
		}
		if got := n.Redirects(); got != 0 {
			t.Errorf("%d redirect instances are known, want none", got)
		}

		t.Log("nobody needs it any more")
		n.plane.Fail(1, func(o fake.Op) bool { return o.Verb == "open" })
		r := p.flow(1, flow(1), redirect("64512:300"), target("64512:1"))
		p.withdraw(r)
		pass()
		n.wantInstances("blue", "green")
		if got := n.Redirects(); got != 0 {
			t.Errorf("%d redirect instances are known, want none", got)
		}
	})
}

// A node has so many redirect instances, and makes another one when one ends.
func TestRedirectLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(vrf(1, "10.1.0.1"))
		n.plane.Fail(1, func(o fake.Op) bool { return o.Verb == "open" }) // which does not count
		p.withdraw(p.flow(1, wire.Flow{}, redirect("64512:2000"), target("64512:1")))
		var first wire.Route
		for k := range 1025 {
			r := p.flow(1, wire.Flow{Destination: prefix(fmt.Sprintf("203.%d.%d.0/24", k/256, k%256))}, redirect(fmt.Sprintf("64512:%d", k)), target("64512:1"))
			if k == 0 {
				first = r
			}
			if want := min(k+1, 1024) + 1; n.Count() != want {
				t.Fatalf("%d flows: %d instances, want %d", k+1, n.Count(), want)
			}
		}
		if got := n.log.String(); !strings.Contains(got, "there are 1024 redirect instances: want no more") {
			t.Errorf("log %q", got)
		}
		p.withdraw(first)
		pass()
		if n.Count() != 1025 || n.Instance("redirect-to-ipvpn-64512_1024") == nil {
			t.Errorf("%d instances: the last is not among them", n.Count())
		}
		n.detach(vrf(1, "10.1.0.1"))
		n.wantInstances()
		if got := n.Redirects(); got != 0 {
			t.Errorf("%d redirect instances are known, want none", got)
		}
	})
}

// slowDriver opens the instance of one id only when told to.
type slowDriver struct {
	dataplane.Driver
	id string
	ok chan struct{}
}

func (d *slowDriver) Open(ctx context.Context, inst dataplane.Instance) (dataplane.Handle, error) {
	if inst.ID == d.id {
		<-d.ok
	}
	return d.Driver.Open(ctx, inst)
}

// A redirect instance that takes long to open holds up nobody who does not need it.
func TestRedirectThatTakesLong(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		slow := &slowDriver{id: redirect300, ok: make(chan struct{})}
		n := newNode(t, setup{wrap: func(d dataplane.Driver) dataplane.Driver { slow.Driver = d; return slow }})
		p := n.peer("BGP-10.77.0.9")
		n.attach(vrf(1, "10.1.0.1"), vrf(2, "10.2.0.1", named("green"), onPort("tap2"), imports("64512:2")))
		f := wire.Flow{Destination: prefix("203.0.113.0/24")}
		p.flow(1, f, redirect("64512:300"), target("64512:2"))
		p.flow(2, f, redirect("64512:400"), target("64512:1"))
		n.wantRedirects("blue", "to 203.0.113.0/24 in redirect-to-ipvpn-64512_400")
		n.wantRedirects("green")
		n.detach(vrf(1, "10.1.0.1"))
		close(slow.ok)
		settle()
		n.wantRedirects("green", "to 203.0.113.0/24 in "+redirect300)
		n.wantInstances("green", redirect300)
	})
}

// What redirects to an instance comes after it, and goes before it.
func TestRedirectOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(vrf(1, "10.1.0.1"))
		f := wire.Flow{Destination: prefix("203.0.113.0/24")}
		p.flow(1, f, redirect("64512:300"), target("64512:1"))
		n.plane.Log()
		r := p.flow(1, f, redirect("64512:400"), target("64512:1"))
		wantLines(t, "another target", []string{
			"redirect-to-ipvpn-64512_400: open", "blue: + redirect to 203.0.113.0/24 in redirect-to-ipvpn-64512_400", redirect300 + ": remove",
		}, n.plane.Log())
		p.flow(1, f, redirect("64512:400"), target("64512:1"), record("64512:9"))
		wantLines(t, "the same target", nil, n.plane.Log())
		wantLines(t, "claims", []string{"to 203.0.113.0/24 by 1"}, n.Instance("blue").Claims())
		p.withdraw(r)
		got := n.plane.Log()
		if len(got) != 2 || !strings.HasPrefix(got[0], "blue: - redirect to 203.0.113.0/24") || got[1] != "redirect-to-ipvpn-64512_400: remove" {
			t.Errorf("withdrawn: %v", got)
		}
		wantLines(t, "claims", nil, n.Instance("blue").Claims())
	})
}

// Of several FlowSpec routes that have a class of packets, the first in the order of RFC 8955
// §5.1 decides, whichever came first; the others do when it goes or has another class.
func TestRedirectClaims(t *testing.T) {
	port := func(list ...uint16) (out []wire.Range) {
		for _, n := range list {
			out = append(out, wire.Range{First: n, Last: n})
		}
		return out
	}
	all := []wire.Range{{First: 0, Last: 65535}}
	base := wire.Flow{Destination: prefix("203.0.113.0/24"), Protocols: tcp80.Protocols}
	with := func(to, from []wire.Range) wire.Flow {
		f := base
		f.DestinationPorts, f.SourcePorts = to, from
		return f
	}
	// In order: the operator of 80 in a longer list is lower, as it does not end it.
	flows := []wire.Flow{with(port(80, 443), nil), with(port(80), all), with(port(80), nil)}
	class := "to 203.0.113.0/24 protocol 6 port 80 in redirect-to-ipvpn-64512_"
	for _, turn := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(turn), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{})
				p := n.peer("BGP-10.77.0.9")
				n.attach(vrf(1, "10.1.0.1"))
				there := []int{}
				want := func() {
					t.Helper()
					var lines []string
					if slices.Contains(there, 0) {
						lines = append(lines, "to 203.0.113.0/24 protocol 6 port 443 in redirect-to-ipvpn-64512_0")
					}
					if len(there) > 0 {
						lines = append(lines, class+fmt.Sprint(slices.Min(there)))
					}
					n.wantRedirects("blue", lines...)
				}
				put := func(k int, comms ...wire.ExtCommunity) wire.Route {
					return p.flow(1, flows[k], append(comms, redirect(fmt.Sprintf("64512:%d", k)), target("64512:1"))...)
				}
				for _, k := range turn {
					put(k)
					there = append(there, k)
					want()
				}
				for _, k := range turn { // a change of one that makes no difference
					put(k, record("64512:9"))
					want()
				}
				for _, k := range turn {
					p.flow(1, flows[k], redirect("64512:1"), redirect("64512:2"), target("64512:1")) // not usable
					there = slices.DeleteFunc(there, func(o int) bool { return o == k })
					want()
				}
				n.wantInstances("blue")
				wantLines(t, "claims", nil, n.Instance("blue").Claims())
			})
		})
	}
}

// Routes of several RDs are one flow: the best that can be used counts.
func TestRedirectOfNextPath(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(vrf(1, "10.1.0.1"))
		f := wire.Flow{Destination: prefix("203.0.113.0/24")}
		p.flow(1, f, wire.ExtCommunity{0x80, 0x06}, target("64512:1"))
		p.flow(2, f, redirect("64512:300"), target("64512:1"))
		n.wantRedirects("blue", "to 203.0.113.0/24 in "+redirect300)
	})
}

// Route targets that are written alike but for the length of the AS number have instances of
// their own. Redirected packets are not redirected again, and redirect instances are no others' to change.
func TestRedirectInstances(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		n.attach(vrf(1, "10.1.0.1"))
		for k, rt := range []wire.RT{rts("64512:300")[0], {2, 2, 0, 0, 0xfc, 0, 1, 0x2c}, rts("70000:300")[0], rts("192.0.2.1:300")[0]} {
			p.flow(1, wire.Flow{Destination: prefix(fmt.Sprintf("203.0.%d.0/24", k))}, wire.RedirectCommunity(rt), target("64512:1"))
		}
		ids := []string{"redirect-to-ipvpn-192.0.2.1_300", "redirect-to-ipvpn-64512L_300", redirect300, "redirect-to-ipvpn-70000_300"}
		n.wantInstances(append([]string{"blue"}, ids...)...)
		p.flow(1, wire.Flow{}, redirect("64512:1"), target("64512:300"))
		n.wantRedirects(redirect300)
		for _, d := range []vpn.Detachment{{Type: dataplane.IPVPN, MAC: mac(1)}, {Type: dataplane.IPVPN, MAC: mac(1), IP: addr("10.1.0.1")}} {
			d.InstanceID = redirect300
			wantRefused(t, n.Detach(context.Background(), d), "vpn_instance_id")
		}
		n.wantInstances(append([]string{"blue"}, ids...)...)
	})
}

// A driver that cannot redirect is told of once, routes that cannot be used each time.
func TestRedirectWarnings(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, able := range []bool{false, true} {
			n := newNode(t, setup{ipvpnCaps: func(c *dataplane.Capabilities) { c.Redirect = able }})
			p := n.peer("BGP-10.77.0.9")
			n.attach(vrf(1, "10.1.0.1"))
			for k := range 3 {
				p.flow(1, wire.Flow{Destination: prefix(fmt.Sprintf("203.0.%d.0/24", k))}, target("64512:1"))
			}
			want := map[bool]int{false: 1, true: 3}[able]
			if got := strings.Count(n.log.String(), "FlowSpec route not used"); got != want {
				t.Errorf("driver can redirect %v: %d warnings, want %d", able, got, want)
			}
		}
	})
}
