// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/bagpipe-vpn/bagpipe/internal/api"
	"github.com/bagpipe-vpn/bagpipe/internal/bfd"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/transport"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/bmp"
)

const livePage = "bgp/peers/" + livePeer

// fullSettings are those of a neighbour with about everything.
func fullSettings() speaker.Settings {
	return speaker.Settings{
		Description: "reflector in rack 1", MaxPrefixes: 4, MaxPrefixesWarning: 75,
		Restart: &speaker.Restart{Time: 120, StaleTime: time.Hour, LongLived: time.Hour},
	}
}

// The life of a session, page by page; -update writes the files.
func TestPeerPageThroughALife(t *testing.T) {
	t.Parallel()
	s := newLive(t, fullSettings(), func(c *speaker.Config) { c.Hostname = "node.example" })
	if w := s.post("/attach_localport", evpnBody()); w.Code != http.StatusOK {
		t.Fatalf("attach: %d %s", w.Code, w.Body)
	}
	o := fullOpen(wire.EVPN, wire.VPNv4)
	o.Hostname, o.LongLived = "rr.example", []wire.LongLived{{Family: wire.EVPN, Time: 600}}
	n := s.connect(t, o)
	n.await(wire.MsgUpdate)
	n.write(macs(1, 3))
	s.shows(t, livePage, `"routes":3`)
	s.shows(t, livePage, `"announced":{"l2vpn/evpn":2}`)
	checkPage(t, "live.up", []byte(s.page(livePage)))

	_ = n.nc.(*net.TCPConn).CloseWrite()
	s.shows(t, livePage, `"stage":"stale"`)
	s.shows(t, livePage, `"state":"Active"`)
	checkPage(t, "live.restarting", []byte(s.page(livePage)))
	for _, path := range []string{livePage + "/adv_routes", "bgp/routes", "vpns/instances/red/received_routes", "vpns/instances/red/best_routes"} {
		if got := strings.Count(s.page(path), `"stale":"stale"`); got != 3 {
			t.Errorf("%s marks %d routes as stale, want 3", path, got)
		}
	}
	if got := strings.Count(s.page("vpns/instances/red/adv_routes"), `"stale"`); got != 0 {
		t.Errorf("%d routes of our own are shown as stale", got)
	}

	all, _ := scrape(t, s)
	if got := value(all[api.MetricPeerRoutesStale], "family=l2vpn/evpn", "peer="+livePeer); got != "3" {
		t.Errorf("%s = %s, want 3", api.MetricPeerRoutesStale, got)
	}

	n = s.connect(t, o)
	n.write(wire.EndOfRIBMessage(wire.EVPN))
	s.shows(t, livePage, `"stale":[]`)
	n.write(wire.Shutdown(wire.CeaseAdminShutdown, "new \x1b[2Jdisks").Message())
	s.shows(t, livePage, `"communication":"new`)
	s.shows(t, livePage, `"state":"Active"`)
	checkPage(t, "live.notified", []byte(s.page(livePage)))
}

func TestMetricsOfASession(t *testing.T) {
	t.Parallel()
	s := newLive(t, fullSettings(), nil)
	n := s.connect(t, fullOpen(wire.EVPN))
	hop := addr(livePeer)
	n.write(macs(1, 1))
	p := wire.NewPacker(wire.MaxMessage)
	p.Announce(wire.EVPN, []byte{0x40, 1, 1, 9}, hop) // ORIGIN 9: treat-as-withdraw (RFC 7606 §7.1)
	p.Add(wire.Route{NLRI: wire.IMETRoute(wire.MakeRD(hop, 1), hop)})
	n.write(p.Flush())
	const peer = "peer=" + livePeer
	var all map[string]*dto.MetricFamily
	eventually(t, "the fault", func() bool {
		all, _ = scrape(t, s)
		return value(all[api.MetricPeerFaults], "class=treat_as_withdraw", peer) == "1"
	})
	for _, tt := range []struct {
		name   string
		labels []string
		want   string
	}{
		{api.MetricPeerInfo, []string{"description=reflector in rack 1", "local_as=64512", peer, "peer_as=64512"}, "1"},
		{api.MetricPeerUp, []string{peer}, "1"},
		{api.MetricPeerState, []string{peer}, "6"},
		{api.MetricPeerEstablished, []string{peer}, "1"},
		{api.MetricPeerResets, []string{peer}, "0"},
		{api.MetricPeerRoutesIn, []string{"family=l2vpn/evpn", peer}, "1"},
		{api.MetricPeerRoutesStale, []string{"family=l2vpn/evpn", peer}, "0"},
		{api.MetricPeerDisabled, []string{peer}, "0"},
		{api.MetricPeerHeldDown, []string{peer, "reason=operator"}, "0"},
		{api.MetricReady, nil, "1"},
	} {
		if got := value(all[tt.name], tt.labels...); got != tt.want {
			t.Errorf("%s %v = %s, want %s", tt.name, tt.labels, got, tt.want)
		}
	}
	if up, err := strconv.ParseFloat(value(all[api.MetricPeerUptime], peer), 64); err != nil || up <= 0 || up > 60 {
		t.Errorf("%s = %v (%v), want some seconds", api.MetricPeerUptime, up, err)
	}
}

