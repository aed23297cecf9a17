// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
)

// UseUpRDs takes route distinguisher numbers until so many are left.
func (m *Manager) UseUpRDs(left int) {
	for range 65536 - left {
		if _, err := m.rds.Allocate("test"); err != nil {
			panic(err)
		}
	}
}

// Behind returns the number of type 5 routes that labels are noted for.
func (m *Manager) Behind() int {
	m.behind.mu.RLock()
	defer m.behind.mu.RUnlock()
	return len(m.behind.labels)
}

// Classify exports classify.
func Classify(f wire.Flow) ([]dataplane.Classifier, error) { return classify(&f) }
