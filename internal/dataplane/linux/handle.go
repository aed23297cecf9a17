// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// flushSize bounds the messages that wait to be sent, and so the memory of a
// large Apply.
const flushSize = 1024

// handle implements dataplane.Handle. What Open finds changes in Repair only, under d.mu.
type handle struct {
	d    *Driver
	inst dataplane.Instance

	bridge, vxlan         int // indexes
	bridgeName, vxlanName string
	vni                   uint32
	mtu                   int
	ownBridge, ownVXLAN   bool
	borrowed              borrowed // of a VXLAN device of others
	// ports are those plugged, to the index that each had then; guarded by d.mu.
	ports map[string]int
}

// Describe returns members for the looking glass.
func (h *handle) Describe() []dataplane.Member {
	return []dataplane.Member{
		{Name: "linux_bridge", Value: h.bridgeName},
		{Name: "vxlan_if", Value: h.vxlanName},
		{Name: "vni", Value: h.vni},
		{Name: "mtu", Value: h.mtu},
	}
}

// Bridge implements dataplane.Bridging.
func (h *handle) Bridge() (name string, mtu int) { return h.bridgeName, h.mtu }

// Apply carries out changes in order. Ports are set one by one, all else goes
// to the kernel in batches.
func (h *handle) Apply(ctx context.Context, changes []dataplane.Change) []error {
	a := h.newApply(len(changes))
	for i, c := range changes {
		if err := ctx.Err(); err != nil {
			a.results[i] = err
			continue
		}
		a.change(i, c)
	}
	a.flush()
	for i, err := range a.results {
		if err != nil {
			a.results[i] = fmt.Errorf("%s: %w", changes[i], err)
		}
	}
	return a.results
}

// apply is one call of Apply: messages that wait, and whose they are.
type apply struct {
	*handle
	planner planner
	results []error // per change
	msgs    []netlinkx.Message
	errs    []error // per message
	owner   []int   // index of the change, per message
}

func (h *handle) newApply(changes int) *apply {
	size := min(2*changes, flushSize+2)
	return &apply{
		handle:  h,
		planner: planner{bridge: h.bridge, vxlan: h.vxlan, local: h.d.cfg.LocalAddr},
		results: make([]error, changes),
		msgs:    make([]netlinkx.Message, 0, size),
		errs:    make([]error, size),
		owner:   make([]int, 0, size),
	}
}

// change queues the messages of one change, after what it depends on is done.
func (a *apply) change(i int, c dataplane.Change) {
	port, skip := 0, false
	var err error
	switch {
	case c.Entry.Kind == dataplane.LocalPort:
		a.flush()
		a.results[i] = a.setPort(c.Delete, c.Entry.Port)
		return
	case c.Delete:
		port, skip, err = a.beforeDelete(&c.Entry)
	case c.Entry.Kind == dataplane.LocalMAC:
		port, err = a.portOf(c.Entry.Port)
	}
	if err != nil || skip {
		a.results[i] = err
		return
	}
	if a.msgs, err = a.planner.plan(a.msgs, c, port); err != nil {
		a.results[i] = err
		return
	}
	if c.Entry.Kind == dataplane.Flood && !c.Delete && !a.ownVXLAN {
		a.borrowed.flood[keyOfFlood(c.Entry.NextHops[0])] = true
	}
	for len(a.owner) < len(a.msgs) {
		a.owner = append(a.owner, i)
	}
	if len(a.msgs) >= flushSize {
		a.flush()
	}
}

// flush sends what waits and gives the results to the changes. The first error
// of a change is kept.
func (a *apply) flush() {
	if len(a.msgs) == 0 {
		return
	}
	errs := a.errs[:len(a.msgs)]
	a.d.conn.Exec(a.msgs, errs)
	for m, err := range errs {
		if a.msgs[m].Op == netlinkx.Delete {
			err = goneIsFine(err)
		}
		if i := a.owner[m]; err != nil && a.results[i] == nil {
			a.results[i] = err
		}
	}
	a.msgs, a.owner = a.msgs[:0], a.owner[:0]
}

// beforeDelete finds whether a deletion would hit what is not ours, or nothing:
// then it is skipped. On our own devices only a local MAC needs that look; it is
// deleted from whatever port it is bound to now.
func (a *apply) beforeDelete(e *dataplane.Entry) (port int, skip bool, err error) {
	switch {
	case e.Kind == dataplane.LocalMAC:
		a.flush()
		n, ok, err := a.d.conn.BridgeFDB(a.bridge, e.MAC)
		return n.Index, !ok || !inBridge(n, a.bridge) || n.Index == a.vxlan, gone(err)
	case e.Kind == dataplane.RemoteMAC && !a.ownVXLAN:
		a.flush()
		n, ok, err := a.d.conn.VXLANFDB(a.vxlan, e.MAC)
		return 0, !ok || !onDevice(n, a.vxlan), gone(err)
	case e.Kind == dataplane.Neighbour && !a.ownBridge:
		a.flush()
		n, ok, err := a.d.conn.Neighbour(a.bridge, e.IP)
		return 0, !ok || !isOurNeighbour(n), gone(err)
	case e.Kind == dataplane.Flood && !a.ownVXLAN && len(e.NextHops) == 1:
		a.flush()
		ours, err := a.mayDeleteFlood(e.NextHops[0])
		return 0, !ours, err
	}
	return 0, false, nil
}

func gone(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Remove takes the instance out of the kernel: our devices, and from devices of
// others our entries.
func (h *handle) Remove(ctx context.Context) error {
	if err := h.remove(ctx); err != nil {
		return fmt.Errorf("remove instance %q: %w", h.inst.ID, err)
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if id := listedID(h.inst.ID); h.d.open[id] == h {
		delete(h.d.open, id)
	}
	return nil
}

func (h *handle) remove(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	alias := aliasOf(h.inst.ID)
	if h.ownVXLAN {
		// Its entries in an existing bridge go with it.
		if err := h.d.deleteOurs(h.vxlan, alias); err != nil {
			return err
		}
	} else if err := h.giveBack(); err != nil {
		return err
	}
	if h.ownBridge {
		return h.d.deleteOurs(h.bridge, alias)
	}
	_, err := purge(h.d.conn, h.bridge, 0)
	return err
}
