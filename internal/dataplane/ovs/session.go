// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb"
)

// callTimeout bounds what has no context of a caller.
const callTimeout = 20 * time.Second

// bridge returns the connection with the switch, made anew if it was lost.
func (d *Driver) bridge(ctx context.Context) (bridge, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil && d.conn.Alive() {
		return d.conn, nil
	}
	if d.conn != nil {
		_ = d.conn.Close()
		d.conn = nil
	}
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to OVS bridge %s: %w", d.cfg.Bridge, err)
	}
	if d.layout.punt {
		if err := conn.Receive(ctx, func(p of.PacketIn) { d.answer(conn, p) }); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("receive packets of OVS bridge %s: %w", d.cfg.Bridge, err)
		}
	}
	d.conn = conn
	return conn, nil
}

// scan finds the instances that are in the switch, and the groups in use. What
// carries our mark and belongs to no instance is removed.
func (d *Driver) scan(ctx context.Context) error {
	conn, err := d.bridge(ctx)
	if err != nil {
		return err
	}
	flows, err := conn.Flows(ctx, of.Filter{Cookie: cookieMark, Mask: cookieMask})
	if err != nil {
		return err
	}
	groups, err := conn.Groups(ctx)
	if err != nil {
		return err
	}
	numbers, named := map[string]uint32{}, map[uint32]bool{0: true} // 0: shared flows
	for i := range flows {
		if id, ok := idOf(&flows[i].Flow); ok {
			number := uint32(flows[i].Cookie)
			numbers[id], named[number] = number, true
		}
	}
	used := newGroupIDs()
	var remove []of.Message
	lost := map[uint64]bool{}
	for _, f := range flows {
		group, ok := f.Actions.GroupOf()
		switch {
		case !named[uint32(f.Cookie)]:
			lost[f.Cookie] = true
		case ok:
			used.take(group)
		}
	}
	for cookie := range lost {
		d.log.Warn("flows of an instance whose name is lost are removed", "cookie", fmt.Sprintf("%#x", cookie))
		remove = append(remove, of.DeleteFlows{Cookie: cookie, Mask: exactCookie})
	}
	for _, g := range groups {
		if ownGroup(g.ID) && !used.has(g.ID) {
			remove = append(remove, of.DeleteGroup{ID: g.ID})
		}
	}
	if len(remove) > 0 {
		if err := conn.Bundle(ctx, remove); err != nil {
			return fmt.Errorf("remove what belongs to no instance: %w", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.numbers, d.groups = numbers, used
	return nil
}

// idOf returns the id that an instance's own flow keeps.
func idOf(f *of.Flow) (string, bool) {
	if f.Priority != prioRecord {
		return "", false
	}
	note, ok := f.Actions.NoteOf()
	if !ok {
		return "", false
	}
	return decodeID(note)
}

// number returns the number of an instance in the switch: that of before, or a free one.
func (d *Driver) number(id string) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, ok := d.numbers[id]; ok {
		return n, nil
	}
	taken := make(map[uint32]bool, len(d.numbers))
	for _, n := range d.numbers {
		taken[n] = true
	}
	for range len(taken) + 1 { // not one that just was another's, which a flow may still name
		for d.lastNumber++; d.lastNumber == 0; {
			d.lastNumber++
		}
		if !taken[d.lastNumber] {
			d.numbers[id] = d.lastNumber
			return d.lastNumber, nil
		}
	}
	return 0, errors.New("no number is free for the instance")
}

// ensureShared makes or finds the tunnel ports, and the flows that belong to no
// instance. It tells whether a port number is another than before.
func (d *Driver) ensureShared(ctx context.Context) (changed bool, err error) {
	d.shared.Lock()
	defer d.shared.Unlock()
	conn, err := d.bridge(ctx)
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	l := d.layout
	d.mu.Unlock()
	before := [3]uint32{l.gre, l.vxlan, l.phys}
	if d.cfg.MPLSInterface == "" {
		options := map[string]string{"local_ip": d.cfg.LocalAddr.String(), "remote_ip": "flow"}
		maps.Copy(options, d.cfg.GRETunnelOptions)
		if l.gre, err = d.tunnel(ctx, d.cfg.GRETunnel, "gre", options); err != nil {
			return false, err
		}
	} else if l.phys, l.own, err = d.physical(ctx, conn); err != nil {
		return false, err
	}
	if d.cfg.VXLANEncap {
		options := map[string]string{"local_ip": d.cfg.LocalAddr.String(), "remote_ip": "flow", "key": "flow"}
		if l.vxlan, err = d.tunnel(ctx, vxlanPort, "vxlan", options); err != nil {
			return false, err
		}
	}
	messages := []of.Message{of.SetGroup(l.guess())}
	have, err := conn.Flows(ctx, of.Filter{Cookie: cookieMark, Mask: exactCookie})
	if err != nil {
		return false, err
	}
	want := l.shared()
	for _, f := range have {
		if !hasKey(want, f.Key()) {
			messages = append(messages, of.DeleteFlow(f.Flow))
		}
	}
	for _, f := range want {
		messages = append(messages, of.AddFlow(f))
	}
	if err := conn.Bundle(ctx, messages); err != nil {
		return false, fmt.Errorf("flows of OVS bridge %s: %w", d.cfg.Bridge, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.layout = l
	return before != [3]uint32{l.gre, l.vxlan, l.phys}, nil
}

func hasKey(flows []of.Flow, k of.FlowKey) bool {
	for _, f := range flows {
		if f.Key() == k {
			return true
		}
	}
	return false
}

// tunnel returns the number of a tunnel port. One of others, such as an earlier
// networking-bagpipe's, is used when it is as it must be.
func (d *Driver) tunnel(ctx context.Context, name, kind string, options map[string]string) (uint32, error) {
	i, ok, err := d.db.Interface(ctx, name)
	if err != nil {
		return 0, err
	}
	if ok {
		in, err := d.db.BridgeOf(ctx, name)
		same := in == d.cfg.Bridge && i.Type == kind && maps.Equal(i.Options, options)
		switch {
		case err != nil:
			return 0, err
		case same && i.Number != 0:
			return i.Number, nil
		case i.ExternalIDs[ownerKey] != ownerValue:
			return 0, fmt.Errorf("port %s of OVS bridge %s belongs to others, with type %q and options %v: want none of that name, or type %q and options %v",
				name, in, i.Type, i.Options, kind, options)
		}
		if _, err := d.db.DeletePort(ctx, in, name); err != nil {
			return 0, err
		}
	}
	i, err = d.db.AddPort(ctx, d.cfg.Bridge, ovsdb.NewPort{Name: name, Type: kind, Options: options, ExternalIDs: map[string]string{ownerKey: ownerValue}})
	return i.Number, err
}

// physical returns the port for MPLS over Ethernet and the MAC that frames from it
// have: that of the port, or of the bridge.
func (d *Driver) physical(ctx context.Context, conn bridge) (number uint32, mac ethernet.MAC, err error) {
	ports, err := conn.Ports(ctx)
	if err != nil {
		return 0, mac, err
	}
	for _, p := range ports {
		switch p.Name {
		case d.cfg.MPLSInterface:
			number = p.Number
			if !p.MAC.IsZero() {
				mac = p.MAC
			}
		case d.cfg.Bridge:
			if mac.IsZero() {
				mac = p.MAC
			}
		}
	}
	if number == 0 {
		return 0, mac, fmt.Errorf("mpls_interface %q is not a port of OVS bridge %s: want one of its ports, or *gre*", d.cfg.MPLSInterface, d.cfg.Bridge)
	}
	return number, mac, nil
}

// groupIDs hands out ids of groups.
type groupIDs struct {
	used map[uint32]bool
	next uint32
}

func newGroupIDs() groupIDs {
	return groupIDs{used: map[uint32]bool{groupGuess: true}, next: groupFirst}
}

func ownGroup(id uint32) bool { return id >= groupFirst && id <= groupLast }

func (g *groupIDs) take(id uint32)     { g.used[id] = true }
func (g *groupIDs) has(id uint32) bool { return g.used[id] }
func (g *groupIDs) free(id uint32)     { delete(g.used, id) }

// get returns a free id, or 0 when there is none.
func (g *groupIDs) get() uint32 {
	for range groupLast - groupFirst + 1 {
		id := g.next
		if g.next++; g.next > groupLast {
			g.next = groupFirst
		}
		if !g.used[id] {
			g.used[id] = true
			return id
		}
	}
	return 0
}
