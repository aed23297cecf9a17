// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bagpipe-vpn/bagpipe/internal/bfd"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/transport"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/config"
)

const neighbourConf = `
[BGP]
local_address = 192.0.2.1
my_as = 64512
listen = true
listen_port = 0
peers = 192.0.2.2

[PEER 192.0.2.254]
description = ToR
peer_as = 64496
port = 1179
passive = true
shutdown = true
password = secret
ttl_security = 1
device = eth0
families = rtc, evpn
hold_time = 9
connect_retry_time = 7
max_prefixes = 1000
max_prefixes_warning = 50
max_prefixes_pause = 60
allow_own_as = 2
irrelevant_routes = keep
graceful_restart = full
restart_time = 90
stale_time = 100
long_lived_stale_time = 0
graceful_notification = false
bfd = multihop
bfd_min_tx = 50
bfd_min_rx = 60
bfd_multiplier = 4
bfd_min_ttl = 250

[PEER 192.0.2.128/25]
password = secret
families = flowspec-vpnv4, flowspec-vpnv6, vpnv6, vpnv4
irrelevant_routes = drop
graceful_restart = off
bfd = single-hop
`

// Every option of the file arrives at the speaker.
func TestSpeakerConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "bgp.conf")
	if err := os.WriteFile(file, []byte(neighbourConf), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(config.Source{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	local := netip.MustParseAddr("192.0.2.1")
	common := speaker.Settings{
		AS: 64512, HoldTime: 90, RetryMax: 5 * time.Second, Families: wire.Families,
		MaxPrefixesWarning: 80, MaxPrefixesPause: 300 * time.Second, DisabledText: "shut down in the configuration",
		Restart: &speaker.Restart{Notification: true, StaleTime: 360 * time.Second, LongLived: 24 * time.Hour},
	}
	group := common
	group.Transport.Password, group.Irrelevant, group.Restart = "secret", speaker.Drop, nil
	group.Families = []wire.Family{wire.VPNv4, wire.VPNv6, wire.FlowVPNv4, wire.FlowVPNv6}
	group.BFD = &bfd.Config{MinTx: 300 * time.Millisecond, MinRx: 300 * time.Millisecond, Multiplier: 3}
	want := speaker.Config{
		AS: 64512, RouterID: local, Local: local, Listen: true, Settings: common,
		Peers: []speaker.PeerConfig{
			{Addr: netip.MustParseAddr("192.0.2.2"), Port: 179, Settings: &common},
			{Addr: netip.MustParseAddr("192.0.2.254"), Port: 1179, Passive: true, Settings: &speaker.Settings{
				Description: "ToR", AS: 64496, HoldTime: 9, RetryMax: 7 * time.Second,
				Families:    []wire.Family{wire.EVPN, wire.RTC},
				Transport:   transport.Options{Password: "secret", TTLSecurity: 1, Device: "eth0"},
				MaxPrefixes: 1000, MaxPrefixesWarning: 50, MaxPrefixesPause: time.Minute,
				Disabled: true, DisabledText: "shut down in the configuration", AllowOwnAS: 2, Irrelevant: speaker.Keep,
				Restart: &speaker.Restart{Time: 90, StaleTime: 100 * time.Second},
				BFD: &bfd.Config{
					Multihop: true, MinTTL: 250, Device: "eth0", Multiplier: 4,
					MinTx: 50 * time.Millisecond, MinRx: 60 * time.Millisecond,
				},
			}},
		},
		Dynamic: []speaker.Group{{Prefix: netip.MustParsePrefix("192.0.2.128/25"), Settings: &group}},
	}
	got := speakerConfig(cfg, slog.New(slog.DiscardHandler))
	want.Hostname, _ = os.Hostname()
	if got.BFD == nil || got.Log == nil {
		t.Error("the speaker has no BFD or no log")
	}
	same := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmpopts.IgnoreFields(speaker.Config{}, "BFD", "Log"),
	}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("unexpected configuration of the speaker (-want +got):\n%s", diff)
	}
}
