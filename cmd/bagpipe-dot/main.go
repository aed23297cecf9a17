// SPDX-License-Identifier: Apache-2.0

// Command bagpipe-dot draws graphs for "bagpipe graph": DOT on standard input
// becomes SVG or PNG on standard output. It takes the option -T as Graphviz's dot
// does. It is a program of its own because the Graphviz inside takes half a second
// to start, which no other command should pay.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/draw"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fail := func(status int, err error) int {
		_, _ = fmt.Fprintf(stderr, "bagpipe-dot: %v\n", err)
		return status
	}
	fs := flag.NewFlagSet("bagpipe-dot", flag.ContinueOnError)
	fs.SetOutput(stderr)
	format := fs.String("T", "svg", "`format` of the picture: "+strings.Join(draw.Formats, ", "))
	if err := fs.Parse(joined(args)); err != nil {
		return 2
	}
	if fs.NArg() > 0 || !slices.Contains(draw.Formats, *format) {
		return fail(2, fmt.Errorf("usage: bagpipe-dot [-T%s] <graph.dot", strings.Join(draw.Formats, "|")))
	}
	dot, err := io.ReadAll(stdin)
	if err != nil {
		return fail(1, fmt.Errorf("read the graph: %w", err))
	}
	picture, err := draw.Draw(context.Background(), dot, *format)
	if err != nil {
		return fail(1, err)
	}
	if _, err := stdout.Write(picture); err != nil {
		return fail(1, fmt.Errorf("write the picture: %w", err))
	}
	return 0
}

// joined takes -Tsvg apart, the way people write it for dot.
func joined(args []string) []string {
	var out []string
	for _, a := range args {
		if format, ok := strings.CutPrefix(a, "-T"); ok && format != "" && !strings.HasPrefix(format, "=") {
			a = "-T=" + format
		}
		out = append(out, a)
	}
	return out
}
