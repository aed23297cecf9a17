// SPDX-License-Identifier: Apache-2.0

package encap

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTypes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   Type
		want string
		bit  uint64
	}{
		{name: "default", in: Default, want: "Default", bit: 1},
		{name: "GRE", in: 2, want: "GRE", bit: 1 << 2},
		{name: "VXLAN", in: 8, want: "VXLAN", bit: 1 << 8},
		{name: "MPLS", in: 10, want: "MPLS", bit: 1 << 10},
		{name: "MPLS in UDP", in: 13, want: "MPLS-in-UDP", bit: 1 << 13},
		{name: "last with a bit of its own", in: 62, want: "encap-62", bit: 1 << 62},
		{name: "first without", in: 63, want: "encap-63", bit: 1 << 63},
		{name: "largest", in: 65535, want: "encap-65535", bit: 1 << 63},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, tt.in.String()); diff != "" {
				t.Errorf("name (-want +got):\n%s", diff)
			}
			if tt.in.Bit() != tt.bit {
				t.Errorf("bit %#x, want %#x", tt.in.Bit(), tt.bit)
			}
		})
	}
}
