// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/faultcall"
)

// Parts of dumps that another run has otherwise, with the same forwarding.
var (
	ifIndex   = regexp.MustCompile(`^[0-9]+: `)
	ownMAC    = regexp.MustCompile(`link/ether [0-9a-f:]+`)
	bridgeID  = regexp.MustCompile(`(designated_root|bridge_id|designated_bridge|root_id|port_id|port_no|designated_port) [0-9a-fx.:]+`)
	programID = regexp.MustCompile(` (id [0-9]+|tag [0-9a-f]+|jited|name bagpipe_[a-z]+)`)
	ownEntry  = regexp.MustCompile(`^[0-9a-f:]+ dev (\S+) .*permanent$`)
)

// image returns the forwarding state of the node: links, bridge entries, neighbours and
// routes as dump has them, programs at devices and what is in their maps.
func (n *node) image() ([]string, error) {
	var out []string
	for _, line := range n.dump() {
		ours := strings.Contains(line, "alias bagpipe") || strings.Contains(line, "alias \"bagpipe")
		line = bridgeID.ReplaceAllString(ifIndex.ReplaceAllString(line, ""), "")
		switch {
		case ours:
			line = ownMAC.ReplaceAllString(line, "")
		case ownEntry.MatchString(line) && !strings.Contains(line, " dst "):
			continue // addresses of devices themselves, multicast groups
		case strings.Contains(line, "fe80::"), strings.Contains(line, "multicast ff00::"):
			continue // of a device's MAC
		}
		out = append(out, line)
	}
	for name := range strings.FieldsSeq(n.Run("ls", "/sys/class/net")) {
		for line := range strings.Lines(n.Run("tc", "filter", "show", "dev", name, "ingress")) {
			out = append(out, name+": "+strings.TrimSpace(programID.ReplaceAllString(line, "")))
		}
	}
	list, err := n.maps()
	slices.Sort(out)
	return append(out, list...), err
}

// maps returns the entries of the maps that the program at the underlay's device has,
// but for counters.
func (n *node) maps() (list []string, err error) {
	var res *link.QueryResult
	n.Do(func() {
		index := 0
		if index, err = interfaceIndex("eth0"); err == nil {
			res, err = link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
		}
	})
	if err != nil {
		return nil, err
	}
	for _, p := range res.Programs {
		prog, err := ebpf.NewProgramFromID(p.ID)
		if err != nil {
			return nil, err
		}
		info, err := prog.Info()
		_ = prog.Close()
		if err != nil {
			return nil, err
		}
		ids, _ := info.MapIDs()
		for _, id := range ids {
			if list, err = appendMap(list, "", id); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(list)
	return list, nil
}

// appendMap appends the entries of a map, and of those in it.
func appendMap(list []string, prefix string, id ebpf.MapID) ([]string, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Close() }()
	info, err := m.Info()
	if err != nil {
		return nil, err
	}
	if prefix == "" {
		prefix = info.Name
	}
	if slices.Contains([]string{"bp1_pstats", "bp1_drops"}, prefix) || !strings.HasPrefix(prefix, "bp1_") {
		return list, nil
	}
	var k, v []byte
	it := m.Iterate()
	for it.Next(&k, &v) {
		if m.Type() == ebpf.HashOfMaps || m.Type() == ebpf.ArrayOfMaps {
			inner := ebpf.MapID(uint32(v[0]) | uint32(v[1])<<8 | uint32(v[2])<<16 | uint32(v[3])<<24)
			if list, err = appendMap(list, fmt.Sprintf("%s %x", prefix, k), inner); err != nil {
				return nil, err
			}
			continue
		}
		list = append(list, fmt.Sprintf("%s %x: %x", prefix, k, v))
	}
	return list, it.Err()
}

// interfaceIndex returns the index of a device of the calling thread's namespace.
func interfaceIndex(name string) (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(s) }()
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(s, unix.SIOCGIFINDEX, r)
	return int(r.Uint32()), err
}

