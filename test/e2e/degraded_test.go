// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// notReady is an entry of "not_ready" in /readyz and the looking glass.
type notReady struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// glance is what a node says of its faults.
type glance struct {
	status       int        // of /readyz
	ready, glass []notReady // in /readyz, in the looking glass
	causes       map[string]int
	flag         string // bagpipe_ready
}

// glanceBy looks by a client at all places that show faults.
func (n *node) glanceBy(c *http.Client) (g glance, err error) {
	body := map[string][]byte{}
	for _, path := range []string{"/readyz", "/looking-glass/not_ready", "/metrics"} {
		res, err := c.Get(client.DefaultBaseURL + path)
		if err != nil {
			return g, err
		}
		body[path], err = io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			return g, err
		}
		if path == "/readyz" {
			g.status = res.StatusCode
		}
	}
	var r struct {
		NotReady []notReady `json:"not_ready"`
	}
	if err = json.Unmarshal(body["/readyz"], &r); err == nil {
		err = json.Unmarshal(body["/looking-glass/not_ready"], &g.glass)
	}
	g.ready, g.causes = r.NotReady, map[string]int{}
	for line := range strings.Lines(string(body["/metrics"])) {
		line = strings.TrimSpace(line)
		if value, ok := strings.CutPrefix(line, "bagpipe_ready "); ok {
			g.flag = value
		}
		if rest, ok := strings.CutPrefix(line, `bagpipe_not_ready_faults{cause="`); ok {
			cause, value, _ := strings.Cut(rest, `"} `)
			if g.causes[cause], err = strconv.Atoi(value); err != nil {
				return g, err
			}
		}
	}
	return g, err
}

// degraded waits until a fault is in /readyz, the looking glass and the metrics.
func (n *node) degraded(c *http.Client, cause, name, reason string) {
	n.t.Helper()
	eventually(n.t, routeTimeout, func() error {
		g, err := n.glanceBy(c)
		is := func(f notReady) bool { return f.Name == name && strings.Contains(f.Reason, reason) }
		if err == nil && (g.status != http.StatusServiceUnavailable || !slices.ContainsFunc(g.ready, is) ||
			!slices.ContainsFunc(g.glass, is) || g.causes[cause] == 0 || g.flag != "0") {
			err = fmt.Errorf("%s shows %+v, want %s: %s, cause %s", n.label, g, name, reason, cause)
		}
		return err
	})
}

// sound waits until no fault is left anywhere.
func (n *node) sound(c *http.Client) {
	n.t.Helper()
	eventually(n.t, 2*routeTimeout, func() error { // retries are up to 30 s apart
		g, err := n.glanceBy(c)
		total := 0
		for _, count := range g.causes {
			total += count
		}
		if err == nil && (g.status != http.StatusOK || len(g.ready)+len(g.glass)+total > 0 || g.flag != "1" || len(g.causes) < 5) {
			err = fmt.Errorf("%s shows %+v, want no fault", n.label, g)
		}
		return err
	})
}

// metric returns the value of a metric without labels.
func (n *node) metric(name string) float64 {
	n.t.Helper()
	_, body := n.get("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				n.t.Fatal(err)
			}
			return v
		}
	}
	n.t.Fatalf("no metric %s at %s", name, n.label)
	return 0
}

// manyRequests are attachments of one port with its MAC and addresses of 198.51.100.0/24, from
// the 20th on.
func manyRequests(v *vm, count int) (list []client.AttachRequest) {
	for i := range count {
		list = append(list, v.request(red, fmt.Sprintf("198.51.100.%d/24", 20+i)))
	}
	return list
}

