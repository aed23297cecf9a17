// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

const (
	minLabel = 16
	maxLabel = 1<<20 - 1
)

// ends are the endpoints of an instance, and which of them each label, gateway and
// source comes from: it goes with the last of them.
type ends struct {
	all      map[endpointKey]endpointValue
	labels   refs[uint32]
	gateways refs[[16]byte]
	sources  refs[sourceKey]
}

// refs are the endpoints that something comes from.
type refs[K comparable] map[K][]endpointKey

func (r refs[K]) add(k K, e endpointKey) {
	if !slices.Contains(r[k], e) {
		r[k] = append(r[k], e)
	}
}

func (r refs[K]) drop(k K, e endpointKey) {
	r[k] = slices.DeleteFunc(r[k], func(x endpointKey) bool { return x == e })
	if len(r[k]) == 0 {
		delete(r, k)
	}
}

func newEnds() ends {
	return ends{
		all: map[endpointKey]endpointValue{}, labels: refs[uint32]{},
		gateways: refs[[16]byte]{}, sources: refs[sourceKey]{},
	}
}

// sourcesOf returns what an endpoint may send from.
func sourcesOf(k endpointKey, v *endpointValue) []sourceKey {
	if !sends(v.Direction) {
		return nil
	}
	own := sourceKey{Bits: 96 + 128, Index: v.Index, MAC: v.MAC, Addr: k.Addr}
	if v.Prefix == k.Addr && v.PrefixBits == 128 {
		return []sourceKey{own}
	}
	p := own
	p.Bits, p.Addr = 96+v.PrefixBits, v.Prefix
	return []sourceKey{own, p}
}

// count notes an endpoint, or drops it.
func (x *ends) count(k endpointKey, v *endpointValue, add bool) {
	labels, gateways, sources := x.labels.add, x.gateways.add, x.sources.add
	if !add {
		labels, gateways, sources = x.labels.drop, x.gateways.drop, x.sources.drop
	}
	if receives(v.Direction) {
		labels(k.Label, k)
	}
	if v.HasGateway != 0 {
		gateways(v.Gateway, k)
	}
	for _, s := range sourcesOf(k, v) {
		sources(s, k)
	}
}

// endpointOf checks an entry and returns it as the kernel has it, but for the device.
func (h *handle) endpointOf(e *dataplane.Entry, del bool) (k endpointKey, v endpointValue, err error) {
	switch {
	case e.Label < minLabel || e.Label > maxLabel:
		return k, v, fmt.Errorf("label %d is not valid: want %d to %d", e.Label, minLabel, maxLabel)
	case !isPlain(e.IP) && (e.Prefix.Bits() != 0 || e.Prefix.Addr() != e.IP): // all that there is may be behind an endpoint
		return k, v, badMember("ip_address", "%q is not valid: want one of an endpoint", e.IP)
	}
	k = endpointKey{VRF: h.vrf, Label: e.Label, Addr: e.IP.As16()}
	if del {
		return k, v, nil
	}
	direction, ok := directionCode(e.Direction)
	switch {
	case !ok:
		return k, v, fmt.Errorf("direction %q is not valid: want one of %v", e.Direction, directions)
	case e.MAC.IsZero() || e.MAC.IsMulticast():
		return k, v, fmt.Errorf("MAC address %s is not valid: want that of one endpoint", e.MAC)
	case !isPlainPrefix(e.Prefix) || e.Prefix.Addr().Is4() != e.IP.Is4():
		return k, v, fmt.Errorf("prefix %q is not valid: want one of the IP version of %s, without host bits", e.Prefix, e.IP)
	case e.Gateway.IsValid() && (!isPlain(e.Gateway) || e.Gateway.Is4() != e.IP.Is4()):
		return k, v, badMember("gateway_ip", "%q is not valid: want one of the IP version of %s", e.Gateway, e.IP)
	}
	v = endpointValue{Port: name16(e.Port), MAC: e.MAC, Direction: direction}
	v.Prefix, v.PrefixBits = prefix16(e.Prefix)
	if e.Gateway.IsValid() {
		v.Gateway, v.HasGateway = e.Gateway.As16(), 1
	}
	return k, v, nil
}

// isPlain tells whether a is an address that the kernel's maps give back as it is.
func isPlain(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast()
}

func isPlainPrefix(p netip.Prefix) bool {
	return p.IsValid() && !p.Addr().Is4In6() && p == p.Masked()
}

