// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// operated is the result of "bagpipe peer" in JSON.
type operated struct {
	Action   string   `json:"action"`
	Peer     string   `json:"peer"`
	Message  string   `json:"message,omitempty"`
	Families []string `json:"families,omitempty"`
}

// peerTool carries out "bagpipe peer" against one daemon.
type peerTool struct {
	*tool
	server serverOptions
}

func (t *tool) peerCommand() *cobra.Command {
	p := &peerTool{tool: t}
	cmd := group(&cobra.Command{
		Use:   "peer",
		Short: "Shut down, enable, reset or refresh a BGP peer",
		Long: "Peer operates the sessions of a daemon with its BGP peers, which stay as they are in the configuration.\n" +
			"What is shut down comes back with the daemon's next start.",
	})
	p.server.addFlags(cmd.PersistentFlags(), t.env)
	var o operated
	shutdown := p.command("shutdown", "shut down", "Close the session with a peer and keep it down", &o,
		func(ctx context.Context, c *client.Client) error { return c.ShutdownPeer(ctx, o.Peer, o.Message) })
	enable := p.command("enable", "enabled", "Let a peer connect that was shut down or is held down", &o,
		func(ctx context.Context, c *client.Client) error { return c.EnablePeer(ctx, o.Peer) })
	reset := p.command("reset", "reset", "Close the session with a peer and connect again", &o,
		func(ctx context.Context, c *client.Client) error { return c.ResetPeer(ctx, o.Peer, o.Message) })
	refresh := p.command("refresh", "asked for its routes", "Ask a peer for its routes again", &o,
		func(ctx context.Context, c *client.Client) error {
			return c.RefreshPeer(ctx, o.Peer, o.Families...)
		})
	for _, sub := range []*cobra.Command{shutdown, reset} {
		sub.Flags().StringVar(&o.Message, "message", "", "`text` for the peer's operator, at most 255 octets")
	}
	refresh.Flags().StringArrayVar(&o.Families, "family", nil, "address `family`, as l2vpn/evpn; repeatable (default: all of the session)")
	cmd.AddCommand(shutdown, enable, reset, refresh)
	return cmd
}

// command makes one operation; done is what it says when it is done.
func (p *peerTool) command(use, done, short string, o *operated, call func(context.Context, *client.Client) error) *cobra.Command {
	return &cobra.Command{
		Use:               use + " address",
		Short:             short,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completePeers(&p.server),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !utf8.ValidString(o.Message) {
				return usagef("--message: %q is not UTF-8", o.Message)
			}
			c, err := p.server.client()
			if err != nil {
				return err
			}
			o.Action, o.Peer = use, args[0]
			if err := call(cmd.Context(), c); err != nil {
				return err
			}
			return p.print(o, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s %s\n", o.Peer, done)
				return err
			})
		},
	}
}
