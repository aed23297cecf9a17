// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

// TestClassifierOrder has classes in the order in which packets are held against them: each
// differs from the one before in what decides, and later members would decide otherwise.
func TestClassifierOrder(t *testing.T) {
	t.Parallel()
	all := dataplane.AllPorts
	ports := func(first, last uint16) dataplane.PortRange { return dataplane.PortRange{First: first, Last: last} }
	class := func(dst, src string, protocol int16, to, from dataplane.PortRange) dataplane.Classifier {
		return dataplane.Classifier{
			Destination: netip.MustParsePrefix(dst), Source: netip.MustParsePrefix(src), Protocol: protocol, DestinationPorts: to, SourcePorts: from,
		}
	}
	const any4, net, other = "0.0.0.0/0", "203.0.113.0/24", "198.51.100.0/24"
	const none = dataplane.AnyProtocol
	want := []dataplane.Classifier{
		class("203.0.113.9/32", any4, none, all, all),
		class(net, "10.0.0.0/16", none, all, all),
		class(other, "10.0.0.0/8", 17, all, all),
		class(other, "11.0.0.0/8", 6, all, all),
		class(net, "10.0.0.0/8", 6, all, all),
		class(other, "10.0.0.0/8", none, all, all),
		class(other, any4, 17, ports(80, 80), all),
		class(net, any4, 6, ports(70, 79), ports(99, 99)),
		class(net, any4, 6, ports(60, 69), ports(1, 2)),
		class(other, any4, 6, ports(10, 19), ports(1, 3)),
		class(other, any4, 17, all, ports(1, 3)),
		class(other, any4, 17, all, all),
		class(net, any4, 0, all, all),
		class(other, any4, none, all, all),
		class(net, any4, none, all, all),
		class(any4, "10.0.0.0/8", 6, ports(5, 5), all),
		class(any4, "11.0.0.0/8", 0, ports(4, 4), all),
		class(any4, any4, 0, ports(9, 9), ports(2, 2)),
		class(any4, any4, 6, ports(8, 8), ports(9, 9)),
		class(any4, any4, 6, ports(9, 9), ports(7, 7)),
		class(any4, any4, 6, ports(9, 9), ports(8, 8)),
		class(any4, any4, 17, all, all),
		class(any4, any4, none, all, all),
	}
	texts := func(list []dataplane.Classifier) (out []string) {
		for _, c := range list {
			out = append(out, c.String())
		}
		return out
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		got := slices.Clone(want)
		r.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		slices.SortFunc(got, dataplane.Classifier.Compare)
		if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
			t.Fatalf("order (-want +got):\n%s", diff)
		}
	}
	for _, c := range want {
		if c.Compare(c) != 0 {
			t.Errorf("%s is not equal to itself", c)
		}
	}
}

// Redirects of different classes are different entries, whatever they redirect to.
func TestRedirectsByClass(t *testing.T) {
	t.Parallel()
	base := dataplane.Classifier{
		Destination: netip.MustParsePrefix("0.0.0.0/0"), Source: netip.MustParsePrefix("0.0.0.0/0"), Protocol: dataplane.AnyProtocol,
		DestinationPorts: dataplane.AllPorts, SourcePorts: dataplane.AllPorts,
	}
	entry := func(target string, change func(*dataplane.Classifier)) dataplane.Entry {
		c := base
		change(&c)
		return dataplane.Entry{Kind: dataplane.Redirect, Class: &c, Target: target}
	}
	changes := []func(*dataplane.Classifier){
		func(*dataplane.Classifier) {},
		func(c *dataplane.Classifier) { c.Destination = netip.MustParsePrefix("10.0.0.0/8") },
		func(c *dataplane.Classifier) { c.Source = netip.MustParsePrefix("10.0.0.0/8") },
		func(c *dataplane.Classifier) {
			c.Destination, c.Source = netip.MustParsePrefix("::/0"), netip.MustParsePrefix("::/0")
		},
		func(c *dataplane.Classifier) { c.Protocol = 0 },
		func(c *dataplane.Classifier) { c.Protocol = 6 },
		func(c *dataplane.Classifier) {
			c.Protocol, c.DestinationPorts = 6, dataplane.PortRange{First: 80, Last: 80}
		},
		func(c *dataplane.Classifier) {
			c.Protocol, c.DestinationPorts = 6, dataplane.PortRange{First: 80, Last: 81}
		},
		func(c *dataplane.Classifier) { c.Protocol, c.SourcePorts = 6, dataplane.PortRange{First: 80, Last: 80} },
	}
	n := newNode(fake.NewPlane())
	f := n.open(t, dataplane.Instance{Number: 1, ID: "blue", Type: dataplane.IPVPN, VNI: 100})
	for _, change := range changes {
		do(t, f, add(entry("first", change)))
	}
	if got := f.Desired()[dataplane.Redirect]; got != len(changes) {
		t.Fatalf("%d redirects, want %d", got, len(changes))
	}
	for _, change := range changes {
		do(t, f, add(entry("second", change)))
	}
	for k, change := range changes {
		for _, e := range f.Entries() {
			if e.Target != "second" {
				t.Errorf("%s is left", e)
			}
		}
		if got := f.Desired()[dataplane.Redirect]; got != len(changes)-k {
			t.Errorf("%d redirects, want %d", got, len(changes)-k)
		}
		f.Release(t.Context(), del(entry("", change)))
	}
	if got := f.Entries(); len(got) > 0 {
		t.Errorf("left: %v", texts(got))
	}
	wantNoBreach(t, n.plane)
}
