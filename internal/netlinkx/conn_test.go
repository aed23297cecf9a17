// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func dial(t testing.TB, ns *nstest.NS) *Conn {
	t.Helper()
	var c *Conn
	var err error
	ns.Do(func() { c, err = Dial() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// tunnel makes bridge br0 with VXLAN port vx0 of VNI 100, and returns their indexes.
func tunnel(t testing.TB, ns *nstest.NS, c *Conn) (bridge, vxlan int) {
	t.Helper()
	ns.Run("ip", "link", "add", "br0", "up", "type", "bridge")
	ns.Run("ip", "link", "add", "vx0", "up", "master", "br0", "type", "vxlan", "id", "100", "local", "192.0.2.1", "dstport", "4789", "nolearning")
	br, okBridge, err1 := c.LinkByName("br0")
	vx, okVXLAN, err2 := c.LinkByName("vx0")
	if !okBridge || !okVXLAN || err1 != nil || err2 != nil {
		t.Fatal(okBridge, okVXLAN, err1, err2)
	}
	return br.Index, vx.Index
}

// remote returns the message for the n-th remote MAC.
func remote(n, vxlan int) Message {
	return Message{Replace, Neigh{
		Family: unix.AF_BRIDGE, Index: vxlan, MAC: ethernet.MAC{2, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)},
		Flags: unix.NTF_SELF | unix.NTF_MASTER | unix.NTF_EXT_LEARNED, State: unix.NUD_PERMANENT,
		Addr: netip.MustParseAddr("192.0.2.9"), VNI: 100,
	}}
}

func remotes(n, vxlan int) []Message {
	msgs := make([]Message, n)
	for i := range msgs {
		msgs[i] = remote(i+1, vxlan)
	}
	return msgs
}

func exec(t testing.TB, c *Conn, msgs ...Message) {
	t.Helper()
	errs := make([]error, len(msgs))
	c.Exec(msgs, errs)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func countRemotes(t testing.TB, c *Conn, bridge, vxlan int) (self, master int) {
	t.Helper()
	list, err := c.FDB(bridge)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		switch {
		case n.Flags&unix.NTF_EXT_LEARNED == 0 || n.Index != vxlan:
		case n.Master == bridge:
			master++
		default:
			self++
		}
	}
	return self, master
}

func TestExecAddsAndDeletesInBatches(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "exec")
	c := dial(t, ns)
	bridge, vxlan := tunnel(t, ns, c)
	const n = 3*batchSize + 5
	msgs := remotes(n, vxlan)
	exec(t, c, msgs...)
	if c.batches != 4 {
		t.Errorf("%d messages took %d batches, want 4", n, c.batches)
	}
	if self, master := countRemotes(t, c, bridge, vxlan); self != n || master != n {
		t.Errorf("kernel has %d and %d entries, want %d of each", self, master, n)
	}
	for i := range msgs {
		msgs[i].Op = Delete
	}
	exec(t, c, msgs...)
	if self, master := countRemotes(t, c, bridge, vxlan); self != 0 || master != 0 {
		t.Errorf("kernel has %d and %d entries after deletion, want none", self, master)
	}
}

func TestExecGivesEachMessageItsResult(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "results")
	c := dial(t, ns)
	_, vxlan := tunnel(t, ns, c)
	msgs := remotes(300, vxlan)
	bad := []int{0, 100, 127, 128, 299}
	for _, i := range bad {
		msgs[i].Index = 1 << 20
	}
	errs := make([]error, len(msgs))
	errs[5] = errors.New("of before")
	c.Exec(msgs, errs)
	var failed []int
	for i, err := range errs {
		if err != nil {
			failed = append(failed, i)
		}
	}
	if diff := cmp.Diff(bad, failed); diff != "" {
		t.Fatalf("failed messages (-want +got):\n%s", diff)
	}
	var refusal *Error
	if !errors.As(errs[0], &refusal) || !strings.Contains(errs[0].Error(), "02:00:00:00:00:01") {
		t.Errorf("error = %v, want one that names the MAC", errs[0])
	}
}

func TestErrorHasKernelText(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "text")
	c := dial(t, ns)
	errs := make([]error, 1)
	c.Exec([]Message{remote(1, 0)}, errs)
	var refusal *Error
	if !errors.As(errs[0], &refusal) || refusal.Text == "" || refusal.Errno == 0 {
		t.Errorf("error = %#v, want the kernel's text", errs[0])
	}
}

