// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/faultcall"
)

// outage fails calls of a daemon while it lasts.
type outage struct {
	of    func(faultcall.Call) bool
	errno unix.Errno
	on    atomic.Bool
	hits  atomic.Int64
}

func (o *outage) decide(c faultcall.Call) faultcall.Verdict {
	if o.on.Load() && o.of(c) {
		o.hits.Add(1)
		return faultcall.Fail(o.errno)
	}
	return faultcall.Pass
}

// TestKernelOutOfMemory has all calls to the forwarding plane fail for a while, in which a route
// arrives, an endpoint is attached in vain and another one detached. The daemon says that
// it is degraded, and gets all right by itself when it can.
func TestKernelOutOfMemory(t *testing.T) {
	t.Parallel()
	netlink := func(c faultcall.Call) bool { return c.Class == faultcall.Netlink }
	changes := func(c faultcall.Call) bool { return netlink(c) && c.Change }
	bpf := func(c faultcall.Call) bool { return c.Class == faultcall.BPF }
	for _, tt := range []struct {
		name  string
		plane plane
		of    func(faultcall.Call) bool
		errno unix.Errno
	}{
		{"linux, netlink without buffers", linuxEVPN, netlink, unix.ENOBUFS},
		{"linux, changes without memory", linuxEVPN, changes, unix.ENOMEM},
		{"ebpf, bpf without memory", ebpfPlane, bpf, unix.ENOMEM},
		{"ebpf, bpf without buffers", ebpfPlane, bpf, unix.ENOBUFS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCrashing(t, tt.plane)
			o := &outage{of: tt.of, errno: tt.errno}
			c.a.startUnder(o.decide)
			c.a.established(c.b.addr)
			a1, a2 := tt.plane.ops(c.a1, false), tt.plane.ops(c.a2, false)
			a2gone := tt.plane.ops(c.a2, true)
			do := func(n *planeNode, list ...op) {
				t.Helper()
				for _, o := range list {
					if err := n.do(o); err != nil {
						t.Fatal(err)
					}
				}
			}
			late := func(detach bool) op { l := c.late; l.detach = detach; return l }
			// The forwarding that the outage is to lead to.
			do(c.a, a1[0])
			do(c.b, late(false))
			c.settled()
			c.a.sound(c.a.http)
			want := c.stableImage()
			do(c.b, late(true))
			do(c.a, a2...)
			c.a.sound(c.a.http)

			o.on.Store(true)
			do(c.b, late(false))
			if err := c.a.do(a1[1]); err == nil {
				t.Error("attached during an outage: want it refused, without a trace")
			}
			do(c.a, a2gone...)
			c.settled()
			c.a.degraded(c.a.http, "dataplane", "dataplane of instance "+tt.plane.requests(c.a1)[0].VPNInstanceID, "")
			o.on.Store(false)
			t.Logf("%d calls failed", o.hits.Load())
			c.a.sound(c.a.http)
			c.hasImage("after the outage", want)
			if c.a.proc.exited() {
				t.Error("the daemon has ended")
			}
		})
	}
}

// TestNoDescriptors has a daemon get no file descriptors for a while, in which its peer comes
// back from a restart and a client connects. API and session come back by themselves.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	for _, dials := range []bool{true, false} {
		t.Run(fmt.Sprintf("dials=%v", dials), func(t *testing.T) {
			t.Parallel()
			f := bareFabric(t, 4, enoughMTU)
			wait := settings{bgp: []string{"listen = true", "dynamic_neighbors = " + f.prefix(0).String()}}
			sa, sb := settings{peers: []netip.Addr{f.addr(12)}}, wait
			if !dials {
				sa, sb = wait, settings{peers: []netip.Addr{f.addr(11)}}
			}
			a, b := f.idleNode("a", 11), f.nodeWith("b", 12, sb)
			a.configure(sa)
			o := &outage{errno: unix.EMFILE, of: func(c faultcall.Call) bool {
				return c.Class == faultcall.Open || c.Name == "openat"
			}}
			a.startUnder(o.decide)
			a1, b1 := a.vm("a1", 11), b.vm("b1", 21)
			a1.attach(red)
			b1.attach(red)
			a.forwards(red, forwarding{}.behind(b.addr, b1))

			o.on.Store(true)
			b.restart(syscall.SIGKILL)
			b1.attach(red)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := a.api.Ping(ctx); err == nil {
				t.Error("the API answers a new client without a descriptor")
			}
			eventually(t, routeTimeout, func() error {
				if hits := o.hits.Load(); hits < 4 {
					return fmt.Errorf("%d calls failed", hits)
				}
				return nil
			})
			o.on.Store(false)
			t.Logf("%d calls failed", o.hits.Load())
			a.established(b.addr)
			a.forwards(red, forwarding{}.behind(b.addr, b1))
			b.forwards(red, forwarding{}.behind(a.addr, a1))
			a.sound(a.http)
			if a.proc.exited() {
				t.Error("the daemon has ended")
			}
		})
	}
}

// TestErrorInDataplane has one call fail that changes the forwarding plane. A daemon that does
// not start for it is started again, as systemd does; a request that is refused for it is sent again, as
// agents do. It leads to the same forwarding state as without an error, and leaves nothing.
func TestErrorInDataplane(t *testing.T) {
	t.Parallel()
	for _, p := range []plane{linuxEVPN, ebpfPlane, ovsPlane} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			c := newCrashing(t, p)
			for _, at := range crashes(c.measure(), 24) {
				c.failOnce(at)
			}
		})
	}
}

// failOnce fails a call and checks that all gets right.
func (c *crashing) failOnce(at int) {
	c.t.Helper()
	when := fmt.Sprintf("after an error of call %d", at)
	var seen atomic.Int64
	c.a.startUnder(func(call faultcall.Call) faultcall.Verdict {
		if c.counts(call) && seen.Add(1) == int64(at) {
			return faultcall.Fail(unix.ENOMEM)
		}
		return faultcall.Pass
	})
	if c.a.proc.exited() {
		if code := c.a.proc.cmd.ProcessState.ExitCode(); code != 1 {
			c.t.Errorf("%s: exit status %d, want 1", when, code)
		}
		c.a.start()
	}
	refused := 0
	for !c.run() {
		if refused++; refused > 1 {
			c.t.Fatalf("%s: requests are refused again", when)
		}
	}
	c.hasImage(when, c.model)
	if !c.detachAll() {
		c.t.Errorf("%s: cannot detach", when)
	}
	c.a.showsNoInstance()
	c.hasImage(when+", all detached", c.idle)
	c.a.proc.end(syscall.SIGTERM)
	c.reset()
}
