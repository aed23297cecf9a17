// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"
)

// Each value is refused in [BGP] and in [PEER] alike.
func TestNeighbourOptionsBad(t *testing.T) {
	t.Parallel()
	const (
		wantBool     = "want true, false, yes, no, on, off, 1 or 0"
		wantDevice   = "want the name of an interface, at most 15 octets without blanks, / and :"
		wantFamilies = "want one or more of vpnv4, vpnv6, evpn, flowspec-vpnv4, flowspec-vpnv6, rtc, separated by commas"
	)
	tests := []struct{ name, option, value, want string }{
		{"bad password", "password", strings.Repeat("x", 81), "has 81 octets; want text of 1 to 80 octets"},
		{"bad hops", "ttl_security", "255", "want an integer from 0 to 254"},
		{"bad hops below", "ttl_security", "-1", "want an integer from 0 to 254"},
		{"bad device length", "device", "eth0.100-abcdefg", wantDevice},
		{"bad device blank", "device", "eth 0", wantDevice},
		{"bad device slash", "device", "eth/0", wantDevice},
		{"bad device colon", "device", "eth0:1", wantDevice},
		{"bad device dots", "device", "..", wantDevice},
		{"bad family", "families", "evpn, vpnv5", `"vpnv5" is unknown; ` + wantFamilies},
		{"bad family twice", "families", "evpn, rtc, evpn", `"evpn" stands there twice; ` + wantFamilies},
		{"bad no family", "families", ",", wantFamilies},
		{"bad hold time", "hold_time", "2", "want whole seconds, 0 or from 3 to 65535"},
		{"bad retry time", "connect_retry_time", "0", "want whole seconds, from 1 to 3600"},
		{"bad maximum", "max_prefixes", "4294967296", "want an integer from 0 to 4294967295"},
		{"bad warning", "max_prefixes_warning", "101", "want an integer from 1 to 100"},
		{"bad warning below", "max_prefixes_warning", "0", "want an integer from 1 to 100"},
		{"bad pause", "max_prefixes_pause", "86401", "want whole seconds, from 0 to 86400"},
		{"bad own AS", "allow_own_as", "11", "want an integer from 0 to 10"},
		{"bad irrelevant routes", "irrelevant_routes", "Keep", "want one of auto, keep, drop"},
		{"bad restart", "graceful_restart", "true", "want one of off, helper, full"},
		{"bad restart time", "restart_time", "4096", "want whole seconds, from 1 to 4095"},
		{"bad restart time below", "restart_time", "0", "want whole seconds, from 1 to 4095"},
		{"bad stale time", "stale_time", "3601", "want whole seconds, from 1 to 3600"},
		{"bad long-lived stale time", "long_lived_stale_time", "16777216", "want whole seconds, from 0 to 16777215"},
		{"bad notification", "graceful_notification", "maybe", wantBool},
		{"bad BFD", "bfd", "on", "want one of off, single-hop, multihop"},
		{"bad BFD transmission", "bfd_min_tx", "9", "want whole milliseconds, from 10 to 60000"},
		{"bad BFD reception", "bfd_min_rx", "60001", "want whole milliseconds, from 10 to 60000"},
		{"bad BFD multiplier", "bfd_multiplier", "0", "want an integer from 1 to 255"},
		{"bad BFD multiplier above", "bfd_multiplier", "256", "want an integer from 1 to 255"},
		{"bad BFD TTL", "bfd_min_ttl", "0", "want an integer from 1 to 255"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			shown := tt.value
			if tt.option == "password" {
				shown = "***"
			}
			text := tt.option + `: value "` + shown + `": ` + tt.want
			line := tt.option + " = " + tt.value + "\n"
			// What BGP has wrong is no further problem of its neighbours.
			loadText(t, minimal+line+"[PEER 192.0.2.7]\nport = 5").check(t, nil, nil, []string{"0.conf:4: BGP." + text})
			loadText(t, minimal+"[PEER 192.0.2.7]\n"+line).check(t, nil, nil, []string{"0.conf:5: [PEER 192.0.2.7]." + text})
		})
	}
}

