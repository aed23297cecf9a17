// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// minTunnelMTU is the least that tenants get, as the original gave them.
	minTunnelMTU = 1500
	// Octets around a tenant's IP packet: Ethernet 14, VXLAN 8, UDP 8 and IP 20 or 40 (RFC 7348 §5).
	overhead4 = 50
	overhead6 = 70
)

// tunnelMTU is the MTU for a VXLAN device: what the underlay carries in one
// piece, but not under 1500. What is too long then crosses an IPv4 underlay in
// pieces if it is IPv4 that may be fragmented; to the sender of all else the
// kernel says what fits (skb_tunnel_check_pmtu). With a smaller MTU the bridge
// would drop it and say nothing. Over IPv6 the kernel never fragments a tunnel's
// packets, so that there such IPv4 packets are lost.
func (d *Driver) tunnelMTU() (int, error) {
	overhead := overhead4
	if d.cfg.LocalAddr.Is6() {
		overhead = overhead6
	}
	underlay, err := d.underlayMTU()
	if err != nil {
		return 0, fmt.Errorf("find MTU of the underlay: %w", err)
	}
	if underlay != 0 && underlay < minTunnelMTU+overhead {
		d.small.Do(func() {
			d.log.Warn("underlay is too small for full-size tenant packets",
				"local_address", d.cfg.LocalAddr, "mtu", underlay, "needed", minTunnelMTU+overhead)
		})
	}
	// The kernel's limit for a device with headers around it.
	return min(max(minTunnelMTU, underlay-overhead), 65535-overhead), nil
}

// underlayMTU is the MTU of the device that has the local address, or when that
// is a loopback or dummy, as on hosts that announce it by a routing protocol,
// the least of the devices that default routes lead to. 0 means unknown.
func (d *Driver) underlayMTU() (int, error) {
	family := d.localFamily()
	index, err := d.addressDevice(family)
	if index == 0 || err != nil {
		return 0, err
	}
	l, ok, err := d.conn.LinkByIndex(index)
	if err != nil || !ok {
		return 0, err
	}
	if !l.Loopback && l.Kind != "dummy" {
		return l.MTU, nil
	}
	return d.defaultRouteMTU(family)
}

// localFamily is the family of the local address.
func (d *Driver) localFamily() int {
	if d.cfg.LocalAddr.Is6() {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

// addressDevice returns the index of the device that has the local address, 0 for none.
func (d *Driver) addressDevice(family int) (int, error) {
	list, err := d.addrs.AddrList(nil, family)
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == d.cfg.LocalAddr {
			return a.LinkIndex, nil
		}
	}
	return 0, nil
}

func (d *Driver) defaultRouteMTU(family int) (int, error) {
	routes, err := d.addrs.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	var devices []int
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 {
				continue
			}
		}
		devices = append(devices, r.LinkIndex)
		for _, hop := range r.MultiPath {
			devices = append(devices, hop.LinkIndex)
		}
	}
	least := 0
	for _, index := range slices.Compact(devices) {
		l, ok, err := d.conn.LinkByIndex(index)
		if err != nil {
			return 0, err
		}
		if ok && index != 0 && (least == 0 || l.MTU < least) {
			least = l.MTU
		}
	}
	return least, nil
}
