// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// A gateway of the other IP version is a fault of the request.
func TestGatewayOfOtherVersion(t *testing.T) {
	t.Parallel()
	for ip, gateway := range map[string]string{"198.51.100.2": "2001:db8::1", "2001:db8::2": "198.51.100.1"} {
		e := endpoint("tap1", ip, 17)
		if err := checkEnd(&e); err != nil {
			t.Fatal(err)
		}
		e.Gateway = netip.MustParseAddr(gateway)
		var refused *dataplane.InputError
		if err := checkEnd(&e); !errors.As(err, &refused) || refused.Field != "gateway_ip" {
			t.Errorf("%s with gateway %s: %v, want gateway_ip refused", ip, gateway, err)
		}
	}
}
