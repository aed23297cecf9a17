// SPDX-License-Identifier: Apache-2.0

package rib

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/slab"
)

// View selects which routes a table takes and what entries they make.
type View uint8

// Views.
const (
	// EVI takes EVPN types 2 and 3.
	EVI View = iota
	// VRF takes VPNv4 and VPNv6 routes, EVPN type 5, and VPN FlowSpec.
	VRF
	// Redirect is a VRF that redirected packets are routed in: it takes what a VRF does but FlowSpec.
	Redirect
)

// EntryKind tells what an entry is about.
type EntryKind uint8

// Kinds of entries.
const (
	// EntryMAC is forwarding to a MAC: all type 2 routes of the MAC. Key: MAC.
	EntryMAC EntryKind = iota + 1
	// EntryIP is the neighbour data of an address: all type 2 routes with that IP. Key: Addr, Bits.
	EntryIP
	// EntryFlood is a flood destination: all type 3 routes with that tunnel end and VNI. Key: Addr, Bits, Label.
	EntryFlood
	// EntryPrefix is a prefix: all VPN and EVPN type 5 routes with it, whatever the RD. Key: Addr, Bits, V6.
	EntryPrefix
	// EntryFlow is a class of packets: all FlowSpec routes with the same components, whatever
	// the RD. Key: a digest of them, V6.
	EntryFlow
)

// EntryKey identifies an entry of a table.
type EntryKey struct {
	Kind EntryKind
	// Bits is the prefix length, or 32 or 128 for addresses.
	Bits uint8
	// id holds the MAC, or the label in its last four octets and the IPv6 flag in the first.
	id   ethernet.MAC
	addr [16]byte
}

// MAC returns the MAC address of an EntryMAC.
func (k EntryKey) MAC() ethernet.MAC { return k.id }

// IP returns the address of an EntryIP or EntryFlood.
func (k EntryKey) IP() netip.Addr {
	if k.Bits == 32 {
		return netip.AddrFrom4([4]byte(k.addr[:4]))
	}
	return netip.AddrFrom16(k.addr)
}

// Label returns the VNI of an EntryFlood.
func (k EntryKey) Label() uint32 { return binary.BigEndian.Uint32(k.id[2:]) }

// Prefix returns the prefix of an EntryPrefix.
func (k EntryKey) Prefix() netip.Prefix {
	if k.id[0] != 0 {
		return netip.PrefixFrom(netip.AddrFrom16(k.addr), int(k.Bits))
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(k.addr[:4])), int(k.Bits))
}

// MACKey returns the key of the entry for a MAC.
func MACKey(mac ethernet.MAC) EntryKey { return EntryKey{Kind: EntryMAC, id: mac} }

// IPKey returns the key of the entry for the neighbour data of an address.
func IPKey(ip netip.Addr) EntryKey { return addrKey(EntryIP, ip) }

func addrKey(kind EntryKind, ip netip.Addr) EntryKey {
	k := EntryKey{Kind: kind, Bits: uint8(ip.BitLen())}
	if ip.Is4() {
		a := ip.As4()
		copy(k.addr[:], a[:])
	} else {
		k.addr = ip.As16()
	}
	return k
}

// entryKeys appends the keys of the entries that a route belongs to in a view.
func entryKeys(keys []EntryKey, v View, n wire.NLRI, a *wire.Attrs) []EntryKey {
	switch {
	case v == EVI && n.Kind == wire.KindMACIP:
		keys = append(keys, MACKey(n.MAC))
		if n.Bits != 0 {
			keys = append(keys, EntryKey{Kind: EntryIP, Bits: n.Bits, addr: n.Addr})
		}
	case v == EVI && n.Kind == wire.KindIMET:
		if p := a.PMSI; p != nil && p.TunnelType == wire.PMSIIngressReplication {
			k := addrKey(EntryFlood, p.Endpoint)
			binary.BigEndian.PutUint32(k.id[2:], p.Label)
			keys = append(keys, k)
		}
	case v != EVI && (n.Kind == wire.KindVPNv4 || n.Kind == wire.KindVPNv6 || n.Kind == wire.KindPrefix):
		k := EntryKey{Kind: EntryPrefix, Bits: n.Bits, addr: n.Addr}
		if n.Kind == wire.KindVPNv6 || n.Kind == wire.KindPrefix && n.IP().Is6() {
			k.id[0] = 1
		}
		keys = append(keys, k)
	case v == VRF && n.Kind.IsFlow():
		k := EntryKey{Kind: EntryFlow, addr: n.Addr}
		if n.Kind == wire.KindFlowVPNv6 {
			k.id[0] = 1
		}
		keys = append(keys, k)
	}
	return keys
}

