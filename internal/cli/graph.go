// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/graph"
)

// Programs that make a picture of DOT: ours, and Graphviz's own.
const (
	drawer    = "bagpipe-dot"
	hostsDraw = "dot"
)

// graphSource tells which daemons to read relations of instances from.
type graphSource struct {
	hosts  []string
	server serverOptions
	prefix string
}

func (g *graphSource) addFlags(fs *pflag.FlagSet, env Env, host string) {
	fs.StringArrayVar(&g.hosts, "server", []string{host}, "`host` that a daemon runs on; repeatable")
	g.server.addPortFlags(fs, env)
	fs.StringVar(&g.prefix, "prefix", lookingGlassPrefix, "path of the looking glass on the servers")
}

// read asks all daemons at once. A picture without one of them would be a false
// one, so it returns all or an error.
func (g *graphSource) read(ctx context.Context) ([]graph.Server, error) {
	var hosts []string
	for _, h := range g.hosts {
		if !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	servers, failed := make([]graph.Server, len(hosts)), make([]error, len(hosts))
	var wg sync.WaitGroup
	for n, h := range hosts {
		one := g.server
		one.host = h
		c, err := one.client()
		if err != nil {
			failed[n] = err
			continue
		}
		wg.Go(func() {
			servers[n], failed[n] = graph.Glass{Name: h, Client: c, Path: g.prefix}.Read(ctx)
		})
	}
	wg.Wait()
	return servers, errors.Join(failed...)
}

// runImpex2dot is the original's bagpipe-impex2dot.
func runImpex2dot(ctx context.Context, env Env, args []string) error {
	var source graphSource
	fs := pflag.NewFlagSet("bagpipe-impex2dot", pflag.ContinueOnError)
	source.addFlags(fs, env, "localhost")
	help, err := parseOld(fs, env, "bagpipe-impex2dot [option]... | dot -Tpdf >graph.pdf", args)
	if help || err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usagef("unexpected argument %q", fs.Arg(0))
	}
	servers, err := source.read(ctx)
	if err != nil {
		return err
	}
	_, err = io.WriteString(env.Stdout, graph.DOT(servers))
	return err
}

// graphFormat is the value of --format.
type graphFormat string

var graphFormats = []string{"text", "dot", "svg", "png", "json"}

// String implements pflag.Value.
func (f *graphFormat) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *graphFormat) Type() string { return "format" }

// Set implements pflag.Value.
func (f *graphFormat) Set(s string) error {
	if !slices.Contains(graphFormats, s) {
		return errors.New("must be one of " + strings.Join(graphFormats, ", "))
	}
	*f = graphFormat(s)
	return nil
}

// grapher carries out "bagpipe graph".
type grapher struct {
	*tool
	source graphSource
	format graphFormat
	file   string
}

func (t *tool) graphCommand() *cobra.Command {
	g := &grapher{tool: t, format: "text"}
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Show how VPN instances are related by route targets",
		Long: "graph reads the instances of one or several daemons and shows who exports to which route target, who\n" +
			"imports it, what is re-advertised, what traffic is attracted, and which E-VPN is plugged into which VRF.",
		Example: "  bagpipe graph\n  bagpipe graph --server node-a --server node-b --format svg --output-file vpns.svg\n" +
			"  bagpipe graph --format dot | dot -Tpdf >vpns.pdf",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return g.run(cmd) },
	}
	g.source.addFlags(cmd.Flags(), t.env, defaultHost)
	cmd.Flags().Var(&g.format, "format", strings.Join(graphFormats[:4], ", ")+" or json")
	cmd.Flags().StringVar(&g.file, "output-file", "", "`file` to write to (default: standard output)")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(graphFormats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (g *grapher) run(cmd *cobra.Command) error {
	// "-o json" is for all commands, so it is here, too.
	if g.output == outputJSON {
		if cmd.Flags().Changed("format") && g.format != "json" {
			return &usageError{err: fmt.Errorf("-o json and --format %s exclude each other", g.format), path: cmd.CommandPath()}
		}
		g.format = "json"
	}
	if g.format == "png" && g.file == "" && isTerminal(g.env.Stdout) {
		return &usageError{err: errors.New("a terminal does not show PNG: use --output-file"), path: cmd.CommandPath()}
	}
	servers, err := g.source.read(cmd.Context())
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := g.write(cmd.Context(), &out, servers); err != nil {
		return err
	}
	if g.file != "" {
		return os.WriteFile(g.file, out.Bytes(), 0o666)
	}
	_, err = g.env.Stdout.Write(out.Bytes())
	return err
}

// write writes the relations in the format that is asked for.
func (g *grapher) write(ctx context.Context, w *bytes.Buffer, servers []graph.Server) error {
	switch g.format {
	case "json":
		return writeJSON(w, servers)
	case "dot":
		w.WriteString(graph.DOT(servers))
	case "svg", "png":
		return drawDOT(ctx, w, graph.DOT(servers), string(g.format))
	default:
		w.WriteString(graph.Text(servers))
	}
	return nil
}

// drawDOT has another program make a picture.
func drawDOT(ctx context.Context, w io.Writer, dot, format string) error {
	path, err := findDrawer()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "-T"+format)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(dot), w, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("draw the graph: %s: %w: %s", path, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// findDrawer returns the program that makes pictures: ours, beside this one or
// on PATH, else that of Graphviz.
func findDrawer() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	for _, name := range []string{filepath.Join(filepath.Dir(self), drawer), drawer, hostsDraw} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("draw the graph: %s is not in %s and not on PATH, nor is Graphviz's %s", drawer, filepath.Dir(self), hostsDraw)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