// What a neighbour sends to a terminal does not arrive there.
func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "plain ü 網": "plain ü 網", "a\x1b[31mb": "a\uFFFD[31mb", "a\r\nb\tc": "a\uFFFD\uFFFDb\uFFFDc", "\u202e": "\uFFFD", "\x00\x7f": "\uFFFD\uFFFD",
	} {
		if got := api.Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A password shows nowhere, only that there is one.
func TestTransportOptionsAreShownWithoutThePassword(t *testing.T) {
	t.Parallel()
	const password = "correct horse"
	s := newServerWith(t, func(c *speaker.Config) {
		c.Peers[0].Settings = &speaker.Settings{Transport: transport.Options{Password: password, TTLSecurity: 1, Device: "eth7"}, Families: noRTC}
	}, livePeer)
	want := `"transport":{"md5":true,"ttl_security_hops":1,"device":"eth7","local_port":null,"peer_port":null}`
	if got := s.page(livePage); !strings.Contains(got, want) {
		t.Errorf("%s does not have %s", got, want)
	}
	if all := s.tree() + s.get("/metrics").Body.String(); strings.Contains(all, password) {
		t.Error("the password is shown")
	}
}

// A peer that sent too much is held down, and says so.
func TestHeldDownByMaxPrefixes(t *testing.T) {
	t.Parallel()
	s := newLive(t, speaker.Settings{MaxPrefixes: 2, MaxPrefixesWarning: 75}, nil)
	s.connect(t, fullOpen(wire.EVPN)).write(macs(1, 3))
	s.shows(t, livePage, `"held_down":"more routes than max_prefixes, until enabled"`)
	s.shows(t, livePage, `"sent":{"code":6,"subcode":1,`)
	all, _ := scrape(t, s)
	const peer = "peer=" + livePeer
	for _, tt := range []struct {
		name   string
		labels []string
		want   string
	}{
		{api.MetricPeerHeldDown, []string{peer, "reason=max_prefixes"}, "1"},
		{api.MetricPeerHeldDown, []string{peer, "reason=operator"}, "0"},
		{api.MetricPeerMaxPrefixes, []string{peer}, "2"},
		{api.MetricPeerResets, []string{peer}, "1"},
		{api.MetricPeerEstablished, []string{peer}, "1"},
		{api.MetricPeerUptime, []string{peer}, "0"},
		{api.MetricReady, nil, "0"},
	} {
		if got := value(all[tt.name], tt.labels...); got != tt.want {
			t.Errorf("%s %v = %s, want %s", tt.name, tt.labels, got, tt.want)
		}
	}
	if w := s.get("/readyz"); !strings.Contains(w.Body.String(), "held down: more routes than max_prefixes") || w.Code != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d %s", w.Code, w.Body)
	}
}

func TestBFDIsShown(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	c := bfd.Config{MinTx: 20 * time.Millisecond, MinRx: 20 * time.Millisecond, Multiplier: 250}
	s := newLive(t, speaker.Settings{BFD: &c}, func(cfg *speaker.Config) { cfg.BFD = bfd.NewNode(log) })
	s.shows(t, livePage, `"bfd":{"state":"Down"`)
	theirs := c
	theirs.Local, theirs.Remote = addr(livePeer), addr(liveNode)
	session, err := bfd.NewNode(log).Add(theirs, func(bfd.Change) {})
	if err != nil {
		t.Fatal(err)
	}
	s.shows(t, livePage, `"bfd":{"state":"Up"`)
	s.shows(t, livePage, `"remote_state":"Up"`)
	checkPage(t, "live.bfd", []byte(s.page(livePage)))
	all, _ := scrape(t, s)
	const peer = "peer=" + livePeer
	if got := value(all[api.MetricBFDUp], peer); got != "1" {
		t.Errorf("%s = %s, want 1", api.MetricBFDUp, got)
	}
	for _, name := range []string{api.MetricBFDUptime, api.MetricBFDReceived, api.MetricBFDSent} {
		if got := value(all[name], peer); got == "0" || got == "none" {
			t.Errorf("%s = %s, want more", name, got)
		}
	}
	session.Close()
	s.shows(t, livePage, `"flaps":1`)
	all, _ = scrape(t, s)
	if up, flaps := value(all[api.MetricBFDUp], peer), value(all[api.MetricBFDFlaps], peer); up != "0" || flaps != "1" {
		t.Errorf("up %s and flaps %s after the other side closed, want 0 and 1", up, flaps)
	}
}

func TestStationsAreShown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newServer(t)
		wantFailure(t, s.get("/looking-glass/bgp/monitoring"), http.StatusNotFound)
		s.Monitoring = func() []bmp.Status {
			return []bmp.Status{
				{Station: "192.0.2.40:11019", Connected: true, Since: time.Now(), Connections: 2, Messages: 7, Bytes: 900, Routes: 5},
				{Station: "192.0.2.41:11019", Since: time.Now(), LastError: "connection refused"},
			}
		}
		want := `[{"station":"192.0.2.40:11019","connected":true,"since":"2000-01-01 00:00:00","connections":2,"messages_sent":7,"bytes_sent":900,"routes_sent":5,"last_error":null},` +
			`{"station":"192.0.2.41:11019","connected":false,"since":"2000-01-01 00:00:00","connections":0,"messages_sent":0,"bytes_sent":0,"routes_sent":0,"last_error":"connection refused"}]`
		if got := s.get("/looking-glass/bgp/monitoring").Body.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		all, _ := scrape(t, s)
		for station, up := range map[string]string{"station=192.0.2.40:11019": "1", "station=192.0.2.41:11019": "0"} {
			if got := value(all[api.MetricStationUp], station); got != up {
				t.Errorf("%s %s = %s, want %s", api.MetricStationUp, station, got, up)
			}
		}
		if got := value(all[api.MetricStationSentBytes], "station=192.0.2.40:11019"); got != "900" {
			t.Errorf("%s = %s, want 900", api.MetricStationSentBytes, got)
		}
	})
}
