// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// maxLabel is the highest MPLS label (RFC 3032 §2.1).
const maxLabel = 1<<20 - 1

// Priorities of rules; see the package's text.
const (
	vrfPriority   = 1
	localPriority = 2
)

var families = []uint8{unix.AF_INET, unix.AF_INET6}

// prepare makes the kernel ready: modules, MPLS, forwarding, rules.
func (d *Driver) prepare() error {
	d.k.LoadModules("vrf", "mpls_router", "mpls_iptunnel", "mpls_gso")
	const labels = "net/mpls/platform_labels"
	value, err := d.k.Sysctl(labels)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("the kernel has no MPLS: want the modules mpls_router and mpls_iptunnel (CONFIG_MPLS_ROUTING, CONFIG_MPLS_IPTUNNEL)")
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", labels, err)
	}
	if n, err := strconv.Atoi(value); err != nil || n < maxLabel {
		if err := d.k.SetSysctl(labels, strconv.Itoa(maxLabel)); err != nil {
			return fmt.Errorf("set %s: %w", labels, err)
		}
	}
	if err := d.dropHalfMade(); err != nil {
		return err
	}
	if err := d.tryVRF(); err != nil {
		return err
	}
	if err := d.forwardIPv6(); err != nil {
		return err
	}
	return d.rules()
}

func (d *Driver) dropHalfMade() error {
	links, err := d.k.Links(0)
	if err != nil {
		return err
	}
	for _, l := range links {
		if isHalfMade(l) {
			if err := goneIsFine(d.k.DeleteLink(l.Index)); err != nil {
				return err
			}
		}
	}
	return nil
}

// tryVRF makes a VRF device and removes it, to tell at the start whether that works.
func (d *Driver) tryVRF() error {
	mark := uint32(devname.HalfMade)
	const name = vrfPrefix + "try"
	if err := d.k.Link(&netlinkx.LinkRequest{Name: name, Kind: "vrf", Table: firstTable, Group: &mark}); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
			return fmt.Errorf("the kernel has no VRF devices: want the module vrf (CONFIG_NET_VRF): %w", err)
		}
		return err
	}
	l, ok, err := d.k.LinkByName(name)
	if err != nil || !ok {
		return err
	}
	return goneIsFine(d.k.DeleteLink(l.Index))
}

// forwardIPv6 lets the host forward IPv6, which the kernel has one switch for.
func (d *Driver) forwardIPv6() error {
	const name = "net/ipv6/conf/all/forwarding"
	value, err := d.k.Sysctl(name)
	if errors.Is(err, os.ErrNotExist) || value == "1" {
		return nil
	}
	if err == nil {
		d.log.Info("IPv6 forwarding is switched on for this host: it takes no more router advertisements where accept_ra is not 2",
			"setting", name)
		err = d.k.SetSysctl(name, "1")
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// rules puts the rule for VRFs in front of the one for the table "local", and the guard in
// front of those for classes of packets.
func (d *Driver) rules() error {
	for _, family := range families {
		have, err := d.k.Rules(family)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // no IPv6
		}
		if err != nil {
			return err
		}
		vrf := netlinkx.Rule{Family: family, Priority: vrfPriority, VRF: true, Protocol: ours}
		local := netlinkx.Rule{Family: family, Priority: localPriority, Table: unix.RT_TABLE_LOCAL, Protocol: ours}
		guard := netlinkx.Rule{Family: family, Priority: guardPriority, Unreachable: true, Protocol: ours}
		first := netlinkx.Rule{Family: family, Table: unix.RT_TABLE_LOCAL}
		var reqs []netlinkx.Request
		for _, want := range []netlinkx.Rule{vrf, local, guard} {
			if !hasRule(have, want) {
				reqs = append(reqs, netlinkx.RuleRequest{Rule: want})
			}
		}
		if hasRule(have, first) {
			reqs = append(reqs, netlinkx.RuleRequest{Delete: true, Rule: first})
		}
		if err := d.do(reqs); err != nil {
			return err
		}
	}
	return nil
}

// hasRule tells whether there is a rule, whoever made it.
func hasRule(have []netlinkx.Rule, want netlinkx.Rule) bool {
	return slices.ContainsFunc(have, func(r netlinkx.Rule) bool {
		r.Protocol = want.Protocol
		return r == want
	})
}

// do carries out requests and returns all errors, but for deletions of what is not there.
func (d *Driver) do(reqs []netlinkx.Request) error {
	errs := make([]error, len(reqs))
	d.k.Do(reqs, errs)
	for i, r := range reqs {
		if isDelete(r) {
			errs[i] = goneIsFine(errs[i])
		}
	}
	return errors.Join(errs...)
}

func isDelete(r netlinkx.Request) bool {
	switch r := r.(type) {
	case netlinkx.RouteRequest:
		return r.Delete
	case netlinkx.NexthopRequest:
		return r.Delete
	case netlinkx.MPLSRequest:
		return r.Delete
	case netlinkx.AddressRequest:
		return r.Delete
	case netlinkx.RuleRequest:
		return r.Delete
	case netlinkx.Message:
		return r.Op == netlinkx.Delete
	}
	return false
}

// receive makes the kernel take packets with labels.
func (d *Driver) receive() error {
	for _, e := range d.cfg.Encaps {
		if e == encap.MPLS {
			l, ok, err := d.k.LinkByName(d.cfg.MPLSInterface)
			if err == nil && !ok {
				err = fmt.Errorf("mpls_interface: device %s does not exist: want the one on the link of the other nodes", d.cfg.MPLSInterface)
			}
			if err == nil {
				err = d.takeLabels(l.Name)
			}
			if err != nil {
				return err
			}
			d.mplsPort = l.Index
			continue
		}
		if e == encap.MPLSInUDP {
			d.k.LoadModules("fou", "ipip")
			if err := d.k.OpenUDP(); err != nil {
				return fmt.Errorf("encapsulation mpls-udp: want the modules fou and ipip (CONFIG_NET_FOU_IP_TUNNELS): %w", err)
			}
		} else {
			d.k.LoadModules("ip_gre", "ip6_gre")
		}
		if _, err := d.tunnel(tunnelKey{encap: e}); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) takeLabels(device string) error {
	name := "net/mpls/conf/" + device + "/input"
	if value, err := d.k.Sysctl(name); err == nil && value == "1" {
		return nil
	}
	if err := d.k.SetSysctl(name, "1"); err != nil {
		return fmt.Errorf("let device %s take MPLS: %w", device, err)
	}
	return nil
}