func TestPeerSectionsBad(t *testing.T) {
	t.Parallel()
	const (
		wantName   = "want an IP address, a host name or a prefix"
		needListen = "has no sense unless BGP.listen is true"
		noPassword = "so the system would demand signatures of it; want a password here, too"
	)
	tests := []struct {
		name string
		in   string // follows minimal
		want []string
	}{
		{"bad names", "[PEER]\n[PEER 192.0.2.300]\n[PEER a b]\n[PEER 224.0.0.1]\n[PEER ::]\n[PEER nowhere]\n[PEER none.example.org]", []string{
			"0.conf:4: [PEER]: " + wantName,
			"0.conf:5: [PEER 192.0.2.300]: " + wantName,
			"0.conf:6: [PEER a b]: " + wantName,
			"0.conf:7: [PEER 224.0.0.1]: 224.0.0.1 is not the address of one host; " + wantName,
			"0.conf:8: [PEER ::]: :: is not the address of one host; " + wantName,
			"0.conf:9: [PEER nowhere]: look up host: no nowhere",
			"0.conf:10: [PEER none.example.org]: look up host: none.example.org has no address"}},
		{"bad prefixes", "listen = 1\n[PEER 192.0.2.7/24]\n[PEER 192.0.2.0/33]\n[PEER a/b]\n[PEER ::ffff:192.0.2.0/120]", []string{
			`0.conf:5: [PEER 192.0.2.7/24]: "192.0.2.7/24" has bits set after its length; want 192.0.2.0/24`,
			`0.conf:6: [PEER 192.0.2.0/33]: "192.0.2.0/33" is no prefix; ` + wantName,
			`0.conf:7: [PEER a/b]: "a/b" is no prefix; ` + wantName,
			`0.conf:8: [PEER ::ffff:192.0.2.0/120]: "::ffff:192.0.2.0/120" is no prefix; ` + wantName}},
		{"bad options in a refused section show, too", "[PEER a b]\nhold_time = 2", []string{
			"0.conf:4: [PEER a b]: " + wantName,
			`0.conf:5: [PEER a b].hold_time: value "2": want whole seconds, 0 or from 3 to 65535`}},
		{"bad options of a peer alone", "listen = 1\n[PEER 192.0.2.7]\npeer_as = 0\nport = 0\npassive = x\nshutdown = x", []string{
			`0.conf:6: [PEER 192.0.2.7].peer_as: value "0": want an integer from 1 to 4294967295`,
			`0.conf:7: [PEER 192.0.2.7].port: value "0": want an integer from 1 to 65535`,
			`0.conf:8: [PEER 192.0.2.7].passive: value "x": want true, false, yes, no, on, off, 1 or 0`,
			`0.conf:9: [PEER 192.0.2.7].shutdown: value "x": want true, false, yes, no, on, off, 1 or 0`}},
		{"bad two ways to write a peer", "[PEER 192.0.2.101]\n[PEER rr1.example.org]", []string{
			"0.conf:5: [PEER rr1.example.org]: the same peer as [PEER 192.0.2.101] (192.0.2.101); want one way to write it"}},
		{"bad without listen", "[PEER 192.0.2.0/24]\n[PEER 192.0.2.7]\npassive = yes\n[PEER 192.0.2.8]\npassive = no", []string{
			"0.conf:4: [PEER 192.0.2.0/24]: " + needListen,
			`0.conf:6: [PEER 192.0.2.7].passive: value "yes": ` + needListen}},
		{"bad listen raises no further problem", "listen = x\n[PEER 192.0.2.0/24]\n[PEER 192.0.2.7]\npassive = yes", []string{
			`0.conf:4: BGP.listen: value "x": want true, false, yes, no, on, off, 1 or 0`}},
		{"bad for a prefix", "listen = 1\n[PEER 192.0.2.0/24]\npassive = no\nport = 5", []string{
			`0.conf:6: [PEER 192.0.2.0/24].passive: value "no": has no sense for a prefix, whose neighbours connect to us`,
			`0.conf:7: [PEER 192.0.2.0/24].port: value "5": has no sense for a prefix, whose neighbours connect to us`}},
		{"bad families without RT constraint", "enable_rtc = 0\nfamilies = rtc\n[PEER 192.0.2.7]", []string{
			`0.conf:5: BGP.families: value "rtc": rtc is left out because BGP.enable_rtc is false, and nothing else is there; ` +
				"want one or more of vpnv4, vpnv6, evpn, flowspec-vpnv4, flowspec-vpnv6, rtc, separated by commas"}},
		{"bad families of a peer without RT constraint", "enable_rtc = 0\n[PEER 192.0.2.7]\nfamilies = rtc", []string{
			`0.conf:6: [PEER 192.0.2.7].families: value "rtc": rtc is left out because BGP.enable_rtc is false, and nothing else is there; ` +
				"want one or more of vpnv4, vpnv6, evpn, flowspec-vpnv4, flowspec-vpnv6, rtc, separated by commas"}},
		{"bad peers and prefixes without password inside one", "listen = 1\npeers = 192.0.2.7, 198.51.100.7\ndynamic_neighbors = 192.0.2.0/30\n" +
			"[PEER 192.0.2.8]\n[PEER 192.0.2.128/25]\n[PEER 192.0.2.0/24]\npassword = a", []string{
			`0.conf:5: BGP.peers: value "192.0.2.7": has no password, but the prefix 192.0.2.0/24 around it has one, ` + noPassword,
			`0.conf:6: BGP.dynamic_neighbors: value "192.0.2.0/30": has no password, but the prefix 192.0.2.0/24 around it has one, ` + noPassword,
			"0.conf:7: [PEER 192.0.2.8]: has no password, but the prefix 192.0.2.0/24 around it has one, " + noPassword,
			"0.conf:8: [PEER 192.0.2.128/25]: has no password, but the prefix 192.0.2.0/24 around it has one, " + noPassword}},
		{"bad password raises no further problem", "listen = 1\n[PEER 192.0.2.8]\npassword = " + strings.Repeat("x", 81) + "\n[PEER 192.0.2.0/24]\npassword = a", []string{
			`0.conf:6: [PEER 192.0.2.8].password: value "***": has 81 octets; want text of 1 to 80 octets`}},
		{"bad use of a password", "password = a\n[PEER 192.0.2.8]\ndescription = x $password", []string{
			`0.conf:6: [PEER 192.0.2.8].description: value "x $password": [PEER 192.0.2.8].password is secret and cannot be substituted here`}},
		{"bad circle", "[PEER 192.0.2.8]\ndescription = $description", []string{
			`0.conf:5: [PEER 192.0.2.8].description: value "$description": substitution of [PEER 192.0.2.8].description runs in a circle`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			loadText(t, minimal+tt.in).check(t, nil, nil, tt.want)
		})
	}
}

