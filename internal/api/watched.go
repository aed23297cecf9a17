// SPDX-License-Identifier: Apache-2.0

package api

import (
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// settled is the age from which a file's time of modification tells its content:
// clocks of file systems are coarse, so that two writes can have one time.
const settled = 2 * time.Second

// watched is what some files are read as. It looks at them whenever it is asked,
// and reads them again when they have changed.
type watched[T any] struct {
	read  func() (T, error)
	paths []string
	log   *slog.Logger

	mu     sync.Mutex
	value  T
	state  []fs.FileInfo // nil: read at the next look
	failed string        // the last error of read; "" is none
}

// watch reads files for the first time. The error is that of read.
func watch[T any](log *slog.Logger, read func() (T, error), paths ...string) (*watched[T], error) {
	w := &watched[T]{read: read, paths: paths, log: log}
	w.state = w.look()
	var err error
	w.value, err = read()
	return w, err
}

// get returns what the files are read as, or were the last time that it worked.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	state := w.look()
	if same(w.state, state) {
		return w.value
	}
	w.state = state
	value, err := w.read()
	if err == nil {
		w.value, w.failed = value, ""
		return value
	}
	if err.Error() != w.failed {
		w.failed = err.Error()
		w.log.Warn("cannot read again what the API works with: what was read before holds", "err", err)
	}
	return w.value
}

// look returns the state of the files, or nil when it may not tell a later change.
func (w *watched[T]) look() []fs.FileInfo {
	var state []fs.FileInfo
	for _, path := range w.paths {
		info, err := os.Stat(path)
		if err != nil || time.Since(info.ModTime()) < settled {
			return nil
		}
		state = append(state, info)
	}
	return state
}

func same(a, b []fs.FileInfo) bool {
	if a == nil || b == nil {
		return false
	}
	for i := range a {
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}
