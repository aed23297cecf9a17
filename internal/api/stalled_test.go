// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/api"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// Readers that ask for a huge table and stop reading do not hold up a session:
// its routes go on into the RIB and into the instance, and other readers see them.
func TestStalledReadersBlockNoSession(t *testing.T) {
	t.Parallel()
	const huge = 20_000
	s := newLive(t, speaker.Settings{}, nil)
	s.post("/attach_localport", evpnBody())
	n := s.connect(t, fullOpen(wire.EVPN))
	for i := 0; i < huge; i += 100 {
		n.write(macs(i, 100))
	}
	received := func() int { return s.Speaker.Neighbours()[0].Received()[wire.EVPN] }
	eventually(t, "the huge table", func() bool { return received() == huge })

	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	for _, path := range []string{livePage + "/adv_routes", "bgp/routes", "vpns/instances/red/received_routes", "vpns/instances/red/best_routes", "vpns/instances/red/dataplane/entries"} {
		stall(t, srv.Listener.Addr().String(), path)
	}
	for i := range 20 {
		n.write(macs(huge+i*100, 100))
	}
	eventually(t, "routes beside the stalled readers", func() bool { return received() == huge+2000 })
	s.shows(t, livePage, fmt.Sprintf(`"received":{"l2vpn/evpn":%d}`, huge+2000))
	n.write(wire.Shutdown(wire.CeaseAdminShutdown, "").Message())
	eventually(t, "the session's end", func() bool { return received() == 0 })
}

// A reader that takes nothing is cut off in the end.
func TestStalledReaderIsCutOff(t *testing.T) {
	t.Parallel()
	s := newLive(t, speaker.Settings{}, nil)
	s.SetStallLimit(100 * time.Millisecond)
	n := s.connect(t, fullOpen(wire.EVPN))
	for i := 0; i < 20_000; i += 100 {
		n.write(macs(i, 100))
	}
	eventually(t, "the table", func() bool { return s.Speaker.Neighbours()[0].Received()[wire.EVPN] == 20_000 })
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	stall(t, srv.Listener.Addr().String(), livePage+"/adv_routes")
	eventually(t, "the request's end", func() bool {
		all, _ := scrape(t, s)
		return value(all[api.MetricRequests], "code=200", "resource=/looking-glass") == "1"
	})
}

// stall asks for a page of the looking glass and reads its first octet only.
func stall(t *testing.T, server, path string) {
	t.Helper()
	nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := fmt.Fprintf(nc, "GET /looking-glass/%s HTTP/1.1\r\nHost: node.example\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, 1)); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
