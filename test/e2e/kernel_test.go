// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// forwarding is what a node's kernel forwards for a network: by remote MAC the
// tunnel end, by remote IP address the MAC, and where it floods to.
type forwarding struct {
	MACs       map[string]string
	Neighbours map[string]string
	Flood      []string
}

// behind adds machines that are reached through a tunnel end.
func (f forwarding) behind(end netip.Addr, machines ...*vm) forwarding {
	if f.MACs == nil {
		f = forwarding{MACs: map[string]string{}, Neighbours: map[string]string{}}
	}
	for _, v := range machines {
		f.MACs[v.mac] = end.String()
		f.Neighbours[v.v4.Addr().String()] = v.mac
		f.Neighbours[v.v6.Addr().String()] = v.mac
	}
	if !slices.Contains(f.Flood, end.String()) {
		f.Flood = append(f.Flood, end.String())
		slices.Sort(f.Flood)
	}
	return f
}

// devices are the interface indexes of a network's devices on a node.
type devices struct{ bridge, vxlan int }

// devices finds the devices of a network that the daemon made, by their alias;
// 0 where there is none.
func (n *node) devices(of network) (d devices, err error) {
	err = netspace.With(n.Name, func(h *netlink.Handle) error {
		links, err := h.LinkList()
		for _, l := range links {
			if l.Attrs().Alias != "bagpipe evpn "+of.id {
				continue
			}
			switch l.Type() {
			case "bridge":
				d.bridge = l.Attrs().Index
			case "vxlan":
				d.vxlan = l.Attrs().Index
			}
		}
		return err
	})
	return d, err
}

// forwarding reads what the kernel has for a network.
func (n *node) forwarding(of network) (forwarding, error) {
	d, err := n.devices(of)
	if err != nil {
		return forwarding{}, err
	}
	return n.forwardingOf(d)
}

// forwardingOf reads what the kernel has on a pair of devices.
func (n *node) forwardingOf(d devices) (forwarding, error) {
	f := forwarding{MACs: map[string]string{}, Neighbours: map[string]string{}}
	if d.vxlan == 0 {
		return f, nil
	}
	return f, netspace.With(n.Name, func(h *netlink.Handle) error {
		fdb, err := h.NeighList(d.vxlan, unix.AF_BRIDGE)
		if err != nil {
			return err
		}
		f.addFDB(fdb)
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			list, err := h.NeighList(d.bridge, family)
			if err != nil {
				return err
			}
			for _, e := range list {
				if e.Flags&unix.NTF_EXT_LEARNED != 0 {
					f.Neighbours[e.IP.String()] = e.HardwareAddr.String()
				}
			}
		}
		return nil
	})
}

// addFDB takes the entries of a VXLAN device in. A remote MAC needs an entry in
// the bridge, too: without it the bridge would flood.
func (f *forwarding) addFDB(fdb []netlink.Neigh) {
	inBridge := map[string]bool{}
	for _, e := range fdb {
		if e.MasterIndex != 0 {
			inBridge[e.HardwareAddr.String()] = true
		}
	}
	for _, e := range fdb {
		mac := e.HardwareAddr.String()
		switch {
		case e.MasterIndex != 0 || e.IP == nil:
		case mac == "00:00:00:00:00:00":
			f.Flood = append(f.Flood, e.IP.String())
		case f.MACs[mac] != "":
			f.MACs[mac] += " and " + e.IP.String()
		case !inBridge[mac]:
			f.MACs[mac] = e.IP.String() + ", not in the bridge"
		default:
			f.MACs[mac] = e.IP.String()
		}
	}
	slices.Sort(f.Flood)
}

// forwards waits until the kernel has exactly what is wanted for a network.
func (n *node) forwards(of network, want forwarding) {
	n.t.Helper()
	if want.MACs == nil {
		want = forwarding{MACs: map[string]string{}, Neighbours: map[string]string{}}
	}
	eventually(n.t, routeTimeout, func() error {
		got, err := n.forwarding(of)
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			err = fmt.Errorf("forwarding of %s at %s (-want +got):\n%s", of.id, n.label, diff)
		}
		return err
	})
}

// Parts of the kernel's output that change with time and traffic.
var volatile = regexp.MustCompile(` (used|updated|confirmed|probes|ref) [0-9/]+| (REACHABLE|STALE|DELAY|PROBE)\b|[a-z_]+_timer +[0-9.]+`)

// dump returns all links, bridge entries, neighbours and routes of the node, but
// for the neighbours of its host on the underlay.
func (n *node) dump() []string {
	n.t.Helper()
	var all []string
	for _, args := range [][]string{{"ip", "-d", "-o", "link"}, {"bridge", "fdb"}, {"ip", "neigh"}, {"ip", "-6", "route"}, {"ip", "route"}} {
		var lines []string
		for line := range strings.Lines(volatile.ReplaceAllString(n.Run(args...), "")) {
			if !strings.Contains(line, " dev eth0 lladdr ") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		slices.Sort(lines)
		all = append(append(all, "# "+strings.Join(args, " ")), lines...)
	}
	return all
}