// TestDiskFull fills the file system of the state. Ports are attached all the same, and what was
// is on disk when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f := newFabric(t)
	a := f.nodeWith("a", 11, settings{peers: f.reflectors(), common: []string{"state_directory = " + dir}})
	v := a.vm("a1", 11)
	v.attach(red)
	a.sound(a.http)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err == nil {
		t.Fatal("the disk does not get full")
	}
	attached := 0
	for _, r := range manyRequests(v, 200) {
		a.attach(r)
		attached++
		if attached%10 == 0 && a.metric("bagpipe_state_write_errors_total") > 0 {
			break
		}
	}
	a.degraded(a.http, "state", "state", "no space left on device")
	if n, errs := a.metric("bagpipe_state_unwritten_records"), a.metric("bagpipe_state_write_errors_total"); n == 0 || errs == 0 {
		t.Errorf("%v records are shown as unwritten, and %v errors", n, errs)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	a.sound(a.http)
	if n := a.metric("bagpipe_state_unwritten_records"); n != 0 {
		t.Errorf("%v records are shown as unwritten", n)
	}
	want := len(a.endpoints(red, v))
	a.restart(syscall.SIGKILL)
	a.sound(a.http)
	if got := len(a.endpoints(red, v)); got != want || got != attached+2 {
		t.Errorf("%d endpoints after the restart, %d before, attached %d", got, want, attached+2)
	}
}

// TestDescriptorsExhausted takes the spare file descriptors of a running daemon away: no connection
// can be made or taken. It says so to who is connected, and goes on when there are some again.
func TestDescriptorsExhausted(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	a1, a2, b1 := a.vm("a1", 11), a.vm("a2", 12), b.vm("b1", 21)
	a1.attach(red)
	b1.attach(red)
	a1.reaches(b1)
	kept := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: netspace.Dialer(a.Name), MaxConnsPerHost: 1}}
	t.Cleanup(kept.CloseIdleConnections)
	a.sound(kept)
	pid := a.proc.cmd.Process.Pid
	var was unix.Rlimit
	limit := func(new *unix.Rlimit) {
		t.Helper()
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, new, &was); err != nil {
			t.Fatal(err)
		}
	}
	limit(nil)
	before := was
	f.rr.end(syscall.SIGKILL) // whose descriptor would be free else
	reflector := "bgp peer " + f.addr(reflectorNumber).String()
	a.degraded(kept, "bgp_sessions", reflector, "")
	limit(&unix.Rlimit{Cur: firstFree(pid), Max: before.Max})
	a.degraded(kept, "file_descriptors", "file descriptors", "too many open files")
	f.startReflector()
	b.established(f.addr(reflectorNumber))
	a.degraded(kept, "bgp_sessions", reflector, "too many open files")
	if _, err := a.glanceBy(&http.Client{Timeout: time.Second, Transport: a.http.Transport}); err == nil {
		t.Error("a new connection is answered: descriptors are not exhausted")
	}
	late, err := client.New(client.WithHTTPClient(kept))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range a2.requests(red) {
		if err := late.Attach(t.Context(), r); err != nil {
			t.Logf("attach of %s: %v", r.IPAddress, err) // answered, and tried again below
		}
	}
	if err := pings(t, a1, b1.v4.Addr()); err == nil {
		t.Error("a1 reaches b1 with no session: b1's routes are not gone")
	}

	limit(&before)
	a.sound(kept)
	a.sound(a.http)
	a2.attach(red)
	a1.reaches(a2, b1)
	b1.reaches(a1, a2)
}

// firstFree returns the lowest file descriptor that a process has not, apart from those that it
// has for a moment.
func firstFree(pid int) uint64 {
	least := uint64(1 << 20)
	for range 200 {
		n := uint64(0)
		for ; n < least; n++ {
			if _, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", pid, n)); err != nil {
				break
			}
		}
		least = n
	}
	return least
}

