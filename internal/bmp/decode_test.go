// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	codec "github.com/osrg/gobgp/v4/pkg/packet/bmp"
)

// eventually waits for something that other goroutines bring about.
func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !check(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not reached: %s", what)
		}
	}
}

// peek returns the lines so far.
func (c *collector) peek() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lines)
}

// listen runs a station on loopback until the test ends.
func listen(t testing.TB) (net.Listener, *collector) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{TB: t}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = c.read(conn)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l, c
}

// checkStatistics compares a report with values by type, and family if there is one.
func checkStatistics(t testing.TB, m *codec.BMPMessage, want map[string]uint64) {
	t.Helper()
	got := map[string]uint64{}
	for _, s := range m.Body.(*codec.BMPStatisticsReport).Stats {
		switch s := s.(type) {
		case *codec.BMPStatsTLV32:
			got[fmt.Sprint(s.Type)] = uint64(s.Value)
		case *codec.BMPStatsTLV64:
			got[fmt.Sprint(s.Type)] = s.Value
		case *codec.BMPStatsTLVPerAfiSafi64:
			got[fmt.Sprintf("%d %d/%d", s.Type, s.AFI, s.SAFI)] = s.Value
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
}

// checkHeaders looks at all members of Peer Up and the per-peer headers of a
// session with an IPv6 peer that has two-octet ASes.
func checkHeaders(t testing.TB, r *running, s *Session) {
	t.Helper()
	m := r.last(codec.BMP_MSG_PEER_UP_NOTIFICATION)
	want := codec.BMPPeerHeader{Flags: 0xa0, PeerAddress: peer6, PeerAS: 64501, PeerBGPID: peerID}
	up := m.PeerHeader
	if d := float64(s.Since.UnixMicro())/1e6 - up.Timestamp; d > 1e-6 || d < -1e-6 {
		t.Errorf("time of Peer Up %f: want %f", up.Timestamp, float64(s.Since.UnixMicro())/1e6)
	}
	up.Timestamp = 0
	if diff := cmp.Diff(want, up, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("per-peer header (-want +got):\n%s", diff)
	}
	body := m.Body.(*codec.BMPPeerUpNotification)
	if body.LocalAddress != s.Local || body.LocalPort != 179 || body.RemotePort != 40000 {
		t.Errorf("Peer Up from %s port %d to port %d", body.LocalAddress, body.LocalPort, body.RemotePort)
	}
	octets := encode(body)
	if !bytes.Equal(octets[20:], slices.Concat(s.SentOpen, s.ReceivedOpen)) {
		t.Errorf("OPENs %x: want those of the session", octets[20:])
	}
	lines := r.peek()
	if want := "2001:db8::6 +m1 pref"; !slices.Contains(lines, "2001:db8::6 +m1") {
		t.Errorf("got %q: want %q", lines, want)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.messages {
		if m.Header.Type != codec.BMP_MSG_ROUTE_MONITORING {
			continue
		}
		u := m.Body.(*codec.BMPRouteMonitoring).BGPUpdate.Body.(*bgp.BGPUpdate)
		eor, _ := u.IsEndOfRib()
		if timed := m.PeerHeader.Timestamp != 0; timed != eor || m.PeerHeader.Flags != 0xa0 {
			t.Errorf("flags %#x, time %f, End-of-RIB %v", m.PeerHeader.Flags, m.PeerHeader.Timestamp, eor)
		}
		if !eor {
			checkPath(t, u)
		}
	}
}

// checkPath wants the AS path as it was received: AS_PATH with two octets each, and
// AS4_PATH.
func checkPath(t testing.TB, u *bgp.BGPUpdate) {
	t.Helper()
	var got []string
	for _, a := range u.PathAttributes {
		switch a := a.(type) {
		case *bgp.PathAttributeAsPath:
			got = append(got, a.Value[0].String())
		case *bgp.PathAttributeAs4Path:
			got = append(got, a.Value[0].String())
		}
	}
	if diff := cmp.Diff([]string{"64501 23456", "64501 65536"}, got); diff != "" {
		t.Errorf("AS paths (-want +got):\n%s", diff)
	}
}

// A time survives without rounding.
func TestStamp(t *testing.T) {
	s := Session{}
	s.Peer, s.PeerID = peer1, peerID
	h := peerHeader(&s)
	stamp(h, time.Unix(1700000000, 999999999))
	if got := h[34:42]; !bytes.Equal(got, []byte{0x65, 0x53, 0xf1, 0, 0, 0x0f, 0x42, 0x3f}) {
		t.Errorf("stamp %x", got)
	}
	stamp(h, time.Time{})
	if !bytes.Equal(h[34:42], make([]byte, 8)) {
		t.Errorf("no time: %x", h[34:42])
	}
	if h[1] != codec.BMP_PEER_FLAG_TWO_AS || len(h) != codec.BMP_PEER_HEADER_SIZE {
		t.Errorf("header %x", h)
	}
}
