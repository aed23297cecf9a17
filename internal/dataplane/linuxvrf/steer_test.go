// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// redirect returns an entry for a class of packets: "to PREFIX from PREFIX protocol N port A-B source-port A-B", where
// only the first is needed.
func redirect(text, target string) dataplane.Entry {
	f := strings.Fields(text)
	c := dataplane.Classifier{Protocol: dataplane.AnyProtocol, DestinationPorts: dataplane.AllPorts, SourcePorts: dataplane.AllPorts}
	for i := 0; i < len(f); i += 2 {
		switch f[i] {
		case "to":
			c.Destination = netip.MustParsePrefix(f[i+1])
			if c.Source = netip.PrefixFrom(netip.IPv4Unspecified(), 0); c.Destination.Addr().Is6() {
				c.Source = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
		case "from":
			c.Source = netip.MustParsePrefix(f[i+1])
		case "protocol":
			_, _ = fmt.Sscan(f[i+1], &c.Protocol)
		default:
			var r dataplane.PortRange
			if n, _ := fmt.Sscanf(f[i+1], "%d-%d", &r.First, &r.Last); n == 1 {
				r.Last = r.First
			}
			if f[i] == "port" {
				c.DestinationPorts = r
			} else {
				c.SourcePorts = r
			}
		}
	}
	return dataplane.Entry{Kind: dataplane.Redirect, Class: &c, Target: target}
}

// What each class becomes, after what it stands among.
func TestClassRequests(t *testing.T) {
	t.Parallel()
	const (
		block  = guardPriority + blockSize // of "red", with table 1001; "blue" has 1002
		middle = block + lastSlot/2*slotSize
		after  = block + (lastSlot/2+(lastSlot-lastSlot/2)/2)*slotSize
		ahead  = block + lastSlot/2/2*slotSize
	)
	frame := func(op string, family int, notRouted ...string) []string {
		begin := []string{}
		for _, to := range notRouted {
			begin = append(begin, fmt.Sprintf("rule -%d %s priority %d to %s lookup 1001", family, op, block, to))
		}
		end := []string{
			fmt.Sprintf("rule -%d %s priority %d unreachable", family, op, block+blockSize-1),
			fmt.Sprintf("rule -%d %s priority %d lookup 1001", family, op, block+blockSize-2),
		}
		dispatch := []string{
			fmt.Sprintf("rule -%d %s priority 0 iif VRF goto %d", family, op, block),
			fmt.Sprintf("rule -%d %s priority 0 iif tap0 goto %d", family, op, block),
		}
		if op == "del" {
			slices.Reverse(end)
			return slices.Concat(dispatch, begin, end)
		}
		return slices.Concat(end, begin, dispatch)
	}
	http, https := redirect("to 203.0.113.0/24 protocol 6 port 80", "blue"), redirect("to 203.0.113.0/24 protocol 6 port 443", "blue")
	have := []dataplane.Entry{port("tap0"), local("tap0", 16, "198.51.100.2", "198.51.100.1")}
	for _, tt := range []struct {
		name    string
		have    []dataplane.Entry
		changes []dataplane.Change
		want    []string
	}{
		{"first class", have, plus(http), append([]string{
			fmt.Sprintf("rule -4 add priority %d to 203.0.113.0/24 ipproto 6 dport 80 lookup 1002", middle),
		}, frame("add", 4, "198.51.100.1/32", "224.0.0.0/4")...)},
		{"first IPv6 class", have, plus(redirect("to ::/0 from 2001:db8::/32", "blue")), append([]string{
			fmt.Sprintf("rule -6 add priority %d from 2001:db8::/32 lookup 1002", middle),
		}, frame("add", 6, "fe80::/10", "ff00::/8")...)},
		{"second class", append(slices.Clone(have), http), plus(https), []string{
			fmt.Sprintf("rule -4 add priority %d to 203.0.113.0/24 ipproto 6 dport 443 lookup 1002", after),
		}},
		{"class that comes before", append(slices.Clone(have), http), plus(redirect("to 203.0.113.7/32", "blue")), []string{
			fmt.Sprintf("rule -4 add priority %d to 203.0.113.7/32 lookup 1002", ahead),
		}},
		{"range with port 0", append(slices.Clone(have), http), plus(redirect("to 203.0.113.0/24 protocol 6 port 0-1023", "blue")), []string{
			fmt.Sprintf("rule -4 add priority %d to 203.0.113.0/24 ipproto 6 dport 1-1023 lookup 1002", after+zeroDestination),
		}},
		{"ranges with port 65535", append(slices.Clone(have), http), plus(redirect("to 203.0.113.0/24 protocol 17 port 1024-65535 source-port 0-65534", "blue")), []string{
			"rule -4 add priority 2147483649 dport 65534/0xfffe unreachable",
			"rule -4 del priority 2147483649 dport 65534/0xfffe unreachable",
			fmt.Sprintf("rule -4 add priority %d to 203.0.113.0/24 ipproto 17 sport 1-65534 dport 1024-65534 lookup 1002", after+zeroSource),
			fmt.Sprintf("rule -4 add priority %d to 203.0.113.0/24 ipproto 17 sport 1-65534 dport 65534/0xfffe lookup 1002", after+zeroSource+topDestinations),
		}},
		{"other target", append(slices.Clone(have), http), plus(redirect("to 203.0.113.0/24 protocol 6 port 80", "green")), []string{
			fmt.Sprintf("rule -4 add priority %d to 203.0.113.0/24 ipproto 6 dport 80 lookup 1003", middle),
			fmt.Sprintf("rule -4 del priority %d to 203.0.113.0/24 ipproto 6 dport 80 lookup 1002", middle),
		}},
		{"one of two goes", append(slices.Clone(have), http, https), minus(http), []string{
			fmt.Sprintf("rule -4 del priority %d to 203.0.113.0/24 ipproto 6 dport 80 lookup 1002", middle),
		}},
		{"the last goes", append(slices.Clone(have), http), minus(http), append(frame("del", 4, "198.51.100.1/32", "224.0.0.0/4"),
			fmt.Sprintf("rule -4 del priority %d to 203.0.113.0/24 ipproto 6 dport 80 lookup 1002", middle))},
		{"deletion of what is not there", have, minus(http), nil},
		{"one more port", append(slices.Clone(have), http), plus(port("tap1")), []string{
			fmt.Sprintf("rule -4 add priority 0 iif tap1 goto %d", block),
		}},
		{"port goes", append(slices.Clone(have), http, port("tap1")), minus(port("tap1")), []string{
			fmt.Sprintf("rule -4 del priority 0 iif tap1 goto %d", block),
		}},
		{"one more gateway", append(slices.Clone(have), http), plus(local("tap0", 16, "192.0.2.130", "192.0.2.129")), []string{
			"neigh replace 192.0.2.130 dev tap0 lladdr 00:00:5e:00:53:10 permanent proto 19",
			"addr replace 192.0.2.129/32 dev tap0 proto 19",
			"mpls route replace 16 via link 00:00:5e:00:53:10 dev tap0 proto 19",
			fmt.Sprintf("rule -4 add priority %d to 192.0.2.129/32 lookup 1001", block),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newFakeKernel("tap0", "tap1")
			d := fakeDriver(t, k, encap.GRE)
			h := open(t, d, "red")
			open(t, d, "blue")
			open(t, d, "green")
			apply(t, h, plus(tt.have...)...)
			k.log = nil
			apply(t, h, tt.changes...)
			for i := range k.log {
				k.log[i] = strings.ReplaceAll(k.log[i], h.name, "VRF")
			}
			if diff := gocmp.Diff(tt.want, k.log); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			k.log = nil
			apply(t, h, tt.changes...)
			if len(k.log) != 0 {
				t.Errorf("the same changes again made a difference: %q", k.log)
			}
		})
	}
}

func TestClassRefusals(t *testing.T) {
	t.Parallel()
	sixteen := redirect("to 203.0.113.0/24 protocol 6 port 1024-65535", "blue")
	v6 := redirect("to 2001:db8::/32", "blue")
	mixed := redirect("to 203.0.113.0/24", "blue")
	mixed.Class.Source = v6.Class.Source
	for _, tt := range []struct {
		name   string
		entry  dataplane.Entry
		change func(*fakeKernel, *handle)
		want   string
	}{
		{"no class", dataplane.Entry{Kind: dataplane.Redirect, Target: "blue"}, nil, "is not valid"},
		{"host bits", redirect("to 203.0.113.1/24", "blue"), nil, "without host bits"},
		{"IP versions", mixed, nil, "of one IP version"},
		{"protocol 0", redirect("to 203.0.113.0/24 protocol 0", "blue"), nil, "cannot tell protocol 0"},
		{"port 0", redirect("to 203.0.113.0/24 protocol 6 port 0", "blue"), nil, "cannot tell port 0 alone"},
		{"port 65535", redirect("to 203.0.113.0/24 protocol 6 source-port 65535", "blue"), nil, "cannot tell port 65535 alone"},
		{"no such instance", redirect("to 203.0.113.0/24", "yellow"), nil, `there is no instance "yellow"`},
		{"no port masks", sixteen, func(k *fakeKernel, _ *handle) { k.noPortMasks = true }, "port 65535 of ports 1024-65535: want Linux 6.15"},
		{"table", redirect("to 203.0.113.0/24", "blue"), func(_ *fakeKernel, h *handle) { h.table = 12345 }, "no priorities of rules for routing table 12345"},
		{"kernel", sixteen, func(k *fakeKernel, _ *handle) {
			k.refuse = func(r netlinkx.Request) error {
				if strings.Contains(r.String(), "lookup 1002") && strings.Contains(r.String(), "dport 65534/0xfffe") {
					return unix.ENOMEM
				}
				return nil
			}
		}, "cannot allocate memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newFakeKernel("tap0")
			d := fakeDriver(t, k, encap.GRE)
			h := open(t, d, "red")
			open(t, d, "blue")
			apply(t, h, plus(port("tap0"))...)
			before := k.state()
			if tt.change != nil {
				tt.change(k, h)
			}
			if err := h.Apply(t.Context(), plus(tt.entry))[0]; err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if diff := gocmp.Diff(before, k.state()); diff != "" {
				t.Errorf("left (-before +after):\n%s", diff)
			}
		})
	}
}

