// SPDX-License-Identifier: Apache-2.0

// Package dataplane describes the forwarding state that a VPN instance wants,
// the Driver that carries it into one kind of forwarding plane, and the
// Reconciler that keeps what is installed equal to what is desired.
//
// State is a set of entries, values with keys. A caller hands the Reconciler
// desired entries; the Reconciler compares them with what is installed, gives
// the driver only the difference, retries what failed with back-off, and shows
// what is not installed. When others take an instance's devices or ports away, it
// has them made again and replays what is desired. A driver has no memory of its own that matters: after
// a restart it tells from the kernel what is installed.
//
// A driver never touches what it does not own. How it marks its own is the
// driver's business (device alias, extern_learn, protocol number, cookie).
//
// Concurrency: calls for one instance come one at a time; calls for different
// instances may run in parallel.
package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// VPNType says what kind of VPN instance forwarding is for.
type VPNType string

// The two kinds of instances, with their names in the REST API.
const (
	EVPN  VPNType = "evpn"
	IPVPN VPNType = "ipvpn"
)

// GatewayMAC is the MAC address of the gateways of all VRFs, on all nodes.
var GatewayMAC = ethernet.MAC{0x00, 0x00, 0x5e, 0x00, 0x43, 0x64}

// Direction says which way an endpoint's traffic may go, with the names of
// the REST API.
type Direction string

// Directions of an endpoint.
const (
	Both     Direction = "both"
	ToPort   Direction = "to-port"
	FromPort Direction = "from-port"
)

// Capabilities tells what a driver can do. They decide what is announced and
// what a request may ask for.
type Capabilities struct {
	// Encaps are the encapsulations announced with our routes, best first.
	Encaps []encap.Type
	// AcceptDefault is set when a route without encapsulation community can be used.
	AcceptDefault bool
	// DefaultEncap is used for such a route; the first of Encaps when zero.
	DefaultEncap encap.Type
	// ECMP is set when a prefix may have several next hops.
	ECMP bool
	// Directions an endpoint may ask for.
	Directions []Direction
	// ExistingBridge is set when an instance may use a bridge made by others ("linuxbr").
	ExistingBridge bool
	// IPv6Underlay is set when next hops may be IPv6 addresses.
	IPv6Underlay bool
	// IPv4Only is set when a VRF carries no IPv6.
	IPv4Only bool
	// OVSPorts is set when a port may be one of an Open vSwitch bridge ("local_port.ovs").
	OVSPorts bool
	// Fallback is set when traffic without route can be sent elsewhere ("fallback").
	Fallback bool
	// Redirect is set when classes of traffic can be routed in another instance (Redirect).
	Redirect bool
	// BridgePorts is set when a VRF can have the bridge of an E-VPN instance itself as a
	// port, and needs no pair of devices to meet it.
	BridgePorts bool
	// LabelPerFamily is set when a label may stand for IPv4 or for IPv6 endpoints only.
	LabelPerFamily bool
	// RouterMAC is the node's MAC address in EVPN type 5 routes (RFC 9135 §5.1); zero
	// when the driver carries no VRF over VXLAN that way.
	RouterMAC ethernet.MAC
}

// Instance is what a driver must know to make room for a VPN instance.
type Instance struct {
	// Number is unique among the living instances of the process.
	Number uint32
	// ID is the external id (vpn_instance_id); free text, unique, stable over restarts.
	ID   string
	Type VPNType
	// VNI is the instance's VNI or dataplane id, 1..16777215.
	VNI uint32
	// Gateway is the address that a VRF was created with, and the length of its first
	// endpoint's subnet: within it, TTLs are left alone. Or invalid.
	Gateway netip.Prefix
	// L3VNI is set when traffic of a VRF also arrives in VXLAN with VNI, for any of its
	// local prefixes (RFC 9136 §4.4.1).
	L3VNI bool
	// Bridge names an existing bridge to use, or is empty.
	Bridge string
}

// Kind tells what an Entry is about, and with it which members are set.
type Kind uint8

// Kinds of entries.
const (
	// LocalPort attaches device Port to the instance. Direction says whether traffic
	// goes from it, to it, or both; OVS how it is reached in an Open vSwitch bridge. Transit is
	// set when it forwards traffic of others, so that its packets may be from any address. Key: Port.
	LocalPort Kind = iota + 1
	// LocalMAC binds MAC to local device Port. Key: MAC.
	LocalMAC
	// RemoteMAC sends frames for MAC to NextHops[0]. Key: MAC.
	RemoteMAC
	// Neighbour lets the instance answer ARP or ND for IP with MAC, instead of flooding the request. Key: IP.
	Neighbour
	// Flood sends a copy of broadcast, unknown unicast and multicast frames to NextHops[0]. Key: its address and label.
	Flood
	// Prefix routes Prefix to NextHops. Key: Prefix.
	Prefix
	// LocalPrefix is an endpoint of a VRF, IP at MAC behind device Port: traffic that
	// arrives with Label goes there, as does traffic routed by a Prefix whose next hop is
	// this node with that label. Prefix is what the endpoint may send from and is
	// announced with. The instance answers ARP, ND and ping for Gateway, if valid. Key:
	// Label and IP.
	LocalPrefix
	// Fallback sends traffic of a VRF that has no route to device Port, or to OVS.Number with
	// VLAN OVS.VLAN, to MAC from Source. Key: none, there is one.
	Fallback
	// Redirect routes packets from ports of a VRF that are in Class in the instance whose
	// ID is Target, in place of this one; of several classes that hold a packet the first
	// counts (Classifier.Compare). The target is open, and has no Redirect of its own. Key: Class.
	Redirect
	// Whole is the instance itself: what Open makes. Only a Problem has such an entry.
	Whole
)

