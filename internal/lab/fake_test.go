// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

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

// fakeDaemon has the API of a node and joins its ports to the other node by a
// VXLAN tunnel that is told the address, without BGP.
func fakeDaemon(ctx context.Context, behaviour, config string) error {
	if behaviour == "exits" {
		return fmt.Errorf("fake daemon gives up over %s", config)
	}
	local, err := localAddress(config)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "fake daemon %s at %s\n", behaviour, local)
	pages := map[string]string{
		"/ping":   "1",
		"/readyz": `{"ready":true}`,
		"/looking-glass/summary": `{"BGP_established_peers": 1, "route_counts": {"local_routes_count": 2, "received_routes_count": 1},
			"warnings_and_errors": 0}`,
		"/looking-glass/summary/BGP_established_peers": "1",
		"/looking-glass/bgp/peers":                     `[{"id": "192.0.2.1", "state": "Established"}]`,
		"/looking-glass/vpns/instances":                `[{"id": "lab", "name": "EVI-1"}]`,
	}
	var mu sync.Mutex
	srv := &http.Server{Addr: "127.0.0.1:8082", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			_, _ = fmt.Fprint(w, pages[r.URL.Path])
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if err := fakeAttach(r, behaviour, local); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"code": 400, "title": "Bad Request", "description": %q}`, err)
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

func localAddress(config string) (net.IP, error) {
	f, err := os.Open(config)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), "local_address = "); ok {
			return net.ParseIP(value), nil
		}
	}
	return nil, fmt.Errorf("no local_address in %s", config)
}

func fakeAttach(r *http.Request, behaviour string, local net.IP) error {
	switch behaviour {
	case "deaf":
		return nil
	case "refuses":
		return fmt.Errorf("fake refusal")
	case "hangs":
		<-r.Context().Done()
		return r.Context().Err()
	}
	var req client.AttachRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return err
	}
	bridge, err := fakeBridge(local, int(req.VNI))
	if err != nil {
		return err
	}
	tap, err := netlink.LinkByName(req.LocalPort.LinuxIF)
	if err != nil {
		return err
	}
	return netlink.LinkSetMaster(tap, bridge)
}

// fakeBridge returns the bridge of the instance, made with its tunnel at first.
func fakeBridge(local net.IP, vni int) (netlink.Link, error) {
	if bridge, err := netlink.LinkByName("br-lab"); err == nil {
		return bridge, nil
	}
	other := append(net.IP{}, local...)
	other[len(other)-1] ^= 0x11 ^ 0x12 // ...11 <-> ...12 in IPv6
	if local.To4() != nil {
		other[len(other)-1] = 23 - local[len(local)-1] // .11 <-> .12
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br-lab"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, err
	}
	bridge, err := netlink.LinkByName("br-lab")
	if err != nil {
		return nil, err
	}
	attrs = netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = "vx-lab", bridge.Attrs().Index
	tunnel := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: vni, SrcAddr: local, Group: other, Port: 4789, Learning: true}
	if err := netlink.LinkAdd(tunnel); err != nil {
		return nil, fmt.Errorf("make tunnel to %s: %w", other, err)
	}
	for _, name := range []string{"vx-lab", "br-lab"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return nil, err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, err
		}
	}
	return bridge, nil
}