// packet is what rules look at. A fragment has no ports: the kernel takes both for 0.
type packet struct {
	input    string
	src, dst netip.Addr
	protocol uint8
	from, to uint16
}

// lookup returns the table that a packet is looked up in, 0 for none, as if it had a route there.
func (k *fakeKernel) lookup(p packet, family uint8) uint32 {
	list, _ := k.Rules(family)
	slices.SortFunc(list, func(a, b netlinkx.Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	ports := func(r netlinkx.Ports, port uint16) bool {
		switch {
		case r == netlinkx.Ports{}:
			return true
		case r.Mask != 0:
			return (r.First^port)&r.Mask == 0
		}
		return port >= r.First && port <= r.Last
	}
	least := uint32(0)
	for _, r := range list {
		switch {
		case r.Priority < least, r.Input != "" && r.Input != p.input, r.From.IsValid() && !r.From.Contains(p.src),
			r.To.IsValid() && !r.To.Contains(p.dst), r.IPProtocol != 0 && r.IPProtocol != p.protocol,
			!ports(r.SourcePorts, p.from), !ports(r.DestinationPorts, p.to):
		case r.Goto != 0:
			least = r.Goto
		case r.VRF && p.input != "eth0":
			return firstTable // of "red"
		case r.Unreachable:
			return 0
		case !r.VRF && r.Table != unix.RT_TABLE_LOCAL:
			return r.Table
		}
	}
	return 0
}

// holds tells whether a packet is in a class, but for port 0.
func holds(c *dataplane.Classifier, p packet) bool {
	ports := func(r dataplane.PortRange, port uint16) bool {
		return r == dataplane.AllPorts || port != 0 && port >= r.First && port <= r.Last
	}
	return c.Destination.Contains(p.dst) && c.Source.Contains(p.src) && (c.Protocol == dataplane.AnyProtocol || c.Protocol == int16(p.protocol)) &&
		ports(c.DestinationPorts, p.to) && ports(c.SourcePorts, p.from)
}

var (
	drawPort  = rapid.SampledFrom([]uint16{0, 1, 2, 79, 80, 81, 1023, 1024, 65533, 65534, 65535})
	drawAddr  = rapid.SampledFrom([]string{"203.0.113.7", "203.0.113.8", "198.51.100.2", "198.51.100.1", "224.0.0.5"})
	drawRange = rapid.Custom(func(t *rapid.T) dataplane.PortRange {
		r := dataplane.PortRange{First: drawPort.Draw(t, "first"), Last: drawPort.Draw(t, "last")}
		if r.First > r.Last || r.Last == 0 || r.First == 65535 || rapid.Bool().Draw(t, "all") {
			return dataplane.AllPorts
		}
		return r
	})
	drawClass = rapid.Custom(func(t *rapid.T) dataplane.Entry {
		prefix := rapid.SampledFrom([]string{"0.0.0.0/0", "203.0.113.0/24", "203.0.113.7/32", "198.51.100.0/24"})
		e := redirect("to "+prefix.Draw(t, "to")+" from "+prefix.Draw(t, "from"), rapid.SampledFrom([]string{"blue", "green"}).Draw(t, "target"))
		if e.Class.Protocol = rapid.SampledFrom([]int16{-1, 1, 6, 17}).Draw(t, "protocol"); e.Class.Protocol > 1 {
			e.Class.DestinationPorts, e.Class.SourcePorts = drawRange.Draw(t, "ports"), drawRange.Draw(t, "source ports")
		}
		return e
	})
)

// Classes in any order, with failures of the kernel and new processes in between: a packet of
// the VRF is always looked up as the first class says that holds it, and none of others is.
func TestClassesDecide(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		k := newFakeKernel("tap0", "other")
		var h *handle
		start := func() {
			d := fakeDriver(t, k, encap.GRE)
			h = open(t, d, "red")
			open(t, d, "blue")
			open(t, d, "green")
		}
		start()
		own := []dataplane.Entry{port("tap0"), local("tap0", 16, "198.51.100.2", "198.51.100.1")}
		apply(t, h, plus(own...)...)
		before := k.state()
		model := map[dataplane.Classifier]dataplane.Entry{}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			if rapid.IntRange(0, 7).Draw(rt, "restart") == 0 {
				start()
			}
			e := drawClass.Draw(rt, "class")
			if rapid.IntRange(0, 3).Draw(rt, "failure") == 0 {
				left := rapid.IntRange(0, 6).Draw(rt, "after")
				k.refuse = func(r netlinkx.Request) error {
					if left--; left < 0 && !isDelete(r) {
						return unix.ENOMEM
					}
					return nil
				}
				_ = h.Apply(t.Context(), plus(e))
				k.refuse = nil
				if rapid.Bool().Draw(rt, "crash") {
					start()
				}
			}
			if apply(t, h, plus(e)...); rapid.IntRange(0, 2).Draw(rt, "delete") == 0 {
				apply(t, h, minus(e)...)
				delete(model, *e.Class)
			} else {
				model[*e.Class] = e
			}
			if diff := differ(t, h, model); diff != "" {
				rt.Fatalf("classes (-want +got):\n%s", diff)
			}
			for range 20 {
				p := packet{
					input: rapid.SampledFrom([]string{"tap0", h.name, "eth0"}).Draw(rt, "input"),
					src:   netip.MustParseAddr(drawAddr.Draw(rt, "src")), dst: netip.MustParseAddr(drawAddr.Draw(rt, "dst")),
					protocol: rapid.SampledFrom([]uint8{1, 6, 17}).Draw(rt, "protocol"),
				}
				if p.protocol > 1 && rapid.IntRange(0, 5).Draw(rt, "fragment") > 0 {
					p.from, p.to = drawPort.Draw(rt, "from"), drawPort.Draw(rt, "to")
				}
				if want, got := decide(model, p), k.lookup(p, unix.AF_INET); got != want {
					rt.Fatalf("%+v: table %d, want %d\n%s", p, got, want, strings.Join(k.state(), "\n"))
				}
			}
		}
		for _, e := range model {
			apply(t, h, minus(e)...)
		}
		apply(t, h, plus(own...)...)
		if diff := gocmp.Diff(before, k.state()); diff != "" {
			rt.Fatalf("left (-before +after):\n%s", diff)
		}
	})
}

