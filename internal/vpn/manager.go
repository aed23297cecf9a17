// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/allocator"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/store"
)

// Config describes the node to its instances.
type Config struct {
	AS uint32
	// RouterID is the administrator of route distinguishers, IPv4.
	RouterID netip.Addr
	// Local is the BGP address: originator of multicast routes.
	Local netip.Addr
	// Tunnel is the dataplane address by VPN type: next hop of our routes.
	Tunnel map[dataplane.VPNType]netip.Addr
	// AcceptNoEncap takes EVPN routes without encapsulation community as VXLAN.
	AcceptNoEncap bool
	// Joiner joins E-VPN instances to VRFs; nil if the node cannot.
	Joiner Joiner
	// Store keeps instances and endpoints over a restart; nil if nobody does.
	Store *store.Store
	// FirstLabel is the smallest label to hand out; 0: 16, the smallest that there is.
	FirstLabel uint32
	// RTC announces which route targets the instances import (RFC 4684).
	RTC bool
	Log *slog.Logger
}

const (
	// MaxVNI is the largest VNI (RFC 7348 §5).
	MaxVNI = 1<<24 - 1
	// MaxRouteTargets bounds each list of route targets of an instance. 250 take 2,000 octets, so that a route with all else it carries fits
	// a message of 4,096 octets (RFC 4271 §4.1), which all peers take.
	MaxRouteTargets = 250
	// MaxStaticPrefixes bounds the static prefixes of an instance: each is a FlowSpec route.
	MaxStaticPrefixes = 1024
)

// Manager holds the VPN instances of the node. Make it with NewManager, then
// Run it. Its methods may be called concurrently.
type Manager struct {
	Config
	rib        *rib.RIB
	reconciler *dataplane.Reconciler
	rds        *allocator.Allocator
	labels     *allocator.Allocator // MPLS labels, and VNIs that are not given or that VRFs receive by
	behind     behind
	redirects  redirects
	pool       *pool
	// joining is held while a join is made, used by an attach, or undone; before mu
	// and the locks of instances.
	joining sync.Mutex

	mu        sync.Mutex
	instances map[string]*Instance
	vnis      map[uint32]struct{} // of all instances that use theirs, given ones too
	joins     map[string]*join    // by the id of the VRF
	numbers   uint32              // the last one given to an instance
	last      map[string]*lastRun // instances to be restored, by id
	kept      bool
	// restoring is held while an instance of the last run is made again; before all other locks
	// but joining.
	restoring sync.Mutex
}

// NewManager returns a Manager without instances.
func NewManager(c Config, r *rib.RIB, rec *dataplane.Reconciler) (*Manager, error) {
	m := &Manager{
		Config: c, rib: r, reconciler: rec, pool: newPool(), instances: map[string]*Instance{}, vnis: map[uint32]struct{}{},
		joins:  map[string]*join{},
		rds:    allocator.New("route distinguisher", 0, 65535),
		labels: allocator.New("label", max(c.FirstLabel, 16), 1<<20-1), // RFC 3032 §2.1
		behind: behind{labels: map[wire.NLRI]uint32{}}, redirects: redirects{byRT: map[wire.RT]*redirectInstance{}},
	}
	m.readStore()
	if !c.RTC {
		return m, nil
	}
	src, err := r.AddSource("BGPManager", rib.Local)
	if err != nil {
		return nil, err
	}
	r.OriginateRTC(src, c.AS, wire.LocalAttrs{NextHop: c.Local}.Build())
	return m, nil
}

// Run serves the instances until ctx ends. Forwarding state stays.
func (m *Manager) Run(ctx context.Context) {
	done := make(chan struct{})
	go func() { m.keepRestoring(ctx); close(done) }()
	m.pool.run(ctx, max(2, runtime.GOMAXPROCS(0)))
	<-done
}

// Labels returns the labels in use with their owners: MPLS labels and VNIs,
// but for the VNIs that requests gave, unless EVPN type 5 routes announce them.
func (m *Manager) Labels() map[uint32]string { return m.labels.InUse() }

// RDs returns the route distinguisher numbers in use with their owners.
func (m *Manager) RDs() map[uint32]string { return m.rds.InUse() }

// Instances returns all instances, by number.
func (m *Manager) Instances() []*Instance {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*Instance, 0, len(m.instances))
	for _, i := range m.instances {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b *Instance) int { return int(a.Number) - int(b.Number) })
	return out
}

// Instance returns the instance with an external id, or nil.
func (m *Manager) Instance(id string) *Instance {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.instances[id]
}