func TestStationsBad(t *testing.T) {
	t.Parallel()
	const want = "want host or host:port, an IPv6 address in brackets, separated by commas"
	tests := []struct{ name, in, text string }{
		{"bad IPv6 without brackets", "2001:db8::1", `"2001:db8::1" is no station`},
		{"bad port", "192.0.2.1, bmp:65536", `"bmp:65536" is no station`},
		{"bad port zero", "bmp:0", `"bmp:0" is no station`},
		{"bad no port behind colon", "bmp:", `"bmp:" is no station`},
		{"bad address", "192.0.2.300:1", `"192.0.2.300:1" is no station`},
		{"bad no host", ":1", `":1" is no station`},
		{"bad twice", "[2001:db8::1], [2001:DB8::1]:11019", `"[2001:DB8::1]:11019" stands there twice`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			loadText(t, minimal+"[BMP]\nstations = "+tt.in).check(t, nil, nil,
				[]string{`0.conf:5: BMP.stations: value "` + tt.in + `": ` + tt.text + "; " + want})
		})
	}
	loadText(t, minimal+"[BMP]\nconnect_retry_time = 0\nstatistics_interval = 3601").check(t, nil, nil, []string{
		`0.conf:5: BMP.connect_retry_time: value "0": want whole seconds, from 1 to 3600`,
		`0.conf:6: BMP.statistics_interval: value "3601": want whole seconds, from 0 to 3600`,
	})
}
