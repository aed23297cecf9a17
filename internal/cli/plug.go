// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

const (
	maxInterfaceName = unix.IFNAMSIZ - 1
	hostMTU          = 9000
	// insideMTU leaves room for the tunnel headers of the VPN.
	insideMTU = 1420
	// peerMTU is the highest: it is what the device below a VLAN keeps.
	peerMTU = 65535
	// rawInside is the device below the VLAN device inside a namespace.
	rawInside = "ns2vpn-raw"
)

// hostSide returns the name of the host's end of a netns port.
func (o *endpointOptions) hostSide() string {
	if _, name, ok := strings.Cut(o.port, ":"); ok && name != "" {
		return name
	}
	name := "ns-" + o.netns
	return name[:min(len(name), maxInterfaceName)]
}

// plug makes the local port ready and returns it as the daemon wants it. For a
// netns port it fills in the MAC address. On detach nothing is made: the port
// is only looked at.
func (o *endpointOptions) plug(ctx context.Context, env Env, attach bool) (client.LocalPort, error) {
	if id, ok := o.evpn(); ok {
		return client.LocalPort{EVPN: &client.EVPNPort{ID: id}}, nil
	}
	port := client.LocalPort{LinuxIF: o.port}
	if o.isNetns() {
		port.LinuxIF = o.hostSide()
		if attach {
			if err := o.makeNetnsPort(ctx, env); err != nil {
				return port, err
			}
		}
		if o.mac == "" || attach {
			if err := o.readMAC(); err != nil {
				return port, err
			}
		}
	}
	if o.ovsPreplug {
		number, err := o.plugOVS(ctx, port.LinuxIF, attach)
		if err != nil {
			return port, err
		}
		port.OVS = &client.OVSPort{Plugged: true, PortNumber: number, VLAN: o.ovsVLAN}
	}
	return port, nil
}

// makeNetnsPort makes a namespace, if it is not there, and a fresh veth pair
// that leads into it. A pair left by an earlier call is replaced.
func (o *endpointOptions) makeNetnsPort(ctx context.Context, env Env) error {
	if err := netspace.Create(o.netns); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	host := o.hostSide()
	if o.ovsPreplug {
		if _, err := ovsVsctl(ctx, "--if-exists", "del-port", host); err != nil {
			_, _ = fmt.Fprintf(env.Stderr, "take %s out of its bridge: %v\n", host, err)
		}
	}
	return netspace.With(o.netns, func(h *netlink.Handle) error {
		for _, name := range []string{o.inside, rawInside} {
			if l, err := h.LinkByName(name); err == nil {
				_ = h.LinkDel(l) // the device below takes the VLAN device along
			}
		}
		if l, err := netlink.LinkByName(host); err == nil {
			_ = netlink.LinkDel(l)
		}
		if err := o.makeVeth(host); err != nil {
			return err
		}
		inside, err := o.insideLink(h)
		if err != nil {
			return err
		}
		return o.configureInside(h, inside)
	})
}

// makeVeth makes the pair with its far end in the namespace.
func (o *endpointOptions) makeVeth(host string) error {
	ns, err := netns.GetFromName(o.netns)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", o.netns, err)
	}
	defer func() { _ = ns.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = host, hostMTU
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: o.inside, PeerNamespace: netlink.NsFd(ns), PeerMTU: peerMTU}
	if o.ovsVLAN != 0 {
		veth.PeerName = rawInside
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth pair %s, %s: %w", host, veth.PeerName, err)
	}
	link, err := netlink.LinkByName(host)
	if err != nil {
		return fmt.Errorf("find %s: %w", host, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", host, err)
	}
	return nil
}

// insideLink returns the interface inside, for a VLAN made on the veth's end.
func (o *endpointOptions) insideLink(h *netlink.Handle) (netlink.Link, error) {
	if o.ovsVLAN == 0 {
		return findLink(h, o.inside)
	}
	raw, err := findLink(h, rawInside)
	if err != nil {
		return nil, err
	}
	if err := h.LinkSetUp(raw); err != nil {
		return nil, fmt.Errorf("set %s up: %w", rawInside, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = o.inside, raw.Attrs().Index
	vlan := &netlink.Vlan{LinkAttrs: attrs, VlanId: o.ovsVLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	if err := h.LinkAdd(vlan); err != nil {
		return nil, fmt.Errorf("make VLAN %d on %s: %w", o.ovsVLAN, rawInside, err)
	}
	return findLink(h, o.inside)
}

func findLink(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	return link, nil
}

// configureInside gives the interface its addresses and the default route.
func (o *endpointOptions) configureInside(h *netlink.Handle, link netlink.Link) error {
	if o.mac != "" {
		mac, err := net.ParseMAC(o.mac)
		if err == nil {
			err = h.LinkSetHardwareAddr(link, mac)
		}
		if err != nil {
			return fmt.Errorf("give %s the MAC address %s: %w", o.inside, o.mac, err)
		}
	}
	if err := h.LinkSetMTU(link, insideMTU); err != nil {
		return fmt.Errorf("set MTU of %s: %w", o.inside, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", o.inside, err)
	}
	prefix, err := netip.ParsePrefix(o.ip)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", o.inside, o.ip, err)
	}
	if o.gateway == "" {
		return nil
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(o.gateway)}
	if err := h.RouteReplace(route); err != nil {
		return fmt.Errorf("route by default to %s in %s: %w", o.gateway, o.netns, err)
	}
	return nil
}

// readMAC takes the MAC address from the interface in the namespace.
func (o *endpointOptions) readMAC() error {
	return netspace.With(o.netns, func(h *netlink.Handle) error {
		link, err := findLink(h, o.inside)
		if err != nil {
			return fmt.Errorf("read MAC address in %s: %w", o.netns, err)
		}
		o.mac = link.Attrs().HardwareAddr.String()
		return nil
	})
}

// plugOVS puts an interface in the bridge, on detach only finds it, and returns
// its OpenFlow port number.
func (o *endpointOptions) plugOVS(ctx context.Context, name string, attach bool) (int, error) {
	if attach {
		if _, err := ovsVsctl(ctx, "--may-exist", "add-port", o.ovsBridge, name); err != nil {
			return 0, fmt.Errorf("plug %s in bridge %s: %w", name, o.ovsBridge, err)
		}
	}
	out, err := ovsVsctl(ctx, "get", "Interface", name, "ofport")
	if err != nil {
		return 0, fmt.Errorf("find OpenFlow port of %s: %w", name, err)
	}
	number, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil || number < 1 {
		return 0, fmt.Errorf("find OpenFlow port of %s: ovs-vsctl says %q", name, strings.TrimSpace(out))
	}
	return number, nil
}

// ovsVsctl runs ovs-vsctl. Only options about OVS lead here, so hosts without
// it do not need it.
func ovsVsctl(ctx context.Context, args ...string) (string, error) {
	path, err := exec.LookPath("ovs-vsctl")
	if err != nil {
		return "", errors.New("ovs-vsctl is not installed (package openvswitch-switch)")
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ovs-vsctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
