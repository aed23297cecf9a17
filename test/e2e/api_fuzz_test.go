// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// TestAPIFuzz sends requests to a running daemon that a grammar makes and mutations
// spoil, ciRequests of them, or for the time BAGPIPE_FUZZ_API. Each is answered as docs/rest-api.md says, what is
// refused changes nothing, and at the end looking glass, kernel and ledger agree, the
// daemon is no larger than it was, and all can be taken away. BAGPIPE_FUZZ_SEED
// repeats a run.
func TestAPIFuzz(t *testing.T) {
	length, seed := time.Duration(0), uint64(1)
	if text := os.Getenv("BAGPIPE_FUZZ_API"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		seed = rand.Uint64()
	}
	if text := os.Getenv("BAGPIPE_FUZZ_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("BAGPIPE_FUZZ_SEED=%d", seed)
	f := newFabric(t)
	socket := filepath.Join(t.TempDir(), "api")
	a := f.nodeWith("a", 11, settings{
		peers: f.reflectors(), common: []string{"state_directory = " + t.TempDir(), "sweep_delay = 1"},
		ipvpn: []string{"dataplane_driver = ebpf", "[API]", "unix_socket = " + socket},
	})
	ip(t, a.NS, "link add br-other type bridge", "link set br-other up")
	ports := a.taps(fuzzPorts)
	ip(t, a.NS, "tuntap add mode tap dev "+probePort, "link set "+probePort+" addrgenmode none up")
	a.established(f.addr(reflectorNumber))
	before := a.stableDump()
	z := &fuzzer{node: a, grammar: grammar{rand.New(rand.NewPCG(seed, 0))}, ledger: map[place]bool{}, counts: map[string]int{}, peer: f.addr(reflectorNumber).String()}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	z.http = &http.Client{Timeout: time.Minute, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	start := a.proc.size(t)
	z.run(ciRequests/3, length/3)
	first := a.proc.size(t)
	z.run(ciRequests, length-length/3)
	last := a.proc.size(t)
	t.Logf("%d requests: %v; %d endpoints stay; the daemon at the start %v, after a third %v, at the end %v", z.requests, z.counts, len(z.ledger), start, first, last)
	if last.rss > first.rss*3/2+(32<<20) {
		t.Errorf("the daemon has grown from %v to %v", first, last)
	}

	z.peerOperation("enable", "{}", http.StatusOK)
	a.established(f.addr(reflectorNumber))
	z.detach(func(p place) bool { return z.ledger[p] })
	a.agrees(routeTimeout, z.places(), ports)
	a.restart(syscall.SIGKILL)
	a.agrees(routeTimeout, z.places(), ports)
	z.detach(func(place) bool { return true })
	a.showsNothing()
	a.looksUntouched(before)
	transport.CloseIdleConnections()
	eventually(t, routeTimeout, func() error {
		if now := a.proc.size(t); now.files > start.files {
			return fmt.Errorf("the daemon has %v, at the start %v", now, start)
		}
		return nil
	})
}

// size is what a process takes.
type size struct{ rss, threads, files int }

func (s size) String() string {
	return fmt.Sprintf("%d MiB in %d threads with %d files", s.rss>>20, s.threads, s.files)
}

// size reads what the process takes now.
func (p *process) size(t testing.TB) (s size) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		number, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			s.rss = number << 10
		case "Threads":
			s.threads = number
		}
	}
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	s.files = len(files)
	return s
}

// fuzzer sends one request after another, and knows what is attached.
type fuzzer struct {
	grammar
	node *node
	http *http.Client
	peer string
	// ledger has what is attached; true for what agrees does not know how to look for
	// in the kernel.
	ledger   map[place]bool
	requests int
	counts   map[string]int // of answers by kind of request and status
	recent   []string       // requests since the ledger was compared last
}

const (
	// ciRequests is the number of requests when no time is given.
	ciRequests = 1500
	// compareEvery is the number of requests after which the looking glass is compared.
	compareEvery = 25
)

// run sends requests until there are a number of them, or for a time if one is given.
func (z *fuzzer) run(number int, length time.Duration) {
	z.node.t.Helper()
	end := time.Now().Add(length)
	for ; (length == 0 && z.requests < number || time.Now().Before(end)) && !z.node.t.Failed(); z.requests++ {
		switch n := z.IntN(100); {
		case n < 10:
			z.probe()
		case n < 55:
			z.change("attach_localport", z.attach())
		case n < 80:
			z.change("detach_localport", z.attach())
		case n < 90:
			z.get()
		case n < 98:
			z.operate()
		default:
			z.raw()
		}
		if z.requests%compareEvery == 0 {
			z.compare()
		}
	}
}

