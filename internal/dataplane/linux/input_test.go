// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

// wantInput checks that an error is a fault of the client about a field.
func wantInput(t *testing.T, err error, field string, words ...string) {
	t.Helper()
	var in *dataplane.InputError
	if !errors.As(err, &in) || in.Field != field {
		t.Errorf("error %v, want an InputError about %s", err, field)
		return
	}
	wantErr(t, in, words...)
}

// What a client cannot have is refused by name, by Check and by Apply alike, and nothing is made.
func TestClientFaults(t *testing.T) {
	t.Parallel()
	host := neutron(t, "faults")
	host.ip("link add foreign type bridge")
	host.ports("p4", "p5", "p6")
	host.ip("link set p4 master foreign")
	host.ip("link add mv link p5-x type macvlan mode bridge")
	host.ip("tuntap add dev tun0 mode tun")
	d := host.driver(local4)
	blue := mustOpen(t, d, instance("blue", 200))
	mustApply(t, blue, add(localPort("p5"))...)
	red := mustOpen(t, d, instance("red", 300))
	before := host.state()
	for _, tt := range []struct {
		bridge, port, field string
		words               []string
	}{
		{"", "none", "local_port", []string{"none does not exist"}},
		{"", "a-name-that-is-too-long", "local_port", []string{"does not exist"}},
		{"", "", "local_port", []string{"does not exist"}},
		{"", "lo", "local_port", []string{"lo is not an Ethernet device"}},
		{"", "tun0", "local_port", []string{"tun0 is not an Ethernet device"}},
		{"", "foreign", "local_port", []string{"foreign is a bridge"}},
		{"", blue.bridgeName, "local_port", []string{"is a bridge"}},
		{"", blue.vxlanName, "local_port", []string{"blue"}},
		{"", "p4", "local_port", []string{"p4 belongs to foreign"}},
		{"", "p5", "local_port", []string{"p5 belongs to instance \"blue\"", blue.bridgeName}},
		{"none", "p6", "linuxbr", []string{"none does not exist"}},
		{"p6", "p6", "linuxbr", []string{"p6 is not a bridge"}},
		{blue.bridgeName, "p6", "linuxbr", []string{"blue"}},
		{"brq0", "p6", "local_port", []string{"p6 is not in bridge brq0"}},
		{"brq0", "p4", "local_port", []string{"p4 is in foreign, not in bridge brq0"}},
	} {
		inst := instance("new", 100)
		inst.Bridge = tt.bridge
		wantInput(t, d.Check(t.Context(), inst, dataplane.Port{Name: tt.port}), tt.field, tt.words...)
		if tt.bridge == "" {
			wantInput(t, red.Apply(t.Context(), add(localPort(tt.port)))[0], tt.field, tt.words...)
		} else if tt.field == "linuxbr" {
			_, err := d.Open(t.Context(), inst)
			wantInput(t, err, tt.field, tt.words...)
		}
	}
	for _, good := range []struct{ bridge, port string }{{"", "p6"}, {"", "mv"}, {"brq0", "p1"}} {
		inst := instance("new", 100)
		inst.Bridge = good.bridge
		if err := d.Check(t.Context(), inst, dataplane.Port{Name: good.port}); err != nil {
			t.Error(err)
		}
	}
	wantSame(t, "state", before, host.state())

	mustOpen(t, d, brq("on brq0"))
	_, err := d.Open(t.Context(), brq("also on brq0"))
	wantInput(t, err, "linuxbr", "in use", "on brq0")
}

// What only the kernel knows not to be a port is no failure of ours either.
func TestKernelRefusesPort(t *testing.T) {
	t.Parallel()
	host := newHost(t, "refuses")
	h := mustOpen(t, host.driver(local4), instance("red", 100))
	host.ip("link add loop link %s type macvlan", h.bridgeName)
	wantInput(t, h.Apply(t.Context(), add(localPort("loop")))[0], "local_port", "loop", "cannot be a port")
}
