// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// FuzzLoad feeds one file through all of Load. It must not panic, must return
// either a configuration or problems that name a place, and what the looking
// glass shows must be readable again with the same result.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(Sample()))
	f.Add([]byte("[BGP]\nlocal_address = eth0\nmy_as = $bgp_port\nbgp_port=${api.port}$$\n x\n[api\nport = 'x'"))
	f.Add([]byte(minimal + "listen=1\npeers=[::1], a.b, 192.0.2.7\npassive_peers=a.b\ndynamic_neighbors=::/0,0.0.0.0/0"))
	f.Add([]byte(minimal + "listen=1\npassword=$$x\n[peer 192.0.2.0/24]\nfamilies=evpn,rtc\n[Peer:::1]\nport=1\n[PEER a.b]\nhold_time=$port" +
		"\ndescription= x$$y\n[PEER]\n[peer 192.0.2.1/24]\nbfd=multihop\n[BMP]\nstations=a, [::1]:2, 192.0.2.1"))
	host := netip.MustParseAddr("192.0.2.99")
	resolver := Resolver{
		InterfaceAddrs: func(string) ([]netip.Addr, error) { return []netip.Addr{host}, nil },
		LookupHost:     func(string) ([]netip.Addr, error) { return []netip.Addr{host}, nil },
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxFileSize {
			return
		}
		name := filepath.Join(t.TempDir(), "f.conf")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, warnings, err := Load(Source{Files: []string{name}, Resolver: resolver})
		if (cfg == nil) == (err == nil) {
			t.Fatalf("Load returned configuration %v and error %v", cfg, err)
		}
		lines := 1 + strings.Count(string(data), "\n") + strings.Count(string(data), "\r")
		for _, w := range warnings {
			if w.Origin.Line < 1 || w.Origin.Line > lines {
				t.Errorf("warning at line %d of %d: %s", w.Origin.Line, lines, w)
			}
		}
		var p *Problem
		if err != nil && !errors.As(err, &p) {
			t.Errorf("Load returned %v, want a *Problem", err)
		}
		if cfg != nil {
			reload(t, cfg, resolver)
		}
	})
}

// reload writes what Sections shows as overrides and compares.
func reload(t interface {
	Helper()
	Fatalf(string, ...any)
}, cfg *Config, resolver Resolver) {
	t.Helper()
	src := Source{Resolver: resolver}
	for _, s := range cfg.Sections() {
		for _, o := range s.Options {
			src.Overrides = append(src.Overrides, Override{s.Name, o.Name, asText(o.Value), "test"})
		}
	}
	again, _, err := Load(src)
	if err != nil {
		t.Fatalf("what Sections shows is not accepted: %v", err)
	}
	again.Log = cfg.Log
	if !equal(cfg, again) {
		t.Fatalf("what Sections shows is read as %+v, want %+v", again, cfg)
	}
}

// TestSectionsRoundTrip generates valid configurations and reads back what
// Sections shows of them.
func TestSectionsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		local := rapid.SampledFrom([]string{"192.0.2.1", "eth0", "2001:db8::1"}).Draw(t, "local")
		hosts := []string{"192.0.2.7", "192.0.2.8", "rr1.example.org"}
		if local == "2001:db8::1" {
			hosts = []string{"[2001:db8::7]", "rr6.example.org", "fe80::1%eth0"}
		}
		src := Source{Resolver: fakeResolver(), Overrides: []Override{
			{"BGP", "local_address", local, "test"}, {"BGP", "router_id", "192.0.2.1", "test"},
			{"BGP", "my_as", "64512", "test"}, {"BGP", "listen", "true", "test"},
			{"BGP", "peers", strings.Join(rapid.SliceOfDistinct(
				rapid.SampledFrom(hosts),
				rapid.ID[string]).Draw(t, "peers"), ","), "test"},
		}}
		for o := range rows() {
			if o.field == nil || o.max == 0 || !rapid.Bool().Draw(t, o.name) {
				continue
			}
			n := rapid.Int64Range(o.min, o.max).Draw(t, o.name)
			src.Overrides = append(src.Overrides, Override{o.section, o.name, asText(n), "test"})
		}
		cfg, _, err := Load(src)
		if err != nil {
			t.Fatalf("load: %v", err)
		}
		reload(t, cfg, src.Resolver)
	})
}
