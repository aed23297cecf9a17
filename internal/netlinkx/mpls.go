// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"encoding/binary"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"golang.org/x/sys/unix"
)

// MPLSRoute sends packets that arrive with Label, without it, to MAC on the
// device with that index.
type MPLSRoute struct {
	Label    uint32
	Index    int
	MAC      ethernet.MAC
	Protocol uint8
}

// MPLSRequest makes or replaces an MPLS route, or deletes the one of its Label. With
// New it is made only if the label has none.
type MPLSRequest struct {
	Delete, New bool
	MPLSRoute
}

// String returns the request in the words of ip-route(8), with the device as its index.
func (m MPLSRequest) String() string {
	if m.Delete {
		return fmt.Sprintf("mpls route del %d", m.Label)
	}
	op := "replace"
	if m.New {
		op = "add"
	}
	return fmt.Sprintf("mpls route "+op+" %d via link %s dev #%d proto %d", m.Label, m.MAC, m.Index, m.Protocol)
}

// viaLink begins an RTA_VIA attribute with a MAC address.
func viaLink(mac ethernet.MAC) []byte {
	return append(native.AppendUint16(make([]byte, 0, 8), unix.AF_PACKET), mac[:]...)
}

// appendTo implements Request.
func (m MPLSRequest) appendTo(b []byte, seq uint32, ack bool) []byte {
	start := len(b)
	typ, flags := uint16(unix.RTM_NEWROUTE), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	switch {
	case m.Delete:
		typ, flags = unix.RTM_DELROUTE, 0
	case m.New:
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	if ack {
		flags |= unix.NLM_F_ACK
	}
	b = beginMessage(b, typ, flags, seq)
	// Labels are 20 bits long, and MPLS has one table and one kind of routes.
	b = append(b, unix.AF_MPLS, 20, 0, 0, unix.RT_TABLE_MAIN, m.Protocol, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST)
	b = native.AppendUint32(b, 0)
	b = appendAttr(b, unix.RTA_DST, labelStack(m.Label))
	if !m.Delete {
		b = appendAttr(b, unix.RTA_VIA, viaLink(m.MAC))
		b = appendAttr32(b, unix.RTA_OIF, uint32(m.Index))
	}
	return endMessage(b, start)
}

// MPLSRoutes lists the MPLS routes of all owners. What does not end at a MAC
// address has none here.
func (c *Conn) MPLSRoutes() ([]MPLSRoute, error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = unix.AF_MPLS
	var list []MPLSRoute
	err := c.dump(unix.RTM_GETROUTE, body, func() { list = list[:0] }, func(typ uint16, b []byte) error {
		if typ != unix.RTM_NEWROUTE || len(b) == 0 || b[0] != unix.AF_MPLS {
			return nil
		}
		m, err := parseMPLS(b)
		list = append(list, m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list MPLS routes: %w", err)
	}
	return list, nil
}

// parseMPLS reads the body of an RTM_NEWROUTE message of MPLS.
func parseMPLS(b []byte) (MPLSRoute, error) {
	if len(b) < unix.SizeofRtMsg {
		return MPLSRoute{}, errShort
	}
	m := MPLSRoute{Protocol: b[5]}
	a := attrs{b: b[unix.SizeofRtMsg:]}
	for a.next() {
		switch a.typ {
		case unix.RTA_DST:
			m.Label = parseLabel(a.data)
		case unix.RTA_OIF:
			m.Index = int(a.uint32())
		case unix.RTA_VIA:
			if len(a.data) == 2+len(m.MAC) && native.Uint16(a.data) == unix.AF_PACKET {
				copy(m.MAC[:], a.data[2:])
			}
		}
	}
	return m, a.err
}

// labelStack returns a label as the only entry of a stack (RFC 3032 §2.1).
func labelStack(label uint32) []byte {
	return binary.BigEndian.AppendUint32(nil, label<<12|1<<8)
}

// parseLabel returns the label of a stack of one, else 0.
func parseLabel(stack []byte) uint32 {
	if len(stack) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(stack) >> 12
}