// compare looks whether the daemon answers, and shows what the ledger has.
func (z *fuzzer) compare() {
	t := z.node.t
	t.Helper()
	if z.node.proc.exited() {
		t.Fatalf("the daemon has ended: %v, after\n%s", z.node.proc.err, strings.Join(z.recent, "\n"))
	}
	if code, body := z.send(http.MethodGet, "/ping", ""); code != http.StatusOK {
		t.Fatalf("/ping: %d %s, after\n%s", code, body, strings.Join(z.recent, "\n"))
	}
	var shown []place
	eventually(t, startTimeout, func() (err error) { // an instance that FlowSpec routes made may end meanwhile
		shown, err = z.node.shown()
		return err
	})
	for i, p := range shown { // the port is then the bridge of an E-VPN
		if strings.HasPrefix(p.Port, "evpn-") {
			shown[i].Port = ""
		}
	}
	if diff := gocmp.Diff(z.places(), sortPlaces(shown), cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("endpoints (-ledger +looking glass):\n%s\nafter\n%s", diff, strings.Join(z.recent, "\n"))
	}
	z.wantNoEmpty()
	z.recent = z.recent[:0]
}

// wantNoEmpty checks that no instance is there without an endpoint, but for those that
// FlowSpec routes redirect to and that a VRF is plugged into.
func (z *fuzzer) wantNoEmpty() {
	t := z.node.t
	t.Helper()
	has := map[string]bool{}
	for p := range z.ledger {
		if has[p.Instance] = true; p.Port == "" {
			return
		}
	}
	var instances []struct{ ID string }
	z.node.mustGlass(&instances, "vpns", "instances")
	for _, i := range instances {
		if !has[i.ID] && !strings.HasPrefix(i.ID, "redirect-to-") {
			t.Fatalf("instance %q is there without an endpoint, after\n%s", i.ID, strings.Join(z.recent, "\n"))
		}
	}
}

func (z *fuzzer) places() (list []place) {
	for p := range z.ledger {
		list = append(list, p)
	}
	return sortPlaces(list)
}

// change attaches or detaches, mostly something that is spoilt in one or more places.
func (z *fuzzer) change(operation string, fields []field) {
	t := z.node.t
	t.Helper()
	for range max(0, z.IntN(6)-2) {
		if len(fields) > 0 {
			fields = z.spoil(fields)
		}
	}
	z.Shuffle(len(fields), func(i, k int) {
		if fields[i].name != fields[k].name { // the last of one name counts
			fields[i], fields[k] = fields[k], fields[i]
		}
	})
	body := object(fields)
	if z.one(10) {
		body = z.mangle(body)
	}
	code, text := z.send(http.MethodPost, "/"+operation, body)
	z.counts[fmt.Sprintf("%s %d", operation, code)]++
	switch code {
	case http.StatusOK:
		z.note(operation == "attach_localport", body)
	case http.StatusBadRequest:
		if d := describe(t, code, text); !namesFault(d, body) {
			t.Errorf("%s %.2000q: it is not named what is wrong: %s", operation, body, d)
		}
	default:
		t.Errorf("%s %.2000q: %d %s", operation, body, code, text)
	}
}

// probe attaches something that is good but for one member, to an instance of its own: when
// that is refused, it is by the name of the member.
func (z *fuzzer) probe() {
	t := z.node.t
	t.Helper()
	fields := []field{
		{"vpn_type", `"ipvpn"`}, {"vpn_instance_id", `"probe"`}, {"mac_address", `"00:00:5e:00:53:99"`}, {"local_port", quote(probePort)},
		{"import_rt", "[]"}, {"export_rt", "[]"}, {"ip_address", `"198.51.100.99/24"`}, {"gateway_ip", "null"},
		{"local_pref", "7"}, {"advertise_subnet", "false"}, {"direction", `"both"`}, {"lb_consistent_hash_order", "3"}, {"advertise_as", `"vpn"`},
		{"vni", "4000"}, {"fallback", "{}"}, {"readvertise", "{}"}, {"attract_traffic", "null"}, {"description", "1"}, {"instance_description", "null"},
	}
	i := z.IntN(len(fields))
	name, value := fields[i].name, z.junk()
	if value == `"evpn"` || value == `"net0"` { // nothing wrong with it, but with others then
		return
	}
	fields[i].value = value
	body := object(fields)
	code, text := z.send(http.MethodPost, "/attach_localport", body)
	z.counts[fmt.Sprintf("probe %d", code)]++
	switch code {
	case http.StatusOK:
		if code, text := z.send(http.MethodPost, "/detach_localport", body); code != http.StatusOK {
			t.Errorf("attached, but detach %.1000q: %d %s", body, code, text)
		}
	case http.StatusBadRequest:
		tooDeep := !json.Valid([]byte(body)) || len(body) > 1<<20
		if name == "vpn_instance_id" && strings.Contains(text, "exists with type") { // one that is another's
			return
		}
		if d := describe(t, code, text); !strings.Contains(d, name) && !(name == "vpn_type" && strings.Contains(d, "instance_type")) && !tooDeep {
			t.Errorf("%s: %.500q is refused by another name: %s", name, value, d)
		}
	default:
		t.Errorf("%s: %.500q: %d %s", name, value, code, text)
	}
}

