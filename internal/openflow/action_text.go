// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"fmt"
	"strings"
)

// String returns the list as ovs-ofctl writes it, without notes; "drop" for none.
func (a Actions) String() string {
	var words []string
	a.each(func(act []byte) bool {
		if !isNicira(act, nxNote) {
			words = append(words, actionText(act))
		}
		return true
	})
	if len(words) == 0 {
		return "drop"
	}
	return strings.Join(words, ",")
}

func actionText(act []byte) string {
	switch typ := be.Uint16(act); {
	case typ == actOutput:
		return outputText(be.Uint32(act[4:]))
	case typ == actPushVLAN:
		return fmt.Sprintf("push_vlan:%#04x", be.Uint16(act[4:]))
	case typ == actPopVLAN:
		return "pop_vlan"
	case typ == actPushMPLS:
		return fmt.Sprintf("push_mpls:%#04x", be.Uint16(act[4:]))
	case typ == actPopMPLS:
		return fmt.Sprintf("pop_mpls:%#04x", be.Uint16(act[4:]))
	case typ == actDecTTL:
		return "dec_ttl"
	case typ == actGroup:
		return fmt.Sprintf("group:%d", be.Uint32(act[4:]))
	case typ == actSetField:
		return setFieldText(act)
	case typ == actCopyField && len(act) >= 24:
		return "move:" + headerText(act[12:]) + "->" + headerText(act[16:])
	case isNicira(act, nxResubmit):
		return fmt.Sprintf("resubmit(,%d)", act[12])
	case isNicira(act, nxClone):
		return "clone(" + Actions(act[16:]).String() + ")"
	}
	return fmt.Sprintf("action:%x", act)
}

func outputText(port uint32) string {
	switch port {
	case PortInPort:
		return "IN_PORT"
	case PortController:
		return "CONTROLLER"
	case PortLocal:
		return "LOCAL"
	}
	return fmt.Sprintf("output:%d", port)
}

func setFieldText(act []byte) string {
	tlv, _, err := cutOXM(act[4:])
	if err != nil {
		return fmt.Sprintf("action:%x", act)
	}
	f := fieldOf(tlv)
	switch {
	case f == numFields:
		return fmt.Sprintf("action:%x", act)
	case tlv[2]&1 != 0:
		v := tlv[4:]
		return "set_field:" + f.formatMasked(v[:len(v)/2], v[len(v)/2:]) + "->" + f.action()
	case f == VLAN:
		return fmt.Sprintf("set_field:%d->vlan_vid", be.Uint16(tlv[4:]))
	}
	return "set_field:" + f.format(tlv[4:]) + "->" + f.action()
}

// headerText returns the field that an OXM header without value names.
func headerText(b []byte) string {
	if f, ok := byWire[uint32(be.Uint16(b))<<8|uint32(b[2]>>1)]; ok {
		return f.action()
	}
	return fmt.Sprintf("oxm:%x", b[:4])
}
