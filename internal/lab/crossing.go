// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

const (
	// crossingBytes go each way in one run; what is much less is noise, such as
	// neighbour solicitations.
	crossingBytes = 256 << 10
	// flowsPerCopy is how many flows there are for each copy of a service, so that each gets some.
	flowsPerCopy = 8
)

// Service is a machine that forwards between two interfaces. In is the one by which traffic of
// the side that begins comes in, Out that by which it leaves.
type Service struct{ Namespace, In, Out string }

// Hop is one service of a chain, with all its copies.
type Hop []Service

// Crossing is a check that traffic goes through services, the same ones both ways: of each hop
// exactly one copy for each flow. With several runs all copies get some.
type Crossing struct {
	Transfer Transfer
	Hops     []Hop
	// Avoid are services that no traffic may go through.
	Avoid []Hop
	Runs  int
}

// String names the check.
func (c Crossing) String() string {
	var through []string
	for _, h := range c.Hops {
		var names []string
		for _, s := range h {
			names = append(names, s.Namespace)
		}
		through = append(through, strings.Join(names, " or "))
	}
	return fmt.Sprintf("TCP %s -> %s %s through %s", c.Transfer.From, c.Transfer.To, c.Transfer.Address, strings.Join(through, ", then "))
}

// passed are octets that came through a service: from In to Out, and back.
type passed struct{ there, back uint64 }

// meter reads what came through services so far, those to avoid behind the others.
func (c *Crossing) meter() ([][]passed, error) {
	hops := slices.Concat(c.Hops, c.Avoid)
	out := make([][]passed, len(hops))
	for i, h := range hops {
		out[i] = make([]passed, len(h))
		for j, s := range h {
			err := netspace.With(s.Namespace, func(handle *netlink.Handle) error {
				in, err := handle.LinkByName(s.In)
				if err != nil {
					return err
				}
				outside, err := handle.LinkByName(s.Out)
				if err != nil {
					return err
				}
				a, b := in.Attrs().Statistics, outside.Attrs().Statistics
				out[i][j] = passed{min(a.RxBytes, b.TxBytes), min(b.RxBytes, a.TxBytes)}
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("count packets in %s: %w", s.Namespace, err)
			}
		}
	}
	return out, nil
}

// Run makes the transfers and looks where they went.
func (c *Crossing) Run(ctx context.Context, self string) error {
	used := make([]map[int]int, len(c.Hops))
	for i := range used {
		used[i] = map[int]int{}
	}
	for range c.Runs {
		before, err := c.meter()
		if err != nil {
			return err
		}
		if err := c.Transfer.run(ctx, self); err != nil {
			return err
		}
		after, err := c.meter()
		if err != nil {
			return err
		}
		for i, h := range c.Hops {
			copy, err := c.copyOf(h, before[i], after[i])
			if err != nil {
				return err
			}
			used[i][copy]++
		}
		for i, h := range c.Avoid {
			at := len(c.Hops) + i
			for j, s := range h {
				if n := after[at][j].there - before[at][j].there + after[at][j].back - before[at][j].back; n >= uint64(c.Transfer.Bytes)/2 {
					return fmt.Errorf("%d octets passed %s", n, s.Namespace)
				}
			}
		}
	}
	for i, h := range c.Hops {
		if c.Runs > 1 && len(used[i]) < len(h) {
			return fmt.Errorf("of %d copies only %d had any of %d flows", len(h), len(used[i]), c.Runs)
		}
	}
	return nil
}

// copyOf returns the copy of a hop that a flow went through, both ways.
func (c *Crossing) copyOf(h Hop, before, after []passed) (copy int, err error) {
	copy = -1
	for j, s := range h {
		there, back := after[j].there-before[j].there, after[j].back-before[j].back
		big := uint64(c.Transfer.Bytes)
		switch {
		case there >= big && back >= big && copy < 0:
			copy = j
		case there >= big/2 || back >= big/2:
			return 0, fmt.Errorf("of %d octets each way %d and %d passed %s", c.Transfer.Bytes, there, back, s.Namespace)
		}
	}
	if copy < 0 {
		return 0, fmt.Errorf("nothing passed %s", h[0].Namespace)
	}
	return copy, nil
}

// crossAll runs the crossings, one after the other: they are told apart by counters.
func (p *Plan) crossAll(ctx context.Context) (results []CheckResult) {
	for _, c := range p.Crossings {
		err := poll(ctx, reachTimeout, func() error { return c.Run(ctx, p.Options.Self) })
		results = append(results, result(c, fmt.Sprintf("%d flows, both ways", c.Runs), err))
	}
	return results
}
