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
	moved, had := 0, 0
	for i := range all {
		if all[i] == instances-1 {
			had++
		}
		if all[i] != left[i] {
			moved++
		}
	}
	t.Logf("%d of %d flows moved when one of %d instances went", moved, flows, instances)
	if moved != had || moved < flows/instances/2 || moved > flows/instances*2 {
		t.Errorf("%d of %d flows moved, %d were of the instance that went: want about %d", moved, flows, had, flows/instances)
	}
}
