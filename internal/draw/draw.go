// SPDX-License-Identifier: Apache-2.0

// Package draw makes pictures of DOT text, by a Graphviz that is inside the
// program. To import it costs half a second at every start, so only programs that
// do nothing else should.
package draw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/goccy/go-graphviz"

	"github.com/bagpipe-vpn/bagpipe/internal/draw/nocache"
)

func init() { nocache.Undo() }

// Formats are those that Draw knows.
var Formats = []string{string(graphviz.SVG), string(graphviz.PNG)}

// one is held while a picture is made: there is one Graphviz in the program.
var one sync.Mutex

// Draw makes a picture, in one of Formats, of a graph in the DOT language.
func Draw(ctx context.Context, dot []byte, format string) ([]byte, error) {
	if len(bytes.TrimSpace(dot)) == 0 {
		return nil, errors.New("there is no graph")
	}
	one.Lock()
	defer one.Unlock()
	g, err := newGraphviz(ctx)
	if err != nil {
		return nil, fmt.Errorf("start Graphviz: %w", err)
	}
	defer func() { _ = g.Close() }() // returns warnings, and those of other graphs
	graph, err := graphviz.ParseBytes(dot)
	if err != nil {
		return nil, fmt.Errorf("read the graph: %w", err)
	}
	defer func() { _ = graph.Close() }()
	var out bytes.Buffer
	if err := g.Render(ctx, graph, graphviz.Format(format), &out); err != nil {
		return nil, fmt.Errorf("draw the graph: %w", err)
	}
	return out.Bytes(), nil
}
