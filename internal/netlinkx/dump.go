// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"golang.org/x/sys/unix"
)

// dumpTries is how often a dump is begun anew when the kernel says that the
// table changed underneath.
const dumpTries = 5

var errInterrupted = errors.New("dump was interrupted by changes")

// FDB lists the entries of the bridge with index bridge and the own tables of
// its ports, or of all devices when bridge is 0.
func (c *Conn) FDB(bridge int) ([]Neigh, error) {
	body := make([]byte, 0, 32)
	body = append(body, unix.AF_BRIDGE)
	body = append(body, make([]byte, unix.SizeofNdMsg-1)...)
	if bridge != 0 {
		body = appendAttr32(body, unix.NDA_MASTER, uint32(bridge))
	}
	list, err := c.dumpNeigh(body, func(n Neigh) bool { return n.Family == unix.AF_BRIDGE })
	if err != nil {
		return nil, fmt.Errorf("list FDB: %w", err)
	}
	return list, nil
}

// Neighbours lists the neighbours of a family, AF_INET or AF_INET6, on the
// device with that index, or on all devices when it is 0.
func (c *Conn) Neighbours(family uint8, index int) ([]Neigh, error) {
	body := make([]byte, 0, 32)
	body = append(body, family)
	body = append(body, make([]byte, unix.SizeofNdMsg-1)...)
	if index != 0 {
		body = appendAttr32(body, unix.NDA_IFINDEX, uint32(index))
	}
	list, err := c.dumpNeigh(body, func(n Neigh) bool {
		return n.Family == family && (index == 0 || n.Index == index)
	})
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	return list, nil
}

func (c *Conn) dumpNeigh(body []byte, want func(Neigh) bool) ([]Neigh, error) {
	var list []Neigh
	err := c.dump(unix.RTM_GETNEIGH, body, func() { list = list[:0] }, func(typ uint16, b []byte) error {
		n, err := parseNeigh(b)
		if err == nil && typ == unix.RTM_NEWNEIGH && want(n) {
			list = append(list, n)
		}
		return err
	})
	return list, err
}

// BridgeFDB returns the entry of a MAC, without VLAN, in a bridge's table; ok
// is false when there is none.
func (c *Conn) BridgeFDB(bridge int, mac ethernet.MAC) (n Neigh, ok bool, err error) {
	body := make([]byte, 0, 48)
	body = append(body, unix.AF_BRIDGE)
	body = append(body, make([]byte, unix.SizeofNdMsg-1)...)
	body = appendAttr(body, unix.NDA_LLADDR, mac[:])
	body = appendAttr32(body, unix.NDA_MASTER, uint32(bridge))
	return c.getNeigh(body)
}

// VXLANFDB returns one far end of a MAC in a VXLAN device's table.
func (c *Conn) VXLANFDB(index int, mac ethernet.MAC) (n Neigh, ok bool, err error) {
	body := make([]byte, 0, 32)
	body = append(body, unix.AF_BRIDGE, 0, 0, 0)
	body = native.AppendUint32(body, uint32(index))
	body = append(body, 0, 0, unix.NTF_SELF, 0)
	body = appendAttr(body, unix.NDA_LLADDR, mac[:])
	return c.getNeigh(body)
}

// Neighbour returns the neighbour with an address on the device with that index.
func (c *Conn) Neighbour(index int, ip netip.Addr) (n Neigh, ok bool, err error) {
	family := uint8(unix.AF_INET)
	if ip.Is6() {
		family = unix.AF_INET6
	}
	body := make([]byte, 0, 40)
	body = append(body, family, 0, 0, 0)
	body = native.AppendUint32(body, uint32(index))
	body = append(body, 0, 0, 0, 0)
	body = appendAttr(body, unix.NDA_DST, ip.AsSlice())
	return c.getNeigh(body)
}

func (c *Conn) getNeigh(body []byte) (n Neigh, ok bool, err error) {
	err = c.request(unix.RTM_GETNEIGH, 0, body, func(typ uint16, b []byte) error {
		var err error
		n, err = parseNeigh(b)
		ok = err == nil && typ == unix.RTM_NEWNEIGH
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return Neigh{}, false, nil
	}
	return n, ok, err
}

// dump requests all of a table. begin is called before each try.
func (c *Conn) dump(typ uint16, body []byte, begin func(), each func(uint16, []byte) error) error {
	err := errInterrupted
	for try := 0; try < dumpTries && errors.Is(err, errInterrupted); try++ {
		begin()
		err = c.request(typ, unix.NLM_F_DUMP, body, each)
	}
	return err
}

// request sends one message and calls each for every answer with content. A
// request that is not a dump is acknowledged after its answer.
func (c *Conn) request(typ, flags uint16, body []byte, each func(uint16, []byte) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	seq := c.seq
	if flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
		flags |= unix.NLM_F_ACK
	}
	c.out = beginMessage(c.out[:0], typ, flags, seq)
	c.out = append(c.out, body...)
	endMessage(c.out, 0)
	if err := c.send(); err != nil {
		return err
	}
	interrupted := false
	err := c.receive(func(h header, b []byte) (bool, error) {
		if h.seq != seq {
			return false, nil
		}
		interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
		switch h.typ {
		case unix.NLMSG_DONE:
			return true, parseDone(b)
		case unix.NLMSG_ERROR:
			answer, err := parseAnswer(h, b)
			if answer != nil {
				err = answer
			}
			return true, err
		}
		return false, each(h.typ, b)
	})
	if err == nil && interrupted {
		return errInterrupted
	}
	return err
}

// parseDone reads the result that ends a dump.
func parseDone(b []byte) error {
	if len(b) >= 4 {
		if errno := int32(native.Uint32(b)); errno < 0 {
			return &Error{Errno: unix.Errno(-errno)}
		}
	}
	return nil
}