// decide returns the table that a packet is to be looked up in.
func decide(model map[dataplane.Classifier]dataplane.Entry, p packet) uint32 {
	if p.input == "eth0" {
		return 0
	}
	table := uint32(firstTable)
	if p.dst.IsMulticast() || p.dst == netip.MustParseAddr("198.51.100.1") {
		return table
	}
	var first *dataplane.Classifier
	for c, e := range model {
		if holds(&c, p) && (first == nil || c.Compare(*first) < 0) {
			first, table = &c, map[string]uint32{"blue": firstTable + 1, "green": firstTable + 2}[e.Target]
		}
	}
	return table
}

// differ compares the classes that a handle has with those wanted.
func differ(t *testing.T, h *handle, model map[dataplane.Classifier]dataplane.Entry) string {
	t.Helper()
	have, err := h.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	have = slices.DeleteFunc(have, func(e dataplane.Entry) bool { return e.Kind != dataplane.Redirect })
	return gocmp.Diff(words(slices.Collect(maps.Values(model))), words(have))
}

func words(entries []dataplane.Entry) (out []string) {
	for _, e := range entries {
		out = append(out, e.String())
	}
	slices.Sort(out)
	return out
}

// Many classes, however they come: their order is right, and few of those that are there move.
func TestManyClasses(t *testing.T) {
	t.Parallel()
	const n = 1024
	var sorted []dataplane.Entry
	for i := range n {
		sorted = append(sorted, redirect(fmt.Sprintf("to 10.%d.%d.0/24 protocol 6 port 80", i/250, i%250), "blue"))
	}
	backward, random := slices.Clone(sorted), slices.Clone(sorted)
	slices.Reverse(backward)
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(n, func(i, j int) { random[i], random[j] = random[j], random[i] })
	inward := make([]dataplane.Entry, n) // the first, the last, the second, …
	for i := range n {
		inward[i] = sorted[i/2]
		if i%2 == 1 {
			inward[i] = sorted[n-1-i/2]
		}
	}
	for name, entries := range map[string][]dataplane.Entry{"forward": sorted, "backward": backward, "random": random, "inward": inward} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newFakeKernel("tap0")
			d := fakeDriver(t, k, encap.GRE)
			h := open(t, d, "red")
			open(t, d, "blue")
			apply(t, h, plus(entries...)...)
			list := h.steering[unix.AF_INET].classes
			if len(list) != n || !slices.IsSortedFunc(list, func(a, b class) int { return cmp.Compare(a.slot, b.slot) }) ||
				!slices.IsSortedFunc(list, func(a, b class) int { return a.Compare(b.Classifier) }) {
				t.Errorf("%d classes, or out of order", len(list))
			}
			t.Logf("%d requests for %d classes", len(k.log), n)
			if len(k.log) > 50*n {
				t.Errorf("%d requests for %d classes", len(k.log), n)
			}
		})
	}
}

