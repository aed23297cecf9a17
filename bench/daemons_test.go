// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

const (
	receiverAddr = "192.0.2.1"
	senderAddr   = "192.0.2.2"
	originalBin  = "/usr/bin/bagpipe-bgp" // not on PATH: ours has the same name
)

// place is where a receiver runs.
type place struct {
	b    *testing.B
	ns   *nstest.NS
	dir  string
	bin  string // directory of our programs
	load load
}

// running is a receiver that runs, its session not up yet.
type running struct {
	*process
	// routes asks how many routes of the load it has. It is asked when the measurement is over.
	routes func() (int, error)
}

// daemon is a kind of receiver.
type daemon struct {
	name string
	// mixes are the loads that it takes, and the most routes that it gets of each: 0,
	// all of them.
	mixes map[mix]int
	dials bool // it connects to the sender
	start func(place) running
}

// GoBGP takes longer for each MAC the more it has, and the original half a
// millisecond for a route: they get fewer. The original loses its place in the
// stream when more messages wait than it reads at once, so it gets them one by one.
var daemons = []daemon{
	{name: "ours, 100 instances", mixes: map[mix]int{onlyVPNv4: 0, onlyEVPN: 0}, start: startOurs(true)},
	{name: "ours, store only", mixes: map[mix]int{onlyVPNv4: 0, onlyEVPN: 0}, start: startOurs(false)},
	{name: "BIRD", mixes: map[mix]int{onlyVPNv4: 0}, start: startBIRD},
	{name: "FRR", mixes: map[mix]int{onlyVPNv4: 0, onlyEVPN: 0}, start: startFRR},
	{name: "GoBGP", mixes: map[mix]int{onlyVPNv4: 0, onlyEVPN: 10_000}, start: startGoBGP},
	{name: "original", mixes: map[mix]int{onlyVPNv4: 5_000, onlyEVPN: 5_000}, dials: true, start: startOriginal},
}

func (d daemon) takes(m mix) bool { _, ok := d.mixes[m]; return ok }

// limited returns a load with as many routes as the daemon gets.
func (d daemon) limited(l load) load {
	if most := d.mixes[l.Mix]; most > 0 {
		l.Routes = min(l.Routes, most)
	}
	return l
}

// write writes a configuration file and returns its path.
func (p place) write(name, text string) string {
	p.b.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.b.Fatal(err)
	}
	return path
}

func (p place) launch(args ...string) *process {
	p.b.Helper()
	return launch(p.b, p.ns, p.dir, nil, args...)
}

// ask runs a command in the namespace and returns the number that pattern finds
// in its output.
func (p place) ask(pattern string, args ...string) func() (int, error) {
	re := regexp.MustCompile(pattern)
	return func() (int, error) {
		out, err := p.ns.Try(args...)
		if err != nil {
			return 0, fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
		m := re.FindStringSubmatch(out)
		if m == nil {
			return 0, fmt.Errorf("%s: no %s in %.300q", args[0], pattern, out)
		}
		return strconv.Atoi(m[1])
	}
}

// startOurs runs the real daemon with dummy dataplanes, with an instance and an
// endpoint for each route target, or with none and everything kept.
func startOurs(instances bool) func(place) running {
	return func(p place) running {
		text := "[BGP]\nlocal_address = " + receiverAddr + "\nmy_as = 64512\nlisten = true\ndynamic_neighbors = 192.0.2.0/24\n"
		if !instances {
			text += "irrelevant_routes = keep\n"
		}
		r := running{process: p.launch(filepath.Join(p.bin, "bagpipe-bgp"), "--config-file", p.write("bgp.conf", text))}
		api := apiOf(p.b, p.ns)
		awaitEvery(p.b, 20*time.Millisecond, "the API", func() bool {
			_, err := api.Ping(context.Background())
			return err == nil
		})
		for n := range p.load.Instances {
			if instances {
				attachVPN(p.b, api, n, p.load.Mix)
			}
		}
		r.routes = func() (int, error) { return ourRoutes(api, instances, p.load.Mix) }
		return r
	}
}

// attachVPN makes instance n with one endpoint.
func attachVPN(b *testing.B, api *client.Client, n int, m mix) {
	b.Helper()
	rt := []string{fmt.Sprintf("%d:%d", benchAS, firstRT+n)}
	r := client.AttachRequest{
		VPNType: client.EVPN, VPNInstanceID: strconv.Itoa(n), MACAddress: fmt.Sprintf("06:00:00:00:%02x:%02x", n>>8, n&255),
		IPAddress: "198.51.100.1/24", LocalPort: client.LocalPort{LinuxIF: fmt.Sprintf("p%d", n)}, ImportRT: rt, ExportRT: rt,
	}
	if !m.evpn(n) {
		r.VPNType = client.IPVPN
	}
	if err := api.Attach(context.Background(), r); err != nil {
		b.Fatal(err)
	}
}

// remoteKind finds the metric of entries of remote origin.
var remoteKind = regexp.MustCompile(`kind="(prefix|mac|neigh)"`)

// ourRoutes returns the number of routes from the sender; with instances, of those
// that are in the dataplane, of an EVPN route as MAC and as neighbour.
func ourRoutes(api *client.Client, instances bool, m mix) (int, error) {
	received, entries, err := routeCounts(api)
	if m == onlyEVPN {
		entries /= 2
	}
	if instances && entries != received {
		return entries, err
	}
	return received, err
}

// routeCounts asks a daemon how many routes it has from peers, and how many entries of
// remote origin are in its dataplane.
func routeCounts(api *client.Client) (received, entries int, err error) {
	text, err := api.Get(context.Background(), client.DefaultBaseURL+"/metrics")
	if err != nil {
		return 0, 0, err
	}
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		value, _ := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		switch {
		case strings.HasPrefix(line, "bagpipe_bgp_peer_routes_received{"):
			received += int(value)
		case strings.HasPrefix(line, "bagpipe_dataplane_entries{") && remoteKind.MatchString(line):
			entries += int(value)
		}
	}
	return received, entries, nil
}

