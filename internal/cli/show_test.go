// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/golden"
)

func TestShow(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "peers.json")
	for _, tt := range []struct {
		golden, args string
	}{
		{"show_summary", "show summary"},
		{"show_peers", "show peers"},
		{"show_instances", "show instances"},
		{"show_ports", "show ports"},
		{"show_ports", "show ports evi-red vrf-blue"},
		{"show_routes", "show routes"},
		{"show_routes_some", "show routes evpn flow"},
		{"show_peer", "show peers 192.0.2.254"},
		{"show_one_peer", "show peer 192.0.2.252"},
		{"show_one_peer_down", "show peer 192.0.2.253"},
		{"show_one_peer_old", "show peer 192.0.2.254"}, // as the original sends it
		{"show_one_peer_json", "-o json show peer 192.0.2.253"},
		{"show_top", "show"},
		{"show_logs", "show logs"},
		{"show_recurse", "show -r vpns/instances/evi-red"},
		{"show_summary_json", "-o json show summary"},
		{"show_peers_json", "show peers -o json"},
		{"show_instances_json", "-o json show instances"},
		{"show_ports_json", "-o json show ports"},
		{"show_routes_json", "-o json show routes rtc"},
		{"show_logs_json", "-o json show logs"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			got := d.call(t, append([]string{"bagpipe"}, strings.Fields(tt.args)...)...)
			if got.status != 0 || got.stderr != "" {
				t.Fatalf("status %d: %s", got.status, got.stderr)
			}
			if strings.Contains(tt.args, "json") && !json.Valid([]byte(got.stdout)) {
				t.Errorf("not JSON: %s", got.stdout)
			}
			golden.Check(t, tt.golden, got.stdout)
		})
	}
}

func TestShowFailures(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for _, tt := range []struct{ args, want string }{
		{"show vpns nothing", `bagpipe: there is no "vpns nothing" in the looking glass`},
		{"-o json show vpns nothing", `bagpipe: there is no "vpns nothing" in the looking glass`},
		{"show ports nothing", `bagpipe: there is no "vpns instances nothing" in the looking glass`},
		{"show peer 192.0.2.1", "bagpipe: there is no BGP peer 192.0.2.1"},
		{"show broken", "bagpipe: 500 Internal Server Error: Server error"},
		{"show summary --port 1", "connection refused"},
	} {
		got := d.call(t, append([]string{"bagpipe"}, strings.Fields(tt.args)...)...)
		if got.status != 1 || got.stdout != "" || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%s: got %+v", tt.args, got)
		}
	}
}

func TestAttachAndDetach(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	const args = " --type evpn --instance red --local-port tap1 --ip 198.51.100.5 --mac 00:00:5e:00:53:01 " +
		"--rt 64512:9 --vni 7 --description d --linuxbr br0"
	got := d.call(t, strings.Fields("bagpipe attach"+args)...)
	if want := (outcome{0, "attached 00:00:5e:00:53:01 198.51.100.5/24 on tap1 to red\n", ""}); got != want {
		t.Errorf("attach: got %+v, want %+v", got, want)
	}
	got = d.call(t, strings.Fields("bagpipe -o json detach"+args)...)
	if got.status != 0 {
		t.Errorf("detach: got %+v", got)
	}
	golden.Check(t, "detach_json", got.stdout)
	const macOnly = "bagpipe attach --type evpn --instance red --local-port tap1 --mac 00:00:5e:00:53:02 --rt 64512:9"
	if got = d.call(t, strings.Fields(macOnly)...); got.status != 0 {
		t.Errorf("attach of a MAC alone: got %+v", got)
	}
	const type5 = "bagpipe attach --type ipvpn --instance blue --local-port tap2 --ip 198.51.100.6/32 --mac 00:00:5e:00:53:03 --rt 64512:9 --advertise-as both"
	if got = d.call(t, strings.Fields(type5)...); got.status != 0 {
		t.Errorf("attach with type 5 routes: got %+v", got)
	}
	golden.Check(t, "attach_posts", strings.Join(d.posts, "\n")+"\n")

	d.refuse = "API error: no"
	got = d.call(t, strings.Fields("bagpipe attach"+args)...)
	if want := (outcome{1, "", "bagpipe: 400 Bad Request: API error: no\n"}); got != want {
		t.Errorf("refused: got %+v, want %+v", got, want)
	}
}

