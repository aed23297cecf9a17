// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A solicitation from 2001:db8:1::2 for the gateway 2001:db8:1::1, as Linux sends it.
const (
	askEthernet = "33 33 ff 00 00 01 00 00 5e 00 53 01"
	askPacket   = "86dd 60000000 0020 3a ff 20010db8000100000000000000000002 ff0200000000000000000001ff000001" +
		"87 00 1234 00000000 20010db8000100000000000000000001 01 01 00005e005301"
	answerPacket = "86dd 60000000 0020 3a ff 20010db8000100000000000000000001 20010db8000100000000000000000002" +
		"88 00 %% e0000000 20010db8000100000000000000000001 02 01 00005e004364"
)

func TestAdvertise(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"plain", askEthernet + askPacket, "00005e005301 00005e004364" + answerPacket},
		{"VLAN", askEthernet + "8100 002a" + askPacket, "00005e005301 00005e004364 8100 002a" + answerPacket},
		{"short", askEthernet + askPacket[:100], ""},
		{"empty", "", ""},
		{"IPv4", askEthernet + strings.Replace(askPacket, "86dd", "0800", 1), ""},
		{"looks for duplicates", askEthernet + strings.Replace(askPacket, "20010db8000100000000000000000002", strings.Repeat("0", 32), 1), ""},
		{"forwarded", askEthernet + strings.Replace(askPacket, "3a ff", "3a fe", 1), ""},
		{"advertisement", askEthernet + strings.Replace(askPacket, "87 00", "88 00", 1), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok := advertise(unhex(t, tt.in))
			if ok != (tt.want != "") {
				t.Fatalf("answered: %v", ok)
			}
			if !ok {
				return
			}
			ip := got[bytes.Index(got, unhex(t, "86dd"))+2:]
			sum := ip[ipv6Header+2 : ipv6Header+4]
			want := unhex(t, strings.Replace(tt.want, "%%", hex.EncodeToString(sum), 1))
			if !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
			if again := checksum(ip); again != 0 { // over the checksum too
				t.Errorf("checksum %x is wrong", sum)
			}
		})
	}
}

func FuzzAdvertise(f *testing.F) {
	f.Add(unhex(f, askEthernet+askPacket))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = advertise(b) })
}
