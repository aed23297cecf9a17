// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

const (
	// neighProtocol marks our neighbours: the routing protocol number of the original bagpipe.
	neighProtocol = 19
	maxVNI        = 1<<24 - 1
)

func validVNI(vni uint32) bool { return vni >= 1 && vni <= maxVNI }

// planner turns changes into netlink messages. It does no I/O.
type planner struct {
	// bridge and vxlan are device indexes.
	bridge, vxlan int
	// local is our tunnel end point.
	local netip.Addr
}

// plan appends the messages for a change to dst. port is the index of the
// entry's device, for LocalMAC. What cannot be installed is not there, so that
// deleting it takes no message.
func (p *planner) plan(dst []netlinkx.Message, c dataplane.Change, port int) ([]netlinkx.Message, error) {
	out, err := p.messages(dst, &c, port)
	if c.Delete && err != nil {
		return dst, nil
	}
	return out, err
}

func (p *planner) messages(dst []netlinkx.Message, c *dataplane.Change, port int) ([]netlinkx.Message, error) {
	e := &c.Entry
	switch e.Kind {
	case dataplane.LocalMAC:
		return p.localMAC(dst, c.Delete, e.MAC, port)
	case dataplane.RemoteMAC:
		return p.remoteMAC(dst, c.Delete, e)
	case dataplane.Neighbour:
		return p.neighbour(dst, c.Delete, e)
	case dataplane.Flood:
		return p.flood(dst, c.Delete, e)
	default:
		return dst, fmt.Errorf("E-VPN has no entries of kind %s", e.Kind)
	}
}

func (p *planner) localMAC(dst []netlinkx.Message, del bool, mac ethernet.MAC, port int) ([]netlinkx.Message, error) {
	if err := checkMAC(mac); err != nil {
		return dst, err
	}
	table := uint8(unix.NTF_MASTER)
	if port == p.bridge {
		table = unix.NTF_SELF // frames go up to the bridge device
	}
	return append(dst, fdb(del, mac, port, table)), nil
}

// remoteMAC is one message for the entries in the bridge and in the VXLAN
// device. Deletion takes two, since the kernel gives up when the first is missing:
// a MAC that moved to a local port has only the second. It is by MAC, so that it
// does not matter whether the caller knows the right next hop.
func (p *planner) remoteMAC(dst []netlinkx.Message, del bool, e *dataplane.Entry) ([]netlinkx.Message, error) {
	if err := checkMAC(e.MAC); err != nil {
		return dst, err
	}
	if del {
		return append(dst,
			fdb(true, e.MAC, p.vxlan, unix.NTF_MASTER),
			fdb(true, e.MAC, p.vxlan, unix.NTF_SELF)), nil
	}
	nh, err := p.nextHop(e)
	if err != nil {
		return dst, err
	}
	m := fdb(false, e.MAC, p.vxlan, unix.NTF_SELF|unix.NTF_MASTER)
	m.Addr, m.VNI = nh.Addr, nh.Label
	return append(dst, m), nil
}

// neighbour is kept on the bridge device: there the bridge looks for ARP and ND
// suppression.
func (p *planner) neighbour(dst []netlinkx.Message, del bool, e *dataplane.Entry) ([]netlinkx.Message, error) {
	if !e.IP.IsValid() || e.IP.Is4In6() || e.IP.IsUnspecified() || e.IP.IsMulticast() {
		return dst, fmt.Errorf("neighbour address %q is not a unicast address", e.IP)
	}
	m := netlinkx.Message{Op: netlinkx.Delete}
	m.Family, m.Index, m.Addr = unix.AF_INET, p.bridge, e.IP.WithZone("")
	if e.IP.Is6() {
		m.Family = unix.AF_INET6
	}
	if del {
		return append(dst, m), nil
	}
	if err := checkMAC(e.MAC); err != nil {
		return dst, err
	}
	m.Op, m.MAC, m.Protocol = netlinkx.Replace, e.MAC, neighProtocol
	m.Flags, m.State = unix.NTF_EXT_LEARNED, unix.NUD_NOARP
	return append(dst, m), nil
}

// flood is one far end of the all-zero MAC, where the VXLAN device sends what it
// has no entry for.
func (p *planner) flood(dst []netlinkx.Message, del bool, e *dataplane.Entry) ([]netlinkx.Message, error) {
	nh, err := p.nextHop(e)
	if err != nil {
		return dst, err
	}
	m := fdb(del, ethernet.MAC{}, p.vxlan, unix.NTF_SELF)
	if !del {
		m.Op = netlinkx.Append
	}
	m.Addr, m.VNI = nh.Addr, nh.Label
	return append(dst, m), nil
}

// fdb returns a message without far end. NUD_PERMANENT keeps the VXLAN device
// from ageing the entry; the bridge does not age what is extern_learn.
func fdb(del bool, mac ethernet.MAC, dev int, table uint8) netlinkx.Message {
	m := netlinkx.Message{Op: netlinkx.Replace}
	m.Family, m.Index, m.MAC, m.Flags = unix.AF_BRIDGE, dev, mac, table
	if del {
		m.Op = netlinkx.Delete
		return m
	}
	m.Flags |= unix.NTF_EXT_LEARNED
	m.State = unix.NUD_PERMANENT
	return m
}

// nextHop returns the one next hop of an entry, if a VXLAN device can use it.
func (p *planner) nextHop(e *dataplane.Entry) (dataplane.NextHop, error) {
	if len(e.NextHops) != 1 {
		return dataplane.NextHop{}, fmt.Errorf("entry has %d next hops: want 1", len(e.NextHops))
	}
	nh := e.NextHops[0]
	switch {
	case nh.Encap != encap.VXLAN && nh.Encap != encap.Default:
		return nh, fmt.Errorf("next hop %s wants encapsulation %s: only VXLAN is there", nh.Addr, nh.Encap)
	case !nh.Addr.IsValid() || nh.Addr.IsUnspecified() || nh.Addr.IsMulticast():
		return nh, fmt.Errorf("next hop %q is not a unicast address", nh.Addr)
	case nh.Addr.Is4() != p.local.Is4():
		return nh, fmt.Errorf("next hop %s is not of the address family of the local address %s", nh.Addr, p.local)
	case !validVNI(nh.Label):
		return nh, fmt.Errorf("next hop %s has VNI %d: want 1 to %d", nh.Addr, nh.Label, maxVNI)
	}
	return nh, nil
}

func checkMAC(mac ethernet.MAC) error {
	if mac.IsZero() || mac.IsMulticast() {
		return fmt.Errorf("MAC address %s is not a unicast address", mac)
	}
	return nil
}
