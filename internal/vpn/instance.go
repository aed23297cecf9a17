// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// Instance is a VPN instance with its endpoints.
type Instance struct {
	// Fixed at creation.
	ID        string // external id
	Name      string // "EVI-3" or "VRF-3"
	Number    uint32
	Type      dataplane.VPNType
	VNI       uint32 // or dataplane id of a VRF
	RD        wire.RD
	Gateway   netip.Addr
	PrefixLen int // of the first endpoint's subnet; 0 when it had no address
	Bridge    string
	// AdvertiseAs is AsVPN for an EVI, too.
	AdvertiseAs Advertise

	m         *Manager
	caps      dataplane.Capabilities // of the driver
	selfEncap encap.Type             // of next hops that are this node
	rdNumber  uint32
	ownVNI    bool // VNI is a label of ours
	queued    bool // guarded by the pool's lock

	// Kept for those who must not wait for mu, which is held while a driver works.
	count atomic.Int64                         // of endpoints
	plane atomic.Pointer[dataplane.Forwarding] // fwd

	mu          sync.Mutex
	ended       bool
	source      rib.SourceID
	table       *rib.Table
	fwd         *dataplane.Forwarding
	interner    *rib.Interner
	imports     []wire.RT
	exports     []wire.RT
	multicast   bool // the type 3 route is announced
	description json.RawMessage
	fallback    *Fallback
	chain       chain
	steered     map[rib.EntryKey]steering               // what FlowSpec routes redirect
	claims      map[dataplane.Classifier][]rib.EntryKey // which of them have a class
	unsteered   bool                                    // a FlowSpec route was not used, and the log says so
	join        *join                                   // of an EVI: the VRF it is plugged into
	vlan        uint16                                  // of the OVS ports of a VRF: the first one given
	endpoints   map[endpointKey]*endpoint
	macs        map[ethernet.MAC]*localMAC
	addrs       map[netip.Addr][]ethernet.MAC
	ports       map[string][]*endpoint
	left        []endpointKey // endpoints that the store still keeps
	changed     []endpointKey // those whose identifiers it does not know
	unkept      bool          // there are identifiers that it does not know
	stored      bool          // it has kept something of the instance
}

// endpointKey identifies an endpoint: the invalid address is the wildcard.
type endpointKey struct {
	mac ethernet.MAC
	ip  netip.Addr
}

// endpoint is a local endpoint with what it announces.
type endpoint struct {
	Attachment
	label    uint32 // MPLS label in a VRF; 0 on EVPN
	rdNumber uint32 // of its own RD
	ownRD    bool
	routes   []wire.NLRI

	chainRD    uint32 // number of the RD of routes of others through it
	hasChainRD bool
}

// macLabel is an MPLS label, 0 when there is none, and how many endpoints have it.
type macLabel struct {
	number    uint32
	endpoints int
}

// localMAC is what the endpoints of one MAC have in common.
type localMAC struct {
	port      string
	labels    [2]macLabel // of a VRF, by labelSlot
	endpoints int
	// seq is the MAC mobility sequence number announced (RFC 7432 §15).
	seq   uint32
	since time.Time
	// raised is set when seq was raised to win against another node's, or is that of the last run, or when
	// the other nodes' routes have gone: who has the MAC since then has a higher one.
	raised bool
	// contested is set when another node's route for the MAC was seen.
	contested bool
}

func newInstance(m *Manager, a Attachment, number uint32) *Instance {
	i := &Instance{
		ID: a.InstanceID, Name: instanceName(a.Type, number), Number: number, Type: a.Type,
		Gateway: a.Gateway, Bridge: a.Bridge, AdvertiseAs: a.AdvertiseAs, m: m, caps: m.reconciler.Driver(a.Type).Capabilities(), interner: m.rib.NewInterner(),
		endpoints: map[endpointKey]*endpoint{}, macs: map[ethernet.MAC]*localMAC{},
		addrs: map[netip.Addr][]ethernet.MAC{}, ports: map[string][]*endpoint{},
		steered: map[rib.EntryKey]steering{}, claims: map[dataplane.Classifier][]rib.EntryKey{},
	}
	if a.IP.IsValid() {
		i.PrefixLen = a.IP.Bits()
	}
	if i.AdvertiseAs == "" {
		i.AdvertiseAs = AsVPN
	}
	i.selfEncap = i.chooseEncap(&wire.Attrs{EncapBits: encapBits(i.caps.Encaps) &^ encap.Default.Bit()})
	return i
}

// parameters are what the driver is told about the instance.
func (i *Instance) parameters() dataplane.Instance {
	inst := dataplane.Instance{Number: i.Number, ID: i.ID, Type: i.Type, VNI: i.VNI, L3VNI: i.AdvertiseAs.evpn(), Bridge: i.Bridge}
	if i.Gateway.IsValid() {
		inst.Gateway = netip.PrefixFrom(i.Gateway, i.PrefixLen)
	}
	return inst
}