// With room for a few answers only, a batch in which all fail loses answers.
func TestExecSurvivesLostAnswers(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "enobufs")
	c := dial(t, ns)
	bridge, vxlan := tunnel(t, ns, c)
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4096); err != nil {
		t.Fatal(err)
	}
	msgs := remotes(batchSize, vxlan)
	for i := range msgs {
		if i%2 == 0 {
			msgs[i].Index = 1 << 20
		}
	}
	errs := make([]error, len(msgs))
	c.Exec(msgs, errs)
	for i, err := range errs {
		if (err != nil) != (i%2 == 0) || err != nil && !errors.Is(err, unix.ENODEV) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if c.batches == 1 {
		t.Error("no answer was lost: the test shows nothing")
	}
	if self, _ := countRemotes(t, c, bridge, vxlan); self != batchSize/2 {
		t.Errorf("kernel has %d entries, want %d", self, batchSize/2)
	}
}

func TestClosedConnFails(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t, "closed"))
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 2)
	c.Exec(make([]Message, 2), errs)
	if !errors.Is(errs[0], unix.EBADF) || !errors.Is(errs[1], unix.EBADF) {
		t.Errorf("errors = %v, want EBADF", errs)
	}
	if _, err := c.Links(0); !errors.Is(err, unix.EBADF) {
		t.Errorf("Links: %v, want EBADF", err)
	}
}

func TestDumpsAreFiltered(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "dumps")
	c := dial(t, ns)
	bridge, vxlan := tunnel(t, ns, c)
	ns.Run("ip", "link", "add", "br1", "up", "type", "bridge")
	ns.Run("ip", "link", "add", "vx1", "up", "master", "br1", "type", "vxlan", "id", "101", "dstport", "4789")
	other, _, err := c.LinkByName("vx1")
	if err != nil {
		t.Fatal(err)
	}
	neighbour := Message{Replace, Neigh{
		Family: unix.AF_INET, Index: bridge, MAC: ethernet.MAC{2}, Addr: netip.MustParseAddr("198.51.100.1"),
		State: unix.NUD_NOARP, Flags: unix.NTF_EXT_LEARNED, Protocol: 19,
	}}
	elsewhere := neighbour
	elsewhere.Index = other.Index
	exec(t, c, remote(1, vxlan), remote(2, other.Index), neighbour, elsewhere)
	list, err := c.FDB(bridge)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(list, func(n Neigh) bool { return n.Index == other.Index }) {
		t.Errorf("FDB of br0 has entries of vx1: %v", list)
	}
	got, err := c.Neighbours(unix.AF_INET, bridge)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got, neighbour.Neigh) || slices.Contains(got, elsewhere.Neigh) {
		t.Errorf("neighbours of br0 = %v, want %v and none of vx1", got, neighbour)
	}
	all, err := c.Neighbours(unix.AF_INET, 0)
	if err != nil || !slices.Contains(all, neighbour.Neigh) || !slices.Contains(all, elsewhere.Neigh) {
		t.Errorf("all neighbours = %v, %v; want both", all, err)
	}
}

func TestSingleLookups(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "lookups")
	c := dial(t, ns)
	bridge, vxlan := tunnel(t, ns, c)
	m := remote(1, vxlan)
	ip := netip.MustParseAddr("2001:db8::1")
	exec(t, c, m, Message{Replace, Neigh{Family: unix.AF_INET6, Index: bridge, MAC: m.MAC, Addr: ip, State: unix.NUD_NOARP}})
	if n, ok, err := c.BridgeFDB(bridge, m.MAC); !ok || err != nil || n.Index != vxlan || n.Master != bridge {
		t.Errorf("BridgeFDB = %v, %v, %v", n, ok, err)
	}
	if n, ok, err := c.VXLANFDB(vxlan, m.MAC); !ok || err != nil || n.Addr != m.Addr {
		t.Errorf("VXLANFDB = %v, %v, %v", n, ok, err)
	}
	if n, ok, err := c.Neighbour(bridge, ip); !ok || err != nil || n.MAC != m.MAC {
		t.Errorf("Neighbour = %v, %v, %v", n, ok, err)
	}
	none := ethernet.MAC{2, 9}
	for name, lookup := range map[string]func() (Neigh, bool, error){
		"BridgeFDB": func() (Neigh, bool, error) { return c.BridgeFDB(bridge, none) },
		"VXLANFDB":  func() (Neigh, bool, error) { return c.VXLANFDB(vxlan, none) },
		"Neighbour": func() (Neigh, bool, error) { return c.Neighbour(bridge, netip.MustParseAddr("192.0.2.77")) },
	} {
		if _, ok, err := lookup(); ok || err != nil {
			t.Errorf("%s of nothing = %v, %v", name, ok, err)
		}
	}
}

func TestLargeDumpIsComplete(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "large")
	c := dial(t, ns)
	bridge, vxlan := tunnel(t, ns, c)
	const n = 20000
	exec(t, c, remotes(n, vxlan)...)
	if self, master := countRemotes(t, c, bridge, vxlan); self != n || master != n {
		t.Errorf("dump has %d and %d entries, want %d of each", self, master, n)
	}
}
