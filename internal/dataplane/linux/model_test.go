// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"slices"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// key is the identity of an entry, as dataplane.Kind documents it.
func key(e dataplane.Entry) string {
	switch e.Kind {
	case dataplane.LocalPort:
		return "port " + e.Port
	case dataplane.LocalMAC:
		return "local " + e.MAC.String()
	case dataplane.RemoteMAC:
		return "remote " + e.MAC.String()
	case dataplane.Neighbour:
		return "neigh " + e.IP.String()
	default:
		return fmt.Sprintf("flood %s", e.NextHops[0])
	}
}

func drawEntry(t *rapid.T) dataplane.Entry {
	vtep := fmt.Sprintf("192.0.2.%d", rapid.IntRange(2, 4).Draw(t, "vtep"))
	vni := rapid.Uint32Range(100, 102).Draw(t, "vni")
	n := rapid.IntRange(1, 4).Draw(t, "n")
	port := rapid.SampledFrom([]string{"p1", "p2"}).Draw(t, "port")
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return localMAC(n, port)
	case 1:
		return remoteMAC(n, vtep, vni)
	case 2:
		return neighbour(fmt.Sprintf("198.51.100.%d", n), n+rapid.IntRange(0, 1).Draw(t, "mac"))
	case 3:
		return neighbour(fmt.Sprintf("2001:db8:1::%d", n), n)
	default:
		return flood(vtep, vni)
	}
}

// set puts an entry into a model. A bridge has one entry per MAC: a remote MAC
// takes the place of a local one, and a local MAC leaves half of a remote one.
func set(model map[string]dataplane.Entry, e dataplane.Entry) {
	model[key(e)] = e
	half := dataplane.Entry{Kind: dataplane.RemoteMAC, MAC: e.MAC}
	switch e.Kind {
	case dataplane.RemoteMAC:
		delete(model, key(dataplane.Entry{Kind: dataplane.LocalMAC, MAC: e.MAC}))
	case dataplane.LocalMAC:
		if _, ok := model[key(half)]; ok {
			model[key(half)] = half
		}
	}
}

// TestModel applies random changes, with restarts, and compares with a map.
func TestModel(t *testing.T) {
	host := newHost(t, "model")
	host.ports("p1", "p2")
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		inst := instance(fmt.Sprintf("red %d", run), 100)
		d := host.driver(local4)
		defer func() { _ = d.Close() }()
		h := mustOpen(t, d, inst)
		defer func() { _ = h.Remove(t.Context()) }()
		model := map[string]dataplane.Entry{}
		apply := func(changes []dataplane.Change) {
			for i, err := range h.Apply(t.Context(), changes) {
				if err != nil {
					rt.Fatalf("%s: %v", changes[i], err)
				}
				if changes[i].Delete {
					delete(model, key(changes[i].Entry))
				} else {
					set(model, changes[i].Entry)
				}
			}
		}
		apply(add(localPort("p1"), localPort("p2")))
		rt.Repeat(map[string]func(*rapid.T){
			"apply": func(rt *rapid.T) {
				n := rapid.IntRange(1, 8).Draw(rt, "changes")
				var changes []dataplane.Change
				for range n {
					changes = append(changes, dataplane.Change{Entry: drawEntry(rt), Delete: rapid.Bool().Draw(rt, "delete")})
				}
				apply(changes)
			},
			"restart": func(*rapid.T) {
				_ = d.Close()
				d = host.driver(local4)
				h = mustOpen(t, d, inst)
			},
			"": func(rt *rapid.T) {
				got, err := h.Installed(t.Context())
				if err != nil {
					rt.Fatal(err)
				}
				var want []dataplane.Entry
				for _, e := range model {
					want = append(want, e)
				}
				if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
					rt.Fatalf("installed (-want +got):\n%s", diff)
				}
				for _, w := range want {
					if !slices.ContainsFunc(got, w.Equal) {
						rt.Fatalf("nothing equal to %s", w)
					}
				}
			},
		})
	})
}
