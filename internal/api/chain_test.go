// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// A later attach keeps what it does not mention, and empty lists end it.
func TestChainMembersAreKept(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		v := ipvpnBody()
		again := members{"from_rt": "64512:1", "to_rt": "64512:3"}
		draw := members{"redirect_rts": "64512:4", "to_rt": "64512:3", "static_destination_prefixes": []string{"203.0.113.0/24"}, "classifier": members{"destinationPort": 80}}
		const (
			from   = `{"from":["target:64512:1"],"to":["target:64512:3"]}`
			drawn  = `{"redirect_rts":["target:64512:4"],"classifier":{"destinationPort":80},"to":["target:64512:3"],"static_destination_prefixes":["203.0.113.0/24"]}`
			nobody = `{}`
		)
		for _, step := range []struct {
			name                 string
			in                   members
			readvertise, attract string
		}{
			{"both", v.with("readvertise", again).with("attract_traffic", draw), from, drawn},
			{"absent", v, from, drawn},
			{"null", v.with("readvertise", nil).with("attract_traffic", nil), from, drawn},
			{"empty", v.with("readvertise", members{}).with("attract_traffic", members{}), from, drawn},
			{"classifier as text", v.with("attract_traffic", draw.with("classifier", members{"destinationPort": "80"})), from, strings.Replace(drawn, "80", `"80"`, 1)},
			{"no attract_traffic", v.with("attract_traffic", members{"redirect_rts": []string{}}), from, nobody},
			{"attract_traffic again", v.with("attract_traffic", draw), from, drawn},
			{"no readvertise", v.with("readvertise", members{"from_rt": []string{}, "to_rt": ""}), nobody, drawn},
			{"neither", v.with("attract_traffic", members{"redirect_rts": ""}), nobody, nobody},
		} {
			s.accept("/attach_localport", step.in)
			for member, want := range map[string]string{"readvertise": step.readvertise, "attract_traffic": step.attract} {
				if w := s.get("/looking-glass/vpns/instances/blue/" + member); w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != want {
					t.Errorf("%s: %s: %d %s, want %s", step.name, member, w.Code, w.Body, want)
				}
			}
		}
	})
}

// Of several names of to_rt that of the specification counts, then the shorter one.
func TestAliasesOfToRT(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		draw := members{"redirect_rts": "64512:4", "attract_to_rts": "64512:1", "to": "64512:2", "to_rt": "64512:3", "static_destination_prefixes": []string{"203.0.113.0/24"}, "classifier": members{}}
		for want, in := range map[string]members{
			"64512:3": draw, "64512:2": draw.with("to_rt", nil), "64512:1": draw.with("to_rt", absent).with("to", absent),
		} {
			s.accept("/attach_localport", ipvpnBody().with("attract_traffic", in))
			if got := s.get("/looking-glass/vpns/instances/blue/attract_traffic").Body.String(); !strings.Contains(got, `"to":["target:`+want+`"]`) {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}

// Static prefixes are networks, each once, of which there is a limit.
func TestStaticPrefixes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		with := func(list []string) members {
			return ipvpnBody().with("attract_traffic", members{"redirect_rts": "64512:4", "to_rt": "64512:3", "static_destination_prefixes": list, "classifier": members{}})
		}
		list := []string{"203.0.113.9/24", "203.0.113.0/24"} // the same
		for n := range vpn.MaxStaticPrefixes - 1 {
			list = append(list, fmt.Sprintf("198.18.%d.%d", n/256, n%256))
		}
		s.accept("/attach_localport", with(list))
		f := wantFailure(t, s.post("/attach_localport", with(append(list, "192.0.2.0/24"))), http.StatusBadRequest)
		if want := "attract_traffic: static_destination_prefixes: 1025 prefixes: want at most 1024"; !strings.Contains(f.Description, want) {
			t.Errorf("description %q, want %s", f.Description, want)
		}
		settle()
		got := s.get("/looking-glass/vpns/instances/blue/attract_traffic").Body.String()
		if n := strings.Count(got, "198.18."); n != vpn.MaxStaticPrefixes-1 || strings.Count(got, `"203.0.113.0/24"`) != 1 || strings.Contains(got, "192.0.2.0/24") {
			t.Errorf("%d prefixes: %.200s", n, got)
		}
	})
}

// Classes of traffic that are accepted, by what is announced.
func TestClassifiers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		for _, tt := range []struct {
			class members
			want  string
		}{
			{members{"protocol": "sctp", "sourcePort": 80}, "protocol =sctp source-port =80"},
			{members{"protocol": "Tcp", "destinationPort": "80:80"}, "protocol =tcp destination-port =80"},
			{members{"protocol": 1}, "protocol =icmp"},
			{members{"protocol": 0}, "protocol =0"},
			{members{"protocol": "255"}, "protocol =255"},
			{members{"protocol": "ICMPv6"}, "protocol =icmpv6"},
			{members{"protocol": nil, "destinationPort": "0:65535"}, "destination-port <=65535"},
			{members{"sourcePrefix": "10.1.2.3/8"}, "source-ipv4 10.0.0.0/8 protocol =tcp"},
			{members{"destinationPrefix": "192.0.2.0/24"}, "protocol =tcp"},
		} {
			s.accept("/attach_localport", ipvpnBody().with("attract_traffic", members{
				"redirect_rts": "64512:4", "to_rt": "64512:3", "static_destination_prefixes": []string{"203.0.113.0/24"}, "classifier": tt.class,
			}))
			got := strings.NewReplacer(`\u003e`, ">", `\u003c`, "<", `\u0026`, "&").Replace(s.get("/looking-glass/vpns/instances/blue/readvertised").Body.String())
			if !strings.Contains(got, "flow destination-ipv4 203.0.113.0/24 "+tt.want+" rd ") {
				t.Errorf("classifier %v: %s, want %s", tt.class, got, tt.want)
			}
		}
	})
}