// Count returns the number of instances.
func (m *Manager) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.instances)
}

// Attach adds or updates an endpoint; the instance is created with its first
// one. A *RequestError says what is wrong with the request; any other error is
// the dataplane's. On error nothing has changed.
func (m *Manager) Attach(ctx context.Context, a Attachment) error {
	if a.EVI.ID != "" {
		return m.attachEVI(ctx, a)
	}
	if err := m.check(a); err != nil {
		return err
	}
	if err := m.restore(ctx, a.InstanceID); err != nil {
		return err
	}
	for {
		i, created, err := m.lockInstance(ctx, a)
		if err != nil {
			return err
		}
		if i == nil {
			continue // it ended while we waited for it
		}
		wait, err := i.add(ctx, a, created)
		if err != nil {
			return refusal(err)
		}
		wait(ctx)
		return nil
	}
}

// add carries out an attachment to an instance whose lock is held, and unlocks it. It returns the wait
// until the store has it.
func (i *Instance) add(ctx context.Context, a Attachment, created bool) (wait func(context.Context), err error) {
	defer i.mu.Unlock()
	e, err := i.attach(ctx, a)
	if err == nil {
		return i.keep(e), nil
	}
	if created {
		i.end(ctx)
	}
	return nil, err
}

// check refuses what no instance could do.
func (m *Manager) check(a Attachment) error {
	d := m.reconciler.Driver(a.Type)
	if d == nil {
		return refuse("vpn_type", "No dataplane driver for VPN type %s", a.Type)
	}
	caps := d.Capabilities()
	switch {
	case strings.HasPrefix(a.InstanceID, redirectPrefix):
		return refuse("vpn_instance_id", "%q: ids that begin with %q are those of instances that FlowSpec routes redirect to", a.InstanceID, redirectPrefix)
	case !slices.Contains(caps.Directions, a.Direction):
		return refuse("direction", "Unsupported direction: %s (driver %q takes %v)", a.Direction, d.Name(), caps.Directions)
	case a.Bridge != "" && (a.Type != dataplane.EVPN || !caps.ExistingBridge):
		return refuse("linuxbr", "an existing bridge cannot be used by driver %q for %s", d.Name(), a.Type)
	case a.OVS != (dataplane.OVSPort{}) && !caps.OVSPorts:
		return refuse("local_port", "a port of an Open vSwitch bridge (%s) cannot be used by driver %q for %s", a.OVS, d.Name(), a.Type)
	case a.Fallback != nil && !caps.Fallback && a.Type == dataplane.IPVPN:
		return refuse("fallback", "driver %q for %s sends no traffic elsewhere that has no route", d.Name(), a.Type)
	case a.Fallback != nil && a.Type == dataplane.IPVPN && caps.OVSPorts && (a.Fallback.Port == 0 || a.Fallback.Device != ""):
		return refuse("fallback", "driver %q for %s wants ovs_port_number, and no linuxif", d.Name(), a.Type)
	case a.Fallback != nil && a.Type == dataplane.IPVPN && !caps.OVSPorts && (a.Fallback.Device == "" || a.Fallback.Port != 0):
		return refuse("fallback", "driver %q for %s wants linuxif, and no ovs_port_number", d.Name(), a.Type)
	case a.Type == dataplane.IPVPN && a.IP.Addr().Is6() && caps.IPv4Only:
		return refuse("ip_address", "driver %q for %s carries no IPv6: %s", d.Name(), a.Type, a.IP)
	case a.Type == dataplane.IPVPN && !a.IP.IsValid():
		return refuse("ip_address", "Missing parameter: 'ip_address'")
	case a.Type == dataplane.EVPN && a.AdvertiseSubnet && a.IP.IsValid() && !a.IP.IsSingleIP():
		return refuse("advertise_subnet", "an EVPN endpoint is a single address: %s is a subnet", a.IP)
	case a.IP.IsValid() && !isHost(a.IP.Addr()) && !(a.AdvertiseSubnet && !a.IP.IsSingleIP() && a.IP.Addr().IsUnspecified()):
		return refuse("ip_address", "%s is not that of an endpoint: want a unicast address", a.IP)
	case !isHostMAC(a.MAC):
		return refuse("mac_address", "MAC address %s is not that of an endpoint: want a unicast address", a.MAC)
	case len(a.Imports) > MaxRouteTargets:
		return refuse("import_rt", "%d route targets: want at most %d", len(a.Imports), MaxRouteTargets)
	case len(a.Exports) > MaxRouteTargets:
		return refuse("export_rt", "%d route targets: want at most %d", len(a.Exports), MaxRouteTargets)
	case a.Readvertise != nil && max(len(a.Readvertise.From), len(a.Readvertise.To)) > MaxRouteTargets:
		return refuse("readvertise", "%d and %d route targets: want at most %d", len(a.Readvertise.From), len(a.Readvertise.To), MaxRouteTargets)
	case a.Attract != nil && len(a.Attract.Redirect) > MaxRouteTargets:
		return refuse("attract_traffic", "redirect_rts: %d route targets: want at most %d", len(a.Attract.Redirect), MaxRouteTargets)
	case a.Attract != nil && len(a.Attract.Static) > MaxStaticPrefixes:
		return refuse("attract_traffic", "static_destination_prefixes: %d prefixes: want at most %d", len(a.Attract.Static), MaxStaticPrefixes)
	case a.AdvertiseAs != "" && a.Type != dataplane.IPVPN:
		return refuse("advertise_as", "%s: an instance of type %s has no choice of this: want it left out", a.AdvertiseAs, a.Type)
	case !slices.Contains([]Advertise{"", AsVPN, AsEVPN, AsBoth}, a.AdvertiseAs):
		return refuse("advertise_as", "%s: want %s, %s or %s", a.AdvertiseAs, AsVPN, AsEVPN, AsBoth)
	case a.AdvertiseAs.evpn() && !routesVXLAN(caps):
		return refuse("advertise_as", "%s: driver %q for %s does not route packets that come in VXLAN: want %s", a.AdvertiseAs, d.Name(), a.Type, AsVPN)
	case a.VNI > MaxVNI:
		return refuse("vni", "%d: want 1 to %d, or 0 to allocate one", a.VNI, MaxVNI)
	}
	return nil
}