func TestUsageOfTheNewCommand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, stderr string }{
		{"frobnicate", "bagpipe: unknown command \"frobnicate\" for \"bagpipe\"\nTry 'bagpipe --help'.\n"},
		{"--loud", "bagpipe: unknown flag: --loud\nTry 'bagpipe --help'.\n"},
		{"show -o xml summary", "must be text or json\nTry 'bagpipe show summary --help'.\n"},
		{"attach --type evpn", "bagpipe: --local-port is needed\nTry 'bagpipe attach --help'.\n"},
		{"attach --type ipvpn --local-port t --ip 198.51.100.6 --advertise-as l2vpn", "bagpipe: --advertise-as must be vpn, evpn or both, not \"l2vpn\"\n"},
		{"attach --type evpn --local-port t --mac 00:00:5e:00:53:03 --advertise-as evpn", "bagpipe: --advertise-as is for ipvpn only\n"},
		{"attach more", "Try 'bagpipe attach --help'.\n"},
		{"show peer", "Try 'bagpipe show peer --help'.\n"},
		{"show peer a b", "Try 'bagpipe show peer --help'.\n"},
		{"peer sideways", "bagpipe: unknown command \"sideways\"\nTry 'bagpipe peer --help'.\n"},
		{"peer reset", "Try 'bagpipe peer reset --help'.\n"},
		{"peer enable 192.0.2.1 --message x", "unknown flag: --message\nTry 'bagpipe peer enable --help'.\n"},
		{"peer shutdown 192.0.2.1 --message \xff", "--message: \"\\xff\" is not UTF-8\nTry 'bagpipe peer shutdown --help'.\n"},
		{"version more", "Try 'bagpipe version --help'.\n"},
		{"cleanup more", "Try 'bagpipe cleanup --help'.\n"},
		{"lab sideways", "bagpipe: unknown command \"sideways\"\nTry 'bagpipe lab --help'.\n"},
		{"rr --listen 300.1.1.1:5", "bagpipe: --listen: "},
		{"rr --listen :0", "bagpipe: --listen: port \"0\" is not in 1..65535"},
		{"rr --client-prefix x", "bagpipe: --client-prefix: "},
		{"rr --router-id 2001:db8::1", "bagpipe: --router-id: 2001:db8::1 is not an IPv4 address"},
		{"rr --as 0", "bagpipe: --as: must not be 0"},
	} {
		got := call(t, Env{}, append([]string{"bagpipe"}, strings.Fields(tt.args)...)...)
		if got.status != 2 || got.stdout != "" || !strings.Contains(got.stderr, tt.stderr) {
			t.Errorf("%s: got %+v", tt.args, got)
		}
	}
}

func TestHelpVersionAndCompletion(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"bagpipe", "Available Commands:"},
		{"bagpipe --help", "Available Commands:"},
		{"bagpipe lab", "Usage:"},
		{"bagpipe version", "bagpipe 1.2.3\n"},
		{"bagpipe version -o json", `"version": "1.2.3"`},
		{"bagpipe completion bash", "bash completion"},
		{"bagpipe-rest-attach --help", "--readv-from-rt"},
		{"bagpipe-rest-attach --he", "--readv-from-rt"},
		{"bagpipe-looking-glass -h", "--recurse"},
		{"bagpipe-fakerr -h", "--listen"},
		{"bagpipe-bgp-cleanup --help", "usage: bagpipe-bgp-cleanup"},
		{"bagpipe-bgp-cleanup --version", "bagpipe-bgp-cleanup 1.2.3\n"},
	} {
		got := call(t, Env{Version: "1.2.3"}, strings.Fields(tt.args)...)
		if got.status != 0 || !strings.Contains(got.stdout, tt.want) || got.stderr != "" {
			t.Errorf("%s: got %+v", tt.args, got)
		}
	}
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	found := func(_ context.Context, _ config.Source, log *slog.Logger) ([]string, error) {
		log.Warn("noted")
		return []string{"bridge bpbr1", "vxlan bpvx1"}, nil
	}
	nothing := func(context.Context, config.Source, *slog.Logger) ([]string, error) { return nil, nil }
	half := func(context.Context, config.Source, *slog.Logger) ([]string, error) {
		return []string{"bridge bpbr1"}, errors.New("remove vxlan bpvx1: busy")
	}
	for _, tt := range []struct {
		name, args     string
		cleanup        func(context.Context, config.Source, *slog.Logger) ([]string, error)
		status         int
		stdout, stderr string
	}{
		{"new", "bagpipe cleanup", found, 0, "removed bridge bpbr1\nremoved vxlan bpvx1\n", "noted"},
		{"JSON", "bagpipe cleanup -o json", found, 0, "{\n  \"removed\": [\n    \"bridge bpbr1\",\n    \"vxlan bpvx1\"\n  ]\n}\n", ""},
		{"JSON of nothing", "bagpipe cleanup -o json", nothing, 0, "{\n  \"removed\": []\n}\n", ""},
		{"old", "bagpipe-bgp-cleanup --config-file x --debug", found, 0, "removed bridge bpbr1\nremoved vxlan bpvx1\n", "noted"},
		{"old, bad option", "bagpipe-bgp-cleanup --loud", found, 2, "", "--loud"},
		{"nothing", "bagpipe cleanup", nothing, 0, "nothing to remove\n", ""},
		{"half", "bagpipe cleanup", half, 1, "removed bridge bpbr1\n", "bagpipe: clean up: remove vxlan bpvx1: busy\n"},
		{"no driver", "bagpipe cleanup", nil, 1, "", "no dataplane driver"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := call(t, Env{Cleanup: tt.cleanup}, strings.Fields(tt.args)...)
			if got.status != tt.status || got.stdout != tt.stdout || !strings.Contains(got.stderr, tt.stderr) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestReflectorOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		listen, addr string
		port         uint16
	}{
		{"", "invalid IP", 0}, {"192.0.2.1", "192.0.2.1", 0}, {":1790", "invalid IP", 1790}, {"2001:db8::1", "2001:db8::1", 0},
		{"192.0.2.1:1790", "192.0.2.1", 1790}, {"[2001:db8::1]:1790", "2001:db8::1", 1790},
	} {
		addr, port, err := parseListen(tt.listen)
		if err != nil || addr.String() != tt.addr || port != tt.port {
			t.Errorf("%q: got %s, %d, %v", tt.listen, addr, port, err)
		}
	}
}
