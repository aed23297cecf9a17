// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSectionName(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"OK other section", " bgp ", "BGP"},
		{"OK blank", "PEER 192.0.2.1", "PEER 192.0.2.1"},
		{"OK blanks and case", " peer \t rr1.Example.org ", "PEER rr1.Example.org"},
		{"OK colon", "Peer:192.0.2.1", "PEER 192.0.2.1"},
		{"OK colon and blank", "PEER: 192.0.2.1", "PEER 192.0.2.1"},
		{"OK colon and IPv6", "PEER:::1", "PEER ::1"},
		{"OK blank and IPv6", "PEER ::1", "PEER ::1"},
		{"OK brackets and zone", "PEER [fe80::1%Eth0]", "PEER [fe80::1%Eth0]"},
		{"OK no neighbour", "peer", "PEER "},
		{"OK no neighbour, colon", "peer:", "PEER "},
		{"OK other name with the same start", "peers", "PEERS"},
		{"OK shorter name", "pee", "PEE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, sectionName(tt.in)); diff != "" {
				t.Errorf("unexpected section (-want +got):\n%s", diff)
			}
		})
	}
}

// Options of [BGP] hold for all neighbours, those of [PEER] for one, for each
// value that an option may have.
func TestNeighbourOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want func(*Settings)
	}{
		{"OK password", "password = s3cret #1", func(s *Settings) { s.Password = "s3cret #1" }},
		{"OK longest password", "password = " + strings.Repeat("x", 80), func(s *Settings) { s.Password = Secret(strings.Repeat("x", 80)) }},
		{"OK dollar in password", "password = a$$debug", func(s *Settings) { s.Password = "a$debug" }},
		{"OK TTL security", "ttl_security = 254", func(s *Settings) { s.TTLSecurity = 254 }},
		{"OK device", "device = eth0.100-abcdef", func(s *Settings) { s.Device = "eth0.100-abcdef" }},
		{"OK families in any order", "families = rtc,\n evpn", func(s *Settings) { s.Families = []Family{FamilyEVPN, FamilyRTC} }},
		{"OK one family", "families = flowspec-vpnv6", func(s *Settings) { s.Families = []Family{FamilyFlowSpecVPNv6} }},
		{"OK hold time", "hold_time = 0", func(s *Settings) { s.HoldTime = 0 }},
		{"OK retry time", "connect_retry_time = 3600", func(s *Settings) { s.ConnectRetryTime = time.Hour }},
		{"OK maximum", "max_prefixes = 4294967295", func(s *Settings) { s.MaxPrefixes = 4294967295 }},
		{"OK warning", "max_prefixes_warning = 1", func(s *Settings) { s.MaxPrefixesWarning = 1 }},
		{"OK pause", "max_prefixes_pause = 0", func(s *Settings) { s.MaxPrefixesPause = 0 }},
		{"OK own AS", "allow_own_as = 10", func(s *Settings) { s.AllowOwnAS = 10 }},
		{"OK irrelevant routes kept", "irrelevant_routes = keep", func(s *Settings) { s.IrrelevantRoutes = IrrelevantKeep }},
		{"OK irrelevant routes dropped", "irrelevant_routes = drop", func(s *Settings) { s.IrrelevantRoutes = IrrelevantDrop }},
		{"OK restart", "graceful_restart = full\nrestart_time = 4095\nstale_time = 1\nlong_lived_stale_time = 16777215\n" +
			"graceful_notification = no", func(s *Settings) {
			s.Restart = Restart{Mode: RestartFull, Time: 4095 * time.Second, StaleTime: time.Second, LongLivedTime: 16777215 * time.Second}
		}},
		{"OK no restart", "graceful_restart = off\nlong_lived_stale_time = 0", func(s *Settings) {
			s.Restart.Mode, s.Restart.LongLivedTime = RestartOff, 0
		}},
		{"OK BFD", "bfd = single-hop\nbfd_min_tx = 10\nbfd_min_rx = 60000\nbfd_multiplier = 255", func(s *Settings) {
			s.BFD = BFD{Mode: BFDSingleHop, MinTx: 10 * time.Millisecond, MinRx: time.Minute, Multiplier: 255, MinTTL: 1}
		}},
		{"OK BFD over hops", "bfd = multihop\nbfd_min_ttl = 255", func(s *Settings) {
			s.BFD.Mode, s.BFD.MinTTL = BFDMultihop, 255
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			own := defaultSettings()
			tt.want(&own)
			want := defaults()
			want.BGP.Settings = own
			want.BGP.Peers = []Peer{{Host: "192.0.2.7", Addr: aPeer("", "192.0.2.7").Addr, Port: 179, Settings: own}}
			loadText(t, minimal+"peers = 192.0.2.7\n"+tt.in).check(t, want, nil, nil)

			want.BGP.Settings = defaultSettings()
			want.BGP.Peers = append(want.BGP.Peers, aPeer("192.0.2.8", "192.0.2.8"))
			loadText(t, minimal+"peers = 192.0.2.7, 192.0.2.8\n[PEER 192.0.2.7]\n"+tt.in).check(t, want, nil, nil)
		})
	}
}

