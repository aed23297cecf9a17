// SPDX-License-Identifier: Apache-2.0

// Package netlinkx talks rtnetlink for the data planes: neighbour and FDB
// entries in batches, and the link attributes that EVPN needs.
//
// It exists because a library call per entry costs a socket round trip per
// entry. Here a Message is a plain value, a batch of them is one sendmsg, and
// only the last one asks for an acknowledgement: the kernel handles a batch in
// order inside sendmsg and answers a message that failed whether or not it
// asked. So no answer but the last means that all went well.
//
// A Conn belongs to the network namespace of the thread that dialled it. Its
// methods may be called from several goroutines; each call is atomic.
package netlinkx

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"golang.org/x/sys/unix"
)

// Neigh is one neighbour or FDB entry of the kernel.
type Neigh struct {
	// Family is AF_BRIDGE for an FDB entry, AF_INET or AF_INET6 for a neighbour.
	Family uint8
	// Flags are the NTF_ flags: which table (self, master) and extern_learn.
	Flags uint8
	// Protocol tells who made a neighbour (NDA_PROTOCOL), 0 for nobody. FDB entries have none.
	Protocol uint8
	// State is the NUD_ state.
	State uint16
	// VLAN is the VLAN of a bridge entry, 0 for none.
	VLAN uint16
	// Index is the device: the bridge port or VXLAN device of an FDB entry.
	Index int
	// Master is the bridge whose table a dumped entry is in, 0 for the device's own table.
	Master int
	// MAC is the link layer address; all zero in an FDB entry is the flood list.
	MAC ethernet.MAC
	// VNI goes with Addr in an FDB entry; the kernel leaves it out, as 0, when it is the device's.
	VNI uint32
	// Addr is the neighbour's address, or the VXLAN tunnel's far end.
	Addr netip.Addr
}

// Op is what a Message asks for.
type Op uint8

// Operations. Replace makes or changes the entry; Append adds one more far end
// to a flood list; Delete removes an entry, or one far end when Addr is set.
const (
	Replace Op = iota + 1
	Append
	Delete
)

// Message is one request for a neighbour or FDB entry.
type Message struct {
	Op Op
	Neigh
}

// String returns the request in the words of bridge(8) or ip-neighbour(8),
// with the device as its index.
func (m Message) String() string {
	op := map[Op]string{Replace: "replace", Append: "append", Delete: "del"}[m.Op]
	if m.Family == unix.AF_BRIDGE {
		return "fdb " + op + " " + m.Neigh.String()
	}
	return "neigh " + op + " " + m.Neigh.String()
}

// String returns the entry in the words of bridge(8) or ip-neighbour(8).
func (n Neigh) String() string {
	var b strings.Builder
	if n.Family == unix.AF_BRIDGE {
		fmt.Fprintf(&b, "%s dev #%d", n.MAC, n.Index)
		if n.Addr.IsValid() {
			fmt.Fprintf(&b, " dst %s", n.Addr)
		}
		if n.VNI != 0 {
			fmt.Fprintf(&b, " vni %d", n.VNI)
		}
	} else {
		fmt.Fprintf(&b, "%s dev #%d", n.Addr, n.Index)
		if !n.MAC.IsZero() {
			fmt.Fprintf(&b, " lladdr %s", n.MAC)
		}
	}
	if n.VLAN != 0 {
		fmt.Fprintf(&b, " vlan %d", n.VLAN)
	}
	n.appendFlags(&b)
	return b.String()
}

func (n Neigh) appendFlags(b *strings.Builder) {
	for _, f := range []struct {
		set  bool
		text string
	}{
		{n.Flags&unix.NTF_SELF != 0, " self"},
		{n.Flags&unix.NTF_MASTER != 0 || n.Master != 0, " master"},
		{n.Flags&unix.NTF_EXT_LEARNED != 0, " extern_learn"},
		{n.State&unix.NUD_PERMANENT != 0, " permanent"},
		{n.State&unix.NUD_NOARP != 0, " noarp"},
	} {
		if f.set {
			b.WriteString(f.text)
		}
	}
	if n.Protocol != 0 {
		fmt.Fprintf(b, " proto %d", n.Protocol)
	}
}

// Error is the kernel's refusal of one request.
type Error struct {
	// Request says what was asked.
	Request fmt.Stringer
	// Errno is the error number; errors.Is finds it.
	Errno unix.Errno
	// Text is the kernel's explanation (extended acknowledgement), often empty.
	Text string
}

// Error returns the request, the error and the kernel's explanation.
func (e *Error) Error() string {
	s := e.Errno.Error()
	if e.Request != nil {
		s = e.Request.String() + ": " + s
	}
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	return s
}

// Unwrap returns the error number.
func (e *Error) Unwrap() error { return e.Errno }
