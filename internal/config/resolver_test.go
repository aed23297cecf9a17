// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"net/netip"
	"slices"
	"testing"
)

func TestSystemResolver(t *testing.T) {
	t.Parallel()
	r := Resolver{}.withDefaults()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, iface := range interfaces {
		addrs, err := r.InterfaceAddrs(iface.Name)
		if err != nil {
			t.Errorf("addresses of %s: %v", iface.Name, err)
		}
		if iface.Flags&net.FlagLoopback != 0 && iface.Flags&net.FlagUp != 0 &&
			!slices.Contains(addrs, netip.MustParseAddr("127.0.0.1")) {
			t.Errorf("addresses of %s are %v, want 127.0.0.1 among them", iface.Name, addrs)
		}
	}
	if addrs, err := r.InterfaceAddrs("no-such-interface"); err == nil {
		t.Errorf("no-such-interface has addresses %v", addrs)
	}
	// An address needs no name server.
	addrs, err := r.LookupHost("192.0.2.1")
	if err != nil || len(addrs) != 1 || addrs[0].Unmap() != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("192.0.2.1 resolves to %v, %v", addrs, err)
	}
}
