// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/rr"
)

// Ends of waiting, for a machine with two busy cores.
const (
	startTimeout = 30 * time.Second
	routeTimeout = 20 * time.Second
)

const (
	asn             = 64512
	reflectorNumber = 1
	// enoughMTU has room for a VM's frame of 1500 in VXLAN over IPv6.
	enoughMTU = 1570
)

// fabric is the network between the nodes: one Ethernet segment, with a route
// reflector on it unless it was made without.
type fabric struct {
	t      testing.TB
	family int // IP version, 4 or 6
	mtu    int
	hub    *nstest.NS // the segment's bridge, and the reflector
	rr     *process
}

// newNS makes a namespace of this run.
func newNS(t testing.TB, label string) *nstest.NS {
	t.Helper()
	return nstest.New(t, runID+label)
}

// bareFabric makes a fabric without reflector.
func bareFabric(t testing.TB, family, mtu int) *fabric {
	t.Helper()
	f := &fabric{t: t, family: family, mtu: mtu, hub: newNS(t, "hub")}
	ip(t, f.hub,
		fmt.Sprintf("link add underlay mtu %d type bridge mcast_snooping 0", mtu),
		fmt.Sprintf("address add %s dev underlay nodad", f.prefix(reflectorNumber)),
		"link set underlay up")
	return f
}

// newFabric makes an IPv4 fabric with a reflector.
func newFabric(t testing.TB) *fabric {
	t.Helper()
	f := bareFabric(t, 4, enoughMTU)
	f.startReflector()
	return f
}

// startReflector starts "bagpipe rr" and waits until it takes clients.
func (f *fabric) startReflector() {
	f.t.Helper()
	f.rr = startProcess(f.t, f.hub, "rr", program("bagpipe"), "rr", "--as", fmt.Sprint(asn),
		"--router-id", fmt.Sprintf("192.0.2.%d", reflectorNumber),
		"--listen", f.addr(reflectorNumber).String(), "--client-prefix", f.prefix(0).Masked().String())
	f.rr.ready(func() error { return f.rr.logged(rr.ListeningMessage) })
}

// prefix returns the address of a host on the fabric with the length of the subnet.
func (f *fabric) prefix(number int) netip.Prefix {
	if f.family == 6 {
		return netip.MustParsePrefix(fmt.Sprintf("2001:db8:ffff::%d/64", number))
	}
	return netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", number))
}

// addr returns the address of a host on the fabric.
func (f *fabric) addr(number int) netip.Addr { return f.prefix(number).Addr() }

// reflectors returns the address of the reflector, as a node's list of peers.
func (f *fabric) reflectors() []netip.Addr { return []netip.Addr{f.addr(reflectorNumber)} }

// host adds a namespace with a cable "eth0" to the fabric.
func (f *fabric) host(label string, number int) *nstest.NS {
	f.t.Helper()
	ns := newNS(f.t, label)
	ip(f.t, ns,
		fmt.Sprintf("link add eth0 mtu %d type veth peer name to-%s mtu %d netns %s", f.mtu, label, f.mtu, f.hub.Name),
		fmt.Sprintf("address add %s dev eth0 nodad", f.prefix(number)),
		"link set eth0 up")
	ip(f.t, f.hub, fmt.Sprintf("link set to-%s master underlay up", label))
	return ns
}

// ip runs lines of ip(8), without the leading "ip", in a namespace.
func ip(t testing.TB, ns *nstest.NS, lines ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "ip", "-netns", ns.Name, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("in %s: ip: %v: %s\n%s", ns.Name, err, out.String(), strings.Join(lines, "\n"))
	}
}

// eventually waits until check returns no error.
func eventually(t testing.TB, within time.Duration, check func() error) {
	t.Helper()
	var err error
	nstest.Eventually(t, within, func() bool { err = check(); return err == nil }, func() string { return err.Error() })
}
