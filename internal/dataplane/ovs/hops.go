// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// neighbours knows the MAC addresses of next hops from the kernel's neighbour
// table, and follows it. It asks the kernel to resolve the ones not known.
type neighbours struct {
	log     *slog.Logger
	handle  *netlink.Handle
	ns      netns.NsHandle // where the table is
	stop    chan struct{}
	once    sync.Once
	done    chan struct{}
	changed func(netip.Addr)

	mu   sync.Mutex
	macs map[netip.Addr]ethernet.MAC // zero for those that are asked for
}

const (
	// waitingUpdates is how many changes of the table wait for us; more wait in the socket.
	waitingUpdates = 256
	// followAgain is the pause before the table is followed again after an error.
	followAgain = time.Second
)

// usableStates are those in which a neighbour's MAC can be used.
const usableStates = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE | netlink.NUD_PROBE | netlink.NUD_STALE | netlink.NUD_DELAY

// watchNeighbours begins to follow the table of the calling thread's network
// namespace. It calls changed when a MAC that was asked for is another.
func watchNeighbours(log *slog.Logger, changed func(netip.Addr)) (*neighbours, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	ns, err := netns.Get()
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("own network namespace: %w", err)
	}
	n := &neighbours{log: log, handle: handle, ns: ns, stop: make(chan struct{}), done: make(chan struct{}), changed: changed, macs: map[netip.Addr]ethernet.MAC{}}
	updates, end, err := n.subscribe()
	if err != nil {
		handle.Close()
		_ = ns.Close()
		return nil, err
	}
	go n.follow(updates, end)
	return n, nil
}

// subscribe begins to follow the table. The channel is closed when that ends: by end, or because
// the kernel has more changes than the socket holds (ENOBUFS), some of which are lost then.
func (n *neighbours) subscribe() (updates chan netlink.NeighUpdate, end func(), err error) {
	updates, done := make(chan netlink.NeighUpdate, waitingUpdates), make(chan struct{})
	err = netlink.NeighSubscribeWithOptions(updates, done, netlink.NeighSubscribeOptions{
		Namespace: &n.ns,
		ErrorCallback: func(err error) {
			select {
			case <-done:
			default:
				n.log.Warn("changes of the neighbour table are lost: it is read again", "error", err)
			}
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("follow the neighbour table: %w", err)
	}
	return updates, func() {
		close(done)
		for range updates { // until it has ended
		}
	}, nil
}

// follow takes the changes of the table until close. What was lost is read from the table.
func (n *neighbours) follow(updates <-chan netlink.NeighUpdate, end func()) {
	defer close(n.done)
	for {
		n.take(updates)
		end()
		for {
			select {
			case <-n.stop:
				return
			default:
			}
			var err error
			if updates, end, err = n.subscribe(); err == nil {
				if err = n.resync(); err == nil {
					break
				}
				end()
			}
			n.log.Warn("neighbour table cannot be followed, will retry", "error", err)
			select {
			case <-n.stop:
				return
			case <-time.After(followAgain):
			}
		}
	}
}

// take notes changes until there are no more.
func (n *neighbours) take(updates <-chan netlink.NeighUpdate) {
	for {
		select {
		case <-n.stop:
			return
		case u, ok := <-updates:
			if !ok {
				return
			}
			if u.Type == unix.RTM_NEWNEIGH { // else the last MAC known is better than none
				n.noteUsable(&u.Neigh)
			}
		}
	}
}

// resync takes all that is in the table.
func (n *neighbours) resync() error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := n.handle.NeighList(0, family)
		if err != nil {
			return fmt.Errorf("read the neighbour table: %w", err)
		}
		for i := range list {
			n.noteUsable(&list[i])
		}
	}
	return nil
}

func (n *neighbours) noteUsable(entry *netlink.Neigh) {
	if addr, mac, ok := usable(entry); ok {
		n.note(addr, mac)
	}
}

func usable(n *netlink.Neigh) (netip.Addr, ethernet.MAC, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok || len(n.HardwareAddr) != 6 || n.State&usableStates == 0 {
		return netip.Addr{}, ethernet.MAC{}, false
	}
	return addr.Unmap(), ethernet.MAC(n.HardwareAddr), true
}

// note takes a MAC if it is asked for and another than before.
func (n *neighbours) note(addr netip.Addr, mac ethernet.MAC) {
	n.mu.Lock()
	now, asked := n.macs[addr]
	if asked {
		n.macs[addr] = mac
	}
	n.mu.Unlock()
	if asked && now != mac {
		n.changed(addr)
	}
}

