// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"fmt"
	"sync"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// Instances come and go at the same time, and are looked at meanwhile.
func TestInstancesInParallel(t *testing.T) {
	n := newNetwork(t, false)
	x := n.node(1, Config{})
	const instances = 4
	var vms []*vm
	for i := range instances {
		vms = append(vms, x.vm(1+i))
	}
	var work, looks sync.WaitGroup
	done := make(chan struct{})
	looks.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if drift, err := x.d.Drifted(t.Context()); err != nil || len(drift) > 0 {
				t.Errorf("drifted %v, %v", drift, err)
				return
			}
			if _, err := x.d.Counters(t.Context()); err != nil {
				t.Error(err)
				return
			}
			x.d.Describe()
		}
	})
	for i, v := range vms {
		label := uint32(1001 + i)
		entries := append(v.ends(label), v.routes(x.hop(label, encap.Default))...)
		work.Go(func() {
			for range 30 {
				h, err := x.d.Open(t.Context(), dataplane.Instance{ID: fmt.Sprint(i), Type: dataplane.IPVPN, VNI: label})
				if err != nil {
					t.Error(err)
					return
				}
				for _, err := range h.Apply(t.Context(), changes(false, entries...)) {
					if err != nil {
						t.Error(err)
					}
				}
				sameInstalled(t, h, entries)
				if err := h.Remove(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	close(done)
	looks.Wait()
	x.empty(t)
}
