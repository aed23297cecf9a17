// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"golang.org/x/sys/unix"
)

// rtextSkipStats is RTEXT_FILTER_SKIP_STATS: leave out the counters.
const rtextSkipStats = 1 << 3

// Link is a network device as far as EVPN cares.
type Link struct {
	Index int
	// Master is the index of the bridge or other master, 0 for none.
	Master int
	MTU    int
	Group  uint32
	Up     bool
	// Carrier is set when the device is up and its other end is there.
	Carrier bool
	// Loopback is set for lo, Ethernet for devices with Ethernet frames (ARPHRD_ETHER).
	Loopback bool
	Ethernet bool
	Name     string
	Alias    string
	// Kind is "bridge", "vxlan", "veth", …; empty for hardware and loopback.
	Kind string
	// SlaveKind is the kind of the master, "bridge" for bridge ports.
	SlaveKind string
	// NoAddrGen is set when the device makes itself no IPv6 link-local address.
	NoAddrGen bool
	Bridge    BridgeOptions // of Kind "bridge"
	VXLAN     VXLANOptions  // of Kind "vxlan"
	Table     uint32        // of Kind "vrf"
	Port      PortFlags     // of SlaveKind "bridge"
}

// BridgeOptions are settings of a bridge.
type BridgeOptions struct {
	STP            bool
	MulticastSnoop bool
	// ForwardDelay is in units of 10 ms.
	ForwardDelay uint32
}

// VXLANOptions are settings of a VXLAN device. All but Local are fixed at creation.
type VXLANOptions struct {
	VNI   uint32
	Local netip.Addr
	// Port is the UDP port, both ways; 0 at creation takes the kernel's default.
	Port     uint16
	Learning bool
	// ZeroChecksum6 sends and accepts UDP over IPv6 without checksum.
	ZeroChecksum6 bool
	// External is set when tunnel keys come from the packets' metadata.
	External bool
}

// PortFlags are settings of a bridge port.
type PortFlags struct {
	Learning      bool
	NeighSuppress bool
}

// LinkRequest makes a device, or changes one. Members that are nil or zero stay as they are.
type LinkRequest struct {
	// Index names the device to change; 0 makes a new one.
	Index int
	// Name and Kind are for a new device.
	Name string
	Kind string
	// Bridge and VXLAN go with Kind; Bridge may be changed later.
	Bridge *BridgeOptions
	VXLAN  *VXLANOptions
	// Table goes with Kind "vrf", and cannot be changed.
	Table uint32
	Alias *string
	Group *uint32
	MTU   int
	// Address is the device's own MAC; a new device without gets a random one.
	Address ethernet.MAC
	// Master is the new master, 0 for none.
	Master *int
	Port   *PortFlags
	Up     bool
	// NoAddrGen stops the automatic IPv6 link-local address.
	NoAddrGen bool
	// IPv4 sets per-device settings, numbered as IPV4_DEVCONF_ of linux/ip.h.
	IPv4 map[uint16]uint32
}

// String says what the request does, for error texts.
func (r *LinkRequest) String() string {
	if r.Index == 0 {
		return fmt.Sprintf("add %s device %s", r.Kind, r.Name)
	}
	if r.Name != "" {
		return "set device " + r.Name
	}
	return fmt.Sprintf("set device #%d", r.Index)
}

// Link carries out a request.
func (c *Conn) Link(r *LinkRequest) error {
	var flags uint16
	if r.Index == 0 {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	return c.refused(r, c.request(unix.RTM_NEWLINK, flags, r.encode(), ignore))
}

// deletion is the request to delete a device.
type deletion int

func (d deletion) String() string { return fmt.Sprintf("delete device #%d", int(d)) }

// DeleteLink deletes a device with all that hangs on it.
func (c *Conn) DeleteLink(index int) error {
	return c.refused(deletion(index), c.request(unix.RTM_DELLINK, 0, ifinfo(index, 0, 0), ignore))
}

func ignore(uint16, []byte) error { return nil }

func (c *Conn) refused(request fmt.Stringer, err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *Error:
		e.Request = request
		return e
	default:
		return fmt.Errorf("%s: %w", request, err)
	}
}

func ifinfo(index int, flags, change uint32) []byte {
	b := make([]byte, 0, 256)
	b = append(b, unix.AF_UNSPEC, 0, 0, 0)
	b = native.AppendUint32(b, uint32(index))
	b = native.AppendUint32(b, flags)
	return native.AppendUint32(b, change)
}

