// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Advertise says as what the prefixes of a VRF are announced, with the names of the
// REST API.
type Advertise string

// Ways to announce a VRF's prefixes.
const (
	AsVPN  Advertise = "vpn"  // VPNv4 and VPNv6 routes
	AsEVPN Advertise = "evpn" // EVPN type 5 routes (RFC 9136, interface-less)
	AsBoth Advertise = "both"
)

// evpn tells whether EVPN type 5 routes are announced.
func (a Advertise) evpn() bool { return a == AsEVPN || a == AsBoth }

// Attachment asks for an endpoint (MAC, IP) behind a local port to be part of
// a VPN instance. It carries the complete parameters of the instance.
type Attachment struct {
	Type       dataplane.VPNType
	InstanceID string
	// Port is the local device, or a label for what OVS says.
	Port string
	// OVS says where the port is in an Open vSwitch bridge.
	OVS dataplane.OVSPort
	// EVI stands in place of Port when it has an ID; VRF only.
	EVI EVIPort
	MAC ethernet.MAC
	// IP is the endpoint's address with the length of its subnet; invalid for a
	// wildcard endpoint (EVPN only), which stands for the MAC alone.
	IP netip.Prefix
	// AdvertiseSubnet announces IP's whole prefix in place of a host route.
	AdvertiseSubnet bool
	Gateway         netip.Addr // or invalid
	Imports         []wire.RT
	Exports         []wire.RT
	// VNI is the VNI to use when the instance is created; 0 to allocate one.
	VNI uint32
	// AdvertiseAs says how the prefixes of a new VRF are announced; "" is AsVPN.
	AdvertiseAs Advertise
	// LocalPref is the LOCAL_PREF of the endpoint's routes; 0 means 100.
	LocalPref uint32
	HashOrder uint32
	Direction dataplane.Direction
	// Bridge names an existing bridge to use ("linuxbr"); EVPN only.
	Bridge string
	// Description and InstanceDescription are kept and shown, nothing more.
	Description         json.RawMessage
	InstanceDescription json.RawMessage
	// Fallback, Readvertise and Attract replace the instance's; nil keeps them.
	Fallback    *Fallback
	Readvertise *Readvertise
	Attract     *Attract
}

// Readvertise has a VRF announce routes with a route target in From again with To, with
// each of its endpoints as next hop. The zero value ends it.
type Readvertise struct{ From, To []wire.RT }

func (r Readvertise) equal(o Readvertise) bool {
	return slices.Equal(r.From, o.From) && slices.Equal(r.To, o.To)
}

// Attract has a VRF announce FlowSpec routes that bring a class of traffic to its
// endpoints. The zero value ends it.
type Attract struct {
	// Redirect are the route targets of those routes: of VRFs whose traffic is meant.
	Redirect []wire.RT
	// To is the route target, one at most, that the traffic is redirected to; without it
	// that of Readvertise, whose prefixes are the destinations.
	To []wire.RT
	// Static are destinations beside those of Readvertise.
	Static []netip.Prefix
	// Class is what of the traffic is meant; its destination is not used.
	Class wire.Flow
	// Text is the class as in the request, for the looking glass.
	Text json.RawMessage
}

// has tells whether the class has packets of an IP version.
func (a *Attract) has(ipv6 bool) bool {
	return !a.Class.Source.IsValid() || a.Class.Source.Addr().Is6() == ipv6
}

// equal tells whether both attract the same. Text may differ.
func (a *Attract) equal(o Attract) bool {
	return slices.Equal(a.Redirect, o.Redirect) && slices.Equal(a.To, o.To) && slices.Equal(a.Static, o.Static) &&
		a.Class.Source == o.Class.Source && slices.Equal(a.Class.Protocols, o.Class.Protocols) &&
		slices.Equal(a.Class.DestinationPorts, o.Class.DestinationPorts) && slices.Equal(a.Class.SourcePorts, o.Class.SourcePorts)
}

// Fallback is where a VRF sends what it has no route for.
type Fallback struct {
	// Source and MAC are the Ethernet addresses the traffic goes from and to.
	Source, MAC ethernet.MAC
	// Port is the OpenFlow port number, or Device the device for drivers without such.
	Port   uint32
	Device string
	// Text is the member of the request, for the looking glass.
	Text json.RawMessage
}

// same tells whether two fallbacks send traffic to the same place.
func (f *Fallback) same(o *Fallback) bool {
	return (f == nil) == (o == nil) && (f == nil || f.Source == o.Source && f.MAC == o.MAC && f.Port == o.Port && f.Device == o.Device)
}

// Detachment asks for an endpoint to leave a VPN instance.
type Detachment struct {
	Type       dataplane.VPNType
	InstanceID string
	MAC        ethernet.MAC
	// IP is the endpoint's address; invalid on EVPN for all endpoints of the MAC.
	IP netip.Addr
}

// RequestError is a request that cannot be carried out as it is; nothing was
// changed.
type RequestError struct {
	Field string // of the request
	Text  string
}

// Error implements error.
func (e *RequestError) Error() string { return e.Field + ": " + e.Text }

// refusal makes what a driver has against a request a *RequestError. Other
// errors are the driver's own and stay as they are.
func refusal(err error) error {
	var in *dataplane.InputError
	if errors.As(err, &in) {
		return &RequestError{in.Field, in.Text}
	}
	return err
}

func refuse(field, format string, args ...any) error {
	return &RequestError{field, fmt.Sprintf(format, args...)}
}