// What a crash leaves, what others have, and what others take.
func TestRulesOfOthersAndLost(t *testing.T) {
	t.Parallel()
	k := newFakeKernel("tap0")
	others := []netlinkx.Rule{
		{Family: unix.AF_INET, Priority: guardPriority + blockSize + 16, To: netip.MustParsePrefix("203.0.113.0/24"), Table: 7, Protocol: unix.RTPROT_STATIC},
		{Family: unix.AF_INET, Input: "eth0", Table: 7},
	}
	for _, r := range others {
		k.rulesOf[ruleKey(r)] = r
	}
	d := fakeDriver(t, k, encap.GRE)
	h := open(t, d, "red")
	open(t, d, "blue")
	web := redirect("to 203.0.113.0/24 protocol 6 port 1024-65535", "blue")
	want := []dataplane.Entry{port("tap0"), web}
	apply(t, h, plus(want...)...)
	good := k.state()

	block, _ := blockOf(h.table)
	for _, r := range []netlinkx.Rule{
		{Priority: block + 5*slotSize + topDestinations, DestinationPorts: topPorts, Table: 1002}, // half a class
		{Priority: block + 20000*8, To: netip.MustParsePrefix("203.0.113.0/24"), IPProtocol: 6, DestinationPorts: netlinkx.Ports{First: 1024, Last: 65534}, Table: 1002},
		{Priority: block + 5*blockSize, Table: 1009}, {Input: "tap0", Goto: block + 7*blockSize}, // of VRFs that are gone
		{Priority: probePriority, Unreachable: true},
	} {
		r.Family, r.Protocol = unix.AF_INET, ours
		k.rulesOf[ruleKey(r)] = r
	}
	d = fakeDriver(t, k, encap.GRE)
	h = open(t, d, "red")
	if diff := differ(t, h, map[dataplane.Classifier]dataplane.Entry{*web.Class: web}); diff != "" {
		t.Errorf("classes after a crash (-want +got):\n%s", diff)
	}
	open(t, d, "blue")
	apply(t, h, plus(want...)...)
	if diff := gocmp.Diff(good, k.state()); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}

	for key, r := range k.rulesOf {
		if r.Protocol != ours || r.Priority == 1 || r.Priority == 2 || r.Family == unix.AF_INET6 {
			continue
		}
		delete(k.rulesOf, key)
		// What is missing is found, and made again.
		for range 2 {
			drifts, err := d.Drifted(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, drift := range drifts {
				if !drift.Whole || drift.Instance != "red" {
					t.Errorf("without %v: drift %+v", r, drift)
				}
				if ok, err := h.Repair(t.Context()); !ok || err != nil {
					t.Errorf("without %v: repaired %v, %v", r, ok, err)
				}
				replay(t, h, want)
			}
		}
		if diff := gocmp.Diff(good, k.state()); diff != "" {
			t.Errorf("without %v (-want +got):\n%s", r, diff)
		}
	}

	c := &cleaner{k: k, log: d.log}
	if err := c.rules(); err != nil || len(c.errs) > 0 {
		t.Error(err, c.errs)
	}
	left := map[string]bool{}
	for _, r := range k.rulesOf {
		if left[ruleKey(r)] = true; r.Protocol == ours {
			t.Errorf("%v is left over", r)
		}
	}
	for _, r := range others {
		if !left[ruleKey(r)] {
			t.Errorf("%v is gone, which others have made", r)
		}
	}
}