func startBIRD(p place) running {
	conf := p.write("bird.conf", "log stderr all;\nrouter id "+receiverAddr+";\nprotocol device { }\nvpn4 table received;\n"+
		"protocol bgp sender {\n  local "+receiverAddr+" as 64512;\n  neighbor "+senderAddr+" as 64512;\n  hold time 0;\n  passive on;\n"+
		"  vpn4 mpls { table received; import all; export none; };\n}\n")
	socket := filepath.Join(p.dir, "bird.ctl")
	return running{
		process: p.launch("bird", "-f", "-c", conf, "-s", socket, "-P", filepath.Join(p.dir, "bird.pid")),
		routes:  p.ask(`(\d+) of \d+ routes`, "birdc", "-s", socket, "show route table received count"),
	}
}

func startFRR(p place) running {
	family := map[mix]string{onlyVPNv4: "ipv4 vpn", onlyEVPN: "l2vpn evpn"}[p.load.Mix]
	conf := p.write("bgpd.conf", "hostname receiver\nrouter bgp 64512\n bgp router-id "+receiverAddr+"\n no bgp default ipv4-unicast\n"+
		" neighbor "+senderAddr+" remote-as 64512\n neighbor "+senderAddr+" passive\n neighbor "+senderAddr+" timers 0 0\n"+
		" address-family "+family+"\n  neighbor "+senderAddr+" activate\n exit-address-family\n")
	return running{
		process: p.launch("/usr/lib/frr/bgpd", "--skip_runas", "--no_zebra", "--config_file", conf, "--pid_file", filepath.Join(p.dir, "bgpd.pid"),
			"--vty_socket", p.dir, "--vty_port", "0", "--log", "stdout", "--log-level", "warnings"),
		routes: p.ask(`"pfxRcd":(\d+)`, "vtysh", "--vty_socket", p.dir, "-c", "show bgp "+family+" summary json"),
	}
}

func startGoBGP(p place) running {
	family := map[mix][2]string{onlyVPNv4: {"l3vpn-ipv4-unicast", "vpnv4"}, onlyEVPN: {"l2vpn-evpn", "evpn"}}[p.load.Mix]
	conf := p.write("gobgpd.toml", fmt.Sprintf("[global.config]\n  as = 64512\n  router-id = %q\n[[neighbors]]\n  [neighbors.config]\n"+
		"    neighbor-address = %q\n    peer-as = 64512\n  [neighbors.transport.config]\n    passive-mode = true\n    local-address = %q\n"+
		"  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = %q\n", receiverAddr, senderAddr, receiverAddr, family[0]))
	return running{
		process: p.launch("gobgpd", "-f", conf, "--api-hosts", "127.0.0.1:50051"),
		routes:  p.ask(`Path: (\d+)`, "gobgp", "global", "rib", "summary", "-a", family[1]),
	}
}

func startOriginal(p place) running {
	conf := p.write("bgp.conf", "[API]\nhost = 127.0.0.1\nport = 8082\n[BGP]\nlocal_address = "+receiverAddr+"\npeers = "+senderAddr+
		"\nmy_as = 64512\nenable_rtc = false\n[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = dummy\n[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = dummy\n")
	r := running{process: p.launch(originalBin, "--config-file", conf)}
	api := apiOf(p.b, p.ns)
	r.routes = func() (n int, err error) { // its route_counts are always 0
		text, err := api.Get(context.Background(), client.DefaultBaseURL+"/looking-glass/bgp/routes")
		if err != nil {
			return 0, err
		}
		var byFamily map[string][]json.RawMessage
		if err := json.Unmarshal(text, &byFamily); err != nil {
			return 0, err
		}
		for _, routes := range byFamily {
			n += len(routes)
		}
		return n, nil
	}
	return r
}