// Where numbers of VRFs and labels stand in maps, in key or value.
var (
	vrfAt   = regexp.MustCompile(`^(bp1_(?:endpoints|gateways|plugs|vrfs|routes4|routes6) |bp1_(?:ports|sources) [^:]*: )([0-9a-f]{8})`)
	vrfTo   = regexp.MustCompile(`^(bp1_labels [^:]*: )([0-9a-f]{8})`)
	vniOf   = regexp.MustCompile(`^(bp1_vrfs [^:]*: )([0-9a-f]{8})`)
	labelAt = regexp.MustCompile(`^(bp1_(?:endpoints|labels) .{8})([0-9a-f]{8})`)
)

// image returns the forwarding state of a, in which VRFs are numbered from zero, and labels have
// names: an attachment that was refused or undone in between has taken numbers.
func (c *crashing) image() ([]string, error) {
	if c.a.ovs {
		return c.switchImage()
	}
	list, err := c.a.image()
	local, _ := c.a.identifiers() // none while the daemon is away
	remote, _ := c.b.identifiers()
	names, vnis, hops := map[string]string{}, map[string]string{}, []string{}
	for k, id := range local {
		vnis[vniIn(id)] = "<vni>"
		names[labelIn(id)] = "<" + strings.Fields(k)[1] + ">"
		hops = append(hops, fmt.Sprintf("%x", c.a.addr.AsSlice())+labelIn(id), "<a:"+strings.Fields(k)[1]+">")
	}
	for k, id := range remote {
		hops = append(hops, fmt.Sprintf("%x", c.b.addr.AsSlice())+labelIn(id), "<b:"+strings.Fields(k)[1]+">")
	}
	var vrfs []string
	for _, line := range list {
		if rest, ok := strings.CutPrefix(line, "bp1_vrfs "); ok {
			vrfs = append(vrfs, rest[:8])
		}
	}
	rename := func(line string, at *regexp.Regexp, name func(string) string) string {
		if m := at.FindStringSubmatchIndex(line); m != nil {
			line = line[:m[4]] + name(line[m[4]:m[5]]) + line[m[5]:]
		}
		return line
	}
	vrf := func(number string) string {
		if i := slices.Index(vrfs, number); i >= 0 {
			return fmt.Sprintf("<vrf%3d>", i) // eight octets, as before
		}
		return number
	}
	vni := func(number string) string { return cmp.Or(vnis[number], number) }
	label := func(number string) string { return cmp.Or(names[number], number) }
	byHop := strings.NewReplacer(hops...)
	for i, line := range list {
		if strings.HasPrefix(line, "bp1_") {
			line = rename(rename(rename(line, vniOf, vni), vrfTo, vrf), vrfAt, vrf)
			list[i] = byHop.Replace(rename(line, labelAt, label))
		}
	}
	slices.Sort(list)
	return list, err
}

// vniIn and labelIn return the VNI and the label of an endpoint as they stand in maps.
func vniIn(identifiers string) string { return hexOf(identifiers, "VNI %d") }

func labelIn(identifiers string) string {
	_, rest, _ := strings.Cut(identifiers, ", ")
	return hexOf(rest, "label %d")
}

func hexOf(text, format string) string {
	var n uint32
	_, _ = fmt.Sscanf(text, format, &n)
	return fmt.Sprintf("%x", binary.LittleEndian.AppendUint32(nil, n))
}

// hasImage waits until a has exactly that forwarding state.
func (c *crashing) hasImage(when string, want []string) {
	c.t.Helper()
	n := c.a
	eventually(n.t, routeTimeout, func() error {
		got, err := c.image()
		if diff := gocmp.Diff(want, got); err == nil && diff != "" {
			err = fmt.Errorf("state of %s %s (-want +got):\n%s", n.label, when, diff)
		}
		return err
	})
}

// stableImage returns the forwarding state of a when it has come to rest.
func (c *crashing) stableImage() []string {
	c.t.Helper()
	n := c.a
	var last []string
	eventually(n.t, routeTimeout, func() error {
		for range 10 {
			now, err := c.image()
			if err != nil {
				return err
			}
			if !slices.Equal(now, last) {
				last = now
				return errors.New("the kernel's state still changes")
			}
		}
		return nil
	})
	return last
}

