// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
)

// cleaned is the result of a cleanup in JSON.
type cleaned struct {
	Removed []string `json:"removed"`
	failed  bool
}

func (e Env) cleanup(ctx context.Context, src config.Source) (cleaned, error) {
	if e.Cleanup == nil {
		return cleaned{failed: true}, errors.New("this build has no dataplane driver to clean up after")
	}
	removed, err := e.Cleanup(ctx, src, e.logger())
	if err != nil {
		err = fmt.Errorf("clean up: %w", err)
	}
	return cleaned{Removed: append([]string{}, removed...), failed: err != nil}, err
}

func (c cleaned) text(w io.Writer) error {
	for _, what := range c.Removed {
		if _, err := fmt.Fprintf(w, "removed %s\n", what); err != nil {
			return err
		}
	}
	if len(c.Removed) > 0 || c.failed {
		return nil
	}
	_, err := fmt.Fprintln(w, "nothing to remove")
	return err
}

func (t *tool) cleanupCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove the forwarding state that a stopped daemon has left on this host",
		Long: "Cleanup removes the interfaces, routes, neighbours and flows that the daemon's dataplane drivers made,\n" +
			"and nothing else. Flows of Open vSwitch are looked for if the daemon's configuration has driver ovs.\n" +
			"Stop the daemon first: cleanup does not look for it.",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := t.env.cleanup(cmd.Context(), config.Source{Files: []string{file}})
			// What was removed before the trouble is told too.
			return errors.Join(err, t.print(done, done.text))
		},
	}
	cmd.Flags().StringVar(&file, "config-file", t.env.ConfigFile, "daemon's configuration `file`, read for the Open vSwitch bridge")
	return cmd
}

// runBGPCleanup is the original's bagpipe-bgp-cleanup. It takes the daemon's
// options, of which the configuration files matter to it.
func runBGPCleanup(ctx context.Context, env Env, args []string) error {
	flags, err := config.ParseArgs(args)
	if err != nil {
		return &usageError{err: err}
	}
	switch {
	case flags.Help:
		_, err = io.WriteString(env.Stdout, "usage: bagpipe-bgp-cleanup [option]...\n\n"+
			"Removes what a stopped bagpipe-bgp has left on this host. Takes the options of bagpipe-bgp.\n")
		return err
	case flags.Version:
		_, err = fmt.Fprintf(env.Stdout, "bagpipe-bgp-cleanup %s\n", env.Version)
		return err
	}
	done, err := env.cleanup(ctx, flags.Source)
	return errors.Join(err, done.text(env.Stdout))
}
