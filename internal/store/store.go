// SPDX-License-Identifier: Apache-2.0

// Package store keeps records by name in a file, so that they outlive the daemon. What is
// staged at the same time is written together, and once written it is on disk.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	fileName = "state.db"
	// lockWait is how long Open waits for another process to let go of the file.
	lockWait = time.Second
)

// retryAfter is the pause before records that could not be written are tried again; tests shorten it.
var retryAfter = time.Second

// Change replaces the record of a name, or deletes it when Value is nil.
type Change struct {
	Name  string
	Value []byte
}

// Store is the file with its records. Its methods may be called concurrently.
type Store struct {
	path string
	log  *slog.Logger
	db   *bolt.DB
	kept bool
	done chan struct{}

	mu      sync.Mutex
	wake    sync.Cond
	dirty   map[string][]byte // not handed to a transaction yet
	staged  uint64            // batches so far: the one that Stage adds to now
	tried   uint64            // batches that were written, or failed to be
	changed chan struct{}     // closed when tried grows
	err     error             // of the last attempt
	since   time.Time         // of err
	errors  uint64            // attempts that failed
	writing int               // records handed to a transaction
	closed  bool
}

// Open opens the store of a directory, which is made when it is not there. A file that is
// damaged, or has another format, is moved aside with an error in the log; those records that
// can be read stay, unless the format is another one. The error tells of a directory that cannot be
// used, or is used by another process.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	s := &Store{path: filepath.Join(dir, fileName), log: log, dirty: map[string][]byte{}, done: make(chan struct{}), changed: make(chan struct{})}
	s.wake.L = &s.mu
	if err := s.open(); err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

// open opens the file, or makes a new one.
func (s *Store) open() error {
	info, err := os.Stat(s.path)
	isNew := err != nil || info.Size() == 0
	records, damage, err := s.openFile()
	switch {
	case err != nil:
		return err
	case damage == nil:
		s.kept = !isNew
		return nil
	}
	aside := s.path + ".damaged"
	for n := 2; exists(aside); n++ {
		aside = fmt.Sprintf("%s.damaged-%d", s.path, n)
	}
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("move damaged state aside: %w", err)
	}
	s.log.Error("state of the last run is damaged: moved aside", "file", s.path, "to", aside, "records_saved", len(records), "err", damage)
	if _, damage, err = s.openFile(); err != nil || damage != nil {
		return errors.Join(err, damage)
	}
	return s.write(records)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Kept tells whether the records are all those of the last run: false when there was none, or
// its file was damaged.
func (s *Store) Kept() bool { return s.kept }

// Stage notes changes. They are written in the order of calls, all of one call together. The
// function that it returns waits until they are on disk, or could not be written at first: they
// are tried again then.
func (s *Store) Stage(changes ...Change) (wait func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		s.dirty[c.Name] = c.Value
	}
	mine := s.staged
	s.wake.Signal()
	return func(ctx context.Context) { s.wait(ctx, mine) }
}

func (s *Store) wait(ctx context.Context, batch uint64) {
	for {
		s.mu.Lock()
		done, changed := s.tried > batch || s.closed, s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// Trouble returns since when records are not on disk, and why; no error when all are.
func (s *Store) Trouble() (since time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since, s.err
}

// Stats returns how many records are not on disk, and how many attempts to write have failed.
func (s *Store) Stats() (unwritten int, failed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dirty) + s.writing, s.errors
}

// Close writes what is staged and closes the file.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.wake.Signal()
	s.mu.Unlock()
	<-s.done
	_, err := s.Trouble()
	return errors.Join(err, s.db.Close())
}

// run writes what is staged, all that there is at a time.
func (s *Store) run() {
	defer close(s.done)
	for {
		s.mu.Lock()
		for len(s.dirty) == 0 && !s.closed {
			s.wake.Wait()
		}
		batch, last := s.dirty, s.closed
		s.writing = len(batch)
		s.dirty = map[string][]byte{}
		s.staged++
		s.mu.Unlock()
		var err error
		if len(batch) > 0 {
			if err = s.write(batch); err != nil {
				s.dropAbsent(batch)
			}
		}
		s.wrote(batch, err)
		if last {
			close(s.changed)
			return
		}
		if err != nil {
			s.pause()
		}
	}
}

// wrote notes the end of an attempt to write a batch.
func (s *Store) wrote(batch map[string][]byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = 0
	if err != nil {
		s.errors++
		maps.Copy(batch, s.dirty) // later changes count
		s.dirty = batch
		if len(batch) == 0 {
			err = nil // all that is left is on disk
		}
	}
	switch {
	case err != nil && s.err == nil:
		s.since = time.Now()
		s.log.Error("state cannot be written, will retry: a restart now would lose it", "file", s.path, "err", err)
	case err == nil && s.err != nil:
		s.log.Info("state is written again", "file", s.path)
	}
	s.err = err
	s.tried = s.staged
	if !s.closed {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// pause waits before the next attempt, unless the store is closed meanwhile.
func (s *Store) pause() {
	timer := time.AfterFunc(retryAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wake.Signal()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.wake.Wait()
	}
}
