// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// Installed reads the instance's entries from the kernel. A route whose group is not
// there is listed without next hop: no entry that anyone can want, so that it is applied
// again or deleted.
func (h *handle) Installed(ctx context.Context) ([]dataplane.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []dataplane.Entry
	m := &h.d.maps
	err := each(m.Plugs, func(k plugKey, v plugValue) {
		if k.VRF == h.vrf {
			out = append(out, dataplane.Entry{
				Kind: dataplane.LocalPort, Port: nameOf(k.Name), Direction: directionOf(uint8(v.Direction)), Transit: v.Direction&plugTransit != 0,
			})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list ports: %w", err)
	}
	err = each(m.Endpoints, func(k endpointKey, v endpointValue) {
		if k.VRF == h.vrf {
			out = append(out, entryOf(k, &v))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	if out, err = h.installedFallback(h.installedClasses(out)); err != nil {
		return nil, fmt.Errorf("read fallback: %w", err)
	}
	if out, err = h.installedRoutes(out); err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return out, nil
}

func (h *handle) installedRoutes(out []dataplane.Entry) ([]dataplane.Entry, error) {
	groups := map[uint32][]dataplane.NextHop{}
	if len(h.groups) > 0 {
		err := each(h.d.maps.Groups, func(k groupKey, g groupValue) {
			if k.VRF == h.vrf {
				groups[k.ID] = g.nextHops()
			}
		})
		if err != nil {
			return nil, err
		}
	}
	add := func(p netip.Prefix, v *routeValue) {
		e := dataplane.Entry{Kind: dataplane.Prefix, Prefix: p}
		if v.Group != 0 {
			e.NextHops = groups[v.Group]
		} else {
			e.NextHops = []dataplane.NextHop{v.Hop.nextHop()}
		}
		out = append(out, e)
	}
	if err := each(h.routes4, func(k key4, v routeValue) { add(k.prefix(), &v) }); err != nil {
		return nil, err
	}
	err := each(h.routes6, func(k key6, v routeValue) { add(k.prefix(), &v) })
	return out, err
}

func (g *groupValue) nextHops() []dataplane.NextHop {
	out := make([]dataplane.NextHop, min(g.Count, maxHops))
	for i := range out {
		out[i] = g.Hop[i].nextHop()
	}
	return out
}
