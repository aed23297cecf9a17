// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// export drains an exporter of everything, as "+ route" and "- route".
func export(e *rib.Exporter) []string {
	out := []string{}
	for more := true; more; {
		var list []rib.Export
		list, more = e.Next(1000, nil)
		for _, x := range list {
			if x.Attrs == nil {
				out = append(out, "- "+x.NLRI.String())
				continue
			}
			var targets []string
			for _, rt := range x.Attrs.RTs {
				targets = append(targets, rt.String())
			}
			out = append(out, "+ "+x.NLRI.String()+" ["+strings.Join(targets, " ")+"]")
		}
	}
	slices.Sort(out)
	return out
}

// TestTargetsChange has the upstream facts "update RTs 1-3" and the QUIRKs of
// rest-api.md 4.2: all routes are announced again, and never withdrawn.
func TestTargetsChange(t *testing.T) {
	t.Parallel()
	const t3, t2a, t2b = "type 3 10.77.0.1:0 10.77.0.1", "type 2 10.77.0.1:0 02:00:00:00:00:01 192.0.2.5", "type 2 10.77.0.1:0 02:00:00:00:00:02 192.0.2.6"
	for _, tt := range []struct {
		name string
		in   vpn.Attachment
		want []string
	}{
		{"nothing", evpn(1, "192.0.2.5"), []string{}},
		{"imports", evpn(1, "192.0.2.5", imports("64512:7")), []string{}},
		{"exports", evpn(1, "192.0.2.5", exports("64512:2")), []string{"+ " + t2a + " [64512:2]", "+ " + t2b + " [64512:2]", "+ " + t3 + " [64512:2]"}},
		{"one more", evpn(1, "192.0.2.5", exports("64512:2", "64512:1")), []string{"+ " + t2a + " [64512:1 64512:2]", "+ " + t2b + " [64512:1 64512:2]", "+ " + t3 + " [64512:1 64512:2]"}},
		{"none", evpn(1, "192.0.2.5", exports()), []string{"+ " + t2a + " []", "+ " + t2b + " []", "+ " + t3 + " []"}},
		{
			"with a new endpoint", evpn(1, "192.0.2.9", exports("64512:2")),
			[]string{"+ " + t2a + " [64512:2]", "+ type 2 10.77.0.1:0 02:00:00:00:00:01 192.0.2.9 [64512:2]", "+ " + t2b + " [64512:2]", "+ " + t3 + " [64512:2]"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{})
				e := n.rib.NewExporter(rib.ExporterConfig{Source: n.peer("BGP-10.77.0.9").id, Families: families, Wake: func() {}})
				n.attach(evpn(1, "192.0.2.5"), evpn(2, "192.0.2.6"))
				export(e)
				n.attach(tt.in)
				wantLines(t, "updates", tt.want, export(e))
			})
		})
	}
}

func TestSameTargetsInAnotherOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(evpn(1, "192.0.2.5", exports("64512:1", "64512:2"), imports("64512:1", "64512:2")))
		before := n.rib.Stats()
		n.attach(evpn(1, "192.0.2.5", exports("64512:2", "64512:1", "64512:2"), imports("64512:2", "64512:1")))
		if got := n.rib.Stats(); got != before {
			t.Errorf("RIB %+v, want no change from %+v", got, before)
		}
	})
}

func TestTargetsChangeOfVRF(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		n.attach(vrf(1, "192.0.2.5"), vrf(2, "192.0.2.6"))
		n.attach(vrf(1, "192.0.2.5", exports("64512:2")))
		n.wantRoutes(strings.Replace(ip5, "target:64512:1", "target:64512:2", 1), strings.Replace(mac2vrf, "target:64512:1", "target:64512:2", 1))
	})
}

// Route target constraint follows the imports of all instances.
func TestRTCFollowsImports(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{rtc: true})
		rtc := func() (out []string) {
			for _, r := range n.routes() {
				if s, ok := strings.CutPrefix(r, "BGPManager rtc 64512:target:"); ok {
					out = append(out, strings.Fields(s)[0])
				}
			}
			return out
		}
		red := evpn(1, "192.0.2.5", imports("64512:1", "64512:2"))
		n.attach(red, vrf(1, "192.0.2.5", imports("64512:2", "64512:3")))
		wantLines(t, "RTC routes", []string{"64512:1", "64512:2", "64512:3"}, rtc())
		n.attach(evpn(1, "192.0.2.5", imports("64512:4")))
		wantLines(t, "RTC routes", []string{"64512:2", "64512:3", "64512:4"}, rtc())
		n.detach(red)
		wantLines(t, "RTC routes", []string{"64512:2", "64512:3"}, rtc())
		n.detach(vrf(1, "192.0.2.5"))
		wantLines(t, "RTC routes", nil, rtc())
	})
}

// An import that is dropped takes its routes out of the dataplane; one that is
// added brings them.
func TestImportsChange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNode(t, setup{})
		p := n.peer("BGP-10.77.0.9")
		p.announce(remoteMAC(9, 7, ""), remoteAttrs(9, "64512:1"))
		p.announce(remoteMAC(9, 8, ""), remoteAttrs(9, "64512:1", "64512:2"))
		p.announce(remoteMAC(9, 9, ""), remoteAttrs(9, "64512:2"))
		has := func(want ...string) {
			t.Helper()
			wantLines(t, "entries", append([]string{"local-mac dev tap1 02:00:00:00:00:01"}, append(want, "port dev tap1")...), n.plane.Entries(dataplane.EVPN, "red"))
		}
		to := func(m string) string { return "mac 02:00:00:00:00:0" + m + " via 10.77.1.9/99/VXLAN" }
		n.attach(evpn(1, "192.0.2.5"))
		has(to("7"), to("8"))
		n.plane.Log()
		n.attach(evpn(1, "192.0.2.5", imports("64512:2")))
		has(to("8"), to("9"))
		for _, op := range n.plane.Log() {
			if strings.Contains(op, "02:00:00:00:00:08") {
				t.Errorf("route with both targets touched: %s", op)
			}
		}
		n.attach(evpn(1, "192.0.2.5", imports()))
		has()
		n.attach(evpn(1, "192.0.2.5", imports("64512:2", "64512:1")))
		has(to("7"), to("8"), to("9"))
	})
}
