// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"bytes"
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

// redirectID returns the id of the instance that packets are redirected to. An AS number of
// four octets that two would do for has an L behind it: it makes another route target.
func redirectID(target wire.RT) string {
	as, number, _ := strings.Cut(target.String(), ":")
	if target[0] == 2 && target[2]|target[3] == 0 {
		as += "L"
	}
	return redirectPrefix + string(dataplane.IPVPN) + "-" + as + "_" + number
}

// maxRedirects bounds the redirect instances: their route targets are what peers say.
const maxRedirects = 1024

// redirects are the instances that packets are redirected to: VRFs without ports that
// import one route target, shared by all VRFs of the node (RFC 8955 §7.4). Each is
// there as long as it has users.
type redirects struct {
	mu   sync.Mutex // after those of redirectInstances
	byRT map[wire.RT]*redirectInstance
	open int
}

// redirectInstance is the instance for a route target. Its lock comes after those of its
// users' VRFs and before that of the instance.
type redirectInstance struct {
	mu       sync.Mutex
	instance *Instance // nil: not open
	users    map[redirectUser]struct{}
	gone     bool // no longer in byRT
	// Of one that could not be opened: why, and the users who wait until it is tried again.
	err     error
	waiting map[redirectUser]struct{} // nil: it is time
	pause   time.Duration
	timer   *time.Timer
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

// lock returns what there is for a route target, with its lock held.
func (r *redirects) lock(target wire.RT) *redirectInstance {
	for {
		r.mu.Lock()
		x := r.byRT[target]
		if x == nil {
			x = &redirectInstance{users: map[redirectUser]struct{}{}}
			r.byRT[target] = x
		}
		r.mu.Unlock()
		x.mu.Lock()
		if !x.gone {
			return x
		}
		x.mu.Unlock()
	}
}

// unlock undoes lock, and drops what is neither open nor to be tried again.
func (r *redirects) unlock(target wire.RT, x *redirectInstance) {
	if !x.gone && x.instance == nil && x.err == nil {
		x.gone = true
		r.mu.Lock()
		delete(r.byRT, target)
		r.mu.Unlock()
	}
	x.mu.Unlock()
}

// count notes one instance more (1) or less (-1), unless there would be too many.
func (r *redirects) count(by int) (ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ok = r.open+by <= maxRedirects; ok {
		r.open += by
	}
	return ok
}

// enterRedirect makes sure that there is the instance for a route target, for a user whose
// lock is held. When that fails, the user's entry is refreshed later.
func (m *Manager) enterRedirect(ctx context.Context, target wire.RT, u redirectUser) error {
	x := m.redirects.lock(target)
	defer m.redirects.unlock(target, x)
	if x.instance == nil && x.waiting == nil {
		if x.instance, x.err = m.openRedirect(ctx, target); x.err != nil {
			m.postpone(target, x)
		}
	}
	if x.err != nil {
		x.waiting[u] = struct{}{}
		return x.err
	}
	x.users[u] = struct{}{}
	return nil
}

// leaveRedirect undoes enterRedirect. What redirects to the instance is gone by then.
func (m *Manager) leaveRedirect(ctx context.Context, target wire.RT, u redirectUser) {
	x := m.redirects.lock(target)
	defer m.redirects.unlock(target, x)
	if delete(x.users, u); len(x.users) > 0 || x.instance == nil {
		return
	}
	x.instance.mu.Lock()
	defer x.instance.mu.Unlock()
	x.instance.end(ctx)
	x.instance = nil
	m.redirects.count(-1)
}

// The pause before a redirect instance is tried again doubles from the first to the longest.
const (
	firstPause   = 10 * time.Second
	longestPause = 5 * time.Minute
)

// postpone has those who need an instance that could not be opened wait. It runs with x.mu held.
func (m *Manager) postpone(target wire.RT, x *redirectInstance) {
	x.waiting = map[redirectUser]struct{}{}
	x.pause = min(max(2*x.pause, firstPause), longestPause)
	if x.timer == nil {
		x.timer = time.AfterFunc(x.pause, func() { m.resume(target, x) })
	} else {
		x.timer.Reset(x.pause)
	}
}

// resume has those who wait try again. When nobody has come back after another pause, what
// is known about the failure is dropped.
func (m *Manager) resume(target wire.RT, x *redirectInstance) {
	x.mu.Lock()
	waiting := x.waiting
	x.waiting = nil
	if waiting == nil {
		x.err = nil
	} else {
		x.timer.Reset(x.pause)
	}
	m.redirects.unlock(target, x)
	for u := range waiting {
		u.vrf.table.Refresh(u.key)
	}
}

// openRedirect makes the instance for a route target.
func (m *Manager) openRedirect(ctx context.Context, target wire.RT) (i *Instance, err error) {
	if !m.redirects.count(1) {
		return nil, fmt.Errorf("there are %d redirect instances: want no more", maxRedirects)
	}
	defer func() {
		if err != nil {
			m.redirects.count(-1)
		}
	}()
	a := Attachment{Type: dataplane.IPVPN, InstanceID: redirectID(target), Imports: []wire.RT{target}}
	m.mu.Lock()
	i, err = m.reserve(a)
	if err == nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		m.instances[a.InstanceID] = i
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := i.open(ctx, rib.Redirect); err != nil {
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
	flow    []byte // the route's components
}

// before tells whether a FlowSpec route counts before another one where a packet is in both:
// of numbers the lower octets, and then the longer list (RFC 8955 §5.1).
func (s *steering) before(o *steering) bool {
	n := min(len(s.flow), len(o.flow))
	if d := bytes.Compare(s.flow[:n], o.flow[:n]); d != 0 {
		return d < 0
	}
	return len(s.flow) > len(o.flow)
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
	s.flow = p.Raw
	s.classes, err = classify(&flow)
	return s, err
}

// steer follows a change of the FlowSpec routes of an entry: what the dataplane must do is
// added to the worker's redirects, new ones first, and what the instance then no longer needs to
// its unused ones.
func (w *worker) steer(i *Instance, sel *rib.Selection) {
	now := w.chooseSteering(i, sel)
	was, had := i.steered[sel.Key]
	if had && was.target == now.target {
		return // the classes are those of the entry
	}
	if now.classes != nil {
		i.steered[sel.Key] = now
	} else {
		delete(i.steered, sel.Key)
	}
	for _, c := range now.classes {
		if !slices.Contains(i.claims[c], sel.Key) {
			i.claims[c] = append(i.claims[c], sel.Key)
		}
		w.redirects = append(w.redirects, i.claimed(c))
	}
	for _, c := range was.classes {
		if !slices.Contains(now.classes, c) {
			i.claims[c] = slices.DeleteFunc(i.claims[c], func(k rib.EntryKey) bool { return k == sel.Key })
			w.redirects = append(w.redirects, i.claimed(c))
		}
	}
	if had {
		w.unused = append(w.unused, targetUse{was.target, redirectUser{i, sel.Key}})
	}
}

// chooseSteering returns what the best of the FlowSpec routes of an entry asks for that can be
// used; nothing when none can. Their packets are the same.
func (w *worker) chooseSteering(i *Instance, sel *rib.Selection) steering {
	for n := range sel.Best {
		p := &sel.Best[n]
		s, err := i.steeringOf(p)
		if err == nil {
			if err = i.m.enterRedirect(w.ctx, s.target, redirectUser{i, sel.Key}); err != nil {
				err = fmt.Errorf("cannot make instance %q, will retry: %w", redirectID(s.target), err)
			}
		}
		if err == nil {
			return s
		}
		if i.caps.Redirect || !i.unsteered {
			i.unsteered = true // said once of a driver that cannot, which stays so
			i.m.Log.Warn("FlowSpec route not used", "instance", i.ID, "route", p.Text(p.Attrs.NextHop), "err", err)
		}
	}
	return steering{}
}

func redirectEntry(c dataplane.Classifier, target wire.RT) dataplane.Entry {
	return dataplane.Entry{Kind: dataplane.Redirect, Class: &c, Target: redirectID(target)}
}

// claimed returns what the dataplane must do for a class: of the FlowSpec routes that have it
// the first in order decides (steering.before).
func (i *Instance) claimed(c dataplane.Classifier) dataplane.Change {
	var first *steering
	for _, key := range i.claims[c] {
		if s := i.steered[key]; first == nil || s.before(first) {
			first = &s
		}
	}
	if first == nil {
		delete(i.claims, c)
		return dataplane.Change{Delete: true, Entry: redirectEntry(c, wire.RT{})}
	}
	return dataplane.Change{Entry: redirectEntry(c, first.target)}
}

// maxClasses bounds the classes of one FlowSpec route, so that drivers have room for all.
const maxClasses = 32

// classify returns the classes of packets that a flow is made of.
func classify(f *wire.Flow) ([]dataplane.Classifier, error) {
	protocols, err := protocolsOf(f)
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
	count := 0
	for _, pair := range pairs {
		count += len(protocols) * len(pair[0]) * len(pair[1])
	}
	if count > maxClasses {
		return nil, fmt.Errorf("its components make %d combinations of protocols and port ranges: want at most %d", count, maxClasses)
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

// protocolsOf lists the protocols of a flow. With ports it is about those that have any: TCP and
// UDP (RFC 8955 §4.2.2.4), and SCTP when named.
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
			if !ports || wire.HasPorts(uint16(n)) {
				out = append(out, int16(n))
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("its protocols have no ports")
	}
	return out, nil
}
