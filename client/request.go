// SPDX-License-Identifier: Apache-2.0

package client

import "encoding/json"

// Values of AttachRequest.VPNType.
const (
	EVPN  = "evpn"
	IPVPN = "ipvpn"
)

// Values of AttachRequest.Direction.
const (
	Both     = "both"
	ToPort   = "to-port"
	FromPort = "from-port"
)

// Values of AttachRequest.AdvertiseAs.
const (
	AsVPN  = "vpn"
	AsEVPN = "evpn"
	AsBoth = "both"
)

// AttachRequest plugs one endpoint. Addresses and prefixes are text because
// their notation is part of the API: "192.0.2.5" and "192.0.2.5/24" both name a
// host, and the second also tells the size of its subnet.
type AttachRequest struct {
	// VPNType is EVPN or IPVPN.
	VPNType string `json:"vpn_type"`
	// VPNInstanceID names the instance; free text.
	VPNInstanceID string `json:"vpn_instance_id"`
	MACAddress    string `json:"mac_address"`
	// IPAddress is required for an IPVPN. An E-VPN endpoint without one is
	// announced by its MAC address alone.
	IPAddress string `json:"ip_address,omitempty"`
	// GatewayIP is the address that a new IPVPN instance answers for. For an
	// IPVPN an empty one is sent as null: the member must be there.
	GatewayIP string    `json:"gateway_ip,omitempty"`
	LocalPort LocalPort `json:"local_port"`
	// ImportRT and ExportRT are the complete route targets of the instance, as "64512:1".
	ImportRT []string `json:"import_rt"`
	ExportRT []string `json:"export_rt"`
	// InstanceDescription and Description are any JSON, shown in the looking glass.
	InstanceDescription any `json:"instance_description,omitempty"`
	Description         any `json:"description,omitempty"`
	// AdvertiseSubnet announces the subnet of IPAddress in place of the host.
	AdvertiseSubnet bool `json:"advertise_subnet,omitempty"`
	// VNI of a new instance; 0 lets the daemon choose.
	VNI uint32 `json:"vni,omitempty"`
	// AdvertiseAs says how a new IPVPN instance announces its prefixes: AsVPN (also
	// when empty), AsEVPN (EVPN type 5 routes), or AsBoth.
	AdvertiseAs string `json:"advertise_as,omitempty"`
	// LocalPref is the LOCAL_PREF of the endpoint's routes; 0 means the default, 100.
	LocalPref             uint32 `json:"local_pref,omitempty"`
	LBConsistentHashOrder uint32 `json:"lb_consistent_hash_order,omitempty"`
	// Direction is Both (also when empty), ToPort or FromPort.
	Direction string `json:"direction,omitempty"`
	// LinuxBridge is an existing bridge that the port of an E-VPN is in already.
	LinuxBridge    string          `json:"linuxbr,omitempty"`
	Readvertise    *Readvertise    `json:"readvertise,omitempty"`
	AttractTraffic *AttractTraffic `json:"attract_traffic,omitempty"`
	Fallback       *Fallback       `json:"fallback,omitempty"`
}

// MarshalJSON writes the request with the members that the API requires even
// when they are empty.
func (r AttachRequest) MarshalJSON() ([]byte, error) {
	type plain AttachRequest
	if r.ImportRT == nil {
		r.ImportRT = []string{}
	}
	if r.ExportRT == nil {
		r.ExportRT = []string{}
	}
	if r.VPNType != IPVPN || r.GatewayIP != "" {
		return json.Marshal(plain(r))
	}
	return json.Marshal(struct {
		plain
		GatewayIP *string `json:"gateway_ip"`
	}{plain: plain(r)})
}

// Detach returns the request that undoes this attachment.
func (r AttachRequest) Detach() DetachRequest {
	return DetachRequest{
		VPNType:       r.VPNType,
		VPNInstanceID: r.VPNInstanceID,
		MACAddress:    r.MACAddress,
		IPAddress:     r.IPAddress,
		LocalPort:     r.LocalPort,
	}
}

// DetachRequest unplugs one endpoint. Without IPAddress all endpoints that an
// E-VPN has for the MAC address go.
type DetachRequest struct {
	VPNType       string    `json:"vpn_type"`
	VPNInstanceID string    `json:"vpn_instance_id"`
	MACAddress    string    `json:"mac_address"`
	IPAddress     string    `json:"ip_address,omitempty"`
	LocalPort     LocalPort `json:"local_port"`
}

// LocalPort says where an endpoint is plugged. LinuxIF or EVPN must be set.
type LocalPort struct {
	// LinuxIF is the name of the interface, or a label when OVS tells the port.
	LinuxIF string `json:"linuxif,omitempty"`
	// OVS is an attachment for the IPVPN driver "ovs".
	OVS *OVSPort `json:"ovs,omitempty"`
	// VLAN is for the E-VPN driver "ovs".
	VLAN int `json:"vlan,omitempty"`
	// EVPN plugs a whole E-VPN instance into an IPVPN.
	EVPN *EVPNPort `json:"evpn,omitempty"`
}

// OVSPort is a port of an Open vSwitch bridge.
type OVSPort struct {
	// Plugged is set when the port is in the bridge already.
	Plugged    bool   `json:"plugged,omitempty"`
	PortNumber int    `json:"port_number,omitempty"`
	PortName   string `json:"port_name,omitempty"`
	VLAN       int    `json:"vlan,omitempty"`
}

// EVPNPort names an E-VPN instance to plug into an IPVPN.
type EVPNPort struct {
	ID          string `json:"id"`
	OVSPortName string `json:"ovs_port_name,omitempty"`
}

// Readvertise announces routes that carry one of FromRT again with ToRT.
type Readvertise struct {
	FromRT []string `json:"from_rt"`
	ToRT   []string `json:"to_rt"`
}

// AttractTraffic makes other instances send the traffic of a class here.
type AttractTraffic struct {
	// RedirectRTs go on the FlowSpec routes that are announced.
	RedirectRTs []string   `json:"redirect_rts"`
	Classifier  Classifier `json:"classifier"`
	// ToRT is exactly one route target; needed without Readvertise.
	ToRT []string `json:"to_rt,omitempty"`
	// StaticDestinationPrefixes go together with ToRT.
	StaticDestinationPrefixes []string `json:"static_destination_prefixes,omitempty"`
}

// Classifier describes a class of traffic. Ports are "80" or "1000:2000".
type Classifier struct {
	SourcePrefix      string `json:"sourcePrefix,omitempty"`
	DestinationPrefix string `json:"destinationPrefix,omitempty"`
	SourcePort        string `json:"sourcePort,omitempty"`
	DestinationPort   string `json:"destinationPort,omitempty"`
	// Protocol is a name or number; empty means tcp.
	Protocol string `json:"protocol,omitempty"`
	// AnyProtocol leaves the protocol out of the class.
	AnyProtocol bool `json:"-"`
}

// MarshalJSON writes a null protocol for AnyProtocol.
func (c Classifier) MarshalJSON() ([]byte, error) {
	type plain Classifier
	if !c.AnyProtocol {
		return json.Marshal(plain(c))
	}
	return json.Marshal(struct {
		plain
		Protocol *string `json:"protocol"`
	}{plain: plain(c)})
}

// Fallback is where traffic goes that has no route in the VPN.
type Fallback struct {
	SrcMAC        string `json:"src_mac"`
	DstMAC        string `json:"dst_mac"`
	OVSPortNumber int    `json:"ovs_port_number"`
}
