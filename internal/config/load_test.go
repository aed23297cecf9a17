// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLoadOK(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	tests := []struct {
		name  string
		in    string // follows minimal
		want  func(*Config)
		warns []string
	}{
		{name: "OK minimal", want: func(*Config) {}},
		{name: "OK everything",
			in: "router_id = 198.51.100.1\nmy_as = 4294967295\npeers = 192.0.2.101, 192.0.2.102\n" +
				"passive_peers = 192.0.2.102\nbgp_port = 1179\nenable_rtc = No\nlisten = ON\nlisten_port = 0\n" +
				"dynamic_neighbors = 192.0.2.0/24, 203.0.113.0/24, 198.51.100.7\nhold_time = 0\n" +
				"connect_retry_time = 3600\nevpn_accept_no_encapsulation = 0\n" +
				"[DEFAULT]\ndebug = yes\nlog_file = a.log\nlog_dir = /var/log\nuse_json = 1\n" +
				"[COMMON]\nsweep_delay = 0\n[API]\nhost = localhost\nport = 0\n" +
				"[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = dummy\ndataplane_local_address = 198.51.100.2\n" +
				"[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = linux\ndataplane_local_address = eth6\nvxlan_dst_port = 0\n",
			want: func(c *Config) {
				c.Log = Log{Debug: true, File: "a.log", Dir: "/var/log", JSON: true}
				c.Common.SweepDelay = 0
				c.API = API{Host: "localhost"}
				own := defaultSettings()
				own.PeerAS, own.HoldTime, own.ConnectRetryTime = 4294967295, 0, time.Hour
				own.Families = own.Families[:5]
				c.BGP = BGP{
					LocalAddress: addr("192.0.2.1"), RouterID: addr("198.51.100.1"), MyAS: 4294967295,
					Peers: []Peer{
						{Host: "192.0.2.101", Addr: addr("192.0.2.101"), Port: 1179, Settings: own},
						{Host: "192.0.2.102", Addr: addr("192.0.2.102"), Port: 1179, Passive: true, Settings: own},
					},
					Port: 1179, Listen: true, Settings: own,
					Groups: []Group{
						{netip.MustParsePrefix("192.0.2.0/24"), own}, {netip.MustParsePrefix("203.0.113.0/24"), own},
						{netip.MustParsePrefix("198.51.100.7/32"), own},
					},
				}
				c.IPVPN.LocalAddress = addr("198.51.100.2")
				c.EVPN = EVPN{Dataplane: Dataplane{Driver: "linux", LocalAddress: addr("2001:db8::6")}}
			},
			warns: []string{"repeated 0.conf:3: BGP.my_as: given again, what holds is 0.conf:5"}},
		{name: "OK interface gives first IPv4", in: "local_address = eth0",
			want:  func(c *Config) { setLocal(c, "192.0.2.10"); c.BGP.RouterID = addr("192.0.2.10") },
			warns: []string{"repeated 0.conf:2: BGP.local_address: given again, what holds is 0.conf:4"}},
		{name: "OK interface gives global IPv6", in: "local_address = eth6\nrouter_id = 192.0.2.1",
			want:  func(c *Config) { setLocal(c, "2001:db8::6") },
			warns: []string{"repeated 0.conf:2: BGP.local_address: given again, what holds is 0.conf:4"}},
		{name: "OK host of our family", in: "peers = rr1.example.org",
			want: func(c *Config) { c.BGP.Peers = []Peer{aPeer("rr1.example.org", "192.0.2.101")} }},
		{name: "OK host of our family, IPv6", in: "local_address = 2001:db8::1\nrouter_id = 192.0.2.1\npeers = rr1.example.org",
			want: func(c *Config) {
				setLocal(c, "2001:db8::1")
				c.BGP.Peers = []Peer{aPeer("rr1.example.org", "2001:db8::101")}
			},
			warns: []string{"repeated 0.conf:2: BGP.local_address: given again, what holds is 0.conf:4"}},
		{name: "OK passive peer by address of its host", in: "peers = rr1.example.org\npassive_peers = 192.0.2.101\nlisten = true",
			want: func(c *Config) {
				c.BGP.Listen = true
				c.BGP.Peers = []Peer{aPeer("rr1.example.org", "192.0.2.101")}
				c.BGP.Peers[0].Passive = true
			}},
		{name: "OK listen port follows bgp port", in: "bgp_port = 1179",
			want: func(c *Config) { c.BGP.Port, c.BGP.ListenPort = 1179, 1179 }},
		{name: "OK empty means default", in: "bgp_port =\nenable_rtc =\npeers =\nhold_time = ''\n", want: func(*Config) {}},
		{name: "OK list with line breaks and spare commas", in: "peers = 192.0.2.7,\n  192.0.2.8,,\n",
			want: func(c *Config) {
				c.BGP.Peers = []Peer{aPeer("192.0.2.7", "192.0.2.7"), aPeer("192.0.2.8", "192.0.2.8")}
			}},
		{name: "OK old names", in: "[api]\napi_host = ::1\napi_port = 8083",
			want:  func(c *Config) { c.API = API{Host: "::1", Port: 8083} },
			warns: []string{"deprecated 0.conf:5: API.api_host: old name of host", "deprecated 0.conf:6: API.api_port: old name of port"}},
		{name: "OK present name beats old one", in: "[API]\nport = 8084\napi_port = 8083",
			want:  func(c *Config) { c.API.Port = 8084 },
			warns: []string{"repeated 0.conf:6: API.port: given again, what holds is 0.conf:5"}},
		{name: "OK old driver names",
			in: "[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = linux_vxlan.LinuxVXLANDataplaneDriver\n" +
				"[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = bagpipe.bgp.vpn.ipvpn.DummyDataplaneDriver",
			want: func(c *Config) { c.EVPN.Driver = "linux" }},
		{name: "OK unknown things", in: "peer = 192.0.2.7\nwibble = 1\nsweep_delay = 1\n[BPG]\nx = 1\n[bgp]\n[BPG]\n[WIBBLE]",
			want: func(*Config) {},
			warns: []string{
				"unknown 0.conf:4: BGP.peer: there is no such option; did you mean peers?",
				"unknown 0.conf:5: BGP.wibble: there is no such option",
				"unknown 0.conf:6: BGP.sweep_delay: there is no such option; did you mean COMMON.sweep_delay?",
				"unknown 0.conf:7: BPG: there is no such section; did you mean BGP?",
				"unknown 0.conf:11: WIBBLE: there is no such section",
			}},
		{name: "OK eBPF",
			in: "[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = ebpf\nencapsulations = vxlan, gre\nunderlay_interfaces = eth0, eth1\n" +
				"anti_spoofing = on\nmpls_over_gre = perhaps\n",
			want: func(c *Config) {
				c.IPVPN.Driver, c.IPVPN.Encapsulations = "ebpf", []Encapsulation{EncapVXLAN, EncapGRE}
				c.IPVPN.UnderlayInterfaces, c.IPVPN.AntiSpoofing = []string{"eth0", "eth1"}, true
			},
			warns: []string{
				"ignored 0.conf:9: DATAPLANE_DRIVER_IPVPN.mpls_over_gre: ignored: belongs to driver ovs, which is not selected",
			}},
		{name: "OK Open vSwitch as of old",
			in: "[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = mpls_ovs_dataplane.MPLSOVSDataplaneDriver\nmpls_interface = *gre*\n" +
				"mpls_over_gre = True\ngre_tunnel_options = packet_type=legacy_l3\nvxlan_encap = True\nhash_method = hash\n" +
				"hash_method_param = 18\nhash_fields = ip_src, ip_dst\nproxy_arp = False\n[OVS]\novsdb_connection = unix:/x\n",
			want: func(c *Config) {
				c.IPVPN.Driver, c.IPVPN.MPLSInterface = "ovs", "*gre*"
				o := &c.IPVPN.OVS
				o.MPLSOverGRE, o.VXLANEncap, o.Connection = True, true, "unix:/x"
				o.GRETunnelOptions = []string{"packet_type=legacy_l3"}
				o.HashMethod, o.HashMethodParam, o.HashFields = HashFields, 18, []string{"ip_src", "ip_dst"}
			}},
		{name: "OK kernel MPLS", in: "[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = mpls_linux_dataplane.MPLSLinuxDataplaneDriver\nmpls_interface = eth1\n",
			want: func(c *Config) {
				c.IPVPN.Driver, c.IPVPN.MPLSInterface = "linux", "eth1"
				c.IPVPN.Encapsulations, c.IPVPN.DefaultEncapsulation = []Encapsulation{EncapMPLS}, EncapMPLS
			}},
		{name: "OK ignored things",
			in: "[COMMON]\nroot_helper = sudo x\n[privsep]\nhelper_command = x\n[DATAPLANE_DRIVER]\ndataplane_driver = x\n" +
				"[DATAPLANE_DRIVER_IPVPN]\nmpls_interface = *gre*\novs_bridge = br0\n[DEFAULT]\nlogging_default_format_string = $x\n",
			want: func(*Config) {},
			warns: []string{
				"ignored 0.conf:5: COMMON.root_helper: ignored: the daemon itself runs with the capabilities it needs",
				"ignored 0.conf:6: PRIVSEP: ignored: the daemon itself runs with the capabilities it needs",
				"deprecated 0.conf:8: DATAPLANE_DRIVER: obsolete and ignored; use DATAPLANE_DRIVER_IPVPN and DATAPLANE_DRIVER_EVPN",
				"ignored 0.conf:11: DATAPLANE_DRIVER_IPVPN.mpls_interface: ignored: belongs to driver ovs or linux, which is not selected",
				"ignored 0.conf:12: DATAPLANE_DRIVER_IPVPN.ovs_bridge: ignored: belongs to driver ovs, which is not selected",
				"ignored 0.conf:14: DEFAULT.logging_default_format_string: ignored: the format of the log is fixed, text or JSON",
			}},
		{name: "OK log file that is a configuration", in: "[DEFAULT]\nlogfile = log.conf",
			want: func(*Config) {},
			warns: []string{
				"deprecated 0.conf:5: DEFAULT.logfile: old name of log_file",
				`deprecated 0.conf:5: DEFAULT.log_file: ignored: "log.conf" names a configuration, not a log`,
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := defaults()
			tt.want(want)
			loadText(t, minimal+tt.in).check(t, want, tt.warns, nil)
		})
	}
}

