// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// chainOptions are those of a whole service chain hop.
func chainOptions() []string {
	return strings.Fields("--attach --network-type ipvpn --vpn-instance-id chain --port x1 --ip 2001:db8::5/64 --gateway-ip 2001:db8::1 " +
		"--mac 00:00:5e:00:53:07 --import 64512:1 --import 64512:2 --export-rt 64512:3 --direction from-port --advertise-subnet " +
		"--readv-from-rt 64512:4 --readv-to-rt 64512:5 --redirect-rt 64512:6 --source-prefix 198.51.100.0/24 " +
		"--destination-prefix 203.0.113.0/24 --source-port 1000:2000 --destination-port 80 --protocol tcp " +
		"--attract-to-rt 64512:7 --static-destination-prefix 203.0.113.0/25 --static 203.0.113.128/25 " +
		"--lb-consistent-hash-order 2 --vni 9 --local-pref 50")
}

func TestRESTAttachTalk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		args   []string
		refuse string
		want   outcome
		post   string
	}{
		{
			name: "ipvpn with defaults",
			args: strings.Fields("--attach --network-type ipvpn --port tap1 --ip 198.51.100.5"),
			want: outcome{stdout: "using 198.51.100.254 as gateway address\nLocal port: tap1 (52:54:00:99:99:22)\n" +
				`request: b'{"import_rt": ["64512:512"], "export_rt": ["64512:512"], "local_port": {"linuxif": "tap1"}, ` +
				`"vpn_instance_id": "ipvpn-bagpipe-test", "vpn_type": "ipvpn", "gateway_ip": "198.51.100.254", ` +
				`"mac_address": "52:54:00:99:99:22", "ip_address": "198.51.100.5/24", "advertise_subnet": false, ` +
				`"readvertise": null, "attract_traffic": {}, "lb_consistent_hash_order": 0, "vni": 0, "direction": "both"}'` +
				"\nresponse: 200 b'null'\n"},
			post: "/attach_localport",
		},
		{
			name: "detach sends the same",
			args: strings.Fields("--detach --network-type evpn --vpn-instance-id red --port tap1 --ip 198.51.100.5/25 --gateway-ip 198.51.100.1 " +
				"--mac 00:00:5e:00:53:01 --rt 64512:9 --import-rt 64512:8"),
			want: outcome{stdout: "Local port: tap1 (00:00:5e:00:53:01)\n" +
				`request: b'{"import_rt": ["64512:9", "64512:8"], "export_rt": ["64512:9"], "local_port": {"linuxif": "tap1"}, ` +
				`"vpn_instance_id": "red", "vpn_type": "evpn", "gateway_ip": "198.51.100.1", ` +
				`"mac_address": "00:00:5e:00:53:01", "ip_address": "198.51.100.5/25", "advertise_subnet": false, ` +
				`"readvertise": null, "attract_traffic": {}, "lb_consistent_hash_order": 0, "vni": 0, "direction": "both"}'` +
				"\nresponse: 200 b'null'\n"},
			post: "/detach_localport",
		},
		{
			name: "everything, with cut option names; attract data under the key that the daemon reads",
			args: chainOptions(),
			want: outcome{stdout: "Local port: x1 (00:00:5e:00:53:07)\n" +
				`request: b'{"import_rt": ["64512:1", "64512:2"], "export_rt": ["64512:3"], "local_port": {"linuxif": "x1"}, ` +
				`"vpn_instance_id": "chain", "vpn_type": "ipvpn", "gateway_ip": "2001:db8::1", ` +
				`"mac_address": "00:00:5e:00:53:07", "ip_address": "2001:db8::5/64", "advertise_subnet": true, ` +
				`"readvertise": {"from_rt": ["64512:4"], "to_rt": ["64512:5"]}, ` +
				`"attract_traffic": {"redirect_rts": ["64512:6"], "classifier": {"sourcePrefix": "198.51.100.0/24", ` +
				`"destinationPrefix": "203.0.113.0/24", "sourcePort": "1000:2000", "destinationPort": "80", "protocol": "tcp"}, ` +
				`"to_rt": ["64512:7"], "static_destination_prefixes": ["203.0.113.0/25", "203.0.113.128/25"]}, ` +
				`"lb_consistent_hash_order": 2, "vni": 9, "direction": "from-port", "local_pref": 50}'` +
				"\nresponse: 200 b'null'\n"},
			post: "/attach_localport",
		},
		{
			name: "E-VPN plugged into an IPVPN",
			args: strings.Fields("--attach --network-type ipvpn --port evpn:red --ip 198.51.100.5/32"),
			want: outcome{stdout: "Local port: evpn:red (52:54:00:99:99:22)\n" +
				`request: b'{"import_rt": ["64512:512"], "export_rt": ["64512:512"], "local_port": {"evpn": {"id": "red"}}, ` +
				`"vpn_instance_id": "ipvpn-bagpipe-test", "vpn_type": "ipvpn", "gateway_ip": null, ` +
				`"mac_address": "52:54:00:99:99:22", "ip_address": "198.51.100.5/32", "advertise_subnet": false, ` +
				`"readvertise": null, "attract_traffic": {}, "lb_consistent_hash_order": 0, "vni": 0, "direction": "both"}'` +
				"\nresponse: 200 b'null'\n"},
			post: "/attach_localport",
		},
		{
			name: "refused", refuse: "API error: no",
			args: strings.Fields("--attach --network-type evpn --port t --ip 198.51.100.5 --gateway-ip 198.51.100.1 --mac 00:00:5e:00:53:01"),
			want: outcome{status: 1, stdout: "Local port: t (00:00:5e:00:53:01)\n" +
				`request: b'{"import_rt": ["64512:513"], "export_rt": ["64512:513"], "local_port": {"linuxif": "t"}, ` +
				`"vpn_instance_id": "evpn-bagpipe-test", "vpn_type": "evpn", "gateway_ip": "198.51.100.1", ` +
				`"mac_address": "00:00:5e:00:53:01", "ip_address": "198.51.100.5/24", "advertise_subnet": false, ` +
				`"readvertise": null, "attract_traffic": {}, "lb_consistent_hash_order": 0, "vni": 0, "direction": "both"}'` +
				"\n{\"code\": 400, \"title\": \"Bad Request\", \"description\": \"API error: no\"}\n",
				stderr: "error 400, reason: Bad Request\n"},
			post: "/attach_localport",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			d.refuse = tt.refuse
			got := d.call(t, append([]string{"bagpipe-rest-attach"}, tt.args...)...)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(outcome{})); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if len(d.posts) != 1 {
				t.Fatalf("%d calls", len(d.posts))
			}
			path, body, _ := strings.Cut(d.posts[0], " ")
			// What is shown is what was sent.
			_, shown, _ := strings.Cut(got.stdout, "request: b'")
			shown, _, _ = strings.Cut(shown, "'\n")
			if path != tt.post || body != shown {
				t.Errorf("sent %s %s", path, body)
			}
		})
	}
}

