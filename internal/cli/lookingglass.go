// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/pflag"

	"github.com/bagpipe-vpn/bagpipe/client"
)

const lookingGlassPrefix = "looking-glass"

// maxReferences bounds how many hrefs are followed one after the other, so that
// a daemon whose hrefs lead in circles cannot hold the tool.
const maxReferences = 32

// glass reads a looking glass by URL.
type glass struct {
	client *client.Client
	// recurse follows the hrefs below the URL that is shown.
	recurse bool
}

// fetch reads a URL. A reply that is nothing but a reference to another place is
// replaced by what is there.
func (g glass) fetch(ctx context.Context, target string) (v any, at string, err error) {
	for range maxReferences {
		body, err := g.client.Get(ctx, target)
		if err != nil {
			return nil, target, err
		}
		v, err := client.ParseJSON(body)
		if err != nil {
			return nil, target, fmt.Errorf("read %s: %w", target, err)
		}
		o, _ := v.(client.Object)
		href := o.Text("href")
		if href == "" {
			return v, target, nil
		}
		target = href
	}
	return nil, target, errors.New("the references of the looking glass lead nowhere")
}

// print reads a URL and writes it as a tree.
func (g glass) print(ctx context.Context, w io.Writer, target string) error {
	v, at, err := g.fetch(ctx, target)
	if err != nil {
		return err
	}
	follow := func(current, href string) (any, bool) {
		if !g.recurse || len(href) <= len(current) || !strings.HasPrefix(href, current) {
			return nil, false
		}
		v, _, err := g.fetch(ctx, href)
		return v, err == nil
	}
	return printTree(w, at, v, follow)
}

// glassURL returns the URL of a path of the looking glass. A slash in a word
// separates, as it does in the original.
func glassURL(base, prefix string, words []string) string {
	target := base + "/" + strings.Trim(prefix, "/")
	for w := range strings.SplitSeq(strings.Join(words, "/"), "/") {
		if w != "" {
			target += "/" + url.PathEscape(w)
		}
	}
	return target
}

// runLookingGlass is the original's bagpipe-looking-glass. It ends with status
// 0 whatever the daemon says, as scripts expect.
func runLookingGlass(ctx context.Context, env Env, args []string) error {
	var server serverOptions
	var prefix string
	var g glass
	fs := pflag.NewFlagSet("bagpipe-looking-glass", pflag.ContinueOnError)
	server.addFlags(fs, env)
	fs.StringVar(&prefix, "prefix", lookingGlassPrefix, "path of the looking glass on the server")
	fs.BoolVarP(&g.recurse, "recurse", "r", false, "show what is behind the references too")
	help, err := parseOld(fs, env, "bagpipe-looking-glass [option]... [word]...", args)
	if help || err != nil {
		return err
	}
	if g.client, err = server.client(); err != nil {
		return err
	}
	base := strings.TrimSuffix(g.client.URL(""), "/")
	target := glassURL(base, prefix, fs.Args())
	err = g.print(ctx, env.Stdout, target)
	var refused *client.Error
	var noServer *url.Error
	switch {
	case errors.As(err, &refused) && refused.Code == 404:
		_, err = fmt.Fprintf(env.Stdout, "No such looking glass path: %s\n%s\n", strings.Join(fs.Args(), " "), target)
	case errors.As(err, &refused):
		_, err = fmt.Fprintf(env.Stdout, "Error code %d: %s\n", refused.Code, refused.Body)
	case errors.As(err, &noServer):
		_, err = fmt.Fprintf(env.Stdout, "No server at %s\n", base)
	}
	return err
}
