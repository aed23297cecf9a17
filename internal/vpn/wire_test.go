// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// cable carries the routes of one node to another: its exporter, the wire form
// of the attributes, and a source in the other's RIB.
type cable struct {
	from, to *node
	exporter *rib.Exporter
	source   rib.SourceID
	wake     chan struct{}
}

// connect joins nodes with each other as sessions with a route reflector
// would. The result ends the sessions.
func connect(nodes ...*node) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	running := 0
	done := make(chan struct{})
	for _, a := range nodes {
		for _, b := range nodes {
			if a == b {
				continue
			}
			c := newCable(a, b)
			running++
			go func() { c.run(ctx); done <- struct{}{} }()
		}
	}
	settle()
	return func() {
		cancel()
		for range running {
			<-done
		}
		settle()
	}
}

func newCable(from, to *node) *cable {
	c := &cable{from: from, to: to, wake: make(chan struct{}, 1)}
	name := func(n *node) string { return fmt.Sprintf("BGP-%s", n.Local) }
	toPeer, err := from.rib.AddSource(name(to)+" out", rib.Peer)
	if err != nil {
		from.tb.Fatal(err)
	}
	if c.source, err = to.rib.AddSource(name(from), rib.Peer); err != nil {
		from.tb.Fatal(err)
	}
	c.exporter = from.rib.NewExporter(rib.ExporterConfig{Source: toPeer, Families: families, Wake: func() {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}})
	return c
}

// run carries routes until ctx ends; then they are withdrawn.
func (c *cable) run(ctx context.Context) {
	in := c.to.rib.NewInterner()
	for {
		select {
		case <-ctx.Done():
			c.exporter.Close()
			c.to.rib.Purge(c.source)
			return
		case <-c.wake:
		}
		for more := true; more; {
			var list []rib.Export
			list, more = c.exporter.Next(10, nil)
			c.carry(in, list)
		}
	}
}

func (c *cable) carry(in *rib.Interner, list []rib.Export) {
	var b rib.Batch
	for _, x := range list {
		if x.Attrs == nil {
			b.Withdraw(x.NLRI)
			continue
		}
		set, err := in.Intern(x.Attrs.Raw, x.Attrs.NextHop, wire.Rules{FourOctetAS: true})
		if err != nil {
			c.to.tb.Errorf("attributes of %s: %v", x.NLRI, err)
			continue
		}
		b.Hold(set)
		b.Announce(decoded(x), set)
	}
	c.to.rib.Apply(c.source, &b)
}

// decoded is a route as a session would decode it.
func decoded(x rib.Export) wire.Route {
	return wire.Route{NLRI: x.NLRI, Label: x.Label, Raw: x.Raw}
}