var kindNames = [...]string{
	LocalPort: "port", LocalMAC: "local-mac", RemoteMAC: "mac", Neighbour: "neigh",
	Flood: "flood", Prefix: "prefix", LocalPrefix: "local-prefix",
	Fallback: "fallback", Redirect: "redirect", Whole: "instance",
}

// String returns a short lower-case name such as "mac", used in logs and metrics.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// NextHop is the far end of a tunnel.
type NextHop struct {
	// Addr is the tunnel end point (VTEP, PE).
	Addr netip.Addr
	// Label is the 24-bit VNI or the 20-bit MPLS label towards Addr.
	Label uint32
	// Encap is the encapsulation to use.
	Encap encap.Type
	// Order is the consistent-hash sort order of the route, 0 when absent.
	Order uint32
	// RouterMAC is where inner Ethernet frames go that carry a VRF's packets in VXLAN
	// (RFC 9136 §4.4.1); zero for routes that name none.
	RouterMAC ethernet.MAC
}

// String returns "addr/label/encap", with the router's MAC when there is one.
func (n NextHop) String() string {
	s := fmt.Sprintf("%s/%d/%s", n.Addr, n.Label, n.Encap)
	if !n.RouterMAC.IsZero() {
		s += "/" + n.RouterMAC.String()
	}
	return s
}

// OVSPort says where a port is in an Open vSwitch bridge; zero for one that is not.
type OVSPort struct {
	// Plugged is set when others have put the port into the bridge and will take it out.
	Plugged bool
	// Name is that of the interface, or empty.
	Name string
	// Number is the OpenFlow port number, 0 when it is to be looked up by name.
	Number uint32
	// VLAN is the tag of the port's traffic in the bridge, 0 for none.
	VLAN uint16
}

// String returns the members that are set, e.g. "port 3 vlan 7".
func (p OVSPort) String() string {
	var out []string
	if p.Name != "" {
		out = append(out, p.Name)
	}
	if p.Number != 0 {
		out = append(out, fmt.Sprintf("port %d", p.Number))
	}
	if p.VLAN != 0 {
		out = append(out, fmt.Sprintf("vlan %d", p.VLAN))
	}
	if p.Plugged {
		out = append(out, "plugged")
	}
	return strings.Join(out, " ")
}

// Port is a port as a request names it.
type Port struct {
	// Name is the device, or a label for what OVS says.
	Name string
	OVS  OVSPort
}

// Entry is one piece of forwarding state. Which members are used depends on
// Kind; all others are zero.
type Entry struct {
	Kind      Kind
	Port      string
	OVS       OVSPort
	MAC       ethernet.MAC
	Source    ethernet.MAC
	IP        netip.Addr
	Prefix    netip.Prefix
	Gateway   netip.Addr
	Label     uint32
	Direction Direction
	Transit   bool
	Class     *Classifier
	Target    string
	NextHops  []NextHop
}

// Equal tells whether two entries have the same key and value.
func (e Entry) Equal(o Entry) bool {
	if e.Kind != o.Kind || e.Port != o.Port || e.OVS != o.OVS || e.MAC != o.MAC || e.Source != o.Source ||
		e.IP != o.IP || e.Prefix != o.Prefix || e.Gateway != o.Gateway ||
		e.Label != o.Label || e.Direction != o.Direction || e.Transit != o.Transit || !sameClass(e.Class, o.Class) || e.Target != o.Target || len(e.NextHops) != len(o.NextHops) {
		return false
	}
	for i := range e.NextHops {
		if e.NextHops[i] != o.NextHops[i] {
			return false
		}
	}
	return true
}

func sameClass(a, b *Classifier) bool { return a == b || a != nil && b != nil && *a == *b }

// String returns a one-line form, e.g. "mac 02:00:00:00:00:01 via 192.0.2.1/100/VXLAN".
func (e Entry) String() string {
	s := e.Kind.String()
	if e.Port != "" {
		s += " dev " + e.Port
	}
	if e.OVS != (OVSPort{}) {
		s += " ovs " + e.OVS.String()
	}
	if !e.MAC.IsZero() {
		s += " " + e.MAC.String()
	}
	if !e.Source.IsZero() {
		s += " from " + e.Source.String()
	}
	if e.IP.IsValid() {
		s += " ip " + e.IP.String()
	}
	if e.Prefix.IsValid() {
		s += " " + e.Prefix.String()
	}
	if e.Gateway.IsValid() {
		s += " gateway " + e.Gateway.String()
	}
	if e.Label != 0 {
		s += fmt.Sprintf(" label %d", e.Label)
	}
	if e.Direction != "" && e.Direction != Both {
		s += " " + string(e.Direction)
	}
	if e.Transit {
		s += " transit"
	}
	if e.Kind == Redirect {
		s += fmt.Sprintf(" %s in %s", e.Class, e.Target)
	}
	for _, nh := range e.NextHops {
		s += " via " + nh.String()
	}
	return s
}

