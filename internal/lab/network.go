// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// buildNetwork makes the namespaces, the bridge and the cables of a plan.
func (p *Plan) buildNetwork(ctx context.Context) error {
	for _, ns := range p.Namespaces {
		if err := netspace.Create(ns); err != nil {
			return err
		}
	}
	err := netspace.With(p.Bridge.Namespace, func(h *netlink.Handle) error { return p.Bridge.build(h) })
	if err != nil {
		return fmt.Errorf("make bridge in %s: %w", p.Bridge.Namespace, err)
	}
	for _, v := range p.Veths {
		if err := v.build(); err != nil {
			return fmt.Errorf("make cable %s -- %s: %w", v.A, v.B, err)
		}
	}
	for _, command := range p.Setup {
		if err := run(ctx, command); err != nil {
			return err
		}
	}
	return p.offloads(ctx)
}

func (b Bridge) build(h *netlink.Handle) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = b.Name, underlayMTU
	snooping := false
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return err
	}
	link, err := h.LinkByName(b.Name)
	if err != nil {
		return err
	}
	return configure(h, link, End{Addresses: []netip.Prefix{b.Address}})
}

// build makes the cable with each end in its namespace at once.
func (v Veth) build() error {
	nsA, err := netns.GetFromName(v.A.Namespace)
	if err != nil {
		return err
	}
	defer func() { _ = nsA.Close() }()
	nsB, err := netns.GetFromName(v.B.Namespace)
	if err != nil {
		return err
	}
	defer func() { _ = nsB.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Namespace = v.A.Name, v.A.MTU, netlink.NsFd(nsA)
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: v.B.Name, PeerMTU: uint32(v.B.MTU), PeerNamespace: netlink.NsFd(nsB)}
	if v.B.MAC != "" {
		if veth.PeerHardwareAddr, err = net.ParseMAC(v.B.MAC); err != nil {
			return err
		}
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	for _, e := range []End{v.A, v.B} {
		if err := netspace.With(e.Namespace, e.configure); err != nil {
			return err
		}
	}
	return nil
}

func (e End) configure(h *netlink.Handle) error {
	link, err := h.LinkByName(e.Name)
	if err != nil {
		return err
	}
	if e.Bridge != "" {
		master, err := h.LinkByName(e.Bridge)
		if err != nil {
			return err
		}
		if err := h.LinkSetMaster(link, master); err != nil {
			return err
		}
	}
	if e.Switch != "" {
		if err := h.LinkSetARPOff(link); err != nil {
			return err
		}
	}
	return configure(h, link, e)
}

// configure gives an interface its addresses, sets it up and adds its routes.
// IPv6 addresses are usable at once, without a search for duplicates.
func configure(h *netlink.Handle, link netlink.Link, e End) error {
	for _, p := range e.Addresses {
		addr := &netlink.Addr{IPNet: &net.IPNet{
			IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
		}}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	for _, gateway := range e.Gateways {
		if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("add route via %s: %w", gateway, err)
		}
	}
	return nil
}

// offloads has the ends of a plan compute checksums that are to.
func (p *Plan) offloads(ctx context.Context) error {
	for _, v := range p.Veths {
		for _, e := range []End{v.A, v.B} {
			if !e.Checksums {
				continue
			}
			if err := run(ctx, []string{"ip", "netns", "exec", e.Namespace, "ethtool", "-K", e.Name, "tx", "off"}); err != nil {
				return err
			}
		}
	}
	return nil
}
