// SPDX-License-Identifier: Apache-2.0

// Command bagpipe is the operator's tool of bagpipe-bgp: it attaches endpoints,
// shows the state of a daemon, cleans up after one, and runs a route reflector or
// a demo network. Called by an old name it is bagpipe-rest-attach,
// bagpipe-looking-glass, bagpipe-impex2dot, bagpipe-fakerr or
// bagpipe-bgp-cleanup. See docs/cli.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/bagpipe-vpn/bagpipe/internal/cli"
	"github.com/bagpipe-vpn/bagpipe/internal/daemon"
	"github.com/bagpipe-vpn/bagpipe/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	status := cli.Run(ctx, cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Version: version.String(), Cleanup: daemon.Cleanup,
	}, os.Args)
	stop()
	os.Exit(status)
}
