// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// counterTimeout bounds how long a driver may take to read its counters.
const counterTimeout = 2 * time.Second

// counters returns what the driver of a VPN type has counted; none when it does not
// count, or cannot read them now, or in time.
func (s *Server) counters(t dataplane.VPNType) []dataplane.Counter {
	d, ok := s.Reconciler.Driver(t).(dataplane.Counting)
	if !ok {
		return nil
	}
	type answer struct {
		list []dataplane.Counter
		err  error
	}
	done := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(context.Background(), counterTimeout)
	defer cancel()
	go func() { // a driver that is stuck may not look at ctx
		s.counting.Lock()
		defer s.counting.Unlock()
		var a answer
		if a.err = ctx.Err(); a.err == nil {
			a.list, a.err = d.Counters(ctx)
		}
		done <- a
	}()
	var a answer
	select {
	case a = <-done:
	case <-ctx.Done():
		a.err = ctx.Err()
	}
	if a.err != nil {
		s.Log.Info("cannot read packet counters", "vpn_type", string(t), "err", a.err)
	}
	return a.list
}

// instanceCounters lists what the driver has counted for an instance, with null for
// the port of what is counted for all of it.
func (s *Server) instanceCounters(i *vpn.Instance) any {
	out := []object{}
	for _, c := range s.counters(i.Type) {
		if c.Instance != i.ID {
			continue
		}
		port := any(nil)
		if c.Port != "" {
			port = c.Port
		}
		out = append(out, object{{"port", port}, {"counter", c.Name}, {"dropped", c.Dropped}, {"packets", c.Packets}, {"bytes", c.Bytes}})
	}
	return out
}

// counted identifies a series of packet counters. Port is empty for dropped packets,
// which are summed over the ports of an instance.
type counted struct {
	vpnType, instance, port, name string
	dropped                       bool
}

// packets adds the packet counters of all drivers.
func (c collector) packets(add sample) {
	sums := map[counted]dataplane.Counter{}
	for _, t := range []dataplane.VPNType{dataplane.EVPN, dataplane.IPVPN} {
		for _, n := range c.s.counters(t) {
			k := counted{string(t), n.Instance, n.Port, n.Name, n.Dropped}
			if n.Dropped {
				k.port = ""
			}
			sum := sums[k]
			sum.Packets += n.Packets
			sum.Bytes += n.Bytes
			sums[k] = sum
		}
	}
	for k, n := range sums {
		if k.dropped {
			add(MetricDropped, float64(n.Packets), k.vpnType, k.instance, k.name)
			continue
		}
		add(MetricPackets, float64(n.Packets), k.vpnType, k.instance, k.port, k.name)
		add(MetricBytes, float64(n.Bytes), k.vpnType, k.instance, k.port, k.name)
	}
}