// While classes move apart, the kernel has all of them, and none before one that comes first.
func TestOrderWhileClassesMove(t *testing.T) {
	t.Parallel()
	k := newFakeKernel("tap0")
	d := fakeDriver(t, k, encap.GRE)
	h := open(t, d, "red")
	open(t, d, "blue")
	apply(t, h, plus(redirect("to 10.0.99.0/24", "blue"))...)
	moves, count := 0, 1
	k.refuse = func(r netlinkx.Request) error {
		block, _ := blockOf(h.table)
		list, _ := k.Rules(unix.AF_INET)
		list = slices.DeleteFunc(list, func(r netlinkx.Rule) bool { return r.Table != firstTable+1 })
		slices.SortFunc(list, byPriority)
		seen := map[dataplane.Classifier]bool{}
		var last *class
		for _, r := range list {
			c, ok := classOf(block, []netlinkx.Rule{r})
			if seen[c.Classifier] = true; !ok || last != nil && last.Compare(c.Classifier) > 0 {
				t.Errorf("before %q: %v comes after %v", r, c, last)
			}
			last = &c
		}
		if len(seen) != count {
			t.Errorf("before %q: %d classes, want %d", r, len(seen), count)
		}
		if isDelete(r) {
			moves++
		}
		return nil
	}
	for i := range 60 { // each comes before all, or behind all
		n := 100 + i
		if i%2 == 0 {
			n = 100 - i
		}
		apply(t, h, plus(redirect(fmt.Sprintf("to 10.0.%d.0/24", n), "blue"))...)
		count++
	}
	if moves == 0 {
		t.Error("no class moved")
	}
}

