// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/json"
	"testing"
)

func TestRequestsOnTheWire(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   any
		want string
	}{
		{
			name: "nothing set: only what the API requires",
			in:   AttachRequest{},
			want: `{"vpn_type":"","vpn_instance_id":"","mac_address":"","local_port":{},"import_rt":[],"export_rt":[]}`,
		},
		{
			name: "an IPVPN always has a gateway member",
			in:   AttachRequest{VPNType: IPVPN},
			want: `{"vpn_type":"ipvpn","vpn_instance_id":"","mac_address":"","local_port":{},"import_rt":[],"export_rt":[],"gateway_ip":null}`,
		},
		{
			name: "gateway of an IPVPN",
			in:   AttachRequest{VPNType: IPVPN, GatewayIP: "192.0.2.1"},
			want: `{"vpn_type":"ipvpn","vpn_instance_id":"","mac_address":"","gateway_ip":"192.0.2.1","local_port":{},"import_rt":[],"export_rt":[]}`,
		},
		{
			name: "everything",
			in: AttachRequest{
				VPNType: IPVPN, VPNInstanceID: "v", MACAddress: "m", IPAddress: "i", GatewayIP: "g",
				LocalPort: LocalPort{LinuxIF: "l", OVS: &OVSPort{Plugged: true, PortNumber: 12, PortName: "p", VLAN: 5}, VLAN: 6,
					EVPN: &EVPNPort{ID: "e", OVSPortName: "o"}},
				ImportRT: []string{"64512:1"}, ExportRT: []string{"64512:2"},
				InstanceDescription: "d", Description: map[string]string{"port": "0f6e"}, AdvertiseSubnet: true,
				VNI: 1, AdvertiseAs: AsBoth, LocalPref: 2, LBConsistentHashOrder: 3, Direction: ToPort, LinuxBridge: "br",
				Readvertise:    &Readvertise{FromRT: []string{"64512:3"}, ToRT: []string{"64512:4"}},
				AttractTraffic: &AttractTraffic{RedirectRTs: []string{"64512:5"}, Classifier: Classifier{Protocol: "udp"}},
				Fallback:       &Fallback{SrcMAC: "s", DstMAC: "t", OVSPortNumber: 13},
			},
			want: `{"vpn_type":"ipvpn","vpn_instance_id":"v","mac_address":"m","ip_address":"i","gateway_ip":"g",` +
				`"local_port":{"linuxif":"l","ovs":{"plugged":true,"port_number":12,"port_name":"p","vlan":5},"vlan":6,"evpn":{"id":"e","ovs_port_name":"o"}},` +
				`"import_rt":["64512:1"],"export_rt":["64512:2"],"instance_description":"d","description":{"port":"0f6e"},"advertise_subnet":true,` +
				`"vni":1,"advertise_as":"both","local_pref":2,"lb_consistent_hash_order":3,"direction":"to-port","linuxbr":"br",` +
				`"readvertise":{"from_rt":["64512:3"],"to_rt":["64512:4"]},` +
				`"attract_traffic":{"redirect_rts":["64512:5"],"classifier":{"protocol":"udp"}},` +
				`"fallback":{"src_mac":"s","dst_mac":"t","ovs_port_number":13}}`,
		},
		{
			name: "classifier for any protocol",
			in:   Classifier{SourcePort: "80", AnyProtocol: true},
			want: `{"sourcePort":"80","protocol":null}`,
		},
		{
			name: "detach",
			in:   DetachRequest{VPNType: EVPN, VPNInstanceID: "v", MACAddress: "m"},
			want: `{"vpn_type":"evpn","vpn_instance_id":"v","mac_address":"m","local_port":{}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := json.Marshal(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