// open makes the instance's place in the RIB, where it looks at some routes, and in the dataplane.
func (i *Instance) open(ctx context.Context, view rib.View) error {
	fwd, err := i.m.reconciler.Open(ctx, i.parameters())
	if err != nil {
		return err
	}
	i.fwd = fwd
	i.plane.Store(fwd)
	if i.source, err = i.m.rib.AddSource(i.Name, rib.Local); err != nil {
		return err
	}
	salt := fnv.New64a()
	_, _ = salt.Write([]byte(i.m.Local.String() + " " + i.ID))
	i.table = i.m.rib.NewTable(rib.TableConfig{
		View: view, Source: i.source, Own: view == rib.VRF, ECMP: i.caps.ECMP, Salt: salt.Sum64(),
		Usable: i.usable(), Dirty: func() { i.m.pool.add(i) },
	})
	return nil
}

func (i *Instance) driver() dataplane.Driver { return i.m.reconciler.Driver(i.Type) }

// usable returns the test for routes that the dataplane can use: next hop of
// the underlay's family, an encapsulation that the driver has, one label, and a
// prefix of a family that it carries.
// Routes of other instances of the node, whose next hop is ourselves, count.
func (i *Instance) usable() func(wire.Route, *wire.Attrs) bool {
	caps := i.caps
	tunnel := i.m.Tunnel[i.Type]
	acceptNone := caps.AcceptDefault && (i.Type != dataplane.EVPN || i.m.AcceptNoEncap)
	accept := encapBits(caps.Encaps)
	evpn := i.Type == dataplane.EVPN
	only4 := caps.IPv4Only && !evpn
	type5 := i.usableType5()
	return func(r wire.Route, a *wire.Attrs) bool {
		if r.NLRI.Kind.IsFlow() {
			return true // what cannot be used of it is told when it is looked at
		}
		end, label := a.NextHop, r.Label
		if r.NLRI.Kind == wire.KindIMET {
			end, label = a.PMSI.Endpoint, a.PMSI.Label
		}
		if !end.IsValid() || end.Is4() != tunnel.Is4() || r.MultiLabel || evpn && label == 0 || only4 && r.NLRI.IP().Is6() {
			return false
		}
		if r.NLRI.Kind == wire.KindPrefix {
			return type5(r, a)
		}
		offered := a.EncapBits
		return offered == 0 && acceptNone || offered&accept != 0
	}
}

// usableType5 returns the test for what EVPN type 5 routes need beside: VXLAN, a
// VNI, and a MAC address at the far end to send frames to. Routes that have to be
// resolved through others are not used (RFC 9136 §4.4.1 is the form without).
func (i *Instance) usableType5() func(wire.Route, *wire.Attrs) bool {
	able, acceptNone := routesVXLAN(i.caps), i.m.AcceptNoEncap
	return func(r wire.Route, a *wire.Attrs) bool {
		if !able || r.Label == 0 || a.RouterMAC.IsZero() || r.Recursive() {
			return false
		}
		return a.EncapBits == 0 && acceptNone || a.EncapBits&encap.VXLAN.Bit() != 0
	}
}

func encapBits(types []encap.Type) (bits uint64) {
	for _, t := range types {
		bits |= t.Bit()
	}
	return bits
}

// end takes the instance away: routes, imports, forwarding, identifiers. It
// runs with i.mu held, also for an instance that was opened only in part, and returns the wait
// until the store has forgotten it.
func (i *Instance) end(ctx context.Context) (wait func(context.Context)) {
	i.ended = true
	var b rib.Batch
	for _, e := range i.endpoints {
		for _, n := range e.routes {
			i.withdraw(&b, n)
		}
		i.freeRD(e)
		i.freeChainRD(e)
	}
	for _, m := range i.macs {
		for _, l := range m.labels {
			if l.number != 0 {
				i.m.labels.Free(l.number)
			}
		}
	}
	if i.multicast {
		b.Withdraw(wire.IMETRoute(i.RD, i.m.originator()))
	}
	if i.chain.table != nil {
		i.chain.table.Close()
	}
	i.giveRD(i.chain.relayRD, &i.chain.hasRelayRD)
	if i.table != nil {
		i.m.rib.Apply(i.source, &b)
		i.table.Close()
		i.m.rib.RemoveSource(i.source)
	}
	if i.fwd != nil {
		i.fwd.Remove(ctx)
	}
	for key, s := range i.steered {
		i.m.leaveRedirect(ctx, s.target, redirectUser{i, key})
	}
	wait = i.keep() // before others have its identifiers
	i.m.forget(i)
	return wait
}

func (i *Instance) freeRD(e *endpoint) { i.giveRD(e.rdNumber, &e.ownRD) }

// labelSlot tells which of a MAC's labels an address has: all the same one, unless the
// driver needs one for each IP version.
func (i *Instance) labelSlot(ip netip.Addr) int {
	if i.caps.LabelPerFamily && ip.Is6() {
		return 1
	}
	return 0
}

// freeUnused gives the labels of a MAC back that no endpoint has.
func (i *Instance) freeUnused(m *localMAC) {
	for n := range m.labels {
		if l := &m.labels[n]; l.number != 0 && l.endpoints == 0 {
			i.m.labels.Free(l.number)
			l.number = 0
		}
	}
}

// setTargets replaces the route targets; all routes of the instance are
// announced again when the exports change.
func (i *Instance) setTargets(imports, exports []wire.RT) (exportsChanged bool) {
	imports, exports = sortedRTs(imports), sortedRTs(exports)
	if !slices.Equal(imports, i.imports) {
		i.imports = imports
		i.table.SetImports(imports)
	}
	if slices.Equal(exports, i.exports) {
		return false
	}
	i.exports = exports
	return true
}
