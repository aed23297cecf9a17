// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// webTo returns a class of packets to a port of 203.0.113.0/24, routed in another instance.
func webTo(port uint16, target string) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Redirect, Target: target, Class: &dataplane.Classifier{
		Destination: netip.MustParsePrefix("203.0.113.0/24"), Source: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Protocol: 6,
		DestinationPorts: dataplane.PortRange{First: port, Last: port}, SourcePorts: dataplane.AllPorts,
	}}
}

// flagsOf returns what the program at a device is told about it.
func (x *node) flagsOf(name string) (v portValue) {
	x.n.t.Helper()
	if err := x.d.maps.Ports.Lookup(uint32(must(x.d.indexOf(name))), &v); err != nil {
		x.n.t.Fatal(err)
	}
	return v
}

func (x *node) restart() {
	x.n.t.Helper()
	if err := x.d.Close(); err != nil {
		x.n.t.Fatal(err)
	}
	x.start()
}

// What says that a port's packets are looked at for classes is written again after it failed.
func TestPortsAreFlaggedAgain(t *testing.T) {
	x := newNetwork(t, false).node(1, Config{sizes: map[string]uint32{"bp1_ports": 1}})
	a := x.vm(1)
	h := x.vrf("red", a.ends(1001))
	x.vrf("out")
	e, ports, index := webTo(80, "out"), x.d.maps.Ports, uint32(must(x.d.indexOf(a.port)))
	for _, del := range []bool{false, true} {
		v := x.flagsOf(a.port)
		if err := ports.Delete(index); err != nil {
			t.Fatal(err)
		}
		if err := ports.Put(uint32(9999), &portValue{}); err != nil {
			t.Fatal(err)
		}
		if err := h.Apply(t.Context(), changes(del, e))[0]; err == nil {
			t.Errorf("deleting=%v: no error with a full map", del)
		}
		if err := ports.Delete(uint32(9999)); err != nil {
			t.Fatal(err)
		}
		if err := ports.Put(index, &v); err != nil {
			t.Fatal(err)
		}
		apply(t, h, changes(del, e))
		if got := x.flagsOf(a.port); got.Flags&portClasses != 0 == del {
			t.Errorf("deleting=%v: flags %#x", del, got.Flags)
		}
	}
}

// A new process knows which ports have classes or forward for others, and gives no number of a
// class again.
func TestSteeringAfterRestart(t *testing.T) {
	x := newNetwork(t, false).node(1, Config{})
	a := x.vm(1)
	entries := a.ends(1001)
	entries[0].Transit = true
	h := x.vrf("red", entries)
	x.vrf("out")
	entries = append(entries, webTo(80, "out"))
	add(t, h, entries[3])
	want := x.flagsOf(a.port)
	if all := uint32(portFrom | portTransit | portClasses); want.Flags&all != all {
		t.Fatalf("flags %#x, want %#x in them", want.Flags, all)
	}
	for i := range uint16(3) {
		x.restart()
		h = x.vrf("red")
		x.vrf("out")
		sameInstalled(t, h, entries)
		if got := x.flagsOf(a.port); got != want {
			t.Errorf("port is %+v, before %+v", got, want)
		}
		add(t, h, entries[:3]...)
		if got := x.flagsOf(a.port); got != want {
			t.Errorf("port is %+v when it is added again, before %+v", got, want)
		}
		entries = append(entries, webTo(81+i, "out"))
		add(t, h, entries[len(entries)-1])
	}
	apply(t, h, changes(true, entries[3:]...))
	if got := x.flagsOf(a.port); got.Flags != want.Flags&^portClasses {
		t.Errorf("without classes the port has flags %#x, before %#x", got.Flags, want.Flags)
	}
}

// An instance that is removed takes its classes and its fallback along, and no other's.
func TestSteeringIsRemoved(t *testing.T) {
	x := newNetwork(t, false).node(1, Config{})
	a, b, out := x.vm(1), x.vm(17), x.vm(33)
	fallback := dataplane.Entry{Kind: dataplane.Fallback, Port: out.port, MAC: out.mac, Source: ethernet.MAC{0x02, 0, 0, 0, 0, 0x77}}
	x.vrf("out")
	steering := []dataplane.Entry{webTo(80, "out"), webTo(81, "out"), fallback}
	red, blue := x.vrf("red", a.ends(1001), steering), x.vrf("blue", b.ends(1002), steering)
	number := red.(*handle).vrf
	if err := red.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, steered := x.d.steered[number]; steered {
		t.Error("the instance that was removed counts as one with classes")
	}
	want := slices.Concat(b.ends(1002), steering)
	sameInstalled(t, blue, want)
	var list classList
	k := classKeyOf(blue.(*handle).vrf, steering[0].Class.Destination)
	if err := x.d.maps.Lists.Lookup(&k, &list); err != nil {
		t.Errorf("list of the other instance's classes: %v", err)
	}
	x.restart()
	outside, blue := x.vrf("out"), x.vrf("blue")
	sameInstalled(t, blue, want)
	if err := errors.Join(blue.Remove(t.Context()), outside.Remove(t.Context())); err != nil {
		t.Fatal(err)
	}
	x.empty(t)
}

// A class that the kernel has and that cannot be is not taken for one.
func TestBadClassInKernel(t *testing.T) {
	b, h := newSteering(t, 1)
	b.put(t, b.m.Classes, uint32(7), &classValue{VRF: 1, DestinationBits: 200})
	if err := h.readClasses(); err != nil || h.classes.Len() > 0 {
		t.Errorf("%d destinations of classes, %v", h.classes.Len(), err)
	}
}