// TestOpenVSwitchGone kills both daemons of Open vSwitch and starts them again.
func TestOpenVSwitchGone(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, sw := f.ovsNode("a", 11, settings{peers: f.reflectors()})
	b := f.ebpfNode("b", 12, "encapsulations = gre")
	a1, a2 := a.routed("a1", 1, 1400), a.routed("a2", 2, 1400)
	b1, b2, b3 := b.routed("b1", 3, 1400), b.routed("b2", 4, 1400), b.routed("b3", 6, 1400)
	for _, v := range []*vm{a1, a2} {
		v.joinOVS(blue)
	}
	b1.join(blue)
	b2.join(blue)
	leadsTo := func(v *vm) func(line string) bool {
		return func(line string) bool {
			return strings.Contains(line, "nw_dst="+v.v4.Addr().String()+" ") || strings.Contains(line, "ipv6_dst="+v.v6.Addr().String()+" ")
		}
	}
	haveRoutes := func(machines ...*vm) error {
		for _, v := range machines {
			if lines := flows(sw); !slices.ContainsFunc(lines, leadsTo(v)) {
				return fmt.Errorf("no flow to %s:\n%s", v.v4.Addr(), strings.Join(lines, "\n"))
			}
		}
		return nil
	}
	eventually(t, routeTimeout, func() error { return haveRoutes(b1, b2) })
	a.sound(a.http)
	was := flows(sw)
	want := slices.DeleteFunc(slices.Clone(was), leadsTo(b2))
	if len(was)-len(want) != 2 {
		t.Fatalf("%d flows lead to b2, want 2:\n%s", len(was)-len(want), strings.Join(was, "\n"))
	}

	sw.Stop("ovs-vswitchd")
	sw.Stop("ovsdb-server")
	b2.leave(blue) // routes come and go while there is no switch
	b3.join(blue)
	a.degraded(a.http, "dataplane", "dataplane of instance blue", "connect to OVS bridge br-mpls")
	a.degraded(a.http, "dataplane_driver", "dataplane driver ovs of ipvpn", "connect to OVS bridge br-mpls")
	other := a.routed("a5", 5, 1400)
	for _, v := range []*vm{a1, other} { // one that is attached, and one that is not
		err := a.api.Attach(t.Context(), plugged(v.vrfRequests(blue)[0], v))
		if err == nil || !strings.Contains(err.Error(), "500") {
			t.Errorf("attach of %s without a switch: %v, want that it is refused", v.tap, err)
		}
	}

	sw.StartDB()
	sw.StartSwitch()
	a.sound(a.http)
	eventually(t, routeTimeout, func() error { return haveRoutes(b1, b3) })
	eventually(t, routeTimeout, func() error { return sameLines(want, slices.DeleteFunc(flows(sw), leadsTo(b3))) })
	other.joinOVS(blue)
	a.sound(a.http)
}

// TestBPFMapsFull has more routes in a VRF than its table has room for. Other VRFs go on, and the
// routes that found no place are installed when there is one.
func TestBPFMapsFull(t *testing.T) {
	t.Parallel()
	const room, routes = 8, 12
	f := newFabric(t)
	a, b := f.ebpfNode("a", 11, fmt.Sprintf("max_routes_per_vrf = %d", room)), f.ebpfNode("b", 12)
	other := vrf{id: "other", imports: "64512:300", exports: "64512:300"}
	a1, b1 := a.routed("a1", 1, 1500), b.routed("b1", 2, 1500)
	o1, o2 := a.routed("o1", 3, 1500), b.routed("o2", 4, 1500)
	a1.join(blue)
	o1.join(other)
	o2.join(other)
	o1.reaches(o2)
	more := func(i int) (client.AttachRequest, netip.Addr) {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(20 + i)}), 32)
		r := b1.vrfRequests(blue)[0]
		r.IPAddress = p.String()
		return r, p.Addr()
	}
	for i := range routes {
		r, addr := more(i)
		ip(t, b1.NS, fmt.Sprintf("address add %s/32 dev eth0", addr))
		b.attach(r)
	}
	a.degraded(a.http, "dataplane", "dataplane of instance blue", "")
	o1.reaches(o2)
	o1.transfers(o2)
	o2.leave(other)
	o2.join(other)
	o1.reaches(o2)

	for i := range routes / 2 {
		r, _ := more(i)
		b.detach(r)
	}
	a.sound(a.http)
	for i := routes / 2; i < routes; i++ {
		_, addr := more(i)
		eventually(t, routeTimeout, func() error { return pings(t, a1, addr) })
	}
}