func TestPeerSections(t *testing.T) {
	t.Parallel()
	peer := func(host, addr string, change func(*Peer)) Peer {
		p := aPeer(host, addr)
		change(&p)
		return p
	}
	hold := func(seconds time.Duration) func(*Peer) {
		return func(p *Peer) { p.HoldTime = seconds * time.Second }
	}
	group := func(prefix string, seconds time.Duration) Group {
		g := aGroup(prefix)
		g.HoldTime = seconds * time.Second
		return g
	}
	tests := []struct {
		name  string
		files []string
		want  func(*BGP)
		warns []string
	}{
		{"OK section alone adds a peer", []string{"[PEER 192.0.2.7]"},
			func(b *BGP) { b.Peers = []Peer{aPeer("192.0.2.7", "192.0.2.7")} }, nil},
		{"OK options of a peer alone", []string{"[bgp]\nlisten = 1\n[PEER 192.0.2.7]\ndescription = ToR, left\npeer_as = 4200000000\n" +
			"port = 1179\npassive = yes\nshutdown = on"},
			func(b *BGP) {
				b.Listen = true
				b.Peers = []Peer{peer("192.0.2.7", "192.0.2.7", func(p *Peer) {
					p.Description, p.PeerAS, p.Port, p.Passive, p.Shutdown = "ToR, left", 4200000000, 1179, true, true
				})}
			}, nil},
		{"OK section beats BGP, wherever it stands", []string{"[PEER 192.0.2.7]\nhold_time = 9\n[BGP]\nhold_time = 30\npeers = 192.0.2.8, 192.0.2.7"},
			func(b *BGP) {
				b.HoldTime = 30 * time.Second
				b.Peers = []Peer{peer("192.0.2.8", "192.0.2.8", hold(30)), peer("192.0.2.7", "192.0.2.7", hold(9))}
			}, nil},
		{"OK section beats BGP of a later file", []string{"[PEER 192.0.2.7]\nhold_time = 9", "[BGP]\nhold_time = 30"},
			func(b *BGP) {
				b.HoldTime = 30 * time.Second
				b.Peers = []Peer{peer("192.0.2.7", "192.0.2.7", hold(9))}
			}, nil},
		{"OK nothing means what BGP has", []string{"[BGP]\nhold_time = 30\nbgp_port = 1179\n[PEER 192.0.2.7]\nhold_time =\nport =\npeer_as =\nshutdown ="},
			func(b *BGP) {
				b.HoldTime, b.Port, b.ListenPort = 30*time.Second, 1179, 1179
				b.Peers = []Peer{peer("192.0.2.7", "192.0.2.7", func(p *Peer) { p.HoldTime, p.Port = 30*time.Second, 1179 })}
			}, nil},
		{"OK list first, then sections", []string{"[PEER 192.0.2.9]\n[PEER rr1.example.org]\n[PEER 192.0.2.7]\n[BGP]\npeers = 192.0.2.8, 192.0.2.7"},
			func(b *BGP) {
				b.Peers = []Peer{
					aPeer("192.0.2.8", "192.0.2.8"), aPeer("192.0.2.7", "192.0.2.7"), aPeer("192.0.2.9", "192.0.2.9"),
					aPeer("rr1.example.org", "192.0.2.101"),
				}
			}, nil},
		{"OK IPv6 addresses by value, in one file", []string{"[bgp]\npeers = 2001:db8::1\n[PEER [2001:DB8::1]]\nhold_time = 9\nport = 5\n" +
			"[peer:2001:db8:0::1]\nhold_time = 12"},
			func(b *BGP) {
				b.Peers = []Peer{peer("2001:db8::1", "2001:db8::1", func(p *Peer) { p.HoldTime, p.Port = 12*time.Second, 5 })}
			}, []string{"repeated 0.conf:7: [PEER [2001:DB8::1]].hold_time: given again, what holds is 0.conf:10"}},
		{"OK mapped address", []string{"[PEER ::ffff:192.0.2.7]\nhold_time = 9\n[PEER 192.0.2.7]\nport = 5"},
			func(b *BGP) {
				b.Peers = []Peer{peer("::ffff:192.0.2.7", "192.0.2.7", func(p *Peer) { p.HoldTime, p.Port = 9*time.Second, 5 })}
			}, nil},
		{"OK later file wins", []string{"[PEER 192.0.2.7]\nhold_time = 9\nport = 5", "[Peer 192.0.2.7]\nhold_time = 12"},
			func(b *BGP) {
				b.Peers = []Peer{peer("192.0.2.7", "192.0.2.7", func(p *Peer) { p.HoldTime, p.Port = 12*time.Second, 5 })}
			}, nil},
		{"OK hosts by name", []string{"[bgp]\npeers = rr1.example.org\n[PEER RR1.Example.org.]\nhold_time = 9"},
			func(b *BGP) { b.Peers = []Peer{peer("rr1.example.org", "192.0.2.101", hold(9))} }, nil},
		{"OK address of a listed host", []string{"[bgp]\npeers = rr1.example.org\n[PEER 192.0.2.101]\nhold_time = 9"},
			func(b *BGP) { b.Peers = []Peer{peer("rr1.example.org", "192.0.2.101", hold(9))} }, nil},
		{"OK host of a listed address", []string{"[bgp]\npeers = 192.0.2.101\n[PEER rr1.example.org]\nhold_time = 9"},
			func(b *BGP) { b.Peers = []Peer{peer("192.0.2.101", "192.0.2.101", hold(9))} }, nil},
		{"OK passive by list, and not by section", []string{"[bgp]\nlisten = 1\npassive_peers = 192.0.2.7, 192.0.2.8\n[PEER 192.0.2.7]\n[PEER 192.0.2.8]\npassive = 0"},
			func(b *BGP) {
				b.Listen = true
				b.Peers = []Peer{peer("192.0.2.7", "192.0.2.7", func(p *Peer) { p.Passive = true }), aPeer("192.0.2.8", "192.0.2.8")}
			}, nil},
		{"OK IPv6 prefixes", []string{"[bgp]\nlisten = 1\ndynamic_neighbors = 2001:db8:1::/48, 2001:db8:2::/48\n[PEER 2001:DB8::/32]\nhold_time = 9\n[PEER 2001:db8:2::/48]\nhold_time = 12\nport =\n" +
			"[PEER 2001:db8:0::/32]\nhold_time = 15"},
			func(b *BGP) {
				b.Listen = true
				b.Groups = []Group{aGroup("2001:db8:1::/48"), group("2001:db8:2::/48", 12), group("2001:db8::/32", 15)}
			}, []string{"repeated 0.conf:8: [PEER 2001:DB8::/32].hold_time: given again, what holds is 0.conf:13"}},
		{"OK address and prefix of it differ", []string{"[bgp]\nlisten = 1\n[PEER 192.0.2.7]\nhold_time = 9\n[PEER 192.0.2.7/32]\nhold_time = 12"},
			func(b *BGP) {
				b.Listen = true
				b.Peers, b.Groups = []Peer{peer("192.0.2.7", "192.0.2.7", hold(9))}, []Group{group("192.0.2.7/32", 12)}
			}, nil},
		{"OK substitution", []string{"[bgp]\nhold_time = 30\n[PEER 192.0.2.7]\ndescription = $hold_time ${peer_as} $port $shutdown ${bgp.my_as} $use_json\nport = 5"},
			func(b *BGP) {
				b.HoldTime = 30 * time.Second
				b.Peers = []Peer{peer("192.0.2.7", "192.0.2.7", func(p *Peer) {
					p.HoldTime, p.Port, p.Description = 30*time.Second, 5, "30 64512 5 false 64512 false"
				})}
			}, nil},
		{"OK unknown options", []string{"[PEER 192.0.2.7]\nhold_tme = 9\nmy_as = 1\ndescription = $wibble ${peer.port}"},
			func(b *BGP) {
				b.Peers = []Peer{peer("192.0.2.7", "192.0.2.7", func(p *Peer) { p.Description = "$wibble ${peer.port}" })}
			}, []string{
				"unknown 0.conf:5: [PEER 192.0.2.7].hold_tme: there is no such option; did you mean hold_time?",
				"unknown 0.conf:6: [PEER 192.0.2.7].my_as: there is no such option; did you mean BGP.my_as?",
				"unknown 0.conf:7: [PEER 192.0.2.7].description: there is no option wibble to substitute; write $$ for a dollar sign",
				"unknown 0.conf:7: [PEER 192.0.2.7].description: there is no option peer.port to substitute; write $$ for a dollar sign",
			}},
		{"OK RT constraint off", []string{"[bgp]\nenable_rtc = 0\n[PEER 192.0.2.7]\n[PEER 192.0.2.8]\nfamilies = rtc, evpn"},
			func(b *BGP) {
				b.EnableRTC, b.Families = false, b.Families[:5]
				b.Peers = []Peer{
					peer("192.0.2.7", "192.0.2.7", func(p *Peer) { p.Families = b.Families }),
					peer("192.0.2.8", "192.0.2.8", func(p *Peer) { p.Families = []Family{FamilyEVPN} }),
				}
			}, nil},
		{"OK longer prefix with a password of its own", []string{"[bgp]\nlisten = 1\n[PEER 192.0.2.7]\npassword = a\n[PEER 192.0.2.0/25]\npassword = b\n[PEER 192.0.2.0/24]\npassword = c\n[PEER 192.0.2.0/23]"},
			func(b *BGP) {
				b.Listen = true
				b.Peers = []Peer{peer("192.0.2.7", "192.0.2.7", func(p *Peer) { p.Password = "a" })}
				b.Groups = []Group{aGroup("192.0.2.0/25"), aGroup("192.0.2.0/24"), aGroup("192.0.2.0/23")}
				b.Groups[0].Password, b.Groups[1].Password = "b", "c"
			}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := defaults()
			head := minimal
			if strings.Contains(tt.name, "IPv6") {
				head = "[bgp]\nlocal_address = 2001:db8::9\nmy_as = 64512\n"
				tt.files[0] = strings.Replace(tt.files[0], "[bgp]\n", "router_id = 192.0.2.1\n", 1)
				setLocal(want, "2001:db8::9")
			}
			tt.want(&want.BGP)
			tt.files[0] = head + tt.files[0]
			loadText(t, tt.files...).check(t, want, tt.warns, nil)
		})
	}
}

