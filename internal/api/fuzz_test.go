// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// FuzzAttachBody: no body makes the server panic or answer 5xx; what is refused
// leaves no trace; what is accepted can be shown, and detached by the same body.
// Run it with -fuzzminimizetime 1x: goroutines make the coverage vary.
func FuzzAttachBody(f *testing.F) {
	for _, m := range []members{
		evpnBody(), ipvpnBody(), evpnBody().with("ip_address", nil), evpnBody().with("vni", "5000"), evpnBody().with("vpn_instance_id", 7),
		evpnBody().with("vpn_instance_id", "a/.. b"), evpnBody().with("description", []any{members{"a": nil}}),
		ipvpnBody().with("advertise_subnet", true).with("ip_address", "192.0.2.5/24").with("direction", "from-port"),
		ipvpnBody().with("gateway_ip", "2001:db8::1").with("local_pref", 4294967295), ipvpnBody().with("readvertise", members{}),
		ipvpnBody().with("advertise_as", "both").with("vni", 17), ipvpnBody().with("advertise_as", "vpn"), evpnBody().with("advertise_as", "evpn"),
		evpnBody().with("import_rt", "1:1,, 70000:2,1.2.3.4:5"), ipvpnBody().with("local_port", members{"evpn": nil}),
	} {
		b, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add(strings.Repeat("[", 20000))
	f.Add(`{"vpn_type":"evpn","vpn_type":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		s := newServer(t)
		s.overVXLAN()
		before := s.tree() + s.plane.String()
		w := s.post("/attach_localport", body)
		switch w.Code {
		case http.StatusOK:
			s.tree()
			if d := s.post("/detach_localport", body); d.Code != http.StatusOK {
				t.Fatalf("detach of what was attached: %d %s", d.Code, d.Body)
			}
		case http.StatusBadRequest:
			wantFailure(t, w, http.StatusBadRequest)
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if after := s.tree() + s.plane.String(); after != before {
			t.Fatalf("a trace is left:\n%s\nbefore:\n%s", after, before)
		}
		if b := s.plane.Breaches(); len(b) > 0 {
			t.Fatalf("contract of the driver broken: %v", b)
		}
	})
}
