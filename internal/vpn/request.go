// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Attachment asks for an endpoint (MAC, IP) behind a local port to be part of
// a VPN instance. It carries the complete parameters of the instance.
type Attachment struct {
	Type       dataplane.VPNType
	InstanceID string
	// Port is the local device, or a label for it that the driver understands.
	Port string
	MAC  ethernet.MAC
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
	// LocalPref is the LOCAL_PREF of the endpoint's routes; 0 means 100.
	LocalPref uint32
	HashOrder uint32
	Direction dataplane.Direction
	// Bridge names an existing bridge to use ("linuxbr"); EVPN only.
	Bridge string
	// Description and InstanceDescription are kept and shown, nothing more.
	Description         json.RawMessage
	InstanceDescription json.RawMessage
	Fallback            json.RawMessage
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
