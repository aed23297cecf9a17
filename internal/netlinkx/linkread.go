// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// LinkByName finds a device by its name; ok is false when there is none.
func (c *Conn) LinkByName(name string) (l Link, ok bool, err error) {
	if len(name) >= unix.IFNAMSIZ || name == "" {
		return Link{}, false, nil // no device can have that name, and the kernel would call it invalid
	}
	l, ok, err = c.getLink(appendAttrString(ifinfo(0, 0, 0), unix.IFLA_IFNAME, name))
	if err != nil {
		return l, ok, fmt.Errorf("find device %s: %w", name, err)
	}
	return l, ok, nil
}

// LinkByIndex finds a device by its index; ok is false when there is none.
func (c *Conn) LinkByIndex(index int) (l Link, ok bool, err error) {
	l, ok, err = c.getLink(ifinfo(index, 0, 0))
	if err != nil {
		return l, ok, fmt.Errorf("find device #%d: %w", index, err)
	}
	return l, ok, nil
}

func (c *Conn) getLink(body []byte) (l Link, ok bool, err error) {
	body = appendAttr32(body, unix.IFLA_EXT_MASK, rtextSkipStats)
	err = c.request(unix.RTM_GETLINK, 0, body, func(typ uint16, b []byte) error {
		var err error
		l, err = parseLink(b)
		ok = err == nil && typ == unix.RTM_NEWLINK
		return err
	})
	if errors.Is(err, unix.ENODEV) {
		return Link{}, false, nil
	}
	return l, ok, err
}

// Links lists the devices whose master is the device with index master, or all
// devices when it is 0.
func (c *Conn) Links(master int) ([]Link, error) {
	body := appendAttr32(ifinfo(0, 0, 0), unix.IFLA_EXT_MASK, rtextSkipStats)
	if master != 0 {
		body = appendAttr32(body, unix.IFLA_MASTER, uint32(master))
	}
	var list []Link
	err := c.dump(unix.RTM_GETLINK, body, func() { list = list[:0] }, func(typ uint16, b []byte) error {
		l, err := parseLink(b)
		if err == nil && typ == unix.RTM_NEWLINK && (master == 0 || l.Master == master) {
			list = append(list, l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	return list, nil
}

// parseLink reads the body of an RTM_NEWLINK message.
func parseLink(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, errShort
	}
	flags := native.Uint32(b[8:])
	l := Link{
		Index: int(int32(native.Uint32(b[4:]))),
		Up:    flags&unix.IFF_UP != 0, Carrier: flags&unix.IFF_UP != 0 && flags&unix.IFF_LOWER_UP != 0, Loopback: flags&unix.IFF_LOOPBACK != 0,
		Ethernet: native.Uint16(b[2:]) == unix.ARPHRD_ETHER,
	}
	a := attrs{b: b[unix.SizeofIfInfomsg:]}
	for a.next() && a.err == nil {
		switch a.typ {
		case unix.IFLA_IFNAME:
			l.Name = a.string()
		case unix.IFLA_IFALIAS:
			l.Alias = a.string()
		case unix.IFLA_MTU:
			l.MTU = int(a.uint32())
		case unix.IFLA_MASTER:
			l.Master = int(a.uint32())
		case unix.IFLA_GROUP:
			l.Group = a.uint32()
		case unix.IFLA_LINKINFO:
			a.err = l.parseLinkInfo(a.data)
		case unix.IFLA_AF_SPEC:
			a.err = l.parseAFSpec(a.data)
		}
	}
	return l, a.err
}

func (l *Link) parseLinkInfo(b []byte) error {
	var data, slave []byte
	a := attrs{b: b}
	for a.next() {
		switch a.typ {
		case unix.IFLA_INFO_KIND:
			l.Kind = a.string()
		case unix.IFLA_INFO_DATA:
			data = a.data
		case unix.IFLA_INFO_SLAVE_KIND:
			l.SlaveKind = a.string()
		case unix.IFLA_INFO_SLAVE_DATA:
			slave = a.data
		}
	}
	err := a.err
	switch l.Kind {
	case "bridge":
		err = errors.Join(err, l.Bridge.parse(data))
	case "vxlan":
		err = errors.Join(err, l.VXLAN.parse(data))
	case "vrf":
		vrf := attrs{b: data}
		for vrf.next() {
			if vrf.typ == vrfTable {
				l.Table = vrf.uint32()
			}
		}
		err = errors.Join(err, vrf.err)
	}
	if l.SlaveKind == "bridge" {
		err = errors.Join(err, l.Port.parse(slave))
	}
	return err
}

func (l *Link) parseAFSpec(b []byte) error {
	families := attrs{b: b}
	for families.next() && families.err == nil {
		if families.typ != unix.AF_INET6 {
			continue
		}
		a := attrs{b: families.data}
		for a.next() {
			if a.typ == unix.IFLA_INET6_ADDR_GEN_MODE {
				l.NoAddrGen = a.uint8() == addrGenNone
			}
		}
		families.err = a.err
	}
	return families.err
}

func (o *BridgeOptions) parse(b []byte) error {
	a := attrs{b: b}
	for a.next() {
		switch a.typ {
		case unix.IFLA_BR_STP_STATE:
			o.STP = a.uint32() != 0
		case unix.IFLA_BR_MCAST_SNOOPING:
			o.MulticastSnoop = a.uint8() != 0
		case unix.IFLA_BR_FORWARD_DELAY:
			o.ForwardDelay = a.uint32()
		}
	}
	return a.err
}

func (o *VXLANOptions) parse(b []byte) error {
	a := attrs{b: b}
	for a.next() {
		switch a.typ {
		case unix.IFLA_VXLAN_ID:
			o.VNI = a.uint32()
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			o.Local = a.addr()
		case unix.IFLA_VXLAN_PORT:
			if len(a.data) >= 2 {
				o.Port = binary.BigEndian.Uint16(a.data)
			}
		case unix.IFLA_VXLAN_LEARNING:
			o.Learning = a.uint8() != 0
		case unix.IFLA_VXLAN_UDP_ZERO_CSUM6_RX:
			o.ZeroChecksum6 = a.uint8() != 0
		case unix.IFLA_VXLAN_COLLECT_METADATA:
			o.External = a.uint8() != 0
		}
	}
	return a.err
}

func (f *PortFlags) parse(b []byte) error {
	a := attrs{b: b}
	for a.next() {
		switch a.typ {
		case unix.IFLA_BRPORT_LEARNING:
			f.Learning = a.uint8() != 0
		case unix.IFLA_BRPORT_NEIGH_SUPPRESS:
			f.NeighSuppress = a.uint8() != 0
		}
	}
	return a.err
}
