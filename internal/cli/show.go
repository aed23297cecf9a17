// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// shower carries out "bagpipe show" against one daemon.
type shower struct {
	*tool
	server  serverOptions
	recurse bool
	client  *client.Client
}

func (t *tool) showCommand() *cobra.Command {
	s := &shower{tool: t}
	cmd := &cobra.Command{
		Use:   "show [path...]",
		Short: "Show the state of a daemon",
		Long: "Show reads the looking glass of a daemon. summary, peers, peer, instances, ports and routes are\n" +
			"tables; any other path is printed as a tree, and without a path the top of the tree.",
		Example: "  bagpipe show summary\n  bagpipe show peer 192.0.2.1\n  bagpipe show routes evpn\n  bagpipe show vpns instances red best_routes\n" +
			"  bagpipe -o json show bgp peers",
		Args: cobra.ArbitraryArgs,
		RunE: s.run(s.tree),
	}
	s.server.addFlags(cmd.PersistentFlags(), t.env)
	cmd.Flags().BoolVarP(&s.recurse, "recurse", "r", false, "show what is behind the references too")
	peer := &cobra.Command{
		Use: "peer address", Short: "Show all about a BGP peer", Args: usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completePeers(&s.server), RunE: s.run(s.peer),
	}
	cmd.AddCommand(peer)
	for _, sub := range []struct {
		use, short string
		show       func(context.Context, []string) error
	}{
		{"summary", "Show the counts and the version", s.summary},
		{"peers", "List the BGP peers", s.peers},
		{"instances", "List the VPN instances", s.instances},
		{"ports [instance]...", "List the endpoints of all or some instances", s.ports},
		{"routes [family]...", "List the routes, of all families or those whose name has a text in it", s.routes},
	} {
		cmd.AddCommand(&cobra.Command{Use: sub.use, Short: sub.short, Args: cobra.ArbitraryArgs, RunE: s.run(sub.show)})
	}
	return cmd
}

// run makes a cobra function of one of ours that finds its client made.
func (s *shower) run(show func(context.Context, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) (err error) {
		if s.client, err = s.server.client(); err != nil {
			return err
		}
		return show(cmd.Context(), args)
	}
}

// get reads an object of the looking glass.
func (s *shower) get(ctx context.Context, path ...string) (client.Object, error) {
	v, err := s.client.LookingGlass(ctx, path...)
	if err != nil {
		return nil, readError(err, path)
	}
	o, ok := v.(client.Object)
	if !ok {
		return nil, fmt.Errorf("read %s: the daemon did not send an object", strings.Join(path, " "))
	}
	return o, nil
}

// list reads a collection of the looking glass.
func (s *shower) list(ctx context.Context, path ...string) ([]client.Object, error) {
	v, err := s.client.LookingGlass(ctx, path...)
	if err != nil {
		return nil, readError(err, path)
	}
	items, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("read %s: the daemon did not send a list", strings.Join(path, " "))
	}
	list := make([]client.Object, 0, len(items))
	for _, item := range items {
		if o, ok := item.(client.Object); ok {
			list = append(list, o)
		}
	}
	return list, nil
}

func readError(err error, path []string) error {
	return fmt.Errorf("read %s: %w", strings.Join(path, " "), err)
}

// tree prints any path, in text as the original's tool does.
func (s *shower) tree(ctx context.Context, words []string) error {
	g := glass{client: s.client, recurse: s.recurse}
	base := strings.TrimSuffix(s.client.URL(""), "/")
	target := glassURL(base, lookingGlassPrefix, words)
	if s.output == outputJSON {
		v, _, err := g.fetch(ctx, target)
		if err != nil {
			return showError(err, words)
		}
		return s.print(v, nil)
	}
	if err := g.print(ctx, s.env.Stdout, target); err != nil {
		return showError(err, words)
	}
	return nil
}

func showError(err error, words []string) error {
	var refused *client.Error
	if errors.As(err, &refused) && refused.Code == 404 {
		return fmt.Errorf("there is no %q in the looking glass", strings.Join(words, " "))
	}
	return err
}

// summary prints the counts, two columns wide. With words it is the path below
// the summary.
func (s *shower) summary(ctx context.Context, words []string) error {
	if len(words) > 0 {
		return s.tree(ctx, append([]string{"summary"}, words...))
	}
	o, err := s.get(ctx, "summary")
	if err != nil {
		return err
	}
	return s.print(o, func(w io.Writer) error {
		return table(w, "ITEM|VALUE", summaryRows(o))
	})
}

// summaryRows flattens the summary: a nested object gives one row a member.
func summaryRows(o client.Object) [][]string {
	var rows [][]string
	for _, m := range o {
		if sub, ok := m.Value.(client.Object); ok {
			rows = append(rows, summaryRows(sub)...)
			continue
		}
		rows = append(rows, []string{strings.ReplaceAll(m.Name, "_", " "), scalar(m.Value)})
	}
	return rows
}