func TestStations(t *testing.T) {
	t.Parallel()
	r := loadText(t, minimal+"[BMP]\nstations = 192.0.2.8, bmp.example.org:1, [2001:DB8::8]:65535, [2001:db8::9], bmp\n"+
		"connect_retry_time = 1\nstatistics_interval = 0")
	want := defaults()
	want.BMP = BMP{ConnectRetryTime: time.Second, Stations: []Station{
		{"192.0.2.8", 11019}, {"bmp.example.org", 1}, {"2001:db8::8", 65535}, {"2001:db8::9", 11019}, {"bmp", 11019},
	}}
	r.check(t, want, nil, nil)
	if diff := cmp.Diff("[2001:db8::8]:65535", r.cfg.BMP.Stations[2].Addr()); diff != "" {
		t.Errorf("unexpected address (-want +got):\n%s", diff)
	}
}

// A password must not show in any form of the configuration, nor in a message.
func TestPasswordIsHidden(t *testing.T) {
	t.Parallel()
	const word = "hunter2"
	ok := loadText(t, minimal+"password = "+word+"\n[PEER 192.0.2.7]\npassword = "+word+"$"+word)
	asJSON, err := json.Marshal(ok.cfg)
	if err != nil {
		t.Fatal(err)
	}
	bad := loadText(t, minimal+"password = "+word+strings.Repeat("x", 80)+"\nPassword "+word+"\n password "+word+
		"\n[PEER 192.0.2.7]\npassword = "+word+" $password\ndescription = $password\nhold_time = ${bgp.password}\n")
	if len(bad.problems) != 6 {
		t.Errorf("got problems %q, want 6", bad.problems)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %v %v %v %v", ok.cfg, ok.cfg, ok.cfg, asJSON, ok.cfg.Sections(), ok.warnings, bad.warnings, bad.problems)
	if strings.Contains(shown, word) {
		t.Errorf("the password shows in %s", shown)
	}
	if got := string(ok.cfg.BGP.Password); got != word {
		t.Errorf("the password is %q, want %q", got, word)
	}
	if got := (Secret("")).String(); got != "" {
		t.Errorf("no password shows as %q", got)
	}
}

func TestChoiceNames(t *testing.T) {
	t.Parallel()
	got := fmt.Sprint(FamilyFlowSpecVPNv4, IrrelevantDrop, RestartFull, BFDMultihop, BFDMode(3))
	if diff := cmp.Diff("flowspec-vpnv4 drop full multihop 3", got); diff != "" {
		t.Errorf("unexpected names (-want +got):\n%s", diff)
	}
}
