// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/steertest"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// Of flows to n instances of a service, when one goes only those move that it had, about 1/n.
func TestFlowsThatMove(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	h := mustOpen(t, n.driver(func(c *Config) { c.ARPResponder = true }), instance("red"))
	client := newVM(n, 9, "tap9", 0)
	mustApply(t, h, add(append(client.entries(), client.routes(n, encap.GRE)...)...)...)
	const instances, flows = 4, 120
	address := netip.MustParseAddrPort("203.0.113.1:80")
	var hops []dataplane.NextHop
	for i := range instances {
		v := newVM(n, i+1, fmt.Sprintf("tap%d", i+1), 0)
		mustApply(t, h, add(v.entries()...)...)
		hops = append(hops, dataplane.NextHop{Addr: netip.MustParseAddr(n.addr), Label: v.label, Encap: encap.GRE, Order: uint32(i)})
		v.Run("ip", "addr", "add", address.Addr().String()+"/32", "dev", "lo")
		wide := v.entries()[1]
		wide.Prefix = netip.PrefixFrom(address.Addr(), 32)
		mustApply(t, h, add(wide)...)
		var l net.Listener
		var err error
		v.Do(func() { l, err = net.Listen("tcp4", address.String()) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() { // says which instance it is
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte{byte(i)})
				_ = c.Close()
			}
		}()
	}
	met := func(hops []dataplane.NextHop) (out [flows]byte) {
		mustApply(t, h, add(route4(address.Addr().String()+"/32", hops...))...)
		n.Appctl("revalidator/wait") // until no flow of before is in the datapath
		for i := range out {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client.ip4), Port: 20000 + i}}
			var c net.Conn
			err := netspace.Do(client.Name, func() (err error) {
				c, err = d.DialContext(ctx, "tcp", address.String())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadFull(c, out[i:i+1]); err != nil {
				t.Fatal(err)
			}
			_ = c.(*net.TCPConn).SetLinger(0) // the port is used again
			_ = c.Close()
			cancel()
		}
		return out
	}
	all, again, left := met(hops), met(hops), met(hops[:instances-1])
	if all != again {
		t.Error("flows met other instances the second time")
	}
	steertest.OnlyItsFlowsMove(t, all[:], left[:], instances, 2)
}