// routesVXLAN tells whether a driver can be the far end of EVPN type 5 routes.
func routesVXLAN(caps dataplane.Capabilities) bool {
	return !caps.RouterMAC.IsZero() && slices.Contains(caps.Encaps, encap.VXLAN)
}

// lockInstance returns the instance of the attachment with its lock held; it is
// created when it is not there. Nil without error means: try again.
func (m *Manager) lockInstance(ctx context.Context, a Attachment) (i *Instance, created bool, err error) {
	m.mu.Lock()
	if i = m.instances[a.InstanceID]; i != nil {
		m.mu.Unlock()
		i.mu.Lock()
		if i.ended {
			i.mu.Unlock()
			return nil, false, nil
		}
		if i.Type != a.Type {
			i.mu.Unlock()
			return nil, false, refuse("vpn_type", "instance %q exists with type %s", a.InstanceID, i.Type)
		}
		return i, false, nil
	}
	i, err = m.reserve(a)
	if err == nil {
		i.mu.Lock()
		m.instances[a.InstanceID] = i
	}
	m.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	err = i.driver().Check(ctx, i.parameters(), dataplane.Port{Name: a.Port, OVS: a.OVS})
	if err == nil {
		err = i.open(ctx, i.view())
	}
	if err != nil {
		i.end(ctx)
		i.mu.Unlock()
		return nil, false, refusal(err)
	}
	return i, true, nil
}

// reserve takes the identifiers of a new instance. It runs with m.mu held.
func (m *Manager) reserve(a Attachment) (*Instance, error) {
	m.numbers++
	i := newInstance(m, a, m.numbers)
	if err := m.takeVNI(i, a.VNI); err != nil {
		return nil, err
	}
	n, err := m.rds.Allocate(i.Name)
	if err != nil {
		m.freeVNI(i)
		return nil, fmt.Errorf("create instance %q: %w", a.InstanceID, err)
	}
	i.rdNumber = n
	i.RD = wire.MakeRD(m.RouterID, uint16(n))
	return i, nil
}

