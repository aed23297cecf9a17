// SPDX-License-Identifier: Apache-2.0

package netlinkx

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"golang.org/x/sys/unix"
)

func TestParseAnswer(t *testing.T) {
	t.Parallel()
	body := func(errno int32, attrs []byte) []byte {
		b := native.AppendUint32(nil, uint32(-errno))
		b = append(b, make([]byte, unix.SizeofNlMsghdr)...)
		native.PutUint32(b[4:], unix.SizeofNlMsghdr)
		return append(b, attrs...)
	}
	text := appendAttrString(nil, unix.NLMSGERR_ATTR_MSG, "No such thing")
	for _, tt := range []struct {
		name  string
		flags uint16
		in    []byte
		errno unix.Errno
		text  string
		bad   bool
	}{
		{"OK acknowledgement", 0, body(0, nil), 0, "", false},
		{"OK refusal without text", 0, body(2, text), unix.ENOENT, "", false},
		{"OK refusal with text", unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED, body(2, text), unix.ENOENT, "No such thing", false},
		{"OK not capped", unix.NLM_F_ACK_TLVS, body(2, text), unix.ENOENT, "No such thing", false},
		{"bad short", 0, make([]byte, 19), 0, "", true},
		{"bad attribute beyond the end", unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED, body(2, []byte{200, 0, 1, 0}), unix.ENOENT, "", true},
		{"bad attribute", unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED, body(2, []byte{1, 0, 0, 0}), unix.ENOENT, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseAnswer(header{flags: tt.flags}, tt.in)
			if (err != nil) != tt.bad {
				t.Fatalf("error = %v, want one: %v", err, tt.bad)
			}
			if tt.bad {
				return
			}
			if (got == nil) != (tt.errno == 0) || got != nil && (!errors.Is(got, tt.errno) || got.Text != tt.text) {
				t.Errorf("answer = %+v, want %v %q", got, tt.errno, tt.text)
			}
		})
	}
}

func TestNextMessageRefusesWrongLengths(t *testing.T) {
	t.Parallel()
	good := AppendMessage(nil, &Message{Op: Replace}, 1, true)
	for _, length := range []uint32{0, 15, uint32(len(good)) + 1, 1<<32 - 1} {
		b := append([]byte(nil), good...)
		native.PutUint32(b, length)
		if _, _, _, _, err := nextMessage(b); !errors.Is(err, errShort) {
			t.Errorf("length %d: error %v, want %v", length, err, errShort)
		}
	}
	if _, _, _, _, err := nextMessage(good[:10]); !errors.Is(err, errShort) {
		t.Errorf("cut header: error %v", err)
	}
}

// FuzzParse feeds octets to everything that reads the kernel's answers.
func FuzzParse(f *testing.F) {
	m := Message{Op: Replace, Neigh: Neigh{Family: unix.AF_BRIDGE, MAC: ethernet.MAC{2}, Addr: netip.MustParseAddr("192.0.2.1"), VNI: 7}}
	f.Add(AppendMessage(AppendMessage(nil, &m, 1, false), &m, 2, true))
	up := LinkRequest{Name: "x", Kind: "vxlan", VXLAN: &VXLANOptions{VNI: 1, Port: 4789}, Port: &PortFlags{}, NoAddrGen: true}
	f.Add(endMessage(append(beginMessage(nil, unix.RTM_NEWLINK, 0, 1), up.encode()...), 0))
	hop := Nexthop{ID: 1, Index: 2, Via: netip.MustParseAddr("192.0.2.1"), Label: 16}
	mpls := MPLSRoute{Label: 16, Index: 2}
	f.Add(NexthopRequest{Nexthop: hop}.appendTo(MPLSRequest{MPLSRoute: mpls}.appendTo(nil, 1, true), 2, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		for range len(b) + 1 {
			h, body, rest, ok, err := nextMessage(b)
			if err != nil || !ok {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			_, _ = parseNeigh(body)
			_, _ = parseLink(body)
			_, _ = parseRoute(body)
			_, _ = parseNexthop(body)
			_, _ = parseMPLS(body)
			_, _ = parseAddress(body)
			_, _, _ = parseRule(body)
			_, _ = parseAnswer(h, body)
			_ = parseDone(body)
			b = rest
		}
		t.Fatal("more messages than octets")
	})
}