// replay makes a handle have what is wanted, as the reconciler does.
func replay(t *testing.T, h *handle, want []dataplane.Entry) {
	t.Helper()
	have, err := h.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone := slices.DeleteFunc(have, func(e dataplane.Entry) bool { return slices.ContainsFunc(want, e.Equal) })
	apply(t, h, append(minus(gone...), plus(want...)...)...)
}

// The table of a VRF that is gone is not given to another one as long as classes lead there,
// and a VRF takes its rules along.
func TestTargetGoes(t *testing.T) {
	t.Parallel()
	k := newFakeKernel("tap0")
	d := fakeDriver(t, k, encap.GRE)
	before := k.state()
	h, blue := open(t, d, "red"), open(t, d, "blue")
	e := redirect("to 203.0.113.0/24", "blue")
	apply(t, h, plus(port("tap0"), e)...)
	if err := blue.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if green := open(t, d, "green"); green.table != firstTable+2 {
		t.Errorf("table %d was given again, which a class leads to", green.table)
	}
	open(t, d, "blue")
	apply(t, h, plus(e)...)
	if diff := differ(t, h, map[dataplane.Classifier]dataplane.Entry{*e.Class: e}); diff != "" {
		t.Errorf("classes (-want +got):\n%s", diff)
	}
	d = fakeDriver(t, k, encap.GRE)
	for _, id := range []string{"red", "blue", "green"} {
		if err := d.RemoveOrphan(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if diff := gocmp.Diff(before, k.state()); diff != "" {
		t.Errorf("left over (-before +after):\n%s", diff)
	}
}
