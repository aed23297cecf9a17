// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bagpipe-vpn/bagpipe/internal/rr"
)

// reflectorOptions are the options of a reflector.
type reflectorOptions struct {
	as       uint32
	routerID string
	listen   string
	prefixes []string
}

func (o *reflectorOptions) addFlags(fs *pflag.FlagSet) {
	fs.Uint32Var(&o.as, "as", rr.DefaultAS, "`AS` number of the reflector and its clients")
	fs.StringVar(&o.routerID, "router-id", "", "router and cluster `id` (default: the first IPv4 address of the host)")
	fs.StringVar(&o.listen, "listen", "", "`address`, :port or address:port to listen on (default: all addresses, port 179)")
	fs.StringArrayVar(&o.prefixes, "client-prefix", nil, "`prefix` that clients may connect from, repeatable (default: any)")
}

// config checks the options.
func (o *reflectorOptions) config(log *slog.Logger) (rr.Config, error) {
	cfg := rr.Config{AS: o.as, Log: log}
	if o.as == 0 {
		return cfg, usagef("--as: must not be 0")
	}
	for _, text := range o.prefixes {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return cfg, usagef("--client-prefix: %w", err)
		}
		cfg.ClientPrefixes = append(cfg.ClientPrefixes, p)
	}
	addr, port, err := parseListen(o.listen)
	if err != nil {
		return cfg, usagef("--listen: %w", err)
	}
	cfg.Port = port
	if addr.IsValid() {
		cfg.Listen = []netip.Addr{addr}
	}
	if o.routerID == "" {
		cfg.RouterID, err = rr.HostRouterID()
		if err != nil {
			return cfg, fmt.Errorf("choose a router id: %w; use --router-id", err)
		}
		return cfg, nil
	}
	cfg.RouterID, err = netip.ParseAddr(o.routerID)
	if err == nil && !cfg.RouterID.Is4() {
		err = fmt.Errorf("%s is not an IPv4 address", o.routerID)
	}
	if err != nil {
		return cfg, usagef("--router-id: %w", err)
	}
	return cfg, nil
}

// parseListen takes an address, a port after a colon, or both.
func parseListen(text string) (netip.Addr, uint16, error) {
	if text == "" {
		return netip.Addr{}, 0, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr, 0, nil
	}
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return netip.Addr{}, 0, fmt.Errorf("port %q is not in 1..65535", portText)
	}
	if host == "" {
		return netip.Addr{}, uint16(port), nil
	}
	addr, err := netip.ParseAddr(host)
	return addr, uint16(port), err
}

func (t *tool) rrCommand() *cobra.Command {
	var o reflectorOptions
	cmd := &cobra.Command{
		Use:   "rr",
		Short: "Run a small BGP route reflector for labs",
		Long: "rr reflects VPN routes (VPNv4, VPNv6, E-VPN, FlowSpec VPN, RT constraint) between all nodes\n" +
			"that connect to it. It runs until it gets SIGTERM or SIGINT. It is not meant for production.",
		Example: "  bagpipe rr --listen 192.0.2.1 --client-prefix 192.0.2.0/24",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := t.env.logger()
			if t.output == outputJSON {
				log = slog.New(slog.NewJSONHandler(t.env.Stderr, nil))
			}
			cfg, err := o.config(log)
			if err != nil {
				return err
			}
			return rr.Run(cmd.Context(), cfg)
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

// runFakeRR stands in for the original's bagpipe-fakerr, which joins two nodes
// without looking at what they say. This one is a reflector; to two nodes it is
// the same, and it takes more.
func runFakeRR(ctx context.Context, env Env, args []string) error {
	var o reflectorOptions
	fs := pflag.NewFlagSet("bagpipe-fakerr", pflag.ContinueOnError)
	o.addFlags(fs)
	help, err := parseOld(fs, env, "bagpipe-fakerr [option]...", args)
	if help || err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usagef("unexpected argument %q", fs.Arg(0))
	}
	cfg, err := o.config(env.logger())
	if err != nil {
		return err
	}
	return rr.Run(ctx, cfg)
}
