// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"fmt"

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

// Redirects returns the number of route targets that there is or should be an instance for.
func (m *Manager) Redirects() int {
	m.redirects.mu.Lock()
	defer m.redirects.mu.Unlock()
	return len(m.redirects.byRT)
}

// Claims lists the classes of packets that FlowSpec routes redirect, with how many do.
func (i *Instance) Claims() (out []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for c, by := range i.claims {
		out = append(out, fmt.Sprintf("%s by %d", c, len(by)))
	}
	return out
}
