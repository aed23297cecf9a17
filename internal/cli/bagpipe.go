// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// outputFormat is the value of --output.
type outputFormat string

const (
	outputText outputFormat = "text"
	outputJSON outputFormat = "json"
)

// String implements pflag.Value.
func (f *outputFormat) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *outputFormat) Type() string { return "format" }

// Set implements pflag.Value.
func (f *outputFormat) Set(s string) error {
	switch outputFormat(s) {
	case outputText, outputJSON:
		*f = outputFormat(s)
		return nil
	}
	return errors.New("must be text or json")
}

// tool is one run of the command "bagpipe".
type tool struct {
	env    Env
	output outputFormat
}

// runBagpipe is the command "bagpipe".
func runBagpipe(ctx context.Context, env Env, args []string) error {
	t := &tool{env: env, output: outputText}
	root := t.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var usage *usageError
	if errors.As(err, &usage) && usage.path == "" {
		usage.path = cmd.CommandPath()
	}
	return err
}

func (t *tool) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "bagpipe",
		Short: "Operate a bagpipe-bgp node",
		Long: "bagpipe attaches endpoints to VPN instances of a bagpipe-bgp daemon, shows its state, draws how its\n" +
			"instances are related, operates its BGP peers, and runs a small route reflector or a whole demo\n" +
			"network for labs.",
		SilenceUsage: true, SilenceErrors: true,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(t.env.Stdin)
	root.SetOut(t.env.Stdout)
	root.SetErr(t.env.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err: err, path: cmd.CommandPath()}
	})
	root.PersistentFlags().VarP(&t.output, "output", "o", "how to print results: text or json")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{string(outputText), string(outputJSON)}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(t.attachCommand(), t.detachCommand(), t.showCommand(), t.graphCommand(),
		t.peerCommand(), t.rrCommand(), t.labCommand(), t.cleanupCommand(), t.versionCommand())
	return root
}

// usageArgs makes a wrong number of arguments an error of the command line.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err: err, path: cmd.CommandPath()}
		}
		return nil
	}
}

// group makes a command that only holds others.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return &usageError{err: fmt.Errorf("unknown command %q", args[0]), path: cmd.CommandPath()}
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

func (t *tool) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return t.print(map[string]string{"version": t.env.Version}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "bagpipe %s\n", t.env.Version)
				return err
			})
		},
	}
}

// print writes a result: v as JSON, or what text writes.
func (t *tool) print(v any, text func(io.Writer) error) error {
	if t.output == outputText {
		return text(t.env.Stdout)
	}
	return writeJSON(t.env.Stdout, v)
}

// writeJSON writes a value for people to read, too.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table writes rows in aligned columns below a heading. Empty cells show as "-".
func table(w io.Writer, heading string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	write := func(cells []string) {
		for i, c := range cells {
			if c == "" {
				cells[i] = "-"
			}
		}
		_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t")) // Flush returns the error
	}
	write(strings.Split(heading, "|"))
	for _, r := range rows {
		write(r)
	}
	return tw.Flush()
}
