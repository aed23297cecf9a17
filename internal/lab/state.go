// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// errNotUp is returned for a lab that has left no state.
var errNotUp = errors.New("not up")

// state is what a lab has on the host, as recorded in its directory.
type state struct {
	Options Options `json:"options"`
	// Ready is set when everything was made, so that a check makes sense.
	Ready      bool      `json:"ready"`
	Namespaces []string  `json:"namespaces"`
	Processes  []running `json:"processes"`
}

// running is a process that was started.
type running struct {
	Name      string `json:"name"`
	PID       int    `json:"pid"`
	Namespace string `json:"namespace"`
	Log       string `json:"log"`
	Config    string `json:"config,omitempty"`
}

// store is the locked directory of a lab.
type store struct {
	dir  string
	lock *os.File
}

func (s *store) path() string { return filepath.Join(s.dir, "state.json") }

// openStore locks the directory of a lab. With create it is made if need be;
// otherwise errNotUp tells that there is none.
func openStore(dir string, create bool) (*store, error) {
	if create {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make state directory: %w", err)
		}
	}
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotUp
	}
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("another bagpipe lab command is working on it")
		}
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	// The lock is worthless if a "down" removed the directory just before.
	held, errHeld := f.Stat()
	there, errThere := os.Stat(dir)
	if errHeld != nil || errThere != nil || !os.SameFile(held, there) {
		_ = f.Close()
		return nil, errors.New("another bagpipe lab command has just worked on it; try again")
	}
	return &store{dir: dir, lock: f}, nil
}

// close gives up the lock.
func (s *store) close() { _ = s.lock.Close() }

// load reads the state. It is errNotUp when nothing was recorded.
func (s *store) load() (*state, error) {
	text, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotUp
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	var st state
	if err := json.Unmarshal(text, &st); err != nil {
		return nil, fmt.Errorf("read state %s: %w", s.path(), err)
	}
	return &st, nil
}

// save records the state; a reader finds the old or the new, nothing between.
func (s *store) save(st *state) error {
	text, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	tmp := s.path() + ".new"
	if err := os.WriteFile(tmp, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(tmp, s.path()); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// remove deletes the directory, and the one above when it was the last lab.
func (s *store) remove() error {
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove state directory: %w", err)
	}
	_ = os.Remove(filepath.Dir(s.dir)) // fails when there are other labs
	return nil
}
