// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// minLabel is the first MPLS label that is not reserved (RFC 3032 §2.1).
const minLabel = 16

// endpointKey is the key of a LocalPrefix entry.
type endpointKey struct {
	label uint32
	ip    netip.Addr
}

func keyOf(e dataplane.Entry) endpointKey { return endpointKey{e.Label, e.IP} }

// label is where a local label leads to.
type label struct {
	h     *handle
	index int
	// dark is set when the port has no carrier: the kernel takes no routes to it.
	dark bool
	// v4 and v6 are addresses behind it, by which routes lead there; invalid for none.
	v4, v6 netip.Addr
}

// via returns an address by which routes of that IP version lead there now.
func (l *label) via(v6 bool) netip.Addr {
	switch {
	case l.dark:
		return netip.Addr{}
	case v6:
		return l.v6
	}
	return l.v4
}

// endpoint is a LocalPrefix entry with the index of its port.
type endpoint struct {
	dataplane.Entry
	index int
}

func (h *handle) setEndpoint(b *batch, e dataplane.Entry) error {
	switch {
	case e.Label < minLabel || e.Label > maxLabel:
		return fmt.Errorf("label %d is not valid: want %d to %d", e.Label, minLabel, maxLabel)
	case !e.IP.IsValid() || e.IP.Is4In6():
		return fmt.Errorf("address %q is not valid: want an IPv4 or IPv6 address", e.IP)
	case e.Direction != dataplane.Both && e.Direction != "":
		return &dataplane.InputError{Field: "direction", Text: fmt.Sprintf("%q is not for driver linux: want %q", e.Direction, dataplane.Both)}
	}
	index, err := h.portOf(e.Port)
	if err != nil {
		return err
	}
	if l := h.d.labels[e.Label]; l != nil && l.h != h {
		return fmt.Errorf("label %d is that of an endpoint of instance %q", e.Label, l.h.inst.ID)
	}
	old, had := h.endpoints[keyOf(e)]
	now := endpoint{e, index}
	if had && old.index == index && old.Equal(e) {
		return nil
	}
	h.endpoints[keyOf(e)] = now
	if had {
		h.dropUnused(b, old)
	}
	b.request(neighbour(now, netlinkx.Replace))
	if e.Gateway.IsValid() {
		b.request(netlinkx.AddressRequest{Address: gateway(now)})
	}
	b.request(netlinkx.MPLSRequest{New: !h.d.labelled[e.Label], MPLSRoute: mplsRoute(now)})
	h.d.labelled[e.Label] = true
	b.flush()
	if err := b.results[b.owner]; err != nil {
		h.undo(b, now)
		return nil // it is noted
	}
	return h.d.setLabel(b, h, e.Label)
}

// undo takes an endpoint back that the kernel did not take whole.
func (h *handle) undo(b *batch, e endpoint) {
	delete(h.endpoints, keyOf(e.Entry))
	if h.labelCount(e.Label) == 0 {
		have, err := h.d.k.MPLSRoutes()
		h.d.labelled[e.Label] = false
		for _, m := range have {
			if m.Label == e.Label {
				h.d.labelled[e.Label] = m.Protocol == ours
			}
		}
		b.fail(b.owner, err)
	}
	h.dropUnused(b, e)
	b.fail(b.owner, h.d.setLabel(b, h, e.Label))
}

func (h *handle) deleteEndpoint(b *batch, e dataplane.Entry) error {
	old, ok := h.endpoints[keyOf(e)]
	if !ok {
		return nil
	}
	delete(h.endpoints, keyOf(e))
	// Routes leave the endpoint before it goes.
	err := h.d.setLabel(b, h, e.Label)
	b.flush()
	h.dropUnused(b, old)
	return err
}

func (h *handle) labelCount(label uint32) (n int) {
	for _, o := range h.endpoints {
		if o.Label == label {
			n++
		}
	}
	return n
}

// dropUnused removes from the kernel what was there for an endpoint and no other has.
func (h *handle) dropUnused(b *batch, e endpoint) {
	neigh, gw, mpls := true, e.Gateway.IsValid(), h.d.labelled[e.Label]
	for _, o := range h.endpoints {
		neigh = neigh && (o.index != e.index || o.IP != e.IP)
		gw = gw && (o.index != e.index || o.Gateway != e.Gateway)
		mpls = mpls && o.Label != e.Label
	}
	if neigh {
		b.request(neighbour(e, netlinkx.Delete))
	}
	if gw {
		b.request(netlinkx.AddressRequest{Delete: true, Address: gateway(e)})
	}
	if mpls {
		b.request(netlinkx.MPLSRequest{Delete: true, MPLSRoute: mplsRoute(e)})
		delete(h.d.labelled, e.Label)
	}
}

