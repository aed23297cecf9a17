// SPDX-License-Identifier: Apache-2.0

package ethernet

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMAC(t *testing.T) {
	t.Parallel()
	want := MAC{0x00, 0x11, 0x22, 0xaa, 0xbb, 0xff}
	tests := []struct {
		name string
		in   string
		want MAC
		bad  bool
	}{
		{name: "OK colons", in: "00:11:22:aa:bb:ff", want: want},
		{name: "OK upper case", in: "00:11:22:AA:BB:FF", want: want},
		{name: "OK short groups", in: "0:11:22:aa:bb:ff", want: want},
		{name: "OK hyphens", in: "00-11-22-aa-bb-ff", want: want},
		{name: "OK dots", in: "0011.22aa.bbff", want: want},
		{name: "OK short dotted groups", in: "11.22aa.bbff", want: want},
		{name: "OK digits only", in: "001122aabbff", want: want},
		{name: "bad empty", in: "", bad: true},
		{name: "bad five octets", in: "00:11:22:aa:bb", bad: true},
		{name: "bad seven octets", in: "00:11:22:aa:bb:ff:00", bad: true},
		{name: "bad EUI-64", in: "0011.22aa.bbff.0000", bad: true},
		{name: "bad long group", in: "000:11:22:aa:bb:ff", bad: true},
		{name: "bad empty group", in: "00::22:aa:bb:ff", bad: true},
		{name: "bad mixed separators", in: "00:11:22-aa:bb:ff", bad: true},
		{name: "bad digits", in: "00:11:22:aa:bb:fg", bad: true},
		{name: "bad eleven digits", in: "001122aabbf", bad: true},
		{name: "bad twelve letters", in: "hello world!", bad: true},
		{name: "bad space", in: " 00:11:22:aa:bb:ff", bad: true},
		{name: "bad not ASCII", in: "00:11:22:aa:bb:é", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseMAC(tt.in)
			if (err != nil) != tt.bad {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if err != nil && !strings.Contains(err.Error(), `"`+tt.in+`"`) {
				t.Errorf("error does not name the text: %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("MAC (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMACProperties(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		in        MAC
		text      string
		zero      bool
		multicast bool
	}{
		{name: "zero", text: "00:00:00:00:00:00", zero: true},
		{name: "unicast", in: MAC{0x02, 0, 0, 0, 0, 0x0a}, text: "02:00:00:00:00:0a"},
		{name: "multicast", in: MAC{0x01, 0, 0x5e, 0, 0, 1}, text: "01:00:5e:00:00:01", multicast: true},
		{name: "broadcast", in: MAC{255, 255, 255, 255, 255, 255}, text: "ff:ff:ff:ff:ff:ff", multicast: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.text, tt.in.String()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			if tt.in.IsZero() != tt.zero || tt.in.IsMulticast() != tt.multicast {
				t.Errorf("zero %v multicast %v, want %v %v", tt.in.IsZero(), tt.in.IsMulticast(), tt.zero, tt.multicast)
			}
			back, err := ParseMAC(tt.in.String())
			if err != nil || back != tt.in {
				t.Errorf("read back %v, %v", back, err)
			}
		})
	}
}

func TestMACInJSON(t *testing.T) {
	t.Parallel()
	in := map[MAC]MAC{{2, 0, 0, 0, 0, 1}: {2, 0, 0, 0, 0, 2}}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"02:00:00:00:00:01":"02:00:00:00:00:02"}`, string(b)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	var got map[MAC]MAC
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	m := MAC{1, 2, 3, 4, 5, 6}
	if err := json.Unmarshal([]byte(`"nonsense"`), &m); err == nil || m != (MAC{1, 2, 3, 4, 5, 6}) {
		t.Errorf("error %v, MAC became %v", err, m)
	}
}