// TableConfig describes a table.
type TableConfig struct {
	View View
	// Source is the instance's own source. A table does not import its own routes, but
	// that of a VRF with Own set always has them, whatever their route targets.
	Source SourceID
	Own    bool
	// ECMP lets all equally good paths of a prefix be best together; else there is one.
	ECMP bool
	// All lets all usable paths be best together, of whatever preference.
	All bool
	// Salt varies the choice among equal paths from table to table.
	Salt uint64
	// Usable tells whether a path can be used at all, e.g. for its
	// encapsulation. It runs with the RIB's lock held.
	Usable func(wire.Route, *wire.Attrs) bool
	// Dirty is called when there is something for Take, with the RIB's lock held.
	Dirty func()
}

// Table is what one instance imports.
type Table struct {
	TableConfig
	rib    *RIB
	source SourceID

	// Guarded by RIB.mu.
	imports map[wire.RT]struct{}
	entries *slab.Slab[EntryKey, entry]
	links   links
	dirty   fifo[uint32]
	queued  bitmap // the positions in dirty
	keys    []EntryKey
	chosen  []candidate
}

// entry is what a table knows about one key.
type entry struct {
	head list
}

// list is the paths of an entry: 0 without any; the position of the only one, with
// oneBit; or position+1 of the first link.
type list uint32

// oneBit says that a list is one path, which most are. A slab has no more positions
// than fit below it.
const oneBit = 1 << 31

// links is an arena of list members that tie paths to entries.
type links struct {
	items []link
	free  list
}

type link struct {
	path uint32
	next list
}

// each calls f for each path of a list.
func (l *links) each(at list, f func(path uint32)) {
	for at != 0 {
		if at&oneBit != 0 {
			f(uint32(at &^ oneBit))
			return
		}
		item := l.items[at-1]
		f(item.path)
		at = item.next
	}
}

// remove takes a path out of a list and tells whether it was there.
func (l *links) remove(from *list, path uint32) bool {
	for *from != 0 {
		if *from&oneBit != 0 {
			if *from != list(path)|oneBit {
				return false
			}
			*from = 0
			return true
		}
		item := &l.items[*from-1]
		if item.path == path {
			gone := *from
			*from = item.next
			l.del(gone)
			return true
		}
		from = &item.next
	}
	return false
}

// add puts a path before the others of a list.
func (l *links) add(path uint32, next list) list {
	if next == 0 {
		return list(path) | oneBit
	}
	if l.free != 0 {
		at := l.free
		l.free = l.items[at-1].next
		l.items[at-1] = link{path, next}
		return at
	}
	l.items = append(l.items, link{path, next})
	return list(len(l.items))
}

func (l *links) del(at list) {
	l.items[at-1] = link{next: l.free}
	l.free = at
}

// bitmap is a set of small numbers.
type bitmap []uint64

