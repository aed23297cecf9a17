// SPDX-License-Identifier: Apache-2.0

package store

import bolt "go.etcd.io/bbolt"

// setFormat makes the file one of another version.
func (s *Store) setFormat(format string) error {
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(formatKey, []byte(format)) })
}
