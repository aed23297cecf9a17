// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// reasons name why a packet is dropped, in the order of bpf/layout.h.
var reasons = [...]string{
	"malformed", "protocol", "not-routable", "no-route", "spoofed-source", "ttl-exceeded", "too-big", "to-gateway",
	"neighbour", "no-port", "unknown-label", "router-mac", "no-underlay-route", "failed",
}

// drops returns what an instance dropped; instance 0 has the packets of none.
func (d *Driver) drops(vrf uint32) (s dropStats, err error) {
	err = d.maps.Drops.Lookup(vrf, &s)
	return s, ignoreMissing(err)
}

// dropped returns the same for the looking glass: packets by reason.
func (d *Driver) dropped(vrf uint32) map[string]uint64 {
	out := map[string]uint64{}
	if s, err := d.drops(vrf); err == nil {
		for reason, name := range reasons {
			if n := s.Of[reason].Packets; n > 0 {
				out[name] = n
			}
		}
	}
	return out
}

// Counters returns what was received and sent by ports, and dropped by instances.
func (d *Driver) Counters(ctx context.Context) ([]dataplane.Counter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []dataplane.Counter
	for index, plugs := range d.ports {
		var perCPU []portStats
		if err := d.maps.PortStats.Lookup(uint32(index), &perCPU); err != nil {
			if err = ignoreMissing(err); err != nil {
				return nil, fmt.Errorf("read counters of ports: %w", err)
			}
			continue
		}
		var sum portStats
		for _, s := range perCPU {
			sum.RxPackets += s.RxPackets
			sum.RxBytes += s.RxBytes
			sum.TxPackets += s.TxPackets
			sum.TxBytes += s.TxBytes
		}
		out = append(out, d.portCounters(plugs, &sum)...)
	}
	for number := range d.vrfs {
		if err := d.dropCounters(&out, number); err != nil {
			return nil, err
		}
	}
	if err := d.dropCounters(&out, 0); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b dataplane.Counter) int {
		return cmp.Or(cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// portCounters names those of a port, with its instance when it is in one only.
func (d *Driver) portCounters(plugs map[uint32]plug, s *portStats) []dataplane.Counter {
	var c dataplane.Counter
	for vrf, p := range plugs {
		v := d.vrfs[vrf]
		c.Port, c.Instance = p.name, v.id()
	}
	if len(plugs) != 1 {
		c.Instance = ""
	}
	received, sent := c, c
	received.Name, received.Packets, received.Bytes = "received", s.RxPackets, s.RxBytes
	sent.Name, sent.Packets, sent.Bytes = "sent", s.TxPackets, s.TxBytes
	return []dataplane.Counter{received, sent}
}

func (d *Driver) dropCounters(out *[]dataplane.Counter, number uint32) error {
	v := d.vrfs[number]
	s, err := d.drops(number)
	if err != nil {
		return fmt.Errorf("read counters of drops: %w", err)
	}
	for reason, name := range reasons {
		*out = append(*out, dataplane.Counter{
			Instance: v.id(), Name: name, Dropped: true, Packets: s.Of[reason].Packets, Bytes: s.Of[reason].Bytes,
		})
	}
	return nil
}

// Describe returns members for the looking glass.
func (d *Driver) Describe() []dataplane.Member {
	var under []string
	if devices, err := d.underlay(); err == nil {
		for _, l := range devices {
			under = append(under, l.Name)
		}
	}
	var encaps []string
	for _, e := range d.cfg.Encaps {
		encaps = append(encaps, e.String())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return []dataplane.Member{
		{Name: "underlay", Value: under},
		{Name: "underlay_attachment", Value: d.hooks.mode()},
		{Name: "port_attachment", Value: d.taps.mode()},
		{Name: "encapsulations", Value: encaps},
		{Name: "default_encapsulation", Value: d.cfg.DefaultEncap.String()},
		{Name: "vxlan_dst_port", Value: d.cfg.VXLANPort},
		{Name: "router_mac", Value: d.routerMAC().String()},
		{Name: "anti_spoofing", Value: d.cfg.AntiSpoofing},
		{Name: "ports", Value: len(d.ports)},
		{Name: "instances", Value: len(d.vrfs)},
		{Name: "dropped", Value: d.dropped(0)},
	}
}