func (r *LinkRequest) encode() []byte {
	var up uint32
	if r.Up {
		up = unix.IFF_UP
	}
	b := ifinfo(r.Index, up, up)
	if r.Index == 0 {
		b = appendAttrString(b, unix.IFLA_IFNAME, r.Name)
	}
	if r.Alias != nil {
		b = appendAttr(b, unix.IFLA_IFALIAS, []byte(*r.Alias))
	}
	if r.Group != nil {
		b = appendAttr32(b, unix.IFLA_GROUP, *r.Group)
	}
	if r.MTU != 0 {
		b = appendAttr32(b, unix.IFLA_MTU, uint32(r.MTU))
	}
	if !r.Address.IsZero() {
		b = appendAttr(b, unix.IFLA_ADDRESS, r.Address[:])
	}
	if r.Master != nil {
		b = appendAttr32(b, unix.IFLA_MASTER, uint32(*r.Master))
	}
	return r.appendAFSpec(r.appendLinkInfo(b))
}

func (r *LinkRequest) appendLinkInfo(b []byte) []byte {
	if r.Kind == "" && r.Port == nil {
		return b
	}
	return appendNested(b, unix.IFLA_LINKINFO, func(b []byte) []byte {
		if r.Kind != "" {
			b = appendAttrString(b, unix.IFLA_INFO_KIND, r.Kind)
		}
		if r.Bridge != nil {
			b = appendNested(b, unix.IFLA_INFO_DATA, r.Bridge.encode)
		}
		if r.VXLAN != nil {
			b = appendNested(b, unix.IFLA_INFO_DATA, r.VXLAN.encode)
		}
		if r.Table != 0 {
			b = appendNested(b, unix.IFLA_INFO_DATA, func(b []byte) []byte { return appendAttr32(b, vrfTable, r.Table) })
		}
		if r.Port != nil {
			b = appendAttrString(b, unix.IFLA_INFO_SLAVE_KIND, "bridge")
			b = appendNested(b, unix.IFLA_INFO_SLAVE_DATA, r.Port.encode)
		}
		return b
	})
}

func (r *LinkRequest) appendAFSpec(b []byte) []byte {
	if !r.NoAddrGen && len(r.IPv4) == 0 {
		return b
	}
	return appendNested(b, unix.IFLA_AF_SPEC, func(b []byte) []byte {
		if len(r.IPv4) > 0 {
			b = appendNested(b, unix.AF_INET, func(b []byte) []byte {
				return appendNested(b, unix.IFLA_INET_CONF, func(b []byte) []byte {
					for setting, v := range r.IPv4 {
						b = appendAttr32(b, setting, v)
					}
					return b
				})
			})
		}
		if r.NoAddrGen {
			b = appendNested(b, unix.AF_INET6, func(b []byte) []byte {
				return appendAttr8(b, unix.IFLA_INET6_ADDR_GEN_MODE, addrGenNone)
			})
		}
		return b
	})
}

// vrfTable is IFLA_VRF_TABLE.
const vrfTable = 1

// addrGenNone is IN6_ADDR_GEN_MODE_NONE.
const addrGenNone = 1

func (o *BridgeOptions) encode(b []byte) []byte {
	b = appendAttr32(b, unix.IFLA_BR_FORWARD_DELAY, o.ForwardDelay)
	b = appendAttr32(b, unix.IFLA_BR_STP_STATE, uint32(bit(o.STP)))
	return appendAttr8(b, unix.IFLA_BR_MCAST_SNOOPING, bit(o.MulticastSnoop))
}

func (o *VXLANOptions) encode(b []byte) []byte {
	b = appendAttr32(b, unix.IFLA_VXLAN_ID, o.VNI)
	switch {
	case o.Local.Is4():
		ip := o.Local.As4()
		b = appendAttr(b, unix.IFLA_VXLAN_LOCAL, ip[:])
	case o.Local.Is6():
		ip := o.Local.As16()
		b = appendAttr(b, unix.IFLA_VXLAN_LOCAL6, ip[:])
	}
	if o.Port != 0 {
		b = appendAttr(b, unix.IFLA_VXLAN_PORT, []byte{byte(o.Port >> 8), byte(o.Port)})
	}
	b = appendAttr8(b, unix.IFLA_VXLAN_LEARNING, bit(o.Learning))
	b = appendAttr8(b, unix.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, bit(o.ZeroChecksum6))
	return appendAttr8(b, unix.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, bit(o.ZeroChecksum6))
}

func (f *PortFlags) encode(b []byte) []byte {
	b = appendAttr8(b, unix.IFLA_BRPORT_LEARNING, bit(f.Learning))
	return appendAttr8(b, unix.IFLA_BRPORT_NEIGH_SUPPRESS, bit(f.NeighSuppress))
}

func bit(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}
