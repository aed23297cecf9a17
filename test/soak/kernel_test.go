// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// kernelObjects counts what the kernel has in a namespace, and the BPF objects that can
// be reached from a process.
func kernelObjects(ns string, pid int) (map[string]int64, error) {
	out := map[string]int64{}
	err := netspace.With(ns, func(h *netlink.Handle) error { return countNetlink(h, out) })
	if err != nil {
		return nil, err
	}
	bpf, err := bpfObjects(pid)
	maps.Copy(out, bpf)
	return out, err
}

func countNetlink(h *netlink.Handle, out map[string]int64) error {
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	out["links"] = int64(len(links))
	for _, l := range links {
		qdiscs, err := h.QdiscList(l)
		if err != nil {
			return fmt.Errorf("qdiscs: %w", err)
		}
		out["qdiscs"] += int64(len(qdiscs))
		for _, q := range qdiscs {
			if q.Type() != "clsact" {
				continue
			}
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				filters, err := h.FilterList(l, parent)
				if err != nil {
					return fmt.Errorf("filters: %w", err)
				}
				out["filters"] += int64(len(filters))
			}
		}
	}
	for name, family := range map[string]int{"FDB entries": unix.AF_BRIDGE, "IPv4 neighbours": unix.AF_INET, "IPv6 neighbours": unix.AF_INET6} {
		list, err := h.NeighList(0, family)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, e := range list {
			if e.State&unix.NUD_NOARP == 0 || family == unix.AF_BRIDGE { // not those of multicast groups
				out[name]++
			}
		}
	}
	addresses, err := h.AddrList(nil, unix.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	out["addresses"] = int64(len(addresses))
	for name, family := range map[string]int{"IPv4": unix.AF_INET, "IPv6": unix.AF_INET6} {
		routes, err := h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("%s routes: %w", name, err)
		}
		out[name+" routes"] = int64(len(routes))
		rules, err := h.RuleList(family)
		if err != nil {
			return fmt.Errorf("%s rules: %w", name, err)
		}
		out[name+" rules"] = int64(len(rules))
	}
	return nil
}

// bpfObjects counts the maps, programs and links that a process holds, the maps within
// maps, and the entries of those that are hashes or tries.
func bpfObjects(pid int) (map[string]int64, error) {
	out := map[string]int64{"BPF maps": 0, "BPF programs": 0, "BPF links": 0, "BPF map entries": 0}
	ids := map[string]map[int]bool{"map_id": {}, "prog_id": {}, "link_id": {}}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue // closed meanwhile
		}
		for sc := bufio.NewScanner(f); sc.Scan(); {
			key, value, _ := strings.Cut(sc.Text(), ":")
			if set := ids[key]; set != nil {
				id, _ := strconv.Atoi(strings.TrimSpace(value))
				set[id] = true
			}
		}
		_ = f.Close()
	}
	out["BPF programs"], out["BPF links"] = int64(len(ids["prog_id"])), int64(len(ids["link_id"]))
	for id := range ids["map_id"] {
		if err := countMap(ebpf.MapID(id), out); err != nil {
			return nil, fmt.Errorf("BPF map %d: %w", id, err)
		}
	}
	return out, nil
}

func countMap(id ebpf.MapID, out map[string]int64) error {
	m, err := ebpf.NewMapFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	out["BPF maps"]++
	switch m.Type() {
	case ebpf.Hash, ebpf.LPMTrie, ebpf.HashOfMaps:
	default:
		return nil
	}
	key, next := []byte(nil), make([]byte, m.KeySize())
	for {
		err := m.NextKey(nextOf(key), next)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		key = append(key[:0], next...)
		out["BPF map entries"]++
		if m.Type() != ebpf.HashOfMaps {
			continue
		}
		var inner ebpf.MapID
		if err := m.Lookup(key, &inner); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		if err := countMap(inner, out); err != nil {
			return err
		}
	}
}

// nextOf returns the key to go on from, nil to begin.
func nextOf(key []byte) any {
	if key == nil {
		return nil
	}
	return key
}