func neighbour(e endpoint, op netlinkx.Op) netlinkx.Message {
	return netlinkx.Message{Op: op, Neigh: netlinkx.Neigh{
		Family: familyOf(e.IP), State: unix.NUD_PERMANENT, Protocol: ours, Index: e.index, MAC: e.MAC, Addr: gatewayOf(e.IP),
	}}
}

// standIns are the addresses, on a port, of an endpoint that is announced with a default route and
// has none: the kernel takes no gateway 0.0.0.0 or ::.
var standIns = map[netip.Addr]netip.Addr{
	netip.IPv4Unspecified(): netip.MustParseAddr("169.254.255.254"),
	netip.IPv6Unspecified(): netip.MustParseAddr("fe80::ffff:ffff:ffff:fffe"),
}

// gatewayOf returns the address by which routes lead to an endpoint.
func gatewayOf(ip netip.Addr) netip.Addr {
	if a, ok := standIns[ip]; ok {
		return a
	}
	return ip
}

// behindGateway is the reverse of gatewayOf.
func behindGateway(a netip.Addr) netip.Addr {
	for ip, standIn := range standIns {
		if a == standIn {
			return ip
		}
	}
	return a
}

func gateway(e endpoint) netlinkx.Address {
	return netlinkx.Address{Index: e.index, Prefix: netip.PrefixFrom(e.Gateway, e.Gateway.BitLen()), Protocol: ours}
}

func mplsRoute(e endpoint) netlinkx.MPLSRoute {
	return netlinkx.MPLSRoute{Label: e.Label, Index: e.index, MAC: e.MAC, Protocol: ours}
}

// setLabel notes where a label of an instance leads now, and plans again the routes, of
// all VRFs, that have it as next hop.
func (d *Driver) setLabel(b *batch, h *handle, number uint32) error {
	var now *label
	for _, e := range h.endpoints {
		if e.Label != number {
			continue
		}
		if now == nil {
			now = &label{h: h, index: e.index, dark: h.dark(e.index)}
		}
		at := &now.v4
		if e.IP.Is6() {
			at = &now.v6
		}
		if via := gatewayOf(e.IP); !at.IsValid() || via.Less(*at) {
			*at = via
		}
	}
	old := d.labels[number]
	switch {
	case now == nil && old == nil, now != nil && old != nil && *now == *old:
		return nil
	case now == nil:
		delete(d.labels, number)
	default:
		d.labels[number] = now
	}
	return d.replan(b, number)
}

// replan plans again the routes, of all VRFs, that have a local label as next hop.
func (d *Driver) replan(b *batch, number uint32) error {
	var errs []error
	for _, key := range slices.Collect(maps.Keys(d.users[number])) {
		errs = append(errs, key.h.setRoute(b, key.prefix, key.h.routes[key.prefix].hops))
	}
	return errors.Join(errs...)
}

// dark tells whether a port has no carrier, as one whose machine does not run yet.
func (h *handle) dark(index int) bool {
	l, ok, err := h.d.k.LinkByIndex(index)
	return err == nil && ok && !l.Carrier
}

// followCarriers takes routes from ports that have lost their carrier, upon which the
// kernel has dropped them, and puts them back when it returns.
func (d *Driver) followCarriers(links []netlinkx.Link) error {
	b := d.newBatch(1)
	for number, l := range d.labels {
		at, ok := device(links, func(at netlinkx.Link) bool { return at.Index == l.index })
		if !ok || at.Carrier != l.dark {
			continue
		}
		l.dark = !at.Carrier
		b.fail(0, d.replan(b, number))
	}
	b.flush()
	return b.results[0]
}

// findLabels notes the MPLS routes that are ours.
func (d *Driver) findLabels() error {
	list, err := ourLabels(d.k)
	for _, m := range list {
		d.labelled[m.Label] = true
	}
	return err
}

// ourLabels lists the MPLS routes that are ours.
func ourLabels(k kernel) ([]netlinkx.MPLSRoute, error) {
	list, err := k.MPLSRoutes()
	return slices.DeleteFunc(list, func(m netlinkx.MPLSRoute) bool { return m.Protocol != ours }), err
}