// crashing is a network of a node that crashes and one that does not.
type crashing struct {
	t      *testing.T
	a, b   *planeNode
	a1, a2 *vm // of a, not attached
	dir    string
	script []op // of a; before the last of it a route of b comes
	undo   []op
	late   op  // of b
	stale  op  // of b, undone while the daemon of a is away
	routes int // of b, with the late one
	counts func(faultcall.Call) bool
	// before is what a has without a daemon; idle with one that has nothing attached, and
	// after it; model is what the script leads to.
	before, idle, model []string
}

// run runs the script and tells whether a has answered all of it.
func (c *crashing) run() bool {
	for i, o := range c.script {
		if i == len(c.script)-1 {
			if err := c.b.do(c.late); err != nil {
				c.t.Fatal(err)
			}
		}
		if c.a.do(o) != nil {
			return false
		}
	}
	return true
}

// detachAll detaches all, and tells whether a has answered.
func (c *crashing) detachAll() bool {
	for _, o := range c.undo {
		if c.a.do(o) != nil {
			return false
		}
	}
	return true
}

// reset makes everything as it was before the script.
func (c *crashing) reset() {
	c.t.Helper()
	o := c.late
	o.detach = true
	if err := c.b.do(o); err != nil {
		c.t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(c.dir, "*"))
	for _, f := range files {
		_ = os.Remove(f)
	}
}

// measure runs all without a crash, and returns the number of calls.
func (c *crashing) measure() int {
	c.t.Helper()
	var seen atomic.Int64
	c.before = c.stableImage()
	for range 2 { // the second time finds what a daemon that has ended leaves
		seen.Store(0)
		c.a.startUnder(func(call faultcall.Call) faultcall.Verdict {
			if c.counts(call) {
				seen.Add(1)
			}
			return faultcall.Pass
		})
		c.a.established(c.b.addr)
		if !c.run() {
			c.t.Fatal("the script fails without a fault")
		}
		c.settled()
		if now := c.stableImage(); c.model == nil {
			c.model = now
		} else {
			c.hasImage("of the second run", c.model)
		}
		if !c.detachAll() {
			c.t.Fatal("cannot detach")
		}
		c.a.showsNoInstance()
		if c.idle == nil {
			c.idle = c.stableImage()
		}
		c.a.proc.end(syscall.SIGTERM)
		c.hasImage("after its end", c.idle)
		c.reset()
	}
	return int(seen.Load())
}

// settled waits until the daemon of a has done what it is to do: routes of b are there, what
// an earlier run left is swept.
func (c *crashing) settled() {
	c.t.Helper()
	eventually(c.t, routeTimeout, func() error {
		all, err := c.a.received()
		if err == nil && all < c.routes {
			err = fmt.Errorf("%d routes received, want %d", all, c.routes)
		}
		return err
	})
}

// received returns the number of routes from peers.
func (n *node) received() (int, error) {
	var s summary
	err := n.glass(&s, "summary")
	return s.Routes.Received, err
}

// showsNoInstance waits until the looking glass has no instance and no problem.
func (n *node) showsNoInstance() {
	n.t.Helper()
	eventually(n.t, routeTimeout, func() error {
		var instances, problems []any
		err := errors.Join(n.glass(&instances, "vpns", "instances"), n.glass(&problems, "vpns", "dataplane", "problems"))
		if err == nil && len(instances)+len(problems) > 0 {
			err = fmt.Errorf("instances %v, problems %v", instances, problems)
		}
		return err
	})
}

