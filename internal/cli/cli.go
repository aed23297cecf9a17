// SPDX-License-Identifier: Apache-2.0

// Package cli is the operator's tool: the command "bagpipe" with its
// subcommands, and the commands of the original that it stands in for.
//
// Run looks at the name the program was called by. Under an old name
// (bagpipe-rest-attach, bagpipe-looking-glass, bagpipe-impex2dot,
// bagpipe-fakerr, bagpipe-bgp-cleanup) it takes the old options and prints in the old format;
// under any other it is "bagpipe". The old commands and the new ones share all
// that lies below options and output.
//
// Errors go to the standard error stream. The exit status is 0 when all is
// well, 1 when something failed and 2 when the command line is wrong.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Env is what the commands need from the process they run in. Zero values mean
// nothing to read, output discarded, and a feature that is not there.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Version of the program.
	Version string
	// ConfigFile tells where the API is when no option does; empty means the
	// daemon's default file. It need not exist.
	ConfigFile string
	// Getenv returns a variable of the environment, "" for none.
	Getenv func(string) string
	// Cleanup takes away what the dataplane drivers have left, and tells what. The
	// daemon's configuration, which need not exist, says where some drivers leave it.
	Cleanup func(context.Context, config.Source, *slog.Logger) ([]string, error)
}

func (e Env) withDefaults() Env {
	if e.Stdout == nil {
		e.Stdout = io.Discard
	}
	if e.Stderr == nil {
		e.Stderr = io.Discard
	}
	if e.ConfigFile == "" {
		e.ConfigFile = config.DefaultFile
	}
	return e
}

// logger returns a logger for what a command has to say while it works.
func (e Env) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(e.Stderr, nil))
}

// Run runs the command that args stand for, args[0] being the name of the
// program, and returns the exit status of the process.
func Run(ctx context.Context, env Env, args []string) int {
	env = env.withDefaults()
	name, run := filepath.Base(args[0]), runBagpipe
	switch name {
	case "bagpipe-rest-attach":
		run = runRESTAttach
	case "bagpipe-looking-glass":
		run = runLookingGlass
	case "bagpipe-impex2dot":
		run = runImpex2dot
	case "bagpipe-fakerr":
		run = runFakeRR
	case "bagpipe-bgp-cleanup":
		run = runBGPCleanup
	default:
		name = "bagpipe"
	}
	err := run(ctx, env, args[1:])
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(env.Stderr, "%s: %v\nTry '%s --help'.\n", name, err, usage.command(name))
		return exitUsage
	default:
		_, _ = fmt.Fprintf(env.Stderr, "%s: %v\n", name, err)
		return exitFailed
	}
}

// errReported is the error of a command that has told the user already.
var errReported = errors.New("reported")

// usageError is a command line that cannot be carried out.
type usageError struct {
	err error
	// path is the full name of the subcommand, if known.
	path string
}

// Error implements error.
func (e *usageError) Error() string { return e.err.Error() }

// Unwrap returns the reason.
func (e *usageError) Unwrap() error { return e.err }

func (e *usageError) command(name string) string {
	if e.path != "" {
		return e.path
	}
	return name
}

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}
