// SPDX-License-Identifier: Apache-2.0

// Package steertest has what tests of drivers need that steer packets: random classes, random
// packets, and what must become of flows. Only tests import it.
package steertest

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// Packet is what decides about the class of a packet.
type Packet struct {
	Src, Dst     netip.Addr
	Protocol     uint8
	Sport, Dport uint16
	Fragment     bool
}

// In tells whether a class has the packet, by the words of dataplane.Classifier.
func (p *Packet) In(c *dataplane.Classifier) bool {
	within := func(r dataplane.PortRange, n uint16) bool { return r.First <= n && n <= r.Last }
	hasPorts := !p.Fragment && (p.Protocol == 6 || p.Protocol == 17 || p.Protocol == 132)
	all := c.DestinationPorts == dataplane.AllPorts && c.SourcePorts == dataplane.AllPorts
	return c.Destination.Contains(p.Dst) && c.Source.Contains(p.Src) &&
		(c.Protocol == dataplane.AnyProtocol || c.Protocol == int16(p.Protocol)) &&
		(all || hasPorts && within(c.DestinationPorts, p.Dport) && within(c.SourcePorts, p.Sport))
}

// First returns the first class in order that has a packet, if any has.
func First[T any](classes map[dataplane.Classifier]T, p *Packet) (first dataplane.Classifier, ok bool) {
	for c := range classes {
		if p.In(&c) && (!ok || c.Compare(first) < 0) {
			first, ok = c, true
		}
	}
	return first, ok
}

var (
	destinations = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1/32", "0.0.0.0/0", "10.128.0.0/9", "::/0", "2001:db8::/32", "2001:db8:6::/47", "2001:db8:6::1/128"}
	sources      = []string{"0.0.0.0/0", "10.2.0.0/16", "10.2.0.0/15", "10.2.2.2/32", "::/0", "2001:db8:2::/48", "2001:db8:2::2/128"}
	dst          = []string{"10.1.1.1", "10.1.1.2", "10.1.2.1", "10.200.1.1", "11.1.1.1", "2001:db8:6::1", "2001:db8::1", "2001:db9::1"}
	src          = []string{"10.2.2.2", "10.3.2.2", "10.9.9.9", "2001:db8:2::2", "2001:db8:3::3"}
	ranges       = []dataplane.PortRange{dataplane.AllPorts, dataplane.AllPorts, {First: 80, Last: 80}, {First: 80, Last: 90}, {First: 85, Last: 95}, {First: 0, Last: 1023}, {First: 1024, Last: 65535}}
)

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// RandomClass returns one of some 2000 classes, many of which have packets in common.
func RandomClass(r *rand.Rand) dataplane.Classifier {
	for {
		c := dataplane.Classifier{
			Destination: netip.MustParsePrefix(pick(r, destinations)).Masked(), Source: netip.MustParsePrefix(pick(r, sources)).Masked(),
			Protocol: pick(r, []int16{dataplane.AnyProtocol, 1, 6, 6, 17, 132}), DestinationPorts: dataplane.AllPorts, SourcePorts: dataplane.AllPorts,
		}
		if c.Protocol > 1 {
			c.DestinationPorts, c.SourcePorts = pick(r, ranges), pick(r, ranges)
		}
		if c.Destination.Addr().Is4() == c.Source.Addr().Is4() {
			return c
		}
	}
}

// RandomPacket returns a packet that is in many of those classes.
func RandomPacket(r *rand.Rand) Packet {
	for {
		p := Packet{
			Src: netip.MustParseAddr(pick(r, src)), Dst: netip.MustParseAddr(pick(r, dst)), Protocol: pick(r, []uint8{1, 6, 6, 17, 132}),
			Sport: pick(r, []uint16{80, 1024, 5000}), Dport: pick(r, []uint16{80, 85, 443, 65535}), Fragment: r.IntN(8) == 0,
		}
		if p.Src.Is4() == p.Dst.Is4() {
			return p
		}
	}
}

// OnlyItsFlowsMove fails the test unless, of flows that met some of n instances before the last
// of these went and others after it, just those moved that it had, which are 1/n but for a
// factor of off.
func OnlyItsFlowsMove(t testing.TB, before, after []byte, n int, off float64) {
	t.Helper()
	had, others := 0, 0
	for i := range before {
		switch {
		case before[i] == byte(n-1):
			had++
			if after[i] == before[i] {
				t.Fatalf("flow %d still meets the instance that went", i)
			}
		case before[i] != after[i]:
			others++
		}
	}
	t.Logf("%d of %d flows moved when one of %d instances went", had+others, len(before), n)
	if others > 0 {
		t.Errorf("%d flows of instances that stayed have moved", others)
	}
	if share := float64(len(before)) / float64(n); float64(had) < share/off || float64(had) > share*off {
		t.Errorf("%d of %d flows were of the last of %d instances: want about %.0f", had, len(before), n, share)
	}
}
