// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/ebpf"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/linux"
	"github.com/bagpipe-vpn/bagpipe/internal/vethpair"
)

// Cleanup removes what the dataplane drivers of a stopped daemon have left in the
// network namespace of the calling thread, and returns what it removed. It goes on
// after an error.
func Cleanup(ctx context.Context, log *slog.Logger) (removed []string, err error) {
	for _, clean := range []func(context.Context, *slog.Logger) ([]string, error){
		ebpf.Cleanup, linux.Cleanup,
		func(context.Context, *slog.Logger) ([]string, error) { return vethpair.Sweep(nil) },
	} {
		list, cerr := clean(ctx, log)
		removed = append(removed, list...)
		err = errors.Join(err, cerr)
	}
	return removed, err
}
