// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// compareAddrs lets cmp look at addresses and prefixes by value.
var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// minimal holds the required options and nothing else.
const minimal = "[BGP]\nlocal_address = 192.0.2.1\nmy_as = 64512\n"

// defaults returns what minimal is read as.
func defaults() *Config {
	local := netip.MustParseAddr("192.0.2.1")
	dataplane := Dataplane{Driver: "dummy", LocalAddress: local}
	return &Config{
		Common: Common{SweepDelay: 120 * time.Second},
		API:    API{Host: "127.0.0.1", Port: 8082},
		BGP: BGP{
			LocalAddress: local, RouterID: local, MyAS: 64512, EnableRTC: true,
			Port: 179, ListenPort: 179, EVPNAcceptNoEncapsulation: true, Settings: defaultSettings(),
		},
		BMP: BMP{ConnectRetryTime: 30 * time.Second, StatisticsInterval: time.Minute},
		IPVPN: IPVPN{
			Dataplane: dataplane, DefaultEncapsulation: EncapGRE, VXLANDstPort: 4789, MaxRoutes: 1 << 20,
			OVS: OVS{
				Connection: "tcp:127.0.0.1:6640", RunDir: "/var/run/openvswitch", Bridge: "br-mpls",
				TableStart: 1, GRETunnel: "mpls_gre",
			},
		},
		EVPN: EVPN{Dataplane: dataplane, VXLANDstPort: 4789},
	}
}

// defaultSettings are those of a neighbour for which minimal says nothing.
func defaultSettings() Settings {
	return Settings{
		PeerAS:   64512,
		Families: []Family{FamilyVPNv4, FamilyVPNv6, FamilyEVPN, FamilyFlowSpecVPNv4, FamilyFlowSpecVPNv6, FamilyRTC},
		HoldTime: 90 * time.Second, ConnectRetryTime: 5 * time.Second,
		MaxPrefixesWarning: 80, MaxPrefixesPause: 300 * time.Second,
		Restart: Restart{
			Mode: RestartHelper, Time: 120 * time.Second, StaleTime: 360 * time.Second,
			LongLivedTime: 24 * time.Hour, Notification: true,
		},
		BFD: BFD{MinTx: 300 * time.Millisecond, MinRx: 300 * time.Millisecond, Multiplier: 3, MinTTL: 1},
	}
}

// aPeer is a peer of the default settings.
func aPeer(host, addr string) Peer {
	return Peer{Host: host, Addr: netip.MustParseAddr(addr), Port: 179, Settings: defaultSettings()}
}

// aGroup is a group of the default settings.
func aGroup(prefix string) Group {
	return Group{Prefix: netip.MustParsePrefix(prefix), Settings: defaultSettings()}
}

// fakeResolver knows a few interfaces and hosts.
func fakeResolver() Resolver {
	interfaces := map[string]string{
		"eth0":  "fe80::1 2001:db8::1 192.0.2.10 192.0.2.11",
		"eth6":  "fe80::1 2001:db8::6",
		"empty": "",
		"local": "fe80::1",
	}
	hosts := map[string]string{
		"rr1.example.org":  "2001:db8::101 192.0.2.101",
		"rr6.example.org":  "2001:db8::106",
		"none.example.org": "",
	}
	find := func(known map[string]string) func(string) ([]netip.Addr, error) {
		return func(name string) ([]netip.Addr, error) {
			text, ok := known[name]
			if !ok {
				return nil, fmt.Errorf("no %s", name)
			}
			var addrs []netip.Addr
			for _, field := range strings.Fields(text) {
				addrs = append(addrs, netip.MustParseAddr(field))
			}
			return addrs, nil
		}
	}
	return Resolver{InterfaceAddrs: find(interfaces), LookupHost: find(hosts)}
}

// result is the outcome of Load in a form to compare.
type result struct {
	cfg      *Config
	warnings []string
	problems []string
}

// loadText loads files of the given contents, named 0.conf, 1.conf and so on.
func loadText(t *testing.T, contents ...string) result {
	t.Helper()
	dir := t.TempDir()
	src := Source{Resolver: fakeResolver()}
	for i, text := range contents {
		name := filepath.Join(dir, fmt.Sprintf("%d.conf", i))
		writeFile(t, name, text)
		src.Files = append(src.Files, name)
	}
	return load(src, dir)
}

// load loads src and cuts dir off the messages.
func load(src Source, dir string) result {
	cfg, warnings, err := Load(src)
	r := result{cfg: cfg}
	for _, w := range warnings {
		r.warnings = append(r.warnings, w.Kind.String()+" "+strings.ReplaceAll(w.String(), dir+"/", ""))
	}
	if err != nil {
		r.problems = strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n")
	}
	return r
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// check fails the test unless the outcome is the one wanted.
func (r result) check(t *testing.T, cfg *Config, warnings, problems []string) {
	t.Helper()
	if diff := cmp.Diff(problems, r.problems); diff != "" {
		t.Errorf("unexpected problems (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(warnings, r.warnings); diff != "" {
		t.Errorf("unexpected warnings (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(cfg, r.cfg, compareAddrs); diff != "" {
		t.Errorf("unexpected configuration (-want +got):\n%s", diff)
	}
}

func TestLogPath(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   Log
		want string
	}{
		{"OK standard error", Log{}, ""},
		{"OK file", Log{File: "a.log"}, "a.log"},
		{"OK directory", Log{Dir: "/var/log/bagpipe"}, "/var/log/bagpipe/bagpipe-bgp.log"},
		{"OK file in directory", Log{File: "a.log", Dir: "/var/log"}, "/var/log/a.log"},
		{"OK absolute file", Log{File: "/tmp/a.log", Dir: "/var/log"}, "/tmp/a.log"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, tt.in.Path()); diff != "" {
				t.Errorf("unexpected path (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPIAddr(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff("[2001:db8::1]:8082", API{Host: "2001:db8::1", Port: 8082}.Addr()); diff != "" {
		t.Errorf("unexpected address (-want +got):\n%s", diff)
	}
}

// equal tells whether two configurations hold the same, as far as is shown.
func equal(a, b *Config) bool {
	shown := cmp.Comparer(func(a, b Secret) bool { return a.String() == b.String() })
	return cmp.Equal(a, b, compareAddrs, cmpopts.EquateEmpty(), shown)
}

// asText writes a value of the looking glass as a file would.
func asText(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case []string:
		return strings.Join(v, ",")
	case string:
		return strings.ReplaceAll(v, "$", "$$")
	default:
		return fmt.Sprint(v)
	}
}