// probePort is a device for nothing else.
const probePort = "probe0"

// namesFault tells whether a description names a member of the body, or one that it should
// have; or, of a body that is no JSON object, that.
func namesFault(description, body string) bool {
	if strings.Contains(description, "instance_type") { // vpn_type, as the original has it
		return true
	}
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(body), &members) != nil || members == nil || len(body) > 1<<20 {
		return strings.Contains(description, "want a JSON object") || strings.Contains(description, "text after the JSON object")
	}
	named := func(name string) bool { return strings.Contains(description, name) }
	return slices.ContainsFunc(known, named) || slices.ContainsFunc(slices.Collect(maps.Keys(members)), named)
}

// describe checks the form of an error and returns its description.
func describe(t testing.TB, code int, text string) string {
	t.Helper()
	var e struct {
		Code        int
		Title       string
		Description *string
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil || e.Code != code || e.Title != http.StatusText(code) || e.Description == nil {
		t.Errorf("error in another form: %d %.500s", code, text)
		return ""
	}
	return *e.Description
}

// note enters in the ledger what a request has done.
func (z *fuzzer) note(attach bool, body string) {
	p, odd, err := understand(body)
	if err != nil {
		z.node.t.Errorf("accepted, but %v: %.2000q", err, body)
		return
	}
	same := func(q place) bool { return q.Instance == p.Instance && q.MAC == p.MAC }
	for q := range z.ledger {
		switch {
		case !same(q):
		case attach && p.IP != "" && q.IP == "": // the MAC alone ends with its first address
			delete(z.ledger, q)
		case q.IP == p.IP, !attach && p.IP == "":
			delete(z.ledger, q)
		}
	}
	if attach {
		z.ledger[p] = odd
	}
}

// understand reads a request as the daemon should. It tells whether the endpoint is
// one that agrees has no idea of.
func understand(body string) (p place, odd bool, err error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		return p, false, err
	}
	text := func(name string) (s string) {
		_ = json.Unmarshal(m[name], &s)
		return s
	}
	p.VPN, p.Instance = text("vpn_type"), text("vpn_instance_id")
	if p.Instance == "" {
		p.Instance = string(bytes.TrimSpace(m["vpn_instance_id"])) // a number
	}
	mac, err := ethernet.ParseMAC(text("mac_address"))
	if err != nil {
		return p, false, err
	}
	p.MAC = mac.String()
	if address := bare(text("ip_address")); address != "" {
		parsed, err := netip.ParseAddr(address)
		if err != nil {
			return p, false, err
		}
		p.IP = parsed.String()
	}
	var port struct{ LinuxIF string }
	if p.Port = text("local_port"); p.Port == "" {
		_ = json.Unmarshal(m["local_port"], &port)
		p.Port = port.LinuxIF
	}
	direction := text("direction")
	odd = p.Port == "" || text("linuxbr") != "" || direction != "" && direction != "both" || len(p.Instance) > 100 || strings.ContainsFunc(p.Instance, func(r rune) bool { return r < ' ' || r > '~' })
	return p, odd, nil
}

// detach detaches what matches.
func (z *fuzzer) detach(match func(place) bool) {
	z.node.t.Helper()
	for _, p := range z.places() {
		if _, there := z.ledger[p]; !there || !match(p) {
			continue
		}
		r := client.DetachRequest{VPNType: p.VPN, VPNInstanceID: p.Instance, MACAddress: p.MAC, IPAddress: p.IP, LocalPort: client.LocalPort{LinuxIF: p.Port}}
		if p.Port == "" {
			r.LocalPort.EVPN = &client.EVPNPort{ID: "net0"}
		}
		if err := z.node.api.Detach(z.node.t.Context(), r); err != nil {
			z.node.t.Errorf("detach %+v: %v", p, err)
		}
		delete(z.ledger, p)
		if p.VPN == client.EVPN && p.IP == "" { // with it went all of the MAC
			for q := range z.ledger {
				if q.Instance == p.Instance && q.MAC == p.MAC {
					delete(z.ledger, q)
				}
			}
		}
	}
}