// Change is one step from installed to desired state.
type Change struct {
	// Delete removes the entry; otherwise it is added, or replaces the one with the same key.
	Delete bool
	// At is the place of an entry of remote origin among those of its instance: a
	// small number of the caller's choice, another's only after it was deleted.
	At    uint32
	Entry Entry
}

// String returns "+ entry" or "- entry".
func (c Change) String() string {
	if c.Delete {
		return "- " + c.Entry.String()
	}
	return "+ " + c.Entry.String()
}

// Counter is a number of packets that a driver has counted. It never decreases while
// its port or instance is there, but starts from zero with a new driver.
type Counter struct {
	// Instance is the Instance.ID, Port the device; one of them may be empty.
	Instance, Port string
	// Name says what was counted: "received" from a port, "sent" to it, or why a
	// packet was dropped.
	Name           string
	Dropped        bool
	Packets, Bytes uint64
}

// Counting is implemented by drivers that count packets.
type Counting interface {
	// Counters returns all counters, by instance, port and name.
	Counters(ctx context.Context) ([]Counter, error)
}

// Bridging is implemented by handles of E-VPN instances whose bridge a VRF can meet:
// by a port of it, or by LocalPort and LocalMAC entries that name the bridge itself.
type Bridging interface {
	// Bridge returns the name of the bridge device and the MTU of the instance.
	Bridge() (name string, mtu int)
}

// Drift is what others took from an open instance.
type Drift struct {
	// Instance is the Instance.ID.
	Instance string
	// Whole is set when what Open made is not whole: Handle.Repair is due.
	Whole bool
	// Ports are those that are there and not plugged: removed and made again, or
	// plugged elsewhere. One that is gone is not listed: whoever made it does so again.
	Ports []string
}

// InputError is a request that the driver cannot carry out as the client made
// it; nothing was changed.
type InputError struct {
	// Field is the member of the REST request, e.g. "local_port".
	Field string
	// Text gives the value, what is wrong with it, and what is allowed.
	Text string
	// Missing is set when something is not there that others make.
	Missing bool
}

// Error implements error.
func (e *InputError) Error() string { return e.Field + ": " + e.Text }

// ErrOpen is returned by Driver.RemoveOrphan for an instance that is open.
var ErrOpen = errors.New("it is open")

// Driver makes and finds the forwarding state of instances in one kind of
// forwarding plane.
type Driver interface {
	// Name is the driver's name in the configuration file, e.g. "linux".
	Name() string
	Capabilities() Capabilities
	// Check refuses with an *InputError what a client asks in vain: an instance
	// that Open, or a port of it that Apply would not take. It changes nothing.
	Check(ctx context.Context, inst Instance, port Port) error
	// Open makes room for an instance, or adopts what an earlier run left for
	// the same Instance.ID. On error nothing new is left behind.
	Open(ctx context.Context, inst Instance) (Handle, error)
	// Orphans lists the ids of instances that this driver owns state for, in the
	// forwarding plane, and that are not open.
	Orphans(ctx context.Context) ([]string, error)
	// RemoveOrphan removes all state of an instance by its id in Orphans. ErrOpen
	// says that it was opened meanwhile; nothing was removed.
	RemoveOrphan(ctx context.Context, id string) error
	// Drifted lists the open instances that others took something from. It is
	// called every few seconds, so that it must be cheap.
	Drifted(ctx context.Context) ([]Drift, error)
	// Describe returns driver members for the looking glass, in order.
	Describe() []Member
	// Close frees what the driver holds in this process; forwarding goes on.
	Close() error
}

// Handle is an open instance of a driver.
type Handle interface {
	// Installed lists the entries that the driver owns for the instance.
	Installed(ctx context.Context) ([]Entry, error)
	// Apply carries out changes in order and returns one result per change, nil
	// when done. Applying a change twice is no error and changes nothing;
	// deleting what is not there is no error.
	Apply(ctx context.Context, changes []Change) []error
	// Repair makes again what of that which Open made is gone, and tells whether
	// anything was: then entries are gone with it, and Installed tells which are left.
	Repair(ctx context.Context) (repaired bool, err error)
	// Remove takes the instance and all that the driver owns for it out of the forwarding plane.
	Remove(ctx context.Context) error
	// Describe returns instance members for the looking glass, in order.
	Describe() []Member
}

// Member is one named value for the looking glass. Order is kept.
type Member struct {
	Name  string
	Value any
}
