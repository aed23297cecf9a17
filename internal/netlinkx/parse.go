// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"errors"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"golang.org/x/sys/unix"
)

// errShort is returned for an answer whose lengths do not fit its octets.
var errShort = errors.New("netlink answer is cut short or has a wrong length")

// header is a netlink message header without the length.
type header struct {
	typ, flags uint16
	seq, port  uint32
}

// nextMessage splits the first message off b. ok is false at the end.
func nextMessage(b []byte) (h header, body, rest []byte, ok bool, err error) {
	if len(b) == 0 {
		return h, nil, nil, false, nil
	}
	if len(b) < unix.SizeofNlMsghdr {
		return h, nil, nil, false, errShort
	}
	n := uint64(native.Uint32(b))
	if n < unix.SizeofNlMsghdr || n > uint64(len(b)) {
		return h, nil, nil, false, errShort
	}
	h = header{
		typ: native.Uint16(b[4:]), flags: native.Uint16(b[6:]),
		seq: native.Uint32(b[8:]), port: native.Uint32(b[12:]),
	}
	return h, b[unix.SizeofNlMsghdr:n], b[min(align(int(n)), len(b)):], true, nil
}

// attrs walks attributes: for a := (attrs{b: …}); a.next(); { … a.typ, a.data }.
// After the loop err is set when the octets were no list of attributes.
type attrs struct {
	b    []byte
	typ  uint16
	data []byte
	err  error
}

func (a *attrs) next() bool {
	if len(a.b) == 0 {
		return false
	}
	if len(a.b) < unix.SizeofRtAttr {
		a.err = errShort
		return false
	}
	n := int(native.Uint16(a.b))
	if n < unix.SizeofRtAttr || n > len(a.b) {
		a.err = errShort
		return false
	}
	a.typ = native.Uint16(a.b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	a.data = a.b[unix.SizeofRtAttr:n]
	a.b = a.b[min(align(n), len(a.b)):]
	return true
}

// uint8, uint16 and uint32 read an integer of at least that size, else 0.
func (a *attrs) uint8() uint8 {
	if len(a.data) < 1 {
		return 0
	}
	return a.data[0]
}

func (a *attrs) uint16() uint16 {
	if len(a.data) < 2 {
		return 0
	}
	return native.Uint16(a.data)
}

func (a *attrs) uint32() uint32 {
	if len(a.data) < 4 {
		return 0
	}
	return native.Uint32(a.data)
}

func (a *attrs) string() string { return unix.ByteSliceToString(a.data) }

func (a *attrs) addr() netip.Addr {
	ip, _ := netip.AddrFromSlice(a.data)
	return ip
}

func (a *attrs) mac() (m ethernet.MAC) {
	if len(a.data) == len(m) {
		copy(m[:], a.data)
	}
	return m
}

// parseNeigh reads the body of an RTM_NEWNEIGH message.
func parseNeigh(b []byte) (Neigh, error) {
	if len(b) < unix.SizeofNdMsg {
		return Neigh{}, errShort
	}
	n := Neigh{
		Family: b[0],
		Index:  int(int32(native.Uint32(b[4:]))),
		State:  native.Uint16(b[8:]),
		Flags:  b[10],
	}
	a := attrs{b: b[unix.SizeofNdMsg:]}
	for a.next() {
		switch a.typ {
		case unix.NDA_LLADDR:
			n.MAC = a.mac()
		case unix.NDA_DST:
			n.Addr = a.addr()
		case unix.NDA_VNI:
			n.VNI = a.uint32()
		case unix.NDA_VLAN:
			n.VLAN = a.uint16()
		case unix.NDA_MASTER:
			n.Master = int(int32(a.uint32()))
		case ndaProtocol:
			n.Protocol = a.uint8()
		}
	}
	return n, a.err
}

// parseAnswer reads the body of an NLMSG_ERROR message. It returns nil for an
// acknowledgement.
func parseAnswer(h header, b []byte) (*Error, error) {
	if len(b) < 4+unix.SizeofNlMsghdr {
		return nil, errShort
	}
	errno := int32(native.Uint32(b))
	if errno == 0 {
		return nil, nil
	}
	e := &Error{Errno: unix.Errno(-errno)}
	if h.flags&unix.NLM_F_ACK_TLVS == 0 {
		return e, nil
	}
	skip := 4 + unix.SizeofNlMsghdr
	if h.flags&unix.NLM_F_CAPPED == 0 {
		// Without the cap the answer repeats the whole request.
		n := uint64(native.Uint32(b[4:]))
		if n < unix.SizeofNlMsghdr || n > uint64(len(b)-4) {
			return nil, errShort
		}
		skip = min(4+align(int(n)), len(b))
	}
	a := attrs{b: b[skip:]}
	for a.next() {
		if a.typ == unix.NLMSGERR_ATTR_MSG {
			e.Text = a.string()
		}
	}
	return e, a.err
}
