// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// devices returns the indexes known for an alias.
func (d *Driver) devices(alias string) []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.found[alias])
}

func (d *Driver) remember(alias string, indexes []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found[alias] = append(d.found[alias], indexes...)
}

// deleteOurs deletes a device if it is still the one with our alias, or half
// made: an index may have gone to another device.
func (d *Driver) deleteOurs(index int, alias string) error {
	l, ok, err := d.conn.LinkByIndex(index)
	if err != nil {
		return err
	}
	if ok && (l.Alias == alias || isHalfMade(l)) {
		if err := deleteLink(d.conn, index); err != nil {
			return err
		}
	}
	d.forget(alias, index)
	return nil
}

// forget is the inverse of remember.
func (d *Driver) forget(alias string, index int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found[alias] = slices.DeleteFunc(d.found[alias], func(i int) bool { return i == index })
	if len(d.found[alias]) == 0 {
		delete(d.found, alias)
	}
}

func deleteLink(conn *netlinkx.Conn, index int) error {
	if err := conn.DeleteLink(index); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// purge removes what is ours from a bridge that is not: FDB entries and
// neighbours with our marks. Entries at port except, a device that will be
// deleted with them, are left to that.
func purge(conn *netlinkx.Conn, bridge, except int) (int, error) {
	if _, ok, err := conn.LinkByIndex(bridge); err != nil || !ok {
		return 0, err
	}
	fdb, err := conn.FDB(bridge)
	if err != nil {
		return 0, err
	}
	var msgs []netlinkx.Message
	for _, n := range fdb {
		if n.Index != except && inBridge(n, bridge) {
			msgs = append(msgs, fdbDeletion(n))
		}
	}
	for _, family := range families {
		list, err := conn.Neighbours(family, bridge)
		if err != nil {
			return 0, err
		}
		for _, n := range list {
			if isOurNeighbour(n) {
				msgs = append(msgs, netlinkx.Message{Op: netlinkx.Delete, Neigh: n})
			}
		}
	}
	return len(msgs), deleteAll(conn, msgs)
}

// fdbDeletion returns the request that deletes a dumped entry. The bridge
// deletes by port and MAC; a VXLAN device also by far end.
func fdbDeletion(n netlinkx.Neigh) netlinkx.Message {
	table := uint8(unix.NTF_SELF)
	if n.Master != 0 && n.Master != n.Index {
		table = unix.NTF_MASTER
	}
	m := fdb(true, n.MAC, n.Index, table)
	m.Addr, m.VNI = n.Addr, n.VNI
	return m
}

func deleteAll(conn *netlinkx.Conn, msgs []netlinkx.Message) error {
	errs := make([]error, len(msgs))
	conn.Exec(msgs, errs)
	for i, err := range errs {
		errs[i] = goneIsFine(err)
	}
	return errors.Join(errs...)
}

// goneIsFine drops the errors for what is to be deleted and is not there.
func goneIsFine(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

var families = []uint8{unix.AF_INET, unix.AF_INET6}

// inBridge tells whether n is an entry of ours in that bridge's table.
func inBridge(n netlinkx.Neigh, bridge int) bool {
	return n.Master == bridge && n.VLAN == 0 && n.Flags&unix.NTF_EXT_LEARNED != 0
}

// onDevice tells whether n is an entry of ours in that VXLAN device's own table.
func onDevice(n netlinkx.Neigh, vxlan int) bool {
	return n.Master == 0 && n.Index == vxlan && n.Flags&unix.NTF_EXT_LEARNED != 0
}

func isOurNeighbour(n netlinkx.Neigh) bool {
	return n.Flags&unix.NTF_EXT_LEARNED != 0 && n.Protocol == neighProtocol
}