func TestRESTAttachUsageErrors(t *testing.T) {
	t.Parallel()
	const ok = "--attach --network-type ipvpn --port tap1 --ip 198.51.100.5 "
	for _, tt := range []struct {
		name, args, want string
	}{
		{"nothing", "", "one of --attach and --detach"},
		{"both", ok + "--detach", "one of --attach and --detach"},
		{"argument", ok + "more", `unexpected argument "more"`},
		{"no type", "--attach --port tap1 --ip 198.51.100.5", "--network-type is needed"},
		{"bad type", "--attach --network-type l2 --port tap1 --ip 198.51.100.5", "must be ipvpn or evpn"},
		{"no port", "--attach --network-type ipvpn --ip 198.51.100.5", "--port is needed"},
		{"no ip", "--attach --network-type ipvpn --port tap1", "--ip is needed"},
		{"bad ip", "--attach --network-type ipvpn --port tap1 --ip 198.51.100.500", "--ip: "},
		{"bad length", "--attach --network-type ipvpn --port tap1 --ip 198.51.100.5/33", "--ip: "},
		{"bad gateway", ok + "--gateway-ip x", "--gateway-ip: "},
		{"bad MAC", ok + "--mac 00:11", "--mac: "},
		{"evpn without MAC", "--attach --network-type evpn --port tap1 --ip 198.51.100.5", "--mac is needed"},
		{"evpn in evpn", "--attach --network-type evpn --port evpn:red --ip 198.51.100.5", "not into an evpn"},
		{"evpn without name", "--attach --network-type ipvpn --port evpn: --ip 198.51.100.5", "must name"},
		{"preplug in evpn", "--attach --network-type evpn --ovs-preplug --port tap1 --ip 198.51.100.5", "--ovs-preplug"},
		{"bad direction", ok + "--direction up", "--direction must be"},
		{"singleton and subnet", ok + "--advertise-singleton --advertise-subnet", "exclude each other"},
		{"redirect without classifier", ok + "--redirect-rts 64512:6", "needs a classifier"},
		{"classifier without redirect", ok + "--protocol udp", "needs --redirect-rts"},
		{"attract without redirect", ok + "--attract-to-rt 64512:7 --static-destination-prefix 203.0.113.0/24", "need --redirect-rts"},
		{"attract without prefix", ok + "--redirect-rts 64512:6 --protocol udp --attract-to-rt 64512:7", "go together"},
		{"prefix without attract", ok + "--redirect-rts 64512:6 --protocol udp --static-destination-prefix 203.0.113.0/24", "go together"},
		{"ambiguous option", ok + "--ovs x", "ambiguous option --ovs: could be --ovs-preplug, --ovs-bridge, --ovs-vlan"},
		{"unknown option", ok + "--loud", "unknown option --loud"},
		{"bad number", ok + "--vni many", "invalid argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := call(t, Env{}, append([]string{"bagpipe-rest-attach"}, strings.Fields(tt.args)...)...)
			if got.status != 2 || !strings.Contains(got.stderr, tt.want) ||
				!strings.HasSuffix(got.stderr, "\nTry 'bagpipe-rest-attach --help'.\n") {
				t.Errorf("got %+v, want status 2 and %q", got, tt.want)
			}
		})
	}
}