// set adds a number and tells whether it was not there.
func (b *bitmap) set(n uint32) bool {
	for int(n/64) >= len(*b) {
		*b = append(*b, 0)
	}
	word, bit := &(*b)[n/64], uint64(1)<<(n%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

func (b bitmap) clear(n uint32) { b[n/64] &^= 1 << (n % 64) }

// NewTable makes a table that imports nothing yet. One with Own is made before the
// first route of its source.
func (r *RIB) NewTable(c TableConfig) *Table {
	t := &Table{TableConfig: c, rib: r, source: c.Source, imports: map[wire.RT]struct{}{}, entries: slab.New[EntryKey, entry]()}
	if c.Own {
		r.mu.Lock()
		if int(c.Source) < len(r.sources) {
			r.sources[c.Source].own = t
		}
		r.mu.Unlock()
	}
	return t
}

// SetImports replaces the route targets that the table imports.
func (t *Table) SetImports(rts []wire.RT) {
	r := t.rib
	r.mu.Lock()
	defer r.mu.Unlock()
	for rt := range t.imports {
		if !slices.Contains(rts, rt) {
			t.dropImport(rt)
		}
	}
	for _, rt := range rts {
		if _, have := t.imports[rt]; !have {
			t.addImport(rt)
		}
	}
	r.settle()
}

func (t *Table) addImport(rt wire.RT) {
	r := t.rib
	t.imports[rt] = struct{}{}
	tg := r.target(rt)
	r.imports++
	if !tg.imports(t.View) {
		r.askFor(t.View)
	}
	tg.tables = append(tg.tables, t)
	for set := range tg.sets {
		t.touchOwn(set)
		if slices.Contains(set.tables, t) {
			continue
		}
		set.tables = append(set.tables, t)
		t.eachPath(set, t.link)
	}
	if len(tg.tables) == 1 {
		r.originateRTC(rt)
	}
}

func (t *Table) dropImport(rt wire.RT) {
	r := t.rib
	delete(t.imports, rt)
	tg := r.byRT[rt]
	tg.tables = slices.DeleteFunc(tg.tables, func(o *Table) bool { return o == t })
	r.imports++
	for set := range tg.sets {
		t.touchOwn(set)
		if slices.ContainsFunc(set.RTs, t.importsRT) {
			continue
		}
		t.eachPath(set, t.unlink)
		set.tables = slices.DeleteFunc(set.tables, func(o *Table) bool { return o == t })
		r.forgetIrrelevant(set)
	}
	if len(tg.tables) == 0 {
		r.withdrawRTC(rt)
	}
	r.dropTarget(rt, tg)
}

func (t *Table) importsRT(rt wire.RT) bool {
	_, ok := t.imports[rt]
	return ok
}

// eachPath calls f for each path of a set that did not come from the table's own instance.
func (t *Table) eachPath(set *Set, f func(uint32, wire.NLRI, *Set)) {
	for at := set.paths; at != 0; {
		pos := at - 1
		at = t.rib.paths.At(pos).next
		if k := t.rib.paths.Key(pos); k.source != t.source {
			f(pos, k.nlri, set)
		}
	}
}

// link makes a path a candidate for the entries it belongs to.
func (t *Table) link(pos uint32, n wire.NLRI, set *Set) {
	t.keys = entryKeys(t.keys[:0], t.View, n, set.Attrs)
	for _, k := range t.keys {
		at, _ := t.entries.Add(k)
		e := t.entries.At(at)
		e.head = t.links.add(pos, e.head)
		t.mark(at)
	}
}

// unlink takes a path out of its entries; one that is not there is ignored.
func (t *Table) unlink(pos uint32, n wire.NLRI, set *Set) {
	t.keys = entryKeys(t.keys[:0], t.View, n, set.Attrs)
	for _, k := range t.keys {
		at, ok := t.entries.Find(k)
		if !ok {
			continue
		}
		if t.links.remove(&t.entries.At(at).head, pos) {
			t.mark(at)
		}
	}
}

// touch marks the entries of a path whose preference changed.
func (t *Table) touch(n wire.NLRI, set *Set) {
	t.keys = entryKeys(t.keys[:0], t.View, n, set.Attrs)
	for _, k := range t.keys {
		if at, ok := t.entries.Find(k); ok {
			t.mark(at)
		}
	}
}

// touchOwn marks the entries of own paths with a set: whether they are imported has changed
// (Path.Yields).
func (t *Table) touchOwn(set *Set) {
	if !t.Own {
		return
	}
	for at := set.paths; at != 0; {
		pos := at - 1
		at = t.rib.paths.At(pos).next
		if k := t.rib.paths.Key(pos); k.source == t.source {
			t.touch(k.nlri, set)
		}
	}
}

// mark queues an entry for Take. An entry without paths stays until it is taken.
func (t *Table) mark(at uint32) {
	if !t.queued.set(at) {
		return
	}
	if t.dirty.add(at) && t.Dirty != nil {
		t.Dirty()
	}
}

// Close ends the table: it imports nothing any more. A VRF's own routes go with
// their withdrawal.
func (t *Table) Close() { t.SetImports(nil) }
