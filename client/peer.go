// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"unicode/utf8"
)

// peerRequest is the body of an operation on a BGP peer.
type peerRequest struct {
	Message  string   `json:"message,omitempty"`
	Families []string `json:"families,omitempty"`
}

// ShutdownPeer closes the session with a BGP peer and keeps it down until
// EnablePeer or the end of the daemon. Message, at most 255 octets of UTF-8, is
// told to the peer's operator (RFC 9003); "" is not.
func (c *Client) ShutdownPeer(ctx context.Context, address, message string) error {
	return c.operate(ctx, address, "shutdown", peerRequest{Message: message})
}

// EnablePeer lets a BGP peer connect that was shut down, or that is held down
// because it sent more routes than it may. On any other it has no effect.
func (c *Client) EnablePeer(ctx context.Context, address string) error {
	return c.operate(ctx, address, "enable", peerRequest{})
}

// ResetPeer closes the session with a BGP peer, which both sides then make
// anew. Message is that of ShutdownPeer. An *Error with Code 409 says that there
// is no session.
func (c *Client) ResetPeer(ctx context.Context, address, message string) error {
	return c.operate(ctx, address, "reset", peerRequest{Message: message})
}

// RefreshPeer asks a BGP peer for its routes again (RFC 2918): those of the
// families, written as "l2vpn/evpn", or of all families of the session when there
// are none. An *Error with Code 409 says that the session cannot do that.
func (c *Client) RefreshPeer(ctx context.Context, address string, families ...string) error {
	return c.operate(ctx, address, "refresh", peerRequest{Families: families})
}

func (c *Client) operate(ctx context.Context, address, operation string, req peerRequest) error {
	if !utf8.ValidString(req.Message) {
		return fmt.Errorf("message %q is not valid: want UTF-8", req.Message)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request to %s a peer: %w", operation, err)
	}
	_, err = okBody(c.do(ctx, http.MethodPost, c.URL("bgp", "peers", address, operation), body))
	return err
}
