// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/ovs"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
)

// BenchmarkWireToOVS measures from the first octet of 100k VPNv4 routes on TCP to the
// last flow in an Open vSwitch bridge, in 100 VRFs, and compares it with as many
// prepared flows alone.
func BenchmarkWireToOVS(b *testing.B) {
	if inNamespace(b, "BenchmarkWireToOVS") {
		return
	}
	l := load{Routes: 100_000, Targets: 100, Instances: 100, Group: 100, Mix: onlyVPNv4, Encap: encap.GRE}
	makePorts(b, l.Instances)
	out, err := exec.Command("ip", "netns", "identify").Output()
	if err != nil {
		b.Fatal(err)
	}
	sw := ovstest.New(b, nstest.Existing(b, strings.TrimSpace(string(out))))
	sw.AddBridge("br-mpls")
	sw.AddBridge("br-floor")
	local := netip.MustParseAddr("192.0.2.1")
	d, err := ovs.New(ovs.Config{LocalAddr: local, Bridge: "br-mpls", OVSDB: sw.DB(), RunDir: sw.Dir, MPLSInterface: "*gre*", ARPResponder: true},
		slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	e := startEngine(b, l, nil, d, local, speaker.DropIfAsked)
	defer e.stop()
	againstFloor(b, e, l, func() time.Duration { return flowFloor(b, sw, l) }, func() { checkVRFs(b, e, l) })
}

// flowFloor adds as many flows as the load has routes to a bridge of its own, in
// batches of as many as the engine hands on at once, and returns the time. Then it
// removes them.
func flowFloor(b *testing.B, sw *ovstest.Switch, l load) time.Duration {
	b.Helper()
	const batch = 1000
	ctx := context.Background()
	c, err := of.Dial(ctx, sw.Socket("br-floor"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	const cookie = 7
	messages := make([]of.Message, l.Routes)
	for n := range messages {
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16 + byte(n>>16), byte(n >> 8), byte(n)}), 32)
		messages[n] = of.AddFlow(of.Flow{
			Table: 2, Priority: 36768, Cookie: cookie,
			Match:   of.NewMatch(of.Is(of.EthType, 0x0800), of.Is(of.Reg0, uint64(n%l.Instances+1)), of.In(of.IPDst, dst)),
			Actions: of.Actions("").DecTTL().PushMPLS(uint32(16+n)).SetAddr(of.TunnelDst, netip.MustParseAddr("192.0.2.9")).Output(1),
		})
	}
	errs := make([]error, batch)
	start := time.Now()
	for at := 0; at < len(messages); at += batch {
		if err := c.Exec(ctx, messages[at:at+batch], errs); err != nil || errs[batch-1] != nil {
			b.Fatal(err, errs[batch-1])
		}
	}
	took := time.Since(start)
	if err := c.Exec(ctx, []of.Message{of.DeleteFlows{Cookie: cookie, Mask: ^uint64(0)}}, errs); err != nil {
		b.Fatal(err)
	}
	return took
}

// BenchmarkAttachOVS measures REST attaches to a VRF of a node with the driver ovs, 10
// ports in each of 20 VRFs; the ports are in the bridge already, as Neutron's are.
func BenchmarkAttachOVS(b *testing.B) {
	const attaches, instances = 200, 20
	dir := binaries(b)
	ns := nstest.New(b, "attach")
	ns.Run("ip", "address", "add", "192.0.2.1/24", "dev", "lo")
	addPorts(b, ns, attaches)
	sw := ovstest.New(b, ns)
	sw.AddBridge("br-mpls")
	var add []string
	for n := range attaches {
		add = append(add, "--", "add-port", "br-mpls", fmt.Sprintf("p%d", n))
	}
	sw.Vsctl(add[1:]...)
	p := place{b: b, ns: ns, dir: dir}
	conf := p.write("bgp.conf", "[BGP]\nlocal_address = 192.0.2.1\nmy_as = 64512\n[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = ovs\n"+
		"mpls_interface = *gre*\narp_responder = true\n[OVS]\novsdb_connection = "+sw.DB()+"\nrun_dir = "+sw.Dir+"\n")
	p.launch(filepath.Join(dir, "bagpipe-bgp"), "--config-file", conf)
	api := apiOf(b, ns)
	await(b, "API", func() bool { _, err := api.Ping(context.Background()); return err == nil })
	var took []float64
	for n := range attaches {
		r := request(n, instances, "vrf"+strconv.Itoa(n%instances))
		r.VPNType, r.GatewayIP = client.IPVPN, "198.51.255.254"
		r.LocalPort.OVS = &client.OVSPort{Plugged: true, PortName: r.LocalPort.LinuxIF}
		start := time.Now()
		if err := api.Attach(context.Background(), r); err != nil {
			b.Fatal(err)
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(percentile(took, 50), "p50-ms")
	b.ReportMetric(percentile(took, 99), "p99-ms")
}