// get reads something, or does what is not allowed.
func (z *fuzzer) get() {
	t := z.node.t
	t.Helper()
	path := z.path()
	method := choose(z.grammar, "GET", "GET", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND")
	body := ""
	if z.one(4) {
		body = z.junk()
	}
	code, text := z.send(method, path, body)
	z.counts[fmt.Sprintf("read %d", code)]++
	switch {
	case code == http.StatusMovedPermanently || code == http.StatusTemporaryRedirect || code == http.StatusOK || method == "HEAD":
	case code == http.StatusServiceUnavailable && strings.HasPrefix(path, "/readyz"):
		return
	case code == http.StatusBadRequest && strings.HasPrefix(text, "400 Bad Request"): // net/http's own
	case code == http.StatusNotFound || code == http.StatusMethodNotAllowed:
		describe(t, code, text)
	default:
		t.Errorf("%s %.300q: %d %s", method, path, code, text)
	}
	if !utf8.ValidString(text) {
		t.Errorf("%s %.300q: the reply is not UTF-8: %.500q", method, path, text)
	}
}

// operate does something with a BGP peer.
func (z *fuzzer) operate() {
	t := z.node.t
	t.Helper()
	operation := choose(z.grammar, "shutdown", "enable", "reset", "refresh", "refresh", "none", "")
	address := choose(z.grammar, z.peer, z.peer, "::ffff:"+z.peer, "192.0.2.250", "x", "")
	body := choose(z.grammar, "", "{}", `{"message":"x"}`, `{"families":["l2vpn/evpn"]}`, `{"families":["ipv4/unicast"]}`, object([]field{{"message", z.junk()}}), object([]field{{"families", z.junk()}}), object([]field{{"x", "1"}}))
	if z.one(10) {
		body = z.mangle(body)
	}
	code, text := z.send(choose(z.grammar, "POST", "POST", "POST", "GET"), "/bgp/peers/"+address+"/"+operation, body)
	z.counts[fmt.Sprintf("peer %d", code)]++
	switch code {
	case http.StatusOK, http.StatusMovedPermanently, http.StatusTemporaryRedirect:
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusConflict:
		describe(t, code, text)
	default:
		t.Errorf("%s of peer %q %.500q: %d %s", operation, address, body, code, text)
	}
}

func (z *fuzzer) peerOperation(operation, body string, want int) {
	z.node.t.Helper()
	if code, text := z.send(http.MethodPost, "/bgp/peers/"+z.peer+"/"+operation, body); code != want {
		z.node.t.Errorf("%s: %d %s", operation, code, text)
	}
}

// send sends a request and returns status and body of the reply.
func (z *fuzzer) send(method, path, body string) (int, string) {
	t := z.node.t
	t.Helper()
	z.recent = append(z.recent, fmt.Sprintf("%s %.100q %.400q", method, path, body))
	var content io.Reader = strings.NewReader(body)
	if z.one(8) {
		content = io.MultiReader(content) // of unknown length: chunked
	}
	r, err := http.NewRequestWithContext(t.Context(), method, client.DefaultBaseURL, content)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Opaque = "//" + r.URL.Host + path
	if u, err := url.Parse(client.DefaultBaseURL + path); err == nil {
		r.URL = u
	}
	res, err := z.http.Do(r)
	if err != nil {
		t.Fatalf("%s %.300q %.1000q: %v", method, path, body, err)
	}
	defer func() { _ = res.Body.Close() }()
	reply, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %.300q: %v", method, path, err)
	}
	if res.StatusCode == http.StatusMethodNotAllowed && res.Header.Get("Allow") == "" {
		t.Errorf("%s %.300q: 405 without Allow", method, path)
	}
	z.recent[len(z.recent)-1] += fmt.Sprintf(": %d %.200s", res.StatusCode, reply)
	return res.StatusCode, string(reply)
}

// raw sends octets that are hardly HTTP, and looks at the first line of the answer.
func (z *fuzzer) raw() {
	t := z.node.t
	t.Helper()
	c, err := netspace.Dialer(z.node.Name)(t.Context(), "tcp", "127.0.0.1:8082")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(startTimeout))
	good := "POST /attach_localport HTTP/1.1\r\nHost: x\r\nContent-Length: " + choose(z.grammar, "2", "-1", "99999999999999999999", "3", "x") +
		"\r\n" + choose(z.grammar, "", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n", "Connection: close\r\n", "X: "+strings.Repeat("y", 40000)+"\r\n") + "\r\n{}"
	text := z.mangle(good)
	_, _ = io.WriteString(c, text)
	_ = c.(*net.TCPConn).CloseWrite()
	reply, _ := io.ReadAll(c)
	line, _, _ := strings.Cut(string(reply), "\r\n")
	_, status, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(status, " ")
	z.counts["raw "+code]++
	z.recent = append(z.recent, fmt.Sprintf("raw %.200q: %s", text, line))
	// 501 and 505 are of the protocol, net/http's own; 503 is for a client that is taken for
	// gone, since it has closed its side.
	if strings.HasPrefix(code, "5") && code != "501" && code != "503" && code != "505" {
		t.Errorf("%.500q: %.500q", text, reply)
	}
}
