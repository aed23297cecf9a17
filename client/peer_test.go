// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPeerOperationsOnTheWire(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		call func(context.Context, *Client) error
		want []string // method, URI, body
	}{
		{
			"shutdown", func(ctx context.Context, c *Client) error { return c.ShutdownPeer(ctx, "192.0.2.1", "disk <swap>") },
			[]string{"POST", "/bgp/peers/192.0.2.1/shutdown", `{"message":"disk \u003cswap\u003e"}`},
		},
		{
			"enable", func(ctx context.Context, c *Client) error { return c.EnablePeer(ctx, "2001:db8::1") },
			[]string{"POST", "/bgp/peers/2001:db8::1/enable", `{}`},
		},
		{
			"reset of a link-local peer", func(ctx context.Context, c *Client) error { return c.ResetPeer(ctx, "fe80::1%eth0", "bye") },
			[]string{"POST", "/bgp/peers/fe80::1%25eth0/reset", `{"message":"bye"}`},
		},
		{
			"refresh", func(ctx context.Context, c *Client) error { return c.RefreshPeer(ctx, "192.0.2.1") },
			[]string{"POST", "/bgp/peers/192.0.2.1/refresh", `{}`},
		},
		{
			"refresh of some", func(ctx context.Context, c *Client) error {
				return c.RefreshPeer(ctx, "192.0.2.1", "l2vpn/evpn", "ipv4/rtc")
			},
			[]string{"POST", "/bgp/peers/192.0.2.1/refresh", `{"families":["l2vpn/evpn","ipv4/rtc"]}`},
		},
		{
			"an address with a slash stays one segment", func(ctx context.Context, c *Client) error { return c.EnablePeer(ctx, "../attach") },
			[]string{"POST", "/bgp/peers/..%2Fattach/enable", `{}`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, last := serve(t, 200, "null")
			if err := tt.call(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			method, uri, sent := last()
			if diff := cmp.Diff(tt.want, []string{method, uri, sent}); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPeerOperationRefused(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, 409, `{"code": 409, "title": "Conflict", "description": "API error: no session"}`)
	var refused *Error
	if err := c.ResetPeer(t.Context(), "192.0.2.1", ""); !errors.As(err, &refused) || refused.Code != 409 {
		t.Errorf("got %v, want an *Error with code 409", err)
	}
}

func TestPeerMessageMustBeText(t *testing.T) {
	t.Parallel()
	c, last := serve(t, 200, "null")
	if err := c.ShutdownPeer(t.Context(), "192.0.2.1", "\xff"); err == nil {
		t.Error("octets that are not UTF-8 were taken")
	}
	if method, _, _ := last(); method != "" {
		t.Error("a request was sent")
	}
}
