// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// ndaProtocol is NDA_PROTOCOL (kernel 5.0), which x/sys does not have.
const ndaProtocol = 12

// native is the byte order of netlink headers and integers.
var native = binary.NativeEndian

// align rounds up to the 4 octets that netlink aligns everything to.
func align(n int) int { return (n + 3) &^ 3 }

// beginMessage appends an nlmsghdr whose length endMessage fills in.
func beginMessage(b []byte, typ, flags uint16, seq uint32) []byte {
	b = native.AppendUint32(b, 0)
	b = native.AppendUint16(b, typ)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = native.AppendUint32(b, seq)
	return native.AppendUint32(b, 0)
}

// endMessage fills in the length of the message that begins at start.
func endMessage(b []byte, start int) []byte {
	native.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

func appendAttr(b []byte, typ uint16, data []byte) []byte {
	b = native.AppendUint16(b, uint16(unix.SizeofRtAttr+len(data)))
	b = native.AppendUint16(b, typ)
	b = append(b, data...)
	for pad := align(len(data)) - len(data); pad > 0; pad-- {
		b = append(b, 0)
	}
	return b
}

func appendAttr8(b []byte, typ uint16, v uint8) []byte {
	b = native.AppendUint16(b, unix.SizeofRtAttr+1)
	b = native.AppendUint16(b, typ)
	return append(b, v, 0, 0, 0)
}

func appendAttr32(b []byte, typ uint16, v uint32) []byte {
	b = native.AppendUint16(b, unix.SizeofRtAttr+4)
	b = native.AppendUint16(b, typ)
	return native.AppendUint32(b, v)
}

// appendAttrString appends a string with the terminating NUL that some
// attributes want and none minds.
func appendAttrString(b []byte, typ uint16, s string) []byte {
	return appendAttr(b, typ, append([]byte(s), 0))
}

// appendNested appends an attribute whose content fill appends.
func appendNested(b []byte, typ uint16, fill func([]byte) []byte) []byte {
	start := len(b)
	b = native.AppendUint16(b, 0)
	b = native.AppendUint16(b, typ|unix.NLA_F_NESTED)
	b = fill(b)
	native.PutUint16(b[start:], uint16(len(b)-start))
	return b
}

// appendTo implements Request.
func (m Message) appendTo(b []byte, seq uint32, ack bool) []byte {
	return AppendMessage(b, &m, seq, ack)
}

// AppendMessage appends the wire form of m. With ack the kernel answers also
// when all went well. It allocates nothing when b has room.
func AppendMessage(b []byte, m *Message, seq uint32, ack bool) []byte {
	start := len(b)
	typ, flags := uint16(unix.RTM_NEWNEIGH), uint16(unix.NLM_F_CREATE)
	switch m.Op {
	case Replace:
		flags |= unix.NLM_F_REPLACE
	case Append:
		flags |= unix.NLM_F_APPEND
	case Delete:
		typ, flags = unix.RTM_DELNEIGH, 0
	}
	if ack {
		flags |= unix.NLM_F_ACK
	}
	b = beginMessage(b, typ, flags, seq)
	b = append(b, m.Family, 0, 0, 0) // ndm_family, padding
	b = native.AppendUint32(b, uint32(m.Index))
	b = native.AppendUint16(b, m.State)
	b = append(b, m.Flags, 0) // ndm_flags, ndm_type
	return endMessage(appendNeighAttrs(b, m), start)
}

func appendNeighAttrs(b []byte, m *Message) []byte {
	// A neighbour is deleted by address, an FDB entry by MAC.
	if m.Family == unix.AF_BRIDGE || m.Op != Delete {
		b = native.AppendUint16(b, unix.SizeofRtAttr+6)
		b = native.AppendUint16(b, unix.NDA_LLADDR)
		b = append(b, m.MAC[:]...)
		b = append(b, 0, 0)
	}
	switch {
	case m.Addr.Is4():
		ip := m.Addr.As4()
		b = appendAttr(b, unix.NDA_DST, ip[:])
	case m.Addr.Is6():
		ip := m.Addr.As16()
		b = appendAttr(b, unix.NDA_DST, ip[:])
	}
	if m.VNI != 0 {
		b = appendAttr32(b, unix.NDA_VNI, m.VNI)
	}
	if m.Protocol != 0 && m.Op != Delete {
		b = appendAttr8(b, ndaProtocol, m.Protocol)
	}
	return b
}
