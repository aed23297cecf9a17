// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Action types (OFPAT_*), and those of Nicira (NXAST_*).
const (
	actOutput       = 0
	actPushVLAN     = 17
	actPopVLAN      = 18
	actPushMPLS     = 19
	actPopMPLS      = 20
	actGroup        = 22
	actDecTTL       = 24
	actSetField     = 25
	actCopyField    = 28
	actExperimenter = 0xffff

	nicira     = 0x2320
	nxNote     = 8
	nxResubmit = 14
	nxClone    = 42
	nxInPort   = 0xfff8 // OFPP_IN_PORT in 16 bits: keep the port
)

// maxNote is the longest note.
const maxNote = 32768

// Actions is a list of actions in order; the empty list drops. Each method
// returns the list with one more.
type Actions string

// Output sends the packet to a port; PortInPort is where it came from.
func (a Actions) Output(port uint32) Actions {
	b := be.AppendUint32([]byte{0, actOutput, 0, 16}, port)
	return a + Actions(append(b, 0, 0, 0, 0, 0, 0, 0, 0))
}

func (a Actions) short(typ uint8, ethType uint16) Actions {
	b := be.AppendUint16([]byte{0, typ, 0, 8}, ethType)
	return a + Actions(append(b, 0, 0))
}

// PushVLAN adds a tag with an id.
func (a Actions) PushVLAN(vid uint16) Actions {
	return a.short(actPushVLAN, 0x8100).Set(VLAN, uint64(vlanPresent|vid&0xfff))
}

// PopVLAN removes the outer tag.
func (a Actions) PopVLAN() Actions { return a.short(actPopVLAN, 0) }

// PushMPLS adds a label.
func (a Actions) PushMPLS(label uint32) Actions {
	return a.short(actPushMPLS, 0x8847).Set(MPLSLabel, uint64(label))
}

// PopMPLS removes the label stack entry; what is below has that Ethernet type.
func (a Actions) PopMPLS(ethType uint16) Actions { return a.short(actPopMPLS, ethType) }

// DecTTL lowers TTL or hop limit, and drops a packet that has none left.
func (a Actions) DecTTL() Actions { return a.short(actDecTTL, 0) }

// Group sends the packet through a group.
func (a Actions) Group(id uint32) Actions {
	return a + Actions(be.AppendUint32([]byte{0, actGroup, 0, 8}, id))
}

func (a Actions) setField(tlv []byte) Actions {
	n := padded(4 + len(tlv))
	b := append([]byte{0, actSetField, byte(n >> 8), byte(n)}, tlv...)
	return a + Actions(pad(b, 0))
}

// Set gives a field a value.
func (a Actions) Set(f Field, v uint64) Actions { return a.setField(f.value(nil, v)) }

// SetMAC gives a field an Ethernet address.
func (a Actions) SetMAC(f Field, m ethernet.MAC) Actions {
	return a.setField(append(f.oxm(nil, false, 6), m[:]...))
}

// SetAddr gives a field an IP address of the field's family.
func (a Actions) SetAddr(f Field, addr netip.Addr) Actions {
	v := addr.AsSlice()
	return a.setField(append(f.oxm(nil, false, len(v)), v...))
}

// Move copies a whole field to one of the same size.
func (a Actions) Move(from, to Field) Actions {
	b := []byte{0, actCopyField, 0, 24}
	b = be.AppendUint16(b, 8*uint16(fields[from].size))
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = from.oxm(b, false, int(fields[from].size))
	b = to.oxm(b, false, int(fields[to].size))
	return a + Actions(pad(b, 0))
}

func niciraHeader(length int, subtype uint16) []byte {
	b := []byte{0xff, 0xff, byte(length >> 8), byte(length)}
	b = be.AppendUint32(b, nicira)
	return be.AppendUint16(b, subtype)
}

// Resubmit looks the packet up in another table and then goes on.
func (a Actions) Resubmit(table uint8) Actions {
	b := be.AppendUint16(niciraHeader(16, nxResubmit), nxInPort)
	return a + Actions(append(b, table, 0, 0, 0))
}

