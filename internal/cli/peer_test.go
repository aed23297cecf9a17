// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPeerOperations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		post string
		want string
	}{
		{
			"shutdown", []string{"shutdown", "192.0.2.254", "--message", "new disks"},
			`/bgp/peers/192.0.2.254/shutdown {"message":"new disks"}`, "192.0.2.254 shut down\n",
		},
		{"shutdown without a word", []string{"shutdown", "2001:db8::1"}, `/bgp/peers/2001:db8::1/shutdown {}`, "2001:db8::1 shut down\n"},
		{"enable", []string{"enable", "192.0.2.254"}, `/bgp/peers/192.0.2.254/enable {}`, "192.0.2.254 enabled\n"},
		{"reset", []string{"reset", "--message", "ü", "192.0.2.254"}, `/bgp/peers/192.0.2.254/reset {"message":"ü"}`, "192.0.2.254 reset\n"},
		{"refresh", []string{"refresh", "192.0.2.254"}, `/bgp/peers/192.0.2.254/refresh {}`, "192.0.2.254 asked for its routes\n"},
		{
			"refresh of some", []string{"refresh", "192.0.2.254", "--family", "l2vpn/evpn", "--family", "ipv4/rtc"},
			`/bgp/peers/192.0.2.254/refresh {"families":["l2vpn/evpn","ipv4/rtc"]}`, "192.0.2.254 asked for its routes\n",
		},
		{
			"JSON", []string{"-o", "json", "shutdown", "192.0.2.254", "--message", "new disks"},
			`/bgp/peers/192.0.2.254/shutdown {"message":"new disks"}`,
			"{\n  \"action\": \"shutdown\",\n  \"peer\": \"192.0.2.254\",\n  \"message\": \"new disks\"\n}\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			got := d.call(t, append([]string{"bagpipe", "peer"}, tt.args...)...)
			if want := (outcome{0, tt.want, ""}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if diff := cmp.Diff([]string{tt.post}, d.posts); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPeerOperationRefused(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.refuse = "API error: neighbour 192.0.2.254 has no established session"
	got := d.call(t, "bagpipe", "peer", "reset", "192.0.2.254")
	if want := (outcome{1, "", "bagpipe: 400 Bad Request: " + d.refuse + "\n"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Addresses are completed from the daemon's peers.
func TestPeerCompletion(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "peers.json")
	const peers = "192.0.2.252\tEstablished\n192.0.2.253\tIdle\n192.0.2.254\tEstablished\n:4\n"
	for _, tt := range []struct{ args, want string }{
		{"show peer ", peers}, {"peer shutdown ", peers}, {"peer refresh --family l2vpn/evpn ", peers},
		{"peer reset 192.0.2.252 ", ":4\n"},
		{"peer enable --port 1 ", ":1\n"},
	} {
		got := d.call(t, append([]string{"bagpipe", "__complete"}, strings.Split(tt.args, " ")...)...)
		if got.status != 0 || got.stdout != tt.want {
			t.Errorf("%q: got %+v, want %q", tt.args, got, tt.want)
		}
	}
}