// crash kills the daemon before a call and checks that another one gets all right.
func (c *crashing) crash(at int) {
	c.t.Helper()
	when := fmt.Sprintf("after a crash before call %d", at)
	stale := c.stale
	if err := c.b.do(stale); err != nil {
		c.t.Fatal(err)
	}
	var seen atomic.Int64
	c.a.startUnder(func(call faultcall.Call) faultcall.Verdict {
		if c.counts(call) && seen.Add(1) == int64(at) {
			when += ", " + call.String()
			return faultcall.Kill
		}
		return faultcall.Pass
	})
	if c.run() && c.waitOrEnd() && c.detachAll() && !c.a.proc.exited() {
		// Calls differ by what the kernel and BGP do when: the last of them may not come.
		c.a.proc.end(syscall.SIGKILL)
	} else {
		c.a.killed()
	}
	stale.detach = true
	if err := c.b.do(stale); err != nil {
		c.t.Fatal(err)
	}
	c.a.start()
	if !c.run() {
		c.t.Fatalf("%s: the script fails", when)
	}
	c.hasImage(when, c.model)
	c.detachAll()
	c.a.showsNoInstance()
	c.hasImage(when+", all detached", c.idle)
	c.a.proc.end(syscall.SIGTERM)
	c.reset()
}

// waitOrEnd waits for the routes of b, or the end of a's daemon.
func (c *crashing) waitOrEnd() bool {
	eventually(c.t, routeTimeout, func() error {
		n, err := c.a.received()
		if c.a.proc.exited() {
			return nil
		}
		if err == nil && n < c.routes {
			err = errors.New("routes have not come")
		}
		return err
	})
	return !c.a.proc.exited()
}

// ops attaches or detaches a machine's addresses.
func (p plane) ops(v *vm, detach bool) (list []op) {
	for _, r := range p.requests(v) {
		list = append(list, op{detach, r})
	}
	return list
}

// newCrashing makes two nodes with machines. One of b is attached, others are for the late and
// the stale route. The daemon of a is not started.
func newCrashing(t *testing.T, p plane) *crashing {
	t.Helper()
	f := bareFabric(t, 4, enoughMTU)
	s := settings{bgp: []string{"listen = true", "dynamic_neighbors = " + f.prefix(0).String()}}
	c := &crashing{t: t, dir: memory(t), b: f.planeNode(p, "b", 12, s), routes: 3, counts: p.changes}
	s = settings{peers: []netip.Addr{c.b.addr}, common: []string{"sweep_delay = 1", "state_directory = " + c.dir}}
	c.a = f.idlePlaneNode(p, "a", 11, s)
	c.a1, c.a2 = c.a.machine("a1", 1), c.a.machine("a2", 2)
	if p.ovs {
		c.a.byDriver(c.a1)
		c.a.byDriver(c.a2)
		// The late and the stale route are the second ones for their prefixes: a group replaces
		// a next hop, and the other way round.
		c.b.attach(c.b.machine("b4", 4).vrfRequests(green)[0])
		c.b.attach(c.b.machine("b5", 5).vrfRequests(green)[0])
		c.routes += 2
	}
	for _, o := range p.ops(c.b.machine("b1", 3), false) {
		if err := c.b.do(o); err != nil {
			t.Fatal(err)
		}
	}
	c.late = p.ops(c.b.machine("b2", 4), false)[0]
	c.stale = p.ops(c.b.machine("b3", 5), false)[0]
	gone := p.ops(c.a2, true)
	c.script = slices.Concat(p.ops(c.a1, false), p.ops(c.a2, false), gone[:1])
	c.undo = slices.Concat(p.ops(c.a1, true), gone[1:])
	return c
}

// TestCrashInDataplane kills a daemon before a call that changes the forwarding plane, at
// its start, in an attachment, with routes that arrive or in a detachment. A route is
// withdrawn while it is away. Another one gets to the same forwarding state as one that never crashed, and leaves nothing.
func TestCrashInDataplane(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		plane plane
		least int // calls
	}{
		{linuxEVPN, 15},
		{ebpfPlane, 40},
		{ovsPlane, 40},
	} {
		t.Run(tt.plane.name, func(t *testing.T) {
			t.Parallel()
			c := newCrashing(t, tt.plane)
			all := c.measure()
			t.Logf("%d calls", all)
			if all < tt.least {
				t.Fatalf("%d calls that change the forwarding plane seen, want more", all)
			}
			for _, at := range crashes(all, 12) {
				c.crash(at)
			}
		})
	}
}