// takeVNI gives an instance the VNI that the request asks for, which must not
// be that of another instance, or else a label of our own. A VNI and an MPLS
// label may be the same number, but not where packets with either come in VXLAN. It
// runs with m.mu held.
func (m *Manager) takeVNI(i *Instance, asked uint32) error {
	if asked != 0 {
		if _, used := m.vnis[asked]; used {
			return refuse("vni", "A VPN instance using vni %d already exists.", asked)
		}
		own := i.AdvertiseAs.evpn() || i.Type == dataplane.EVPN && LabelsInVXLAN(m.reconciler.Driver(dataplane.IPVPN))
		if own && !m.labels.Reserve(asked, i.Name) {
			return refuse("vni", "%d is a label of this node (%s): want another one, or none to have one allocated", asked, m.labels.InUse()[asked])
		}
		i.VNI, i.ownVNI = asked, own
		m.vnis[asked] = struct{}{}
		return nil
	}
	var passed []uint32 // labels that are the given VNI of an instance
	defer func() {
		for _, n := range passed {
			m.labels.Free(n)
		}
	}()
	for {
		n, err := m.labels.Allocate(i.Name)
		if err != nil {
			return fmt.Errorf("create instance %q: %w", i.ID, err)
		}
		if _, used := m.vnis[n]; !used {
			i.VNI, i.ownVNI = n, true
			if usesVNI(i.Type, i.AdvertiseAs, true) {
				m.vnis[n] = struct{}{}
			}
			return nil
		}
		passed = append(passed, n)
	}
}

// usesVNI tells whether the VNI of an instance is more than a number to show: packets come with
// it, or a request has named it. Allocated is whether it is a label of ours.
func usesVNI(t dataplane.VPNType, as Advertise, allocated bool) bool {
	return t == dataplane.EVPN || as.evpn() || !allocated
}

// LabelsInVXLAN tells whether packets with the labels of VRFs may come in VXLAN with a driver
// for IP VPNs, nil for none; there only the number tells them from those of an E-VPN.
func LabelsInVXLAN(d dataplane.Driver) bool {
	return d != nil && slices.Contains(d.Capabilities().Encaps, encap.VXLAN)
}

// freeVNI undoes takeVNI. It runs with m.mu held.
func (m *Manager) freeVNI(i *Instance) {
	if usesVNI(i.Type, i.AdvertiseAs, i.ownVNI) {
		delete(m.vnis, i.VNI)
	}
	if i.ownVNI {
		m.labels.Free(i.VNI)
	}
}

// forget gives the identifiers of an instance back.
func (m *Manager) forget(i *Instance) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.instances, i.ID)
	m.freeVNI(i)
	m.rds.Free(i.rdNumber)
}

// Detach removes an endpoint; the instance ends with its last one. Errors are
// as for Attach.
func (m *Manager) Detach(ctx context.Context, d Detachment) error {
	if err := m.restore(ctx, d.InstanceID); err != nil {
		return err
	}
	if m.isJoined(d.InstanceID) {
		m.joining.Lock()
		defer m.joining.Unlock()
		defer m.partUnused(ctx, d.InstanceID)
	}
	i := m.Instance(d.InstanceID)
	if i == nil || strings.HasPrefix(i.ID, redirectPrefix) {
		return refuse("vpn_instance_id", "VPN %s could not be found", d.InstanceID)
	}
	wait, err := i.remove(ctx, d)
	if err != nil {
		return err
	}
	wait(ctx)
	return nil
}

// remove carries out a detachment. It returns the wait until the store has it.
func (i *Instance) remove(ctx context.Context, d Detachment) (wait func(context.Context), err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.ended:
		return nil, refuse("vpn_instance_id", "VPN %s could not be found", d.InstanceID)
	case i.Type != d.Type:
		return nil, refuse("vpn_type", "instance %q exists with type %s", d.InstanceID, i.Type)
	}
	if err := i.detach(ctx, d); err != nil {
		return nil, err
	}
	if len(i.endpoints) == 0 && i.join == nil {
		return i.end(ctx), nil
	}
	return i.keep(), nil
}

// originator is the originating router's address of type 3 routes: the BGP
// address, or the tunnel's when only that is IPv4. Receivers exist that reset the
// session for an IPv6 originator.
func (m *Manager) originator() netip.Addr {
	if tunnel := m.Tunnel[dataplane.EVPN]; m.Local.Is6() && tunnel.Is4() {
		return tunnel
	}
	return m.Local
}

// instanceName is the name of an instance as a source of routes.
func instanceName(t dataplane.VPNType, number uint32) string {
	kind := "EVI"
	if t == dataplane.IPVPN {
		kind = "VRF"
	}
	return fmt.Sprintf("%s-%d", kind, number)
}

// sortedRTs returns a sorted copy without duplicates.
func sortedRTs(rts []wire.RT) []wire.RT {
	out := slices.Clone(rts)
	slices.SortFunc(out, func(a, b wire.RT) int { return strings.Compare(string(a[:]), string(b[:])) })
	return slices.Compact(out)
}