func TestRESTAttachFindsThePort(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	args := strings.Fields("bagpipe-rest-attach --attach --network-type ipvpn --port t --ip 198.51.100.5")
	for _, text := range []string{"[API]\nport=" + d.port(), "[api]\napi_port : " + d.port() + "\n[BGP]\npeers=?"} {
		if got := call(t, Env{ConfigFile: configFile(t, text)}, args...); got.status != 0 {
			t.Errorf("%q: %+v", text, got)
		}
	}
	if got := call(t, Env{ConfigFile: configFile(t, "[API]\nport=many\n")}, args...); got.status != 1 ||
		!strings.Contains(got.stderr, "port") {
		t.Errorf("bad port: %+v", got)
	}
	server := serverOptions{config: "/nonexistent/bgp.conf"}
	if c, err := server.client(); err != nil || c.URL() != "http://127.0.0.1:8082/" {
		t.Errorf("no file: %v, %v", c, err)
	}
	server = serverOptions{host: "2001:db8::1", port: 1}
	if c, err := server.client(); err != nil || c.URL() != "http://[2001:db8::1]:1/" {
		t.Errorf("IPv6: %v, %v", c, err)
	}
}

func TestOldCommandsWithoutDaemon(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.Close()
	got := d.call(t, strings.Fields("bagpipe-rest-attach --attach --network-type ipvpn --port t --ip 198.51.100.5")...)
	if got.status != 1 || !strings.Contains(got.stderr, "connection refused") {
		t.Errorf("got %+v", got)
	}
}

func TestDefaultGatewayIsTheSecondLastAddress(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]string{
		"198.51.100.5": "198.51.100.254", "198.51.100.5/25": "198.51.100.126", "198.51.100.5/16": "198.51.255.254",
		"198.51.100.5/30": "198.51.100.6", "198.51.100.5/31": "198.51.100.4", "198.51.100.5/32": "", "198.51.100.5/0": "255.255.255.254",
		"2001:db8::1": "2001:db8::ffff:ffff:ffff:fffe", "2001:db8::1/127": "2001:db8::", "2001:db8::1/57": "2001:db8:0:7f:ffff:ffff:ffff:fffe",
	} {
		o := endpointOptions{names: oldNames, vpnType: client.IPVPN, port: "t", ip: ip, direction: client.Both}
		chosen, err := o.complete()
		if err != nil || o.gateway != want || chosen != (want != "") {
			t.Errorf("%s: got %q, %v, %v, want %q", ip, o.gateway, chosen, err, want)
		}
	}
}

func TestPythonTexts(t *testing.T) {
	t.Parallel()
	tree, err := client.ParseJSON([]byte(`{"a": [1, 2.50, true, false, null, {}], "b": "é \"\\\n\u0001😀\u007f/<"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"a": [1, 2.50, true, false, null, {}], "b": "\u00e9 \"\\\n\u0001\ud83d\ude00\u007f/<"}`
	got := pythonJSON(tree)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !json.Valid([]byte(got)) {
		t.Error("not valid JSON")
	}
	for in, want := range map[string]string{
		"null": `b'null'`, "it's": `b"it's"`, `'"`: `b'\'"'`, "\\\r\n\t\x00\x7f\xff": `b'\\\r\n\t\x00\x7f\xff'`, "": `b''`,
	} {
		if got := pythonBytes([]byte(in)); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
