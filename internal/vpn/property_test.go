// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// plainTB hides that it is a *testing.T: in a bubble that has no deadline.
type plainTB struct{ testing.TB }

// run is one random sequence on a node.
type run struct {
	*rapid.T
	n       *node
	m       model
	failing bool
}

func (r *run) attachment() vpn.Attachment {
	t := r.T
	edits := []edit{onPort(rapid.SampledFrom([]string{"tap1", "tap1", "tap2"}).Draw(t, "port"))}
	lists := [][]string{{"64512:1"}, {"64512:1"}, {"64512:2"}, {"64512:1", "64512:2"}, {}}
	edits = append(edits, imports(rapid.SampledFrom(lists).Draw(t, "imports")...), exports(rapid.SampledFrom(lists).Draw(t, "exports")...))
	edits = append(edits, vni(rapid.SampledFrom([]uint32{0, 0, 0, 16, 17, 5000}).Draw(t, "vni")), pref(rapid.SampledFrom([]uint32{0, 0, 150}).Draw(t, "pref")))
	if rapid.IntRange(0, 3).Draw(t, "subnet") == 0 {
		edits = append(edits, subnet)
	}
	edits = append(edits, direction(rapid.SampledFrom([]dataplane.Direction{
		dataplane.Both, dataplane.Both, dataplane.Both, dataplane.ToPort, dataplane.FromPort,
	}).Draw(t, "direction")))
	m := rapid.IntRange(1, 3).Draw(t, "mac")
	ip := rapid.SampledFrom([]string{"", "192.0.2.5", "192.0.2.6", "192.0.2.5/24", "2001:db8::5"}).Draw(t, "ip")
	id := rapid.SampledFrom([]string{"red", "red", "green", "blue", "blue", "pink", "mixed"}).Draw(t, "instance")
	evpns := map[string]bool{"red": true, "green": true, "mixed": rapid.Bool().Draw(t, "evpn")}
	if evpns[id] {
		return evpn(m, ip, append(edits, named(id))...)
	}
	as := rapid.SampledFrom([]vpn.Advertise{"", "", vpn.AsVPN, vpn.AsEVPN, vpn.AsBoth}).Draw(t, "advertise_as")
	return vrf(m, ip, append(edits, named(id), advertise(as))...)
}

// existing returns an endpoint there is, or any.
func (r *run) existing() vpn.Attachment {
	var all []vpn.Attachment
	for _, i := range r.m {
		for _, e := range i.endpoints {
			all = append(all, e)
		}
	}
	if len(all) == 0 || rapid.IntRange(0, 5).Draw(r.T, "any") == 0 {
		return r.attachment()
	}
	slices.SortFunc(all, func(a, b vpn.Attachment) int {
		return strings.Compare(a.InstanceID+a.MAC.String()+a.IP.String(), b.InstanceID+b.MAC.String()+b.IP.String())
	})
	a := rapid.SampledFrom(all).Draw(r.T, "endpoint")
	if a.Type == dataplane.EVPN && rapid.IntRange(0, 4).Draw(r.T, "wildcard") == 0 {
		a.IP = prefix("")
	}
	return a
}

func (r *run) attach() { r.attachThis(r.attachment()) }

// again attaches an endpoint that is there, with other parameters now and then.
func (r *run) again() {
	a := r.existing()
	if rapid.Bool().Draw(r.T, "change") {
		a.Exports = rts(rapid.SampledFrom([]string{"64512:1", "64512:2", "64512:3"}).Draw(r.T, "export"))
	}
	if rapid.IntRange(0, 3).Draw(r.T, "toggle") == 0 {
		a.AdvertiseSubnet = !a.AdvertiseSubnet
	}
	r.attachThis(a)
}

func (r *run) attachThis(a vpn.Attachment) {
	before, stuck := r.n.state(), r.stuck()
	want := r.m.refusal(a, r.n.Labels())
	err := r.n.Attach(context.Background(), a)
	settle()
	var refused *vpn.RequestError
	switch {
	case err == nil && want == "":
		r.m.attach(a, r.n.Instance(a.InstanceID).VNI)
		return
	case errors.As(err, &refused):
		if refused.Field != want {
			r.Fatalf("attach refused for %q, want %q: %v", refused.Field, want, err)
		}
	case err == nil || want != "" || !r.failing:
		r.Fatalf("attach: error %v, want one about %q", err, want)
	case r.stuck() != stuck || strings.Contains(r.n.log.String(), "not removed"):
		return // the plane may differ: an undo failed
	}
	if diff := cmp.Diff(before, r.n.state()); diff != "" {
		r.Fatalf("a failed attach (%v) left a trace (-before +after):\n%s", err, diff)
	}
}

// stuck is the number of changes that could not be carried out.
func (r *run) stuck() (n int) {
	for _, p := range r.n.reconciler.Problems() {
		n += p.Count
	}
	return n
}

func (r *run) detach() {
	d := detachment(r.existing())
	before := r.n.state()
	want := r.m.detach(d)
	err := r.n.Detach(context.Background(), d)
	settle()
	var refused *vpn.RequestError
	switch {
	case err == nil && want == "":
	case !errors.As(err, &refused) || refused.Field != want:
		r.Fatalf("detach: error %v, want one about %q", err, want)
	default:
		if diff := cmp.Diff(before, r.n.state()); diff != "" {
			r.Fatalf("a refused detach left a trace (-before +after):\n%s", diff)
		}
	}
}

func (r *run) fail() {
	nth := rapid.IntRange(1, 4).Draw(r.T, "nth")
	count := 0
	r.failing = true
	r.n.plane.Fail(rapid.IntRange(1, 4).Draw(r.T, "times"), func(o fake.Op) bool {
		count++
		return count%nth == 0
	})
}

