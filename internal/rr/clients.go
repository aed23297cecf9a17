// SPDX-License-Identifier: Apache-2.0

package rr

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// clientLog writes one line when a client's session comes up and one when it
// goes down, and leaves out the states between. GoBGP calls event from one
// goroutine, so there is no lock.
type clientLog struct {
	log *slog.Logger
	up  map[netip.Addr]bool
	// came has a value when a client has come since it was last emptied.
	came chan struct{}
}

func (c *clientLog) event(e *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
	state := e.Peer.State
	client := state.NeighborAddress
	up := state.SessionState == bgp.BGP_FSM_ESTABLISHED
	switch {
	case up && !c.up[client]:
		c.up[client] = true
		c.log.Info("client came", "client", client, "router_id", state.RouterID, "clients", len(c.up))
		select {
		case c.came <- struct{}{}:
		default:
		}
	case !up && c.up[client]:
		delete(c.up, client)
		c.log.Info("client left", "client", client, "reason", state.DisconnectMessage, "clients", len(c.up))
	}
}

// HostRouterID returns the first IPv4 address of the host that is not a
// loopback address.
func HostRouterID() (netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, ErrNoRouterID
}

// limited drops what is below a level: GoBGP says a lot that a user of the
// reflector has no use for.
type limited struct {
	slog.Handler
	level slog.Leveler
}

func atLeast(level slog.Leveler, h slog.Handler) slog.Handler { return limited{h, level} }

// Enabled implements slog.Handler.
func (l limited) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= l.level.Level() && l.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (l limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limited{l.Handler.WithAttrs(attrs), l.level}
}

// WithGroup implements slog.Handler.
func (l limited) WithGroup(name string) slog.Handler {
	return limited{l.Handler.WithGroup(name), l.level}
}
