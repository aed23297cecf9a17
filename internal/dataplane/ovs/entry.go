// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"errors"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// maxVLAN is the highest VLAN id.
const maxVLAN = 4094

// checkEntry refuses an entry that no flows can be made for.
func (v *vrf) checkEntry(e *dataplane.Entry) error {
	if e.Kind == dataplane.Redirect {
		return checkClass(e)
	}
	if _, err := encodeEntry(e); err != nil {
		return err
	}
	switch e.Kind {
	case dataplane.LocalPort:
		switch {
		case e.Port == "":
			return errors.New("port has no name")
		case e.OVS.VLAN > maxVLAN:
			return fmt.Errorf("VLAN %d is not valid: want 1 to %d, or 0 for none", e.OVS.VLAN, maxVLAN)
		}
		return nil
	case dataplane.LocalPrefix:
		return checkEnd(e)
	case dataplane.Prefix:
		return v.checkPrefix(e)
	case dataplane.Fallback:
		switch {
		case e.OVS.Number == 0:
			return errors.New("fallback has no port number: want that of a port of the bridge")
		case e.OVS.VLAN > maxVLAN:
			return fmt.Errorf("VLAN %d is not valid: want 1 to %d, or 0 for none", e.OVS.VLAN, maxVLAN)
		case e.MAC.IsZero() || e.Source.IsZero():
			return errors.New("fallback wants two MAC addresses, source and destination")
		}
		return nil
	}
	return fmt.Errorf("entries of kind %q are not for a VRF", e.Kind)
}

func checkEnd(e *dataplane.Entry) error {
	switch {
	case e.Label < minLabel || e.Label > maxLabel:
		return fmt.Errorf("label %d is not valid: want %d to %d", e.Label, minLabel, maxLabel)
	case !e.IP.IsValid() || e.IP.Is4In6() || e.IP.Zone() != "":
		return fmt.Errorf("address %q is not valid: want an IPv4 or IPv6 address", e.IP)
	case !e.Prefix.IsValid() || e.Prefix.Addr().Is4() != e.IP.Is4() || e.Prefix.Masked() != e.Prefix:
		return fmt.Errorf("prefix %q is not valid: want one of the IP version of %s, without host bits", e.Prefix, e.IP)
	case e.Gateway.IsValid() && (e.Gateway.Is4() != e.IP.Is4() || e.Gateway.Zone() != ""):
		return &dataplane.InputError{Field: "gateway_ip", Text: fmt.Sprintf("%q is not valid: want an address of the IP version of %s", e.Gateway, e.IP)}
	case e.MAC.IsZero() || e.MAC.IsMulticast():
		return fmt.Errorf("MAC address %s is not valid: want that of one host", e.MAC)
	}
	return nil
}

func (v *vrf) checkPrefix(e *dataplane.Entry) error {
	p := e.Prefix
	switch {
	case !p.IsValid() || p.Addr().Is4In6() || p != p.Masked():
		return fmt.Errorf("prefix %q is not valid: want an IPv4 or IPv6 prefix without host bits", p)
	case len(e.NextHops) == 0:
		return errors.New("prefix has no next hop: want at least one")
	case len(e.NextHops) > maxHops:
		return fmt.Errorf("%d next hops are too many: want up to %d", len(e.NextHops), maxHops)
	}
	for i := range e.NextHops {
		if err := v.checkHop(&e.NextHops[i]); err != nil {
			return err
		}
	}
	return nil
}

// maxHops is how many next hops a group, and a note, have room for.
const maxHops = 400
