// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"fmt"
	"net/netip"
	"time"
)

// Bounds of the intervals in a Config.
const (
	MinInterval = 10 * time.Millisecond
	MaxInterval = time.Minute
)

const (
	fullTTL   = 255
	maxDevice = 15 // octets in an interface name
)

// Config describes a session.
type Config struct {
	// Local and Remote are unicast addresses of one family. A link-local Remote
	// needs a zone or Device; its zone is taken for Device when that is "".
	Local, Remote netip.Addr
	// Multihop is RFC 5883: UDP port 4784 instead of 3784.
	Multihop bool
	// MinTTL is the lowest TTL or hop limit of received packets, with Multihop only;
	// 0 takes any. Both sides send 255, so 254 is one router on the path. Over a
	// single hop it is 255 (RFC 5881 §5).
	MinTTL uint8
	// Device is the interface or VRF that the session is bound to; "": none.
	Device string
	// MinTx is the time between packets that we would like to send, MinRx the one
	// that we can receive: MinInterval to MaxInterval. The slower side decides.
	MinTx, MinRx time.Duration
	// Multiplier is for how many intervals the other side waits for a packet of
	// ours before the session is down; 1 to 255.
	Multiplier uint8
}

// Validate tells the first field that is out of bounds, its value and what is
// allowed.
func (c Config) Validate() error {
	for _, a := range []struct {
		field string
		addr  netip.Addr
	}{{"local", c.Local}, {"remote", c.Remote}} {
		if !a.addr.IsValid() || a.addr.IsUnspecified() || a.addr.IsMulticast() {
			return fmt.Errorf("%s address %s: a unicast address is needed", a.field, a.addr)
		}
	}
	local, remote := c.Local.Unmap(), c.Remote.Unmap()
	switch {
	case local.Is4() != remote.Is4():
		return fmt.Errorf("remote address %s: an address of the family of the local one, %s, is needed", c.Remote, c.Local)
	case local.WithZone("") == remote.WithZone(""):
		return fmt.Errorf("remote address %s: another than the local one is needed", c.Remote)
	case remote.Is6() && remote.IsLinkLocalUnicast() && c.Device == "" && remote.Zone() == "" && local.Zone() == "":
		return fmt.Errorf("remote address %s: link-local needs a zone or a device", c.Remote)
	case len(c.Device) > maxDevice:
		return fmt.Errorf("device %q: at most %d octets are allowed", c.Device, maxDevice)
	case !c.Multihop && c.MinTTL != 0 && c.MinTTL != fullTTL:
		return fmt.Errorf("minimum TTL %d: 0 or %d is allowed over a single hop", c.MinTTL, fullTTL)
	case c.Multiplier == 0:
		return fmt.Errorf("multiplier 0: 1 to 255 is allowed")
	}
	for _, i := range []struct {
		field string
		value time.Duration
	}{{"transmit", c.MinTx}, {"receive", c.MinRx}} {
		if i.value < MinInterval || i.value > MaxInterval {
			return fmt.Errorf("minimum %s interval %v: %v to %v is allowed", i.field, i.value, MinInterval, MaxInterval)
		}
	}
	return nil
}

// normal returns the configuration with what is implied: no mapped addresses,
// MinTTL in force, intervals in the microseconds of the wire, and link-local
// addresses bound to their interface.
func (c Config) normal() Config {
	c.Local, c.Remote = c.Local.Unmap(), c.Remote.Unmap()
	if !c.Multihop {
		c.MinTTL = fullTTL
	}
	c.MinTx, c.MinRx = c.MinTx.Truncate(time.Microsecond), c.MinRx.Truncate(time.Microsecond)
	if !c.Remote.Is6() {
		return c
	}
	zone := c.Remote.Zone()
	if zone == "" {
		zone = c.Local.Zone()
	}
	if zone = interfaceName(zone); c.Device == "" {
		c.Device = zone
	} else if zone == "" {
		zone = c.Device
	}
	c.Local, c.Remote = linkZone(c.Local, zone), linkZone(c.Remote, zone)
	return c
}

// linkZone gives link-local addresses a zone, and takes that of others.
func linkZone(a netip.Addr, zone string) netip.Addr {
	if !a.IsLinkLocalUnicast() {
		zone = ""
	}
	return a.WithZone(zone)
}
