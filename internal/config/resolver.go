// SPDX-License-Identifier: Apache-2.0

package config

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// resolveTimeout bounds the wait for one host name.
const resolveTimeout = 10 * time.Second

// Resolver turns the names in a configuration into addresses. A nil function
// stands for the one of the operating system.
type Resolver struct {
	// InterfaceAddrs returns the addresses of a network interface in the order
	// the system keeps them.
	InterfaceAddrs func(name string) ([]netip.Addr, error)
	// LookupHost returns the addresses of a host name, best first.
	LookupHost func(host string) ([]netip.Addr, error)
}

// withDefaults returns r with the operating system's functions in place of nil.
func (r Resolver) withDefaults() Resolver {
	if r.InterfaceAddrs == nil {
		r.InterfaceAddrs = systemInterfaceAddrs
	}
	if r.LookupHost == nil {
		r.LookupHost = systemLookupHost
	}
	return r
}

func systemInterfaceAddrs(name string) ([]netip.Addr, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	prefixes, err := iface.Addrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses of interface %s: %w", name, err)
	}
	addrs := make([]netip.Addr, 0, len(prefixes))
	for _, p := range prefixes {
		prefix, err := netip.ParsePrefix(p.String())
		if err != nil {
			return nil, fmt.Errorf("read address of interface %s: %w", name, err)
		}
		addrs = append(addrs, prefix.Addr())
	}
	return addrs, nil
}

func systemLookupHost(host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}
