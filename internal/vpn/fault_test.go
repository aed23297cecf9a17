// SPDX-License-Identifier: Apache-2.0

package vpn_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/fake"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// What a driver has against the request is the client's to mend, and is found
// before an instance is made in the dataplane.
func TestDriverRefusesRequest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		before []vpn.Attachment
		verb   string
		field  string
	}{
		{"first port, when checked", nil, "check", "local_port"},
		{"bridge, when opened", nil, "open", "linuxbr"},
		{"first port, when plugged", nil, "apply", "local_port"},
		{"next port", []vpn.Attachment{evpn(1, "192.0.2.5")}, "apply", "local_port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{})
				n.attach(tt.before...)
				before := n.state()
				n.plane.Log()
				n.plane.FailWith(fmt.Errorf("driver: %w", &dataplane.InputError{Field: tt.field, Text: "tap2 does not exist"}), 1,
					func(o fake.Op) bool { return o.Verb == tt.verb && (tt.verb != "check" || o.Port == "tap2") })
				err := n.Attach(context.Background(), evpn(2, "192.0.2.6", onPort("tap2")))
				settle()
				wantRefused(t, err, tt.field)
				if err.Error() != tt.field+": tap2 does not exist" {
					t.Errorf("error %q", err)
				}
				if ops := n.plane.Log(); tt.verb == "check" && len(ops) != 1 {
					t.Errorf("operations %v, want the check alone", ops)
				}
				n.wantState(before)
				n.attach(evpn(2, "192.0.2.6", onPort("tap2")))
			})
		})
	}
}

func TestTooManyRouteTargets(t *testing.T) {
	t.Parallel()
	list := func(count int) (out []string) {
		for i := range count {
			out = append(out, fmt.Sprintf("64512:%d", i+1))
		}
		return out
	}
	for _, tt := range []struct {
		imports, exports int
		field            string
	}{
		{vpn.MaxRouteTargets, vpn.MaxRouteTargets, ""},
		{vpn.MaxRouteTargets + 1, 1, "import_rt"},
		{1, vpn.MaxRouteTargets + 1, "export_rt"},
		{1, 8192, "export_rt"},
	} {
		t.Run(fmt.Sprintf("%d and %d", tt.imports, tt.exports), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNode(t, setup{})
				n.attach(evpn(1, "192.0.2.5", named("green")))
				before := n.state()
				err := n.Attach(context.Background(), evpn(1, "192.0.2.5", imports(list(tt.imports)...), exports(list(tt.exports)...)))
				settle()
				wantRefused(t, err, tt.field)
				if err == nil {
					return
				}
				n.wantState(before)
				for _, word := range []string{fmt.Sprint(max(tt.imports, tt.exports)), fmt.Sprint(vpn.MaxRouteTargets)} {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("error %q does not contain %q", err, word)
					}
				}
			})
		})
	}
}