// learn takes a MAC from elsewhere, if none is known.
func (n *neighbours) learn(addr netip.Addr, mac ethernet.MAC) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.macs[addr].IsZero() {
		n.macs[addr] = mac
	}
}

// lookup returns a MAC; one that is not known is looked for in the table, and
// asked for.
func (n *neighbours) lookup(addr netip.Addr) (ethernet.MAC, bool) {
	n.mu.Lock()
	mac, asked := n.macs[addr]
	if !asked {
		n.macs[addr] = mac
	}
	n.mu.Unlock()
	if !mac.IsZero() {
		return mac, true
	}
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := n.handle.NeighList(0, family)
	if err != nil {
		n.log.Warn("neighbour table cannot be read", "error", err)
		return mac, false
	}
	for i := range list {
		if a, m, ok := usable(&list[i]); ok && a == addr {
			n.learn(addr, m)
			return m, true
		}
	}
	n.resolve(addr)
	return mac, false
}

// resolve asks the kernel to find the MAC of a neighbour.
func (n *neighbours) resolve(addr netip.Addr) {
	routes, err := n.handle.RouteGet(addr.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].Gw != nil {
		n.log.Warn("next hop is not on a link of this host, as MPLS over Ethernet needs", "next_hop", addr, "error", err)
		return
	}
	err = n.handle.NeighSet(&netlink.Neigh{LinkIndex: routes[0].LinkIndex, IP: addr.AsSlice(), State: netlink.NUD_NONE, Flags: netlink.NTF_USE})
	if err != nil {
		n.log.Warn("next hop cannot be resolved", "next_hop", addr, "error", err)
	}
}

func (n *neighbours) close() {
	n.once.Do(func() {
		close(n.stop)
		<-n.done
		n.handle.Close()
		_ = n.ns.Close()
	})
}

// nextHopMAC is layout.nextHopMAC.
func (d *Driver) nextHopMAC(addr netip.Addr) (ethernet.MAC, bool) {
	if d.hops == nil {
		return ethernet.MAC{}, false
	}
	return d.hops.lookup(addr)
}

// learnHops takes the MACs of next hops from flows, so that a new process does not
// take them for wrong before the kernel knows them again.
func (d *Driver) learnHops(v *vrf, have map[of.FlowKey]of.Actions, groups map[uint32]of.Group) {
	for p, r := range v.routes {
		lists := []of.Actions{have[v.prefixKey(p).Key()]}
		for _, b := range groups[r.group].Buckets {
			lists = append(lists, b.Actions)
		}
		byLabel := map[uint64][]netip.Addr{} // the label tells which hop it is, unless two have it
		for _, h := range r.hops {
			if v.encap(h.Encap) == v.phys {
				byLabel[uint64(h.Label)] = append(byLabel[uint64(h.Label)], h.Addr)
			}
		}
		for _, a := range lists {
			label, _ := a.ValueOf(of.MPLSLabel)
			if mac, ok := a.DstMAC(); ok && len(byLabel[label]) == 1 {
				d.hops.learn(byLabel[label][0], mac)
			}
		}
	}
}

// hopChanged writes the prefixes of all instances that a next hop's MAC is in.
func (d *Driver) hopChanged(addr netip.Addr) {
	d.mu.Lock()
	handles := make([]*handle, 0, len(d.open))
	for _, h := range d.open {
		handles = append(handles, h)
	}
	d.mu.Unlock()
	for _, h := range handles {
		if err := h.rewrite(addr); err != nil {
			d.log.Warn("flows could not be changed for another MAC of a next hop", "instance", h.inst.ID, "next_hop", addr, "error", err)
		}
	}
}

// rewrite applies again the prefixes with a next hop.
func (h *handle) rewrite(addr netip.Addr) error {
	h.mu.Lock()
	if h.vrf == nil || h.gone {
		h.mu.Unlock()
		return nil
	}
	var changes []dataplane.Change
	for _, p := range h.vrf.routesVia(addr) {
		changes = append(changes, dataplane.Change{Entry: dataplane.Entry{Kind: dataplane.Prefix, Prefix: p, NextHops: h.vrf.routes[p].hops}})
	}
	h.mu.Unlock()
	if len(changes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	for _, err := range h.Apply(ctx, changes) {
		if err != nil {
			return err
		}
	}
	return nil
}