// entryOf is the reverse of endpointOf.
func entryOf(k endpointKey, v *endpointValue) dataplane.Entry {
	e := dataplane.Entry{
		Kind: dataplane.LocalPrefix, Port: nameOf(v.Port), Label: k.Label, IP: addrOf(k.Addr), MAC: ethernet.MAC(v.MAC),
		Prefix: prefixOf(v.Prefix, v.PrefixBits), Direction: directionOf(v.Direction),
	}
	if v.HasGateway != 0 {
		e.Gateway = addrOf(v.Gateway)
	}
	return e
}

// setEnd adds, changes or deletes an endpoint. The note of it is the first that is
// written and the last that goes, so that a crash leaves nothing unknown.
func (h *handle) setEnd(del bool, e *dataplane.Entry) error {
	k, v, err := h.endpointOf(e, del)
	if err != nil {
		return err
	}
	d := h.d
	d.mu.Lock()
	defer d.mu.Unlock()
	before, had := h.ends.all[k]
	if del {
		if !had {
			return nil
		}
		h.ends.count(k, &before, false)
		if err := h.update(k, &before); err != nil {
			h.ends.count(k, &before, true)
			return err
		}
		if err := ignoreMissing(d.maps.Endpoints.Delete(&k)); err != nil {
			return err
		}
		delete(h.ends.all, k)
		return nil
	}
	l, ok, err := d.conn.LinkByName(e.Port)
	switch {
	case err != nil:
		return err
	case !ok:
		return noDevice(e.Port)
	}
	v.Index = uint32(l.Index)
	if err := put("endpoints", d.maps.Endpoints, &k, &v); err != nil {
		return err
	}
	if had {
		h.ends.count(k, &before, false)
	}
	h.ends.all[k] = v
	h.ends.count(k, &v, true)
	if had && before != v {
		if err := h.update(k, &before); err != nil {
			return err
		}
	}
	return h.update(k, &v)
}

// update makes label, gateway and sources of an endpoint in the kernel what the books say.
func (h *handle) update(k endpointKey, v *endpointValue) error {
	if err := h.updateLabel(k.Label); err != nil {
		return err
	}
	m := &h.d.maps
	if v.HasGateway != 0 {
		gk, one := gatewayKey{VRF: h.vrf, Addr: v.Gateway}, uint32(1)
		if len(h.ends.gateways[v.Gateway]) == 0 {
			if err := ignoreMissing(m.Gateways.Delete(&gk)); err != nil {
				return err
			}
		} else if err := put("gateways", m.Gateways, &gk, &one); err != nil {
			return err
		}
	}
	for _, s := range sourcesOf(k, v) {
		if err := h.updateSource(s); err != nil {
			return err
		}
	}
	return nil
}

// updateLabel makes packets with a label go to its endpoints' port, over MPLS as over VXLAN.
func (h *handle) updateLabel(label uint32) error {
	from := h.ends.labels[label]
	for _, space := range []uint32{spaceMPLS, spaceVXLAN} {
		k := labelKey{Space: space, Label: label}
		if len(from) == 0 {
			if space == spaceVXLAN && h.inst.L3VNI && label == h.inst.VNI {
				continue
			}
			if err := h.d.dropLabel(k, h.vrf); err != nil {
				return err
			}
			continue
		}
		v := h.ends.all[from[len(from)-1]]
		t := targetValue{VRF: h.vrf, Index: v.Index, Kind: targetPort, MAC: v.MAC}
		if err := put("labels", h.d.maps.Labels, &k, &t); err != nil {
			return err
		}
	}
	return nil
}

func (h *handle) updateSource(k sourceKey) error {
	m := h.d.maps.Sources
	from := h.ends.sources[k]
	if len(from) == 0 {
		var s sourceValue
		if err := m.Lookup(&k, &s); err != nil || s.VRF != h.vrf {
			return ignoreMissing(err)
		}
		return ignoreMissing(m.Delete(&k))
	}
	s := sourceValue{VRF: h.vrf}
	if v := h.ends.all[from[len(from)-1]]; v.HasGateway != 0 {
		s.Gateway = v.Gateway
	}
	return put("sources", m, &k, &s)
}

// readEnds makes the books of endpoints from the kernel, and again what a crash may have
// left undone.
func (h *handle) readEnds() error {
	h.ends = newEnds()
	err := each(h.d.maps.Endpoints, func(k endpointKey, v endpointValue) {
		if k.VRF == h.vrf {
			h.ends.all[k] = v
			h.ends.count(k, &v, true)
		}
	})
	if err != nil {
		return err
	}
	for k, v := range h.ends.all {
		if err := h.update(k, &v); err != nil {
			return err
		}
	}
	return nil
}
