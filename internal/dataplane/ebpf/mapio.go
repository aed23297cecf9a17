// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	noPrealloc = unix.BPF_F_NO_PREALLOC
	routeSize  = uint32(unsafe.Sizeof(routeValue{}))
	// batchSize is how many entries go to the kernel, or come from it, in one call.
	batchSize = 4096
	// patience is for how many milliseconds a kernel may have no memory.
	patience = 200
)

// full explains the kernel's refusal of one more entry.
func full(what string, m *ebpf.Map, err error) error {
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("no room for more %s: want at most %d", what, m.MaxEntries())
	}
	return fmt.Errorf("write to %s: %w", what, err)
}

// each calls f with every entry of a map.
func each[K comparable, V any](m *ebpf.Map, f func(K, V)) error {
	keys, values := make([]K, batchSize), make([]V, batchSize)
	if unsafe.Sizeof(values[0]) > 1024 {
		keys, values = keys[:64], values[:64]
	}
	var cursor ebpf.MapBatchCursor
	seen := false
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			seen = true
			f(keys[i], values[i])
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil && !seen:
			return eachOne(m, f) // a kernel without, or a bucket larger than a batch
		case err != nil:
			return fmt.Errorf("read map: %w", err)
		}
	}
}

// eachOne does the same with one call for each entry.
func eachOne[K comparable, V any](m *ebpf.Map, f func(K, V)) error {
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		f(k, v)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read map: %w", err)
	}
	return nil
}

// patiently makes an update. Some kernels take memory for entries from a small stock that
// they fill up a moment later, and say that there is none meanwhile.
func patiently(update func() error) error {
	err := update()
	for range patience {
		if !errors.Is(err, unix.ENOMEM) {
			break
		}
		time.Sleep(time.Millisecond)
		err = update()
	}
	return err
}

// put writes to a map. The error of one that is full says which it is.
func put(what string, m *ebpf.Map, k, v any) error {
	if err := patiently(func() error { return m.Put(k, v) }); err != nil {
		return full(what, m, err)
	}
	return nil
}

// start makes an entry of counters, unless there is one.
func start(m *ebpf.Map, k, none any) error {
	err := patiently(func() error { return m.Update(k, none, ebpf.UpdateNoExist) })
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return full("counters", m, err)
	}
	return nil
}

// startCounters makes the counters of a port, unless they are there.
func (d *Driver) startCounters(index uint32) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count processors: %w", err)
	}
	return start(d.maps.PortStats, index, make([]portStats, cpus))
}