// heal ends the failures and lets time pass, so that all retries are done.
func (r *run) heal() {
	r.n.plane.Heal()
	r.failing = false
	pass()
	settle()
	if p := r.n.reconciler.Problems(); len(p) > 0 {
		r.Fatalf("problems stay: %v", p)
	}
}

func (r *run) same(what string, want, got []string) {
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
		r.Fatalf("%s (-model +node):\n%s", what, diff)
	}
}

// check compares the node with the model.
func (r *run) check() {
	var ids, known []string
	wanted := map[string]bool{}
	for id, m := range r.m {
		ids = append(ids, id)
		for _, rt := range m.imports {
			wanted[rt.String()] = true
		}
	}
	slices.Sort(ids)
	for _, i := range r.n.Instances() {
		known = append(known, i.ID)
	}
	slices.Sort(known)
	r.same("instances", ids, known)
	labels, rds := r.m.identifiers()
	if l, d := len(r.n.Labels()), len(r.n.RDs()); l != labels || d != rds {
		r.Fatalf("labels %v, RDs %v: want %d and %d", r.n.Labels(), r.n.RDs(), labels, rds)
	}
	behind := 0
	for id, m := range r.m {
		i := r.n.Instance(id)
		snap := i.Snapshot()
		if !slices.Equal(sorted(snap.Imports), m.imports) || !slices.Equal(sorted(snap.Exports), m.exports) || i.VNI != m.vni {
			r.Fatalf("%s: imports %v, exports %v, VNI %d: want %v %v %d", id, snap.Imports, snap.Exports, i.VNI, m.imports, m.exports, m.vni)
		}
		r.same("endpoints of "+id, m.endpointLines(), snapshotLines(i))
		r.same("routes of "+id, m.routeLines(), announcedLines(i))
		if m.type5() {
			behind += len(m.ownPrefixes())
		}
		if len(r.n.reconciler.Problems()) == 0 {
			entries := r.n.plane.Entries(m.typ, id)
			r.same("plane of "+id, m.localLines(), installedLines(entries))
			for _, p := range m.ownPrefixes() {
				if !slices.ContainsFunc(entries, func(e string) bool { return strings.HasPrefix(e, "prefix "+p.String()+" via 10.77.2.1/") }) {
					r.Fatalf("%s has no route to its own %s: %v", id, p, entries)
				}
			}
		}
	}
	if got := r.n.Behind(); got != behind {
		r.Fatalf("labels behind %d type 5 routes, want %d", got, behind)
	}
	rtc := 0
	for _, route := range r.n.routes() {
		if strings.HasPrefix(route, "BGPManager rtc ") {
			rtc++
		}
	}
	if rtc != len(wanted) {
		r.Fatalf("%d RTC routes, want %d for %v", rtc, len(wanted), wanted)
	}
	if b := r.n.plane.Breaches(); len(b) > 0 {
		r.Fatalf("contract of the driver broken: %v", b)
	}
}

// restart kills the node and starts another one, which must be the same.
func (r *run) restart() {
	if r.n.setup.store == "" {
		return
	}
	r.heal()
	before, plane := r.n.state(), r.n.plane.String()
	r.n = r.n.restarted()
	if !r.n.Kept() {
		r.Fatalf("not all was kept: %s", r.n.log)
	}
	r.n.Restore(context.Background())
	settle()
	if diff := cmp.Diff(before, r.n.state()); diff != "" {
		r.Fatalf("a restart changed something (-before +after):\n%s", diff)
	}
	r.n.reconciler.Sweep(context.Background())
	if diff := cmp.Diff(plane, r.n.plane.String()); diff != "" {
		r.Fatalf("something was left over, or lost (-before +after the sweep):\n%s", diff)
	}
}

// end detaches everything: nothing may be left.
func (r *run) end() {
	r.heal()
	r.check()
	for id, m := range r.m {
		for _, a := range m.endpoints {
			if err := r.n.Detach(context.Background(), detachment(a)); err != nil {
				var refused *vpn.RequestError // a wildcard detach took it already
				if !errors.As(err, &refused) {
					r.Fatalf("detach from %s: %v", id, err)
				}
			}
		}
	}
	settle()
	st := r.n.rib.Stats()
	if st.Paths+st.Sets+len(r.n.Labels())+len(r.n.RDs())+r.n.Count()+r.n.Behind() != 0 || r.n.plane.String() != "" {
		r.Fatalf("left after the end:\n%s", r.n.state())
	}
	if id, err := r.n.rib.AddSource("probe", rib.Peer); err != nil || id != 1 {
		r.Fatalf("AddSource() = %d, %v: want 1, since only the manager's own is in use", id, err)
	}
}

// TestRandomSequences runs 1,000 random sequences of attaches and detaches,
// valid and not, with failures of the driver, against a model.
func TestRandomSequences(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		rapid.Check(plainTB{t}, func(rt *rapid.T) {
			s := setup{rtc: true, ipvpnCaps: overVXLAN}
			if rapid.IntRange(0, 7).Draw(rt, "store") == 0 {
				s.store = t.TempDir()
			}
			r := &run{T: rt, n: newNode(t, s), m: model{}}
			defer func() { r.n.stopOnce() }()
			step := func(f func()) func(*rapid.T) { return func(rt *rapid.T) { r.T = rt; f() } }
			rt.Repeat(map[string]func(*rapid.T){
				"attach": step(r.attach), "attach 2": step(r.attach), "attach 3": step(r.attach), "again": step(r.again),
				"detach": step(r.detach), "detach 2": step(r.detach), "fail": step(r.fail), "heal": step(r.heal), "restart": step(r.restart), "": step(r.check),
			})
			r.T = rt
			r.end()
		})
	})
}