// Note does nothing; it keeps up to 32768 octets with the flow. Their length
// goes in front, because the switch pads a note.
func (a Actions) Note(data []byte) Actions {
	if len(data) > maxNote {
		data = data[:maxNote]
	}
	n := padded(12 + len(data))
	b := be.AppendUint16(niciraHeader(n, nxNote), uint16(len(data)))
	return a + Actions(pad(append(b, data...), 0))
}

// Clone does inner on a copy of the packet.
func (a Actions) Clone(inner Actions) Actions {
	b := append(niciraHeader(16+len(inner), nxClone), 0, 0, 0, 0, 0, 0)
	return a + Actions(b) + inner
}

// cutAction cuts the first action off. Its length is a multiple of 8.
func cutAction(b []byte) (act, rest []byte, err error) {
	if len(b) < 8 {
		return nil, nil, errShort
	}
	n := int(be.Uint16(b[2:]))
	if n < 8 || n%8 != 0 || n > len(b) {
		return nil, nil, fmt.Errorf("action length %d is not valid: want a multiple of 8 up to %d", n, len(b))
	}
	return b[:n], b[n:], nil
}

// parseActions checks that b is a list of actions.
func parseActions(b []byte) (Actions, error) {
	for rest := b; len(rest) > 0; {
		var err error
		if _, rest, err = cutAction(rest); err != nil {
			return "", err
		}
	}
	return Actions(b), nil
}

// each calls f with each action until it returns false.
func (a Actions) each(f func(act []byte) bool) {
	b := []byte(a)
	for len(b) > 0 {
		act, rest, err := cutAction(b)
		if err != nil || !f(act) {
			return
		}
		b = rest
	}
}

// NoteOf returns what the first note of the list keeps.
func (a Actions) NoteOf() (data []byte, ok bool) {
	a.each(func(act []byte) bool {
		if isNicira(act, nxNote) && int(be.Uint16(act[10:])) <= len(act)-12 {
			data, ok = act[12:12+int(be.Uint16(act[10:]))], true
		}
		return !ok
	})
	return data, ok
}

// GroupOf returns the first group that the list sends to.
func (a Actions) GroupOf() (id uint32, ok bool) {
	a.each(func(act []byte) bool {
		if be.Uint16(act) == actGroup {
			id, ok = be.Uint32(act[4:]), true
		}
		return !ok
	})
	return id, ok
}

// ValueOf returns the value that the first action on a field sets, if one does.
func (a Actions) ValueOf(f Field) (v uint64, ok bool) {
	a.each(func(act []byte) bool {
		if be.Uint16(act) == actSetField {
			if tlv, _, err := cutOXM(act[4:]); err == nil && fieldOf(tlv) == f {
				v, ok = Match(tlv).Value(f)
			}
		}
		return !ok
	})
	return v, ok
}

// DstMAC returns the Ethernet address that the list first sets as destination.
func (a Actions) DstMAC() (m ethernet.MAC, ok bool) {
	a.each(func(act []byte) bool {
		if be.Uint16(act) != actSetField {
			return true
		}
		if tlv, _, err := cutOXM(act[4:]); err == nil && fieldOf(tlv) == EthDst && tlv[2]&1 == 0 {
			m, ok = ethernet.MAC(tlv[4:]), true
		}
		return !ok
	})
	return m, ok
}

// Resubmits tells whether the list looks the packet up in a table.
func (a Actions) Resubmits(table uint8) (yes bool) {
	a.each(func(act []byte) bool {
		yes = yes || isNicira(act, nxResubmit) && act[12] == table
		return !yes
	})
	return yes
}

func isNicira(act []byte, subtype uint16) bool {
	return be.Uint16(act) == actExperimenter && len(act) >= 16 && be.Uint32(act[4:]) == nicira && be.Uint16(act[8:]) == subtype
}
