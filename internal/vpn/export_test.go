// SPDX-License-Identifier: Apache-2.0

package vpn

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
var Classify = classify
