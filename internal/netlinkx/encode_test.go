// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// drawMessage draws any message whose members survive the wire.
func drawMessage(t *rapid.T) Message {
	m := Message{Op: rapid.SampledFrom([]Op{Replace, Append}).Draw(t, "op")}
	m.Family = rapid.SampledFrom([]uint8{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6}).Draw(t, "family")
	m.Flags = rapid.Uint8().Draw(t, "flags")
	m.State = rapid.Uint16().Draw(t, "state")
	m.Protocol = rapid.Uint8().Draw(t, "protocol")
	m.Index = int(rapid.Int32Min(0).Draw(t, "index"))
	m.VNI = rapid.Uint32().Draw(t, "vni")
	copy(m.MAC[:], rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
	if size := rapid.SampledFrom([]int{0, 4, 16}).Draw(t, "address size"); size > 0 {
		m.Addr, _ = netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "addr"))
	}
	return m
}

func TestEncodedMessageParsesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		seq := rapid.Uint32().Draw(t, "seq")
		b := AppendMessage(nil, &m, seq, rapid.Bool().Draw(t, "ack"))
		h, body, rest, ok, err := nextMessage(b)
		if err != nil || !ok || len(rest) != 0 {
			t.Fatalf("nextMessage = %v, %v, %d octets left", ok, err, len(rest))
		}
		if h.typ != unix.RTM_NEWNEIGH || h.seq != seq || h.flags&unix.NLM_F_CREATE == 0 {
			t.Fatalf("header = %+v", h)
		}
		got, err := parseNeigh(body)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m.Neigh, got, cmpAddr); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestMessageFlags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		op    Op
		ack   bool
		typ   uint16
		flags uint16
	}{
		{Replace, false, unix.RTM_NEWNEIGH, unix.NLM_F_REQUEST | unix.NLM_F_CREATE | unix.NLM_F_REPLACE},
		{Append, true, unix.RTM_NEWNEIGH, unix.NLM_F_REQUEST | unix.NLM_F_CREATE | unix.NLM_F_APPEND | unix.NLM_F_ACK},
		{Delete, true, unix.RTM_DELNEIGH, unix.NLM_F_REQUEST | unix.NLM_F_ACK},
	} {
		b := AppendMessage(nil, &Message{Op: tt.op}, 1, tt.ack)
		h, _, _, _, err := nextMessage(b)
		if err != nil || h.typ != tt.typ || h.flags != tt.flags {
			t.Errorf("op %d: type %d flags %#x, want %d %#x (%v)", tt.op, h.typ, h.flags, tt.typ, tt.flags, err)
		}
	}
}

func TestMessageString(t *testing.T) {
	t.Parallel()
	mac := ethernet.MAC{2, 0, 0, 0, 0, 1}
	for _, tt := range []struct {
		in   Message
		want string
	}{
		{
			Message{Replace, Neigh{Family: unix.AF_BRIDGE, Index: 7, MAC: mac, Addr: netip.MustParseAddr("192.0.2.1"), VNI: 100, Flags: unix.NTF_SELF | unix.NTF_MASTER | unix.NTF_EXT_LEARNED}},
			"fdb replace 02:00:00:00:00:01 dev #7 dst 192.0.2.1 vni 100 self master extern_learn",
		},
		{
			Message{Delete, Neigh{Family: unix.AF_INET6, Index: 7, Addr: netip.MustParseAddr("2001:db8::1")}},
			"neigh del 2001:db8::1 dev #7",
		},
		{
			Message{Replace, Neigh{Family: unix.AF_INET, Index: 7, MAC: mac, Addr: netip.MustParseAddr("198.51.100.1"), State: unix.NUD_NOARP, Protocol: 19}},
			"neigh replace 198.51.100.1 dev #7 lladdr 02:00:00:00:00:01 noarp proto 19",
		},
	} {
		if got := tt.in.String(); got != tt.want {
			t.Errorf("String() = %q, want %q", got, tt.want)
		}
	}
}

func TestAppendMessageAllocatesNothing(t *testing.T) {
	m := Message{Op: Replace, Neigh: Neigh{Family: unix.AF_BRIDGE, MAC: ethernet.MAC{2}, Addr: netip.MustParseAddr("2001:db8::1"), VNI: 5, Protocol: 1}}
	b := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { b = AppendMessage(b[:0], &m, 1, true) }); n != 0 {
		t.Errorf("%v allocations per message, want 0", n)
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	m := Message{Op: Replace, Neigh: Neigh{Family: unix.AF_BRIDGE, MAC: ethernet.MAC{2}, Addr: netip.MustParseAddr("192.0.2.1"), VNI: 5}}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendMessage(buf[:0], &m, 1, true)
	}
}
