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
