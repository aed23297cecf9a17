// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The octets were written by hand from the figure in RFC 5880 §4.1.
var packets = []struct {
	name, hex string
	want      packet
}{
	{
		"first", "20400318 00000001 00000000 000f4240 0000c350 00000000",
		packet{state: Down, mult: 3, mine: 1, minTx: time.Second, minRx: 50 * time.Millisecond},
	},
	{
		"poll, up", "20e00518 deadbeef 12345678 00002710 00002710 00000001",
		packet{state: Up, poll: true, mult: 5, mine: 0xdeadbeef, yours: 0x12345678, minTx: 10 * time.Millisecond,
			minRx: 10 * time.Millisecond, minEchoRx: time.Microsecond},
	},
	{
		"final, demand, independent", "23da ff18 ffffffff 00000002 ffffffff 00000000 00000000",
		packet{diag: NeighborSignaledDown, state: Up, final: true, independent: true, demand: true, mult: 255, mine: 0xffffffff,
			yours: 2, minTx: (1<<32 - 1) * time.Microsecond},
	},
	{
		"admin down", "27000118 00000001 00000002 000f4240 000f4240 00000000",
		packet{diag: AdministrativelyDown, state: AdminDown, mult: 1, mine: 1, yours: 2, minTx: time.Second, minRx: time.Second},
	},
	{
		"init, diagnostic without a name", "3f800118 00000001 00000002 00000000 00000000 00000000",
		packet{diag: 31, state: Init, mult: 1, mine: 1, yours: 2},
	},
}

func TestPacket(t *testing.T) {
	t.Parallel()
	for _, tt := range packets {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := unhex(t, tt.hex)
			if got, why := parse(append(b[:len(b):len(b)], 1, 2, 3)); got != tt.want || why != notDropped {
				t.Errorf("parsed: %+v, %s\nwant    %+v", got, why, tt.want)
			}
			if got := tt.want.append([]byte("x"))[1:]; !bytes.Equal(got, b) {
				t.Errorf("written: %x\nwant     %x", got, b)
			}
		})
	}
}

func TestParseDrops(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, hex string
		want      Reason
	}{
		{"empty", "", BadLength},
		{"one octet less", "20400318 00000001 00000000 000f4240 0000c350 000000", BadLength},
		{"says less", "20400317 00000001 00000000 000f4240 0000c350 00000000", BadLength},
		{"says more", "20400319 00000001 00000000 000f4240 0000c350 00000000", BadLength},
		{"authentication without room", "20440319 00000001 00000000 000f4240 0000c350 00000000 0101", BadLength},
		{"authentication cut", "2044031a 00000001 00000000 000f4240 0000c350 00000000 01", BadLength},
		{"authentication", "2044031a 00000001 00000000 000f4240 0000c350 00000000 0102", notDropped},
		{"version 0", "00400318 00000001 00000000 000f4240 0000c350 00000000", BadVersion},
		{"version 2", "40400318 00000001 00000000 000f4240 0000c350 00000000", BadVersion},
		{"version before length", "40400310 00000001 00000000 000f4240 0000c350 00000000", BadVersion},
		{"no multiplier", "20400018 00000001 00000000 000f4240 0000c350 00000000", ZeroMultiplier},
		{"multipoint", "20410318 00000001 00000000 000f4240 0000c350 00000000", Multipoint},
		{"no discriminator", "20400318 00000000 00000001 000f4240 0000c350 00000000", ZeroDiscriminator},
	} {
		if _, why := parse(unhex(t, tt.hex)); why != tt.want {
			t.Errorf("%s: %s: want %s", tt.name, why, tt.want)
		}
	}
}

// FuzzPacket checks that what is accepted is written again as it was, but for
// the length of what follows and authentication, which we do not write.
func FuzzPacket(f *testing.F) {
	for _, tt := range packets {
		f.Add(unhex(f, tt.hex))
		f.Add(append(unhex(f, tt.hex), 0))
	}
	f.Add(unhex(f, "2044031a 00000001 00000000 000f4240 0000c350 00000000 0102"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, why := parse(b)
		if why != notDropped {
			return
		}
		want := bytes.Clone(b[:packetLen])
		want[1] &^= bitAuth
		want[3] = packetLen
		got := p.append(nil)
		if !bytes.Equal(got, want) {
			t.Fatalf("written again: %x, want %x", got, want)
		}
		p.auth = false
		if again, why := parse(got); again != p || why != notDropped {
			t.Fatalf("parsed again: %+v, %s, want %+v", again, why, p)
		}
	})
}

// FuzzAccept gives a node arbitrary packets while a session is there.
func FuzzAccept(f *testing.F) {
	for _, tt := range packets {
		f.Add(unhex(f, tt.hex), uint8(255), false)
		f.Add(unhex(f, tt.hex), uint8(0), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, ttl uint8, ours bool) {
		n := newNode(nil, newFabric())
		s := &Session{node: n, config: config(ourAddr, theirAddr).normal(), in: make(chan packet, 1)}
		if err := n.register(s); err != nil {
			t.Fatal(err)
		}
		if ours && len(b) >= packetLen {
			copy(b[8:], packet{yours: s.vars.discr}.append(nil)[8:12])
		}
		n.accept(s.place(), b, theirAddr, ttl)
		if n.dropped[Panicked].Load()+s.dropped[Panicked].Load() > 0 {
			t.Fatal("panic")
		}
		select {
		case p := <-s.in:
			s.vars.received(p)
		default:
			return
		}
		if i := s.vars.interval(); i != 0 && i < MinInterval || s.vars.detection() < MinInterval {
			t.Errorf("interval %v, detection time %v: shorter than configured", i, s.vars.detection())
		}
	})
}
