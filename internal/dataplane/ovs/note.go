// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// noteVersion begins every note. Another version's notes are not read: their
// flows are then not known as entries, and are replaced.
const noteVersion = 1

// Flags of an entry.
const (
	notePlugged = 1
	noteTransit = 2
)

var errNote = errors.New("note is not valid")

var directions = [...]dataplane.Direction{"", dataplane.Both, dataplane.ToPort, dataplane.FromPort}

// encodeID returns the note of an instance's own flow: its id.
func encodeID(id string) []byte { return append([]byte{noteVersion, byte(dataplane.Whole)}, id...) }

// encodeEntry returns the note that holds an entry.
func encodeEntry(e *dataplane.Entry) ([]byte, error) {
	b := []byte{noteVersion, byte(e.Kind)}
	direction := -1
	for i, d := range directions {
		if d == e.Direction {
			direction = i
		}
	}
	switch {
	case direction < 0:
		return nil, fmt.Errorf("direction %q is not valid: want both, to-port or from-port", e.Direction)
	case len(e.Port) > 255 || len(e.OVS.Name) > 255:
		return nil, fmt.Errorf("port name of %d octets is too long: want up to 255", max(len(e.Port), len(e.OVS.Name)))
	case e.Kind == dataplane.Redirect:
		return appendClass(b, e), nil
	case len(e.NextHops) > 0xffff:
		return nil, fmt.Errorf("%d next hops are too many: want up to 65535", len(e.NextHops))
	}
	b = appendText(b, e.Port)
	b = appendText(b, e.OVS.Name)
	flags := byte(0)
	if e.OVS.Plugged {
		flags |= notePlugged
	}
	if e.Transit {
		flags |= noteTransit
	}
	b = append(b, flags, byte(direction))
	b = binary.BigEndian.AppendUint32(b, e.OVS.Number)
	b = binary.BigEndian.AppendUint16(b, e.OVS.VLAN)
	b = append(b, e.MAC[:]...)
	b = append(b, e.Source[:]...)
	b = binary.BigEndian.AppendUint32(b, e.Label)
	b = appendAddr(b, e.IP)
	b = appendAddr(b, e.Gateway)
	b = appendAddr(b, e.Prefix.Addr())
	b = append(b, byte(e.Prefix.Bits()))
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.NextHops)))
	for _, nh := range e.NextHops {
		b = appendAddr(b, nh.Addr)
		b = binary.BigEndian.AppendUint32(b, nh.Label)
		b = binary.BigEndian.AppendUint16(b, uint16(nh.Encap))
		b = binary.BigEndian.AppendUint32(b, nh.Order)
		b = append(b, nh.RouterMAC[:]...)
	}
	return b, nil
}

func appendText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

func appendAddr(b []byte, a netip.Addr) []byte {
	v := a.AsSlice()
	return append(append(b, byte(len(v))), v...)
}

// reader reads a note; bad is set at its first error.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) octet() byte       { return r.take(1)[0] }
func (r *reader) u16() uint16       { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32       { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) text() string      { return string(r.take(int(r.octet()))) }
func (r *reader) mac() ethernet.MAC { return ethernet.MAC(r.take(6)) }
func (r *reader) finished() bool    { return !r.bad && len(r.b) == 0 }
func (r *reader) kind(k dataplane.Kind) bool {
	return r.octet() == noteVersion && r.octet() == byte(k) && !r.bad
}

func (r *reader) addr() netip.Addr {
	n := int(r.octet())
	if n == 0 {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(r.take(n))
	r.bad = r.bad || !ok
	return a
}

// decodeID reads the note of an instance's own flow.
func decodeID(note []byte) (string, bool) {
	r := reader{b: note}
	if !r.kind(dataplane.Whole) {
		return "", false
	}
	return string(r.b), true
}

// decodeEntry reads the note that holds an entry.
func decodeEntry(note []byte) (e dataplane.Entry, err error) {
	r := reader{b: note}
	if r.octet() != noteVersion {
		return e, errNote
	}
	if e.Kind = dataplane.Kind(r.octet()); e.Kind == dataplane.Redirect {
		if e.Class, e.Target = r.class(); !r.finished() {
			return e, errNote
		}
		return e, nil
	}
	e.Port, e.OVS.Name = r.text(), r.text()
	flags := r.octet()
	e.OVS.Plugged, e.Transit = flags&notePlugged != 0, flags&noteTransit != 0
	direction := r.octet()
	if int(direction) >= len(directions) {
		return e, errNote
	}
	e.Direction = directions[direction]
	e.OVS.Number, e.OVS.VLAN = r.u32(), r.u16()
	e.MAC, e.Source, e.Label = r.mac(), r.mac(), r.u32()
	e.IP, e.Gateway = r.addr(), r.addr()
	addr, bits := r.addr(), r.octet()
	if addr.IsValid() {
		e.Prefix = netip.PrefixFrom(addr, int(bits))
	}
	n := int(r.u16())
	if r.bad || n > len(r.b) {
		return e, errNote
	}
	for range n {
		e.NextHops = append(e.NextHops, dataplane.NextHop{
			Addr: r.addr(), Label: r.u32(), Encap: encap.Type(r.u16()), Order: r.u32(), RouterMAC: r.mac(),
		})
	}
	if !r.finished() {
		return e, errNote
	}
	return e, nil
}
