// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// redirectPrefix begins the ids of redirect instances, as in the original.
const redirectPrefix = "redirect-to-"

// redirectID returns the id of the instance that packets are redirected to.
func redirectID(target wire.RT) string {
	return redirectPrefix + string(dataplane.IPVPN) + "-" + strings.ReplaceAll(target.String(), ":", "_")
}

// redirects are the instances that packets are redirected to: VRFs without ports that
// import one route target, shared by all VRFs of the node (RFC 8955 §7.4). Each is
// there as long as it has users.
type redirects struct {
	mu   sync.Mutex
	byRT map[wire.RT]*redirectInstance
}

type redirectInstance struct {
	*Instance
	users map[redirectUser]struct{}
}

// redirectUser is a FlowSpec entry of a VRF.
type redirectUser struct {
	vrf *Instance
	key rib.EntryKey
}

// targetUse is the use of the instance for a route target.
type targetUse struct {
	target wire.RT
	by     redirectUser
}

// enter makes sure that there is the instance for a route target, for a user. The user's lock
// is held; those of redirect instances come after it, and they take no others.
func (r *redirects) enter(ctx context.Context, m *Manager, target wire.RT, u redirectUser) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.byRT[target]
	if x == nil {
		i, err := m.openRedirect(ctx, target)
		if err != nil {
			return err
		}
		x = &redirectInstance{i, map[redirectUser]struct{}{}}
		r.byRT[target] = x
	}
	x.users[u] = struct{}{}
	return nil
}

// leave undoes enter. What redirects to the instance is gone by then.
func (r *redirects) leave(ctx context.Context, m *Manager, target wire.RT, u redirectUser) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.byRT[target]
	if x == nil {
		return
	}
	if delete(x.users, u); len(x.users) > 0 {
		return
	}
	delete(r.byRT, target)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.end(ctx)
}

// openRedirect makes the instance for a route target.
func (m *Manager) openRedirect(ctx context.Context, target wire.RT) (*Instance, error) {
	a := Attachment{Type: dataplane.IPVPN, InstanceID: redirectID(target), Imports: []wire.RT{target}}
	m.mu.Lock()
	i, err := m.reserve(a)
	if err == nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		m.instances[a.InstanceID] = i
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := i.open(ctx, dataplane.Port{}); err != nil {
		i.end(ctx)
		return nil, err
	}
	i.setTargets(a.Imports, nil)
	return i, nil
}

// steering is what a FlowSpec route does to packets of a VRF.
type steering struct {
	target  wire.RT
	classes []dataplane.Classifier
}

// steeringOf returns what a FlowSpec route asks for. The error says why it cannot be
// used: in part would be more than it says.
func (i *Instance) steeringOf(p *rib.Path) (s steering, err error) {
	if !i.caps.Redirect {
		return s, fmt.Errorf("driver %q cannot redirect traffic", i.driver().Name())
	}
	actions := 0
	for _, c := range p.Attrs.Communities {
		if c.IsFlowAction() {
			actions++
		}
		if target, ok := c.RedirectTarget(); ok {
			s.target = target
		}
	}
	if actions != 1 || s.target == (wire.RT{}) {
		return s, errors.New("its actions are not one redirect to a route target")
	}
	flow, err := wire.ParseFlow(p.Raw, p.NLRI.Kind == wire.KindFlowVPNv6)
	if err != nil {
		return s, err
	}
	s.classes, err = classify(flow)
	return s, err
}

// steer follows a change of the FlowSpec routes of an entry: what the dataplane must do is
// added to the worker's redirects, new ones first, and what the instance then no longer needs to
// its unused ones.
func (w *worker) steer(i *Instance, sel *rib.Selection) {
	var now steering
	if len(sel.Best) > 0 {
		var err error
		if now, err = i.steeringOf(&sel.Best[0]); err == nil {
			err = i.reachTarget(w.ctx, sel.Key, now.target)
		}
		if err != nil {
			now = steering{}
			i.m.Log.Warn("FlowSpec route not used", "instance", i.ID, "route", sel.Best[0].Text(sel.Best[0].Attrs.NextHop), "err", err)
		}
	}
	was, had := i.steered[sel.Key]
	if had && was.target == now.target && slices.Equal(was.classes, now.classes) {
		return
	}
	for _, c := range now.classes {
		i.claims[c] = append(i.claims[c], sel.Key)
		w.redirects = append(w.redirects, dataplane.Change{Entry: redirectEntry(c, now.target)})
	}
	for _, c := range was.classes {
		if change, ok := i.unclaim(c, sel.Key); ok {
			w.redirects = append(w.redirects, change)
		}
	}
	if now.classes != nil {
		i.steered[sel.Key] = now
	} else {
		delete(i.steered, sel.Key)
	}
	if had && was.target != now.target {
		w.unused = append(w.unused, targetUse{was.target, redirectUser{i, sel.Key}})
	}
}

