// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
)

// refusal is a request that is answered 400, with a word of the description.
type refusal struct {
	name string
	in   any
	want string
}

// wantRefused makes the requests on a node that has one endpoint of each type,
// and checks that none leaves a trace.
func wantRefused(t *testing.T, path string, list []refusal) {
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				s := newServer(t)
				s.accept("/attach_localport", evpnBody())
				s.accept("/attach_localport", ipvpnBody())
				tree, plane := s.tree(), s.plane.String()
				f := wantFailure(t, s.post(path, tt.in), http.StatusBadRequest)
				if !strings.Contains(f.Description, tt.want) || !strings.HasPrefix(f.Description, "API error: ") {
					t.Errorf("description %q, want it to say %q after \"API error: \"", f.Description, tt.want)
				}
				settle()
				s.wantTree(tree)
				if got := s.plane.String(); got != plane {
					t.Errorf("plane changed:\n%s\nfrom\n%s", got, plane)
				}
			})
		})
	}
}

// common are the faults that attach and detach refuse alike.
func common() []refusal {
	e, v := evpnBody(), ipvpnBody()
	list := []refusal{
		{"empty body", "", "JSON"},
		{"no JSON", "{", "JSON"},
		{"form", "vpn_type=evpn", "JSON"},
		{"list", "[]", "JSON"},
		{"string", `"x"`, "JSON"},
		{"null", "null", "vpn_type"},
		{"empty object", "{}", "vpn_type"},
		{"text after the object", "{} {}", "after"},
		{"vpn_type of another kind", e.with("vpn_type", "l3"), "vpn_type: l3"},
		{"vpn_type in capitals", e.with("vpn_type", "EVPN"), "vpn_type"},
		{"vpn_type number", e.with("vpn_type", 3), "vpn_type"},
		{"vpn_instance_id object", e.with("vpn_instance_id", members{}), "vpn_instance_id"},
		{"vpn_instance_id empty", e.with("vpn_instance_id", ""), "vpn_instance_id"},
		{"vpn_instance_id boolean", e.with("vpn_instance_id", true), "vpn_instance_id"},
		{"mac_address bogus", e.with("mac_address", "bogus"), "mac_address"},
		{"mac_address short", e.with("mac_address", "02:00:00:00:01"), "mac_address"},
		{"mac_address number", e.with("mac_address", 2), "mac_address"},
		{"ip_address bogus", e.with("ip_address", "bogus"), "ip_address"},
		{"ip_address empty", e.with("ip_address", ""), "ip_address"},
		{"ip_address empty for ipvpn", v.with("ip_address", ""), "ip_address"},
		{"ip_address with long mask", e.with("ip_address", "192.0.2.1/33"), "ip_address"},
		{"ip_address with zone", e.with("ip_address", "fe80::1%eth0"), "ip_address"},
		{"ip_address IPv4-mapped", e.with("ip_address", "::ffff:192.0.2.1"), "ip_address"},
		{"ip_address list", e.with("ip_address", []string{"192.0.2.1"}), "ip_address"},
		{"ip_address missing for ipvpn", v.with("ip_address", absent), "ip_address"},
		{"ip_address null for ipvpn", v.with("ip_address", nil), "ip_address"},
		{"local_port empty", e.with("local_port", ""), "local_port"},
		{"local_port number", e.with("local_port", 7), "local_port"},
		{"local_port list", e.with("local_port", []string{"tap1"}), "local_port"},
		{"local_port without linuxif", e.with("local_port", members{"ovs": members{}}), "linuxif"},
		{"local_port linuxif null", e.with("local_port", members{"linuxif": nil}), "linuxif"},
		{"local_port linuxif empty", e.with("local_port", members{"linuxif": ""}), "linuxif"},
		{"local_port linuxif number", e.with("local_port", members{"linuxif": 5}), "local_port"},
		{"advertise_subnet number", e.with("advertise_subnet", 1), "advertise_subnet"},
		{"advertise_subnet null", e.with("advertise_subnet", nil), "advertise_subnet"},
		{"advertise_subnet text", e.with("advertise_subnet", "true"), "advertise_subnet"},
		{"other type than at creation", e.with("vpn_instance_id", "blue"), "vpn_type"},
		{"too deep", `{"description":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, "nested"},
		{"far too deep", strings.Repeat(`{"a":`, 20000), "JSON"},
	}
	for _, name := range []string{"vpn_type", "vpn_instance_id", "mac_address", "local_port"} {
		list = append(list, refusal{name + " missing", e.with(name, absent), name}, refusal{name + " null", e.with(name, nil), name})
	}
	for _, name := range []string{"import_rt", "export_rt"} {
		for what, rt := range map[string]any{
			"bogus": "foo", "number": 5, "list of numbers": []int{5}, "null in a list": []any{"64512:1", nil}, "object": members{},
			"four octets twice": []string{"70000:70000"}, "too big": []string{"64512:4294967296"}, "negative": []string{"-1:5"},
			"address too big": []string{"1.2.3.4:65536"}, "address broken": []string{"1.2.3:5"}, "no number": []string{"64512:"}, "second bad": "64512:1,x:y",
		} {
			list = append(list, refusal{name + " " + what, e.with(name, rt), name})
		}
	}
	return list
}

func TestAttachRefuses(t *testing.T) {
	t.Parallel()
	e, v := evpnBody(), ipvpnBody()
	list := append(common(), []refusal{
		{"import_rt missing", e.with("import_rt", absent), "import_rt"},
		{"import_rt null", e.with("import_rt", nil), "import_rt"},
		{"export_rt missing", e.with("export_rt", absent), "export_rt"},
		{"gateway_ip missing for ipvpn", v.with("gateway_ip", absent), "gateway_ip"},
		{"gateway_ip bogus", v.with("gateway_ip", "bogus"), "gateway_ip"},
		{"gateway_ip empty", v.with("gateway_ip", ""), "gateway_ip"},
		{"direction bogus", v.with("direction", "sideways"), "direction"},
		{"direction number", v.with("direction", 1), "direction"},
		{"direction that the driver lacks", e.with("direction", "to-port"), "direction"},
		{"vni negative", e.with("vni", -1), "vni"},
		{"vni too big", e.with("vni", 16777216), "vni"},
		{"vni with fraction", e.with("vni", 1.5), "vni"},
		{"vni text", e.with("vni", "abc"), "vni"},
		{"vni list", e.with("vni", []int{1}), "vni"},
		{"vni in use", e.with("vni", 16).with("vpn_instance_id", "new"), "vni"},
		{"local_pref text", e.with("local_pref", "high"), "local_pref"},
		{"local_pref too big", e.with("local_pref", 4294967296), "local_pref"},
		{"local_pref negative", e.with("local_pref", -1), "local_pref"},
		{"hash order text", v.with("lb_consistent_hash_order", "x"), "lb_consistent_hash_order"},
		{"hash order negative", v.with("lb_consistent_hash_order", -1), "lb_consistent_hash_order"},
		{"advertise_as bogus", v.with("advertise_as", "l2vpn"), "advertise_as"},
		{"advertise_as empty", v.with("advertise_as", ""), "advertise_as"},
		{"advertise_as number", v.with("advertise_as", 5), "advertise_as"},
		{"advertise_as on evpn", e.with("advertise_as", "vpn"), "advertise_as"},
		{"advertise_as that the driver lacks", v.with("advertise_as", "evpn"), "advertise_as"},
		{"fallback text", v.with("fallback", "foo"), "fallback"},
		{"fallback list", v.with("fallback", []string{}), "fallback"},
		{"linuxbr number", e.with("linuxbr", 1), "linuxbr"},
		{"linuxbr for ipvpn", v.with("linuxbr", "br0"), "linuxbr"},
		{"local_port evpn", v.with("local_port", members{"evpn": members{"id": "red"}}), "evpn"},
		{"mac_address multicast", e.with("mac_address", "01:00:5e:00:00:01"), "mac_address"},
		{"mac_address zero", e.with("mac_address", "00:00:00:00:00:00"), "mac_address"},
		{"subnet on evpn", e.with("advertise_subnet", true).with("ip_address", "198.51.100.10/24"), "advertise_subnet"},
		{"MAC on another port", e.with("local_port", "tap9"), "local_port"},
		{"IP of another MAC", e.with("mac_address", "02:00:00:00:00:09"), "ip_address"},
		{"IP of another MAC, ipvpn", v.with("mac_address", "02:00:00:00:00:09"), "ip_address"},
		{"instance of the other type", v.with("vpn_instance_id", "red"), "vpn_type"},
		{"body of more than 1 MiB", e.with("description", strings.Repeat("x", 1<<20)), "JSON"},
	}...)
	wantRefused(t, "/attach_localport", list)
}

func TestAttachRefusesChains(t *testing.T) {
	t.Parallel()
	v := ipvpnBody()
	full := members{"redirect_rts": "64512:3", "to_rt": "64512:2", "static_destination_prefixes": []string{"192.0.2.0/24"}, "classifier": members{}}
	class := func(name string, value any) members {
		return v.with("attract_traffic", full.with("classifier", members{name: value}))
	}
	wantRefused(t, "/attach_localport", []refusal{
		{"readvertise text", v.with("readvertise", "x"), "readvertise"},
		{"readvertise list", v.with("readvertise", []int{1}), "readvertise"},
		{"no from_rt", v.with("readvertise", members{"to_rt": "64512:1"}), "from_rt"},
		{"no to_rt", v.with("readvertise", members{"from_rt": "64512:1"}), "to_rt"},
		{"empty to_rt", v.with("readvertise", members{"from_rt": "64512:1", "to_rt": ""}), "to_rt"},
		{"bad from_rt", v.with("readvertise", members{"from_rt": "x", "to_rt": "64512:1"}), "from_rt"},
		{"on evpn", evpnBody().with("readvertise", members{"from_rt": "64512:1", "to_rt": "64512:2"}), "readvertise"},
		{"attract_traffic text", v.with("attract_traffic", "x"), "attract_traffic"},
		{"no redirect_rts", v.with("attract_traffic", full.with("redirect_rts", absent)), "redirect_rts"},
		{"bad redirect_rts", v.with("attract_traffic", full.with("redirect_rts", 5)), "redirect_rts"},
		{"two to_rt", v.with("attract_traffic", full.with("to_rt", "64512:2,64512:3")), "exactly one RT"},
		{"to_rt without prefixes", v.with("attract_traffic", full.with("static_destination_prefixes", absent)), "static_destination_prefixes"},
		{"prefixes without to_rt", v.with("attract_traffic", full.with("to_rt", absent)), "to_rt"},
		{"bad prefix", v.with("attract_traffic", full.with("static_destination_prefixes", []string{"192.0.2.0/33"})), "static_destination_prefixes"},
		{"null prefix", v.with("attract_traffic", full.with("static_destination_prefixes", []any{nil})), "static_destination_prefixes"},
		{"prefixes as text", v.with("attract_traffic", full.with("static_destination_prefixes", "192.0.2.0/24")), "static_destination_prefixes"},
		{"no classifier", v.with("attract_traffic", full.with("classifier", absent)), "classifier"},
		{"classifier text", v.with("attract_traffic", full.with("classifier", "x")), "classifier"},
		{"unknown member", class("dscp", 1), "dscp"},
		{"port too big", class("destinationPort", 65536), "destinationPort"},
		{"port negative", class("sourcePort", "-1"), "sourcePort"},
		{"port backwards", class("sourcePort", "20:10"), "sourcePort"},
		{"port of three", class("sourcePort", "1:2:3"), "sourcePort"},
		{"port open", class("sourcePort", "1:"), "sourcePort"},
		{"protocol unknown", class("protocol", "tpc"), "protocol"},
		{"protocol too big", class("protocol", 256), "protocol"},
		{"protocol empty", class("protocol", ""), "protocol"},
		{"ports of ICMP", v.with("attract_traffic", full.with("classifier", members{"protocol": "icmp", "destinationPort": 80})), "protocol"},
		{"source prefix", class("sourcePrefix", "10.0.0.0/64"), "sourcePrefix"},
		{"destination prefix", class("destinationPrefix", "x"), "destinationPrefix"},
		{"mixed IP versions", class("sourcePrefix", "2001:db8::/32"), "sourcePrefix"},
		{"source ports of ICMP", v.with("attract_traffic", full.with("classifier", members{"protocol": 1, "sourcePort": 80})), "has no ports"},
	})
}

func TestDetachRefuses(t *testing.T) {
	t.Parallel()
	e, v := evpnBody(), ipvpnBody()
	list := append(common(), []refusal{
		{"unknown instance", e.with("vpn_instance_id", "none"), "vpn_instance_id"},
		{"MAC not plugged", e.with("mac_address", "02:00:00:00:00:09").with("ip_address", "198.51.100.99"), "mac_address"},
		{"IP not plugged", e.with("ip_address", "198.51.100.99"), "ip_address"},
		{"IP of another MAC", e.with("mac_address", "02:00:00:00:00:09"), "ip_address"},
		{"ipvpn MAC not plugged", v.with("mac_address", "02:00:00:00:00:09").with("ip_address", "192.0.2.99"), "mac_address"},
		{"ipvpn IP not plugged", v.with("ip_address", "192.0.2.99"), "ip_address"},
	}...)
	wantRefused(t, "/detach_localport", list)
}

// What the dataplane cannot do is no fault of the request, and leaves no trace.
func TestDriverFailureIs500(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		s.accept("/attach_localport", evpnBody())
		tree := s.tree()
		s.plane.Fail(1, func(o fake.Op) bool { return o.Change.Entry.Port == "tap2" })
		f := wantFailure(t, s.post("/attach_localport", ipvpnBody()), http.StatusInternalServerError)
		if !strings.Contains(f.Description, "port dev tap2") {
			t.Errorf("description %q does not name what failed", f.Description)
		}
		// The failure itself is logged and counted, nothing else has changed.
		s.wantTree(strings.Replace(tree, `"warnings_and_errors":0`, `"warnings_and_errors":1`, -1))
	})
}
