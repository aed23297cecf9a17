// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"maps"
	"runtime/debug"
	"syscall"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// format is the version of what is in the file.
const format = "1"

var (
	metaBucket   = []byte("meta")
	recordBucket = []byte("records")
	formatKey    = []byte("format")
)

// errDamaged is what a record says whose checksum is wrong.
var errDamaged = errors.New("a record is damaged")

// openFile opens the file. It returns what is wrong with its contents, and then the records that
// are not.
func (s *Store) openFile() (saved map[string][]byte, damage, err error) {
	s.db, damage = openBolt(s.path)
	switch {
	case errors.Is(damage, bolterrors.ErrTimeout):
		return nil, nil, fmt.Errorf("%s is in use by another process", s.path)
	case errors.As(damage, new(*fs.PathError)), errors.As(damage, new(syscall.Errno)):
		return nil, nil, fmt.Errorf("open state: %w", damage)
	case damage != nil:
		return nil, damage, nil
	}
	switch damage, err = s.check(); {
	case err != nil:
		_ = guard(s.db.Close)
		return nil, nil, fmt.Errorf("write new state: %w", err)
	case damage == nil:
		return nil, nil, nil
	}
	saved = map[string][]byte{}
	_ = guard(func() error {
		for name, value := range s.all(&damage) {
			saved[name] = value
		}
		return nil
	})
	if errors.Is(damage, errFormat) {
		clear(saved)
	}
	_ = guard(s.db.Close)
	return saved, damage, nil
}

func openBolt(path string) (db *bolt.DB, err error) {
	fault := guard(func() error {
		db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType})
		return nil
	})
	return db, errors.Join(fault, err)
}

// errFault is what reading a file that is shorter than it says, or has pages that make no sense,
// ends with.
var errFault = errors.New("the file makes no sense")

// guard makes a panic of the library, and a fault of memory that the file no longer backs, an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errFault, p)
		}
	}()
	return f()
}

// errFormat is what a file says that another version of the daemon has written.
var errFormat = errors.New("the format is another one")

// check reads all of a file, and makes the buckets of a new one. That a new one cannot be
// written is no damage.
func (s *Store) check() (damage, err error) {
	isNew := false
	damage = guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			var have []byte
			if meta := tx.Bucket(metaBucket); meta != nil {
				have = meta.Get(formatKey)
			}
			if have != nil && string(have) != format {
				return fmt.Errorf("%w: %q, want %q", errFormat, have, format)
			}
			isNew = have == nil || tx.Bucket(recordBucket) == nil
			return nil
		})
	})
	if damage == nil && isNew {
		err = guard(s.makeBuckets)
		if errors.Is(err, errFault) {
			return err, nil
		}
	}
	if damage != nil || err != nil {
		return damage, err
	}
	fault := guard(func() error {
		for range s.all(&damage) {
		}
		return nil
	})
	return errors.Join(fault, damage), nil
}

// makeBuckets makes the buckets of a new file.
func (s *Store) makeBuckets() error {
	return s.db.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucketIfNotExists(recordBucket); err != nil {
			return err
		}
		return meta.Put(formatKey, []byte(format))
	})
}

// All returns the records in the file.
func (s *Store) All() iter.Seq2[string, []byte] {
	var damage error
	return s.all(&damage)
}

// Get returns the value of a record as it is on disk; nil when there is none or it is damaged.
func (s *Store) Get(name string) (value []byte) {
	_ = s.db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(recordBucket); b != nil {
			if v, ok := unseal(name, b.Get([]byte(name))); ok {
				value = v
			}
		}
		return nil
	})
	return value
}

// all passes over damaged records, and notes that there are some.
func (s *Store) all(damage *error) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		_ = s.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket(recordBucket)
			if b == nil {
				return nil
			}
			c := b.Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				value, ok := unseal(string(k), v)
				if !ok {
					*damage = fmt.Errorf("%w: %q", errDamaged, k)
					continue
				}
				if !yield(string(k), value) {
					return nil
				}
			}
			return nil
		})
	}
}

// write writes changes in one transaction, to disk.
func (s *Store) write(changes map[string][]byte) error {
	return guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(recordBucket)
			for name, value := range changes {
				var err error
				if value == nil {
					err = b.Delete([]byte(name))
				} else {
					err = b.Put([]byte(name), seal(name, value))
				}
				if err != nil {
					return fmt.Errorf("record %q: %w", name, err)
				}
			}
			return nil
		})
	})
}

// dropAbsent takes the deletions of records that are not in the file out of changes. What comes and goes
// while the disk is full would pile up in memory.
func (s *Store) dropAbsent(changes map[string][]byte) {
	_ = guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket(recordBucket)
			maps.DeleteFunc(changes, func(name string, value []byte) bool { return value == nil && b.Get([]byte(name)) == nil })
			return nil
		})
	})
}

// seal puts a checksum of name and value in front of a value.
func seal(name string, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, sum(name, value)), value...)
}

// unseal is the reverse of seal; the value is a copy.
func unseal(name string, b []byte) (value []byte, ok bool) {
	if len(b) < 4 {
		return nil, false
	}
	value = append([]byte{}, b[4:]...)
	return value, binary.BigEndian.Uint32(b) == sum(name, value)
}

func sum(name string, value []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE([]byte(name)), crc32.IEEETable, value)
}