// reachTarget makes sure that there is the instance to redirect to; when that fails it
// is tried again later.
func (i *Instance) reachTarget(ctx context.Context, key rib.EntryKey, target wire.RT) error {
	err := i.m.redirects.enter(ctx, i.m, target, redirectUser{i, key})
	if err != nil {
		time.AfterFunc(redirectRetry, func() { i.table.Refresh(key) })
		return fmt.Errorf("cannot make instance %q, will retry: %w", redirectID(target), err)
	}
	return nil
}

// redirectRetry is the pause before a redirect instance is tried again.
const redirectRetry = 10 * time.Second

func redirectEntry(c dataplane.Classifier, target wire.RT) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Redirect, Class: &c, Target: redirectID(target)}
}

// unclaim takes one claim of an entry to a class away, and returns what the dataplane must do. A class
// that several FlowSpec routes have is where the last of them redirects it.
func (i *Instance) unclaim(c dataplane.Classifier, key rib.EntryKey) (dataplane.Change, bool) {
	list := i.claims[c]
	at := slices.Index(list, key)
	last := at == len(list)-1
	list = slices.Delete(list, at, at+1)
	if len(list) == 0 {
		delete(i.claims, c)
		return dataplane.Change{Delete: true, Entry: redirectEntry(c, wire.RT{})}, true
	}
	i.claims[c] = list
	return dataplane.Change{Entry: redirectEntry(c, i.steered[list[len(list)-1]].target)}, last
}

// maxClasses bounds the classes of one FlowSpec route.
const maxClasses = 256

// classify returns the classes of packets that a flow is made of.
func classify(f wire.Flow) ([]dataplane.Classifier, error) {
	protocols, err := protocolsOf(&f)
	if err != nil {
		return nil, err
	}
	base := dataplane.Classifier{Destination: f.Destination, Source: f.Source}
	if !f.Destination.IsValid() {
		base.Destination = defaultPrefix(f.IPv6)
	}
	if !f.Source.IsValid() {
		base.Source = defaultPrefix(f.IPv6)
	}
	toPorts, fromPorts := orAll(f.DestinationPorts), orAll(f.SourcePorts)
	pairs := [][2][]wire.Range{{toPorts, fromPorts}}
	if f.Ports != nil { // of either end
		pairs = [][2][]wire.Range{{wire.Intersect(toPorts, f.Ports), fromPorts}, {toPorts, wire.Intersect(fromPorts, f.Ports)}}
	}
	var out []dataplane.Classifier
	for _, protocol := range protocols {
		for _, pair := range pairs {
			for _, to := range pair[0] {
				for _, from := range pair[1] {
					c := base
					c.Protocol, c.DestinationPorts, c.SourcePorts = protocol, dataplane.PortRange(to), dataplane.PortRange(from)
					if !slices.Contains(out, c) {
						out = append(out, c)
					}
				}
			}
		}
		if len(out) > maxClasses {
			return nil, fmt.Errorf("its components make more than %d combinations of protocols and port ranges", maxClasses)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("its components match no packet")
	}
	return out, nil
}

func orAll(list []wire.Range) []wire.Range {
	if list == nil {
		return []wire.Range{wire.Range(dataplane.AllPorts)}
	}
	return list
}

// portProtocols are those with ports: TCP, UDP (RFC 8955 §4.2.2.4) and SCTP when named.
var portProtocols = []uint16{6, 17, 132}

// protocolsOf lists the protocols of a flow. With ports it is about those that have any.
func protocolsOf(f *wire.Flow) (out []int16, err error) {
	ports := f.Ports != nil || f.DestinationPorts != nil || f.SourcePorts != nil
	switch {
	case f.Protocols == nil && !ports:
		return []int16{dataplane.AnyProtocol}, nil
	case f.Protocols == nil:
		return []int16{6, 17}, nil
	}
	for _, r := range f.Protocols {
		for n := int(r.First); n <= int(r.Last); n++ {
			if !ports || slices.Contains(portProtocols, uint16(n)) {
				out = append(out, int16(n))
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("its protocols have no ports")
	}
	return out, nil
}