// setLocal changes the local address of all there is.
func setLocal(c *Config, local string) {
	addr := netip.MustParseAddr(local)
	c.BGP.LocalAddress, c.IPVPN.LocalAddress, c.EVPN.LocalAddress = addr, addr, addr
}

func TestLoadOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		writeFile(t, name, "[BGP]\n"+text)
		return name
	}
	src := Source{
		Files: []string{
			file("b", "local_address=192.0.2.1\nmy_as=64512\nbgp_port=1001\nhold_time=11\nconnect_retry_time=21\nlisten_port=31"),
			file("a", "bgp_port=1002\nhold_time=12\nconnect_retry_time=22"),
		},
		Dirs:      []string{dir},
		Overrides: []Override{{"bgp", "bgp_port", "1005", "x"}, {"BGP", "bgp_port", "1006", "y"}},
	}
	file("2.conf", "bgp_port=1004\nhold_time=14")
	file("1.conf", "bgp_port=1003\nhold_time=13\nconnect_retry_time=23")
	file(".hidden.conf", "listen=bad")
	file("other.txt", "listen=bad")
	want := defaults()
	want.BGP.Port, want.BGP.ListenPort = 1006, 31
	want.BGP.HoldTime, want.BGP.ConnectRetryTime = 14*time.Second, 23*time.Second
	load(src, dir).check(t, want, nil, nil)
}

func TestLoadUnreadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	writeFile(t, large, strings.Repeat("#\n", maxFileSize))
	r := load(Source{Files: []string{filepath.Join(dir, "none"), large}, Dirs: []string{filepath.Join(dir, "d")}}, dir)
	r.check(t, nil, nil, []string{
		"read configuration directory: open d: no such file or directory",
		"read configuration: open none: no such file or directory",
		"read configuration: large is larger than 262144 bytes",
	})
	if _, _, err := Load(Source{Files: []string{filepath.Join(dir, "none")}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load returned %v, want fs.ErrNotExist", err)
	}
}

func TestLoadErrorIsProblem(t *testing.T) {
	t.Parallel()
	_, _, err := Load(Source{Overrides: []Override{{"BGP", "my_as", "0", "test"}}})
	var p *Problem
	if !errors.As(err, &p) {
		t.Fatalf("Load returned %v, want a *Problem", err)
	}
	want := &Problem{Option: "BGP.local_address",
		Text: "required but not set; want an IP address or the name of an interface that has one"}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("unexpected problem (-want +got):\n%s", diff)
	}
}

func TestLoadAPI(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "bgp.conf")
	writeFile(t, name, "junk\n[BGP]\nmy_as = x\n[API]\nport = 1234\n")
	got, err := LoadAPI(Source{Files: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(API{Host: "127.0.0.1", Port: 1234}, got); diff != "" {
		t.Errorf("unexpected API (-want +got):\n%s", diff)
	}
	writeFile(t, name, "[API]\nport = x\n")
	if _, err := LoadAPI(Source{Files: []string{name}}); err == nil {
		t.Error("LoadAPI accepts port x")
	}
}
