// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/cli"
)

// fakePrefix begins the names under which the test program is a node's daemon;
// what follows is how it behaves.
const fakePrefix = "fake-daemon-"

// TestMain makes the test program stand in for those that a lab starts.
func TestMain(m *testing.M) {
	behaviour, isDaemon := strings.CutPrefix(filepath.Base(os.Args[0]), fakePrefix)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch {
	case isDaemon:
		if err := fakeDaemon(ctx, behaviour, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case len(os.Args) > 1 && (os.Args[1] == "rr" || os.Args[1] == "lab"):
		os.Exit(cli.Run(ctx, cli.Env{Stdout: os.Stdout, Stderr: os.Stderr}, append([]string{"bagpipe"}, os.Args[1:]...)))
	default:
		status := m.Run()
		_ = os.RemoveAll(buildDir)
		os.Exit(status)
	}
}

// fakeNode is a daemon without BGP or driver. It joins its ports to the other node
// by a VXLAN tunnel that is told the address. In an IP VPN the host itself is the
// gateway, and finds all machines behind that tunnel.
type fakeNode struct {
	behaviour, config string
	mu                sync.Mutex
}

func fakeDaemon(ctx context.Context, behaviour, file string) error {
	if behaviour == "exits" {
		return fmt.Errorf("fake daemon gives up over %s", file)
	}
	config, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	n := &fakeNode{behaviour: behaviour, config: string(config)}
	fmt.Fprintf(os.Stderr, "fake daemon %s at %s\n", behaviour, n.option("local_address"))
	pages := map[string]string{
		"/ping":   "1",
		"/readyz": `{"ready":true}`,
		"/looking-glass/summary": `{"BGP_established_peers": 1, "route_counts": {"local_routes_count": 2, "received_routes_count": 1},
			"warnings_and_errors": 0}`,
		"/looking-glass/summary/BGP_established_peers":        "1",
		"/looking-glass/bgp/peers":                            `[{"id": "192.0.2.1", "state": "Established"}]`,
		"/looking-glass/vpns/instances":                       `[{"id": "lab", "name": "EVI-1"}]`,
		"/looking-glass/vpns/instances/lab/dataplane/entries": `["port dev tap-a1", "prefix p via x", "prefix q via x"]`,
		"/looking-glass/vpns/dataplane/drivers/evpn":          `{"name": "fake-evpn"}`,
		"/looking-glass/vpns/dataplane/drivers/ipvpn":         `{"name": "fake-ipvpn"}`,
	}
	srv := &http.Server{Addr: "127.0.0.1:8082", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			_, _ = fmt.Fprint(w, pages[r.URL.Path])
			return
		}
		if err := n.attach(r); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"code": 400, "title": "Bad Request", "description": %q}`, err.Error())
			return
		}
		_, _ = fmt.Fprint(w, "null")
	})}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// option returns the value of an option of the configuration, or nothing.
func (n *fakeNode) option(name string) string {
	for line := range strings.Lines(n.config) {
		if value, ok := strings.CutPrefix(line, name+" = "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (n *fakeNode) attach(r *http.Request) error {
	switch n.behaviour {
	case "deaf":
		return nil
	case "refuses":
		return fmt.Errorf("fake refusal")
	case "hangs":
		<-r.Context().Done()
		return r.Context().Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var req client.AttachRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return err
	}
	bridge, err := n.bridge()
	if err != nil {
		return err
	}
	if req.VPNType == client.IPVPN {
		if err := asGateway(bridge, req); err != nil {
			return err
		}
	}
	if req.LocalPort.OVS != nil {
		return nil // it is plugged
	}
	tap, err := netlink.LinkByName(req.LocalPort.LinuxIF)
	if err != nil {
		return err
	}
	return netlink.LinkSetMaster(tap, bridge)
}

// asGateway gives the bridge the address of a gateway.
func asGateway(bridge netlink.Link, req client.AttachRequest) error {
	address, err := netlink.ParseIPNet(req.IPAddress)
	if err != nil {
		return err
	}
	address.IP = net.ParseIP(req.GatewayIP)
	all, forwarding := "2001:db8::/32", "ipv6/conf/all/forwarding"
	if address.IP.To4() != nil {
		all, forwarding = "198.51.100.0/24", "ipv4/ip_forward"
	}
	if err := netlink.AddrReplace(bridge, &netlink.Addr{IPNet: address, Flags: unix.IFA_F_NODAD}); err != nil {
		return fmt.Errorf("add gateway %s: %w", address, err)
	}
	dst, err := netlink.ParseIPNet(all)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("add route to %s: %w", all, err)
	}
	return os.WriteFile("/proc/sys/net/"+forwarding, []byte("1"), 0o644)
}

// bridge returns the bridge of the instance, made with its tunnel at first.
func (n *fakeNode) bridge() (netlink.Link, error) {
	const tunnel = "vx-lab"
	name := cmp.Or(n.option("ovs_bridge"), "br-lab")
	if bridge, err := netlink.LinkByName(name); err == nil && bridge.Attrs().Flags&net.FlagUp != 0 {
		return bridge, nil
	}
	local := net.ParseIP(n.option("local_address"))
	other := slices.Clone(local)
	other[len(other)-1] ^= 0x11 ^ 0x12 // ...11 <-> ...12 in IPv6
	if local.To4() != nil {
		other[len(other)-1] = 23 - local[len(local)-1] // .11 <-> .12
	}
	if db := n.option("ovsdb_connection"); db != "" {
		if err := errors.Join(
			command("ovs-vsctl", "--db="+db, "add-port", name, tunnel, "--",
				"set", "interface", tunnel, "type=vxlan", "options:remote_ip="+other.String(), "options:local_ip="+local.String()),
			command("ovs-ofctl", "-O", "OpenFlow15", "add-flow", "unix:"+n.option("run_dir")+"/"+name+".mgmt", "actions=normal"),
		); err != nil {
			return nil, err
		}
		return setUp(name)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, err
	}
	bridge, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	attrs = netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = tunnel, bridge.Attrs().Index
	vxlan := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 100, SrcAddr: local, Group: other, Port: 4789, Learning: true}
	if err := netlink.LinkAdd(vxlan); err != nil {
		return nil, fmt.Errorf("make tunnel to %s: %w", other, err)
	}
	if _, err := setUp(tunnel); err != nil {
		return nil, err
	}
	return setUp(name)
}

func setUp(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	return link, netlink.LinkSetUp(link)
}

func command(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return nil
}
