// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// summary is the part of the looking glass's summary that counts.
type summary struct {
	Instances int `json:"vpn_instances_count"`
	Routes    struct {
		Local    int `json:"local_routes_count"`
		Received int `json:"received_routes_count"`
	} `json:"route_counts"`
}

// TestDetachLeavesNothing compares all links, bridge entries and neighbours of
// a node after its last detach with those before its first attach.
func TestDetachLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.node("a", 11), f.node("b", 12)
	a1, a2, a3, b1 := a.vm("a1", 11), a.vm("a2", 12), a.vm("a3", 13), b.vm("b1", 21)
	green := network{id: "green", vni: 300, imports: "64512:300", exports: "64512:300"}
	a.established(f.addr(reflectorNumber))
	b1.attach(red)
	before := a.stableDump()
	if !strings.Contains(strings.Join(before, "\n"), a1.tap) {
		t.Fatalf("the dump does not show the ports: %q", before)
	}
	for range 2 {
		a1.attach(red)
		a2.attach(red)
		a.attach(a3.request(green, "")) // by its MAC alone
		a1.reaches(a2, b1)
		b1.reaches(a1, a2)
		if during := a.dump(); !strings.Contains(strings.Join(during, "\n"), "alias bagpipe evpn green") {
			t.Errorf("no devices of ours during the attachment: %q", during)
		}
		a1.detach(red)
		a2.detach(red)
		a.detach(a3.request(green, ""))
		a.looksUntouched(before)
		a.showsNothing()
		b.hasNothingFrom(a)
	}
}

// stableDump returns the dump when the kernel has come to rest: IPv6 searches
// for duplicates, and joins groups late.
func (n *node) stableDump() []string {
	n.t.Helper()
	var last []string
	eventually(n.t, routeTimeout, func() error {
		for range 10 {
			if now := n.dump(); !slices.Equal(now, last) {
				last = now
				return errors.New("the kernel's state still changes")
			}
		}
		return nil
	})
	return last
}

// looksUntouched waits until the dump is that of before, but for MACs of
// machines that a bridge of others has learned from traffic, as bridges do.
func (n *node) looksUntouched(before []string, machines ...*vm) {
	n.t.Helper()
	learned := func(line string) bool {
		return slices.ContainsFunc(machines, func(v *vm) bool {
			return strings.HasPrefix(line, v.mac+" dev "+v.tap+" master") && !strings.Contains(line, "extern_learn")
		})
	}
	before = slices.DeleteFunc(slices.Clone(before), learned)
	eventually(n.t, routeTimeout, func() error {
		if diff := cmp.Diff(before, slices.DeleteFunc(n.dump(), learned)); diff != "" {
			return fmt.Errorf("state of %s (-before +after):\n%s", n.label, diff)
		}
		return nil
	})
}

// showsNothing waits until the looking glass has no instance, label and route.
func (n *node) showsNothing() {
	n.t.Helper()
	eventually(n.t, routeTimeout, func() error {
		var s summary
		var instances []any
		var labels, perVNI map[string]any
		var problems []any
		err := errors.Join(n.glass(&s, "summary"), n.glass(&instances, "vpns", "instances"),
			n.glass(&labels, "vpns", "dataplane", "ids"), n.glass(&perVNI, "vpns", "instances_per_vni"),
			n.glass(&problems, "vpns", "dataplane", "problems"))
		if err == nil && (s != summary{} || len(instances)+len(labels)+len(perVNI)+len(problems) > 0) {
			err = fmt.Errorf("looking glass of %s: %+v, instances %v, labels %v, VNIs %v, problems %v", n.label, s, instances, labels, perVNI, problems)
		}
		return err
	})
}

// hasNothingFrom waits until neither the looking glass nor the kernel of the
// node has anything that leads to another one.
func (n *node) hasNothingFrom(other *node) {
	n.t.Helper()
	n.forwards(red, forwarding{})
	eventually(n.t, routeTimeout, func() error {
		routes, err := n.routes()
		for nlri, r := range routes {
			if r.NextHop == other.addr.String() {
				err = fmt.Errorf("%s still has a route from %s: %s", n.label, other.label, nlri)
			}
		}
		return err
	})
}
