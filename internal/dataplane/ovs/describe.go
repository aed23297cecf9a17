// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// describeTimeout bounds what the looking glass waits for the switch.
const describeTimeout = 3 * time.Second

// Describe returns members for the looking glass: the flows by table, and the ports.
func (h *handle) Describe() []dataplane.Member {
	h.mu.Lock()
	v := h.vrf
	names := make([]string, 0, len(v.ports))
	for _, p := range v.ports {
		names = append(names, fmt.Sprintf("%d(%s)", p.number, deviceOf(&p.entry)))
	}
	h.mu.Unlock()
	slices.Sort(names)
	ctx, cancel := context.WithTimeout(context.Background(), describeTimeout)
	defer cancel()
	flows, err := h.flowTexts(ctx, v)
	if err != nil {
		return []dataplane.Member{{Name: "error", Value: err.Error()}, {Name: "ports", Value: names}}
	}
	return []dataplane.Member{{Name: "flows", Value: flows}, {Name: "ports", Value: names}}
}

func (h *handle) flowTexts(ctx context.Context, v *vrf) (map[string][]string, error) {
	conn, err := h.d.bridge(ctx)
	if err != nil {
		return nil, err
	}
	list, err := conn.Flows(ctx, of.Filter{Cookie: v.cookie(), Mask: exactCookie})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b of.FlowStats) int {
		if a.Priority != b.Priority {
			return int(b.Priority) - int(a.Priority)
		}
		return slices.Compare([]byte(a.Match), []byte(b.Match))
	})
	titles := map[uint8]string{
		v.input: fmt.Sprintf("incoming (%d)", v.input), v.in: fmt.Sprintf("encap_in (%d)", v.in), v.table: fmt.Sprintf("vrf (%d)", v.table),
	}
	out := map[string][]string{}
	for _, t := range titles {
		out[t] = []string{}
	}
	for i := range list {
		f := &list[i]
		if _, record := f.Match.Value(regRecord); !record {
			out[titles[f.Table]] = append(out[titles[f.Table]], fmt.Sprintf("packets=%d %s", f.Packets, f.Text()))
		}
	}
	return out, nil
}
