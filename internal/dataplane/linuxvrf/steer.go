// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// Priorities of rules about classes of packets; see the package's text. The one of
// guardPriority ends the search of all packets that no rule has led behind it.
const (
	dispatchPriority = 0
	guardPriority    = 1 << 31
	probePriority    = guardPriority + 1

	// blockSize is how many priorities a VRF has for each IP version: slots for classes
	// between one for what is never redirected and one for what is in no class.
	blockSize  = slotSize << slotLevels
	slotLevels = 14
	lastSlot   = 1<<slotLevels - 1
	maxBlocks  = guardPriority/blockSize - 1 // the first one's place is the guard's
)

// steering is what a VRF has of rules for one IP version.
type steering struct {
	// classes are in order (Classifier.Compare), and by slot.
	classes []class
	// frame are the other rules, around the classes: there as long as there is a class.
	frame map[netlinkx.Rule]bool
}

func newSteering() map[uint8]*steering {
	m := map[uint8]*steering{}
	for _, family := range families {
		m[family] = &steering{frame: map[netlinkx.Rule]bool{}}
	}
	return m
}

// blockOf returns the first priority of the rules of the VRF with a table.
func blockOf(table uint32) (uint32, error) {
	if n := table - firstTable; table >= firstTable && n < maxBlocks {
		return guardPriority + (n+1)*blockSize, nil
	}
	return 0, fmt.Errorf("there are no priorities of rules for routing table %d: want one of %d to %d", table, firstTable, firstTable+maxBlocks-1)
}

// setClass adds, changes or deletes a class.
func (h *handle) setClass(del bool, e *dataplane.Entry) error {
	if e.Class == nil {
		return checkClass(nil, nil)
	}
	block, err := blockOf(h.table)
	if err != nil {
		return err
	}
	s := h.steering[familyOf(e.Class.Destination.Addr())]
	at, have := slices.BinarySearchFunc(s.classes, *e.Class, func(x class, c dataplane.Classifier) int { return x.Compare(c) })
	if del {
		if have {
			return h.dropClass(s, block, at)
		}
		return nil
	}
	if err := checkClass(e.Class, h.d.hasPortMasks); err != nil {
		return err
	}
	target := h.d.open[devname.Listed(vrfAlias, e.Target)]
	if target == nil {
		return fmt.Errorf("there is no instance %q to route the packets in", e.Target)
	}
	now := class{Classifier: *e.Class, table: target.table}
	if have {
		now.slot = s.classes[at].slot
		err = h.replaceClass(block, &s.classes[at], now)
	} else if now.slot, err = h.makeRoom(s, block, at); err == nil {
		if err = h.d.makeRules(now.rules(block)); err == nil {
			s.classes = slices.Insert(s.classes, at, now)
		}
	}
	if err != nil {
		return err
	}
	return h.frame()
}

// replaceClass puts a class in the place of another one that comes at the same place in order.
// The kernel has both, or the first of them, in between.
func (h *handle) replaceClass(block uint32, old *class, now class) error {
	if *old == now {
		return nil
	}
	if err := h.d.makeRules(now.rules(block)); err != nil {
		return err
	}
	gone := old.rules(block)
	if err := h.d.dropRules(gone); err != nil {
		return errors.Join(err, h.d.dropRules(now.rules(block)), h.d.makeRules(gone))
	}
	*old = now
	return nil
}

func (h *handle) dropClass(s *steering, block uint32, at int) error {
	gone := s.classes[at].rules(block)
	if len(s.classes) == 1 { // what leads to it goes first
		if err := h.frameFor(s, nil); err != nil {
			return err
		}
	}
	if err := h.d.dropRules(gone); err != nil {
		return err
	}
	s.classes = slices.Delete(s.classes, at, at+1)
	return nil
}

// makeRoom returns a free slot for a class at a place in the list. When there is none, classes in the
// smallest stretch of slots that is not too full move apart.
func (h *handle) makeRoom(s *steering, block uint32, at int) (uint32, error) {
	before, behind := uint32(0), uint32(lastSlot)
	if at > 0 {
		before = s.classes[at-1].slot
	}
	if at < len(s.classes) {
		behind = s.classes[at].slot
	}
	if behind-before > 1 {
		return before + (behind-before)/2, nil
	}
	for level := uint32(1); level <= slotLevels; level++ {
		size := uint32(1) << level
		low := before &^ (size - 1)
		high := min(low+size, lastSlot)
		low = max(low, 1)
		from, to := at, at
		for from > 0 && s.classes[from-1].slot >= low {
			from--
		}
		for to < len(s.classes) && s.classes[to].slot < high {
			to++
		}
		// From all but full, for the shortest stretch, to a quarter, so that those within
		// have room for long after.
		n := uint32(to - from)
		if n < high-low && 4*slotLevels*n < (4*slotLevels-3*level)*size {
			return h.spread(s, block, from, at, to, low, high)
		}
	}
	return 0, fmt.Errorf("the VRF has %d classes of packets of an IP version: want no more", len(s.classes))
}

// spread moves classes apart, evenly over the slots from low to below high, and returns that of a
// new one. They move one after the other, so that their order in the kernel is always right.
func (h *handle) spread(s *steering, block uint32, from, at, to int, low, high uint32) (uint32, error) {
	target := func(i int) uint32 { // of the i-th, counting the new one
		return low + uint32(2*i+1)*(high-low)/uint32(2*(to-from+1))
	}
	of := func(i int) uint32 {
		if i >= at {
			return target(i - from + 1)
		}
		return target(i - from)
	}
	move := func(i int) error {
		now := s.classes[i]
		now.slot = of(i)
		return h.replaceClass(block, &s.classes[i], now)
	}
	for i := to - 1; i >= from; i-- {
		if of(i) > s.classes[i].slot {
			if err := move(i); err != nil {
				return 0, err
			}
		}
	}
	for i := from; i < to; i++ {
		if err := move(i); err != nil {
			return 0, err
		}
	}
	return target(at - from), nil
}

// frame makes the rules around classes what they must be.
func (h *handle) frame() error {
	var errs []error
	for family, s := range h.steering {
		var want []netlinkx.Rule
		if len(s.classes) > 0 {
			block, err := blockOf(h.table)
			if err != nil {
				return err
			}
			want = h.wantFrame(family, block)
		}
		errs = append(errs, h.frameFor(s, want))
	}
	return errors.Join(errs...)
}

func byPriority(a, b netlinkx.Rule) int { return cmp.Compare(a.Priority, b.Priority) }

// frameFor makes the frame what is wanted: what leads to the block comes last, and goes first.
func (h *handle) frameFor(s *steering, want []netlinkx.Rule) error {
	var add, gone []netlinkx.Rule
	for _, r := range want {
		if !s.frame[r] {
			add = append(add, r)
		}
	}
	for r := range s.frame {
		if !slices.Contains(want, r) {
			gone = append(gone, r)
		}
	}
	slices.SortFunc(add, func(a, b netlinkx.Rule) int { return cmp.Or(-byPriority(a, b), cmp.Compare(a.String(), b.String())) })
	slices.SortFunc(gone, func(a, b netlinkx.Rule) int { return cmp.Or(byPriority(a, b), cmp.Compare(a.String(), b.String())) })
	for _, r := range add {
		if err := h.d.makeRules([]netlinkx.Rule{r}); err != nil {
			return err
		}
		s.frame[r] = true
	}
	for _, r := range gone {
		if err := h.d.dropRules([]netlinkx.Rule{r}); err != nil {
			return err
		}
		delete(s.frame, r)
	}
	return nil
}

// notRouted are destinations that are the VRF's own affair, as its gateways are.
var notRouted = map[uint8][]netip.Prefix{
	unix.AF_INET:  {netip.MustParsePrefix("224.0.0.0/4")},
	unix.AF_INET6: {netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/10")},
}

// wantFrame returns the rules around the classes of an IP version: what leads to the block,
// its beginning and its end. There is one for the VRF and one for each port, as kernels
// differ in which of them a packet comes from.
func (h *handle) wantFrame(family uint8, block uint32) (out []netlinkx.Rule) {
	rule := func(r netlinkx.Rule) {
		r.Family, r.Protocol = family, ours
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	for _, to := range notRouted[family] {
		rule(netlinkx.Rule{Priority: block, To: to, Table: h.table})
	}
	for _, e := range h.endpoints {
		if e.Gateway.IsValid() && familyOf(e.Gateway) == family {
			rule(netlinkx.Rule{Priority: block, To: netip.PrefixFrom(e.Gateway, e.Gateway.BitLen()), Table: h.table})
		}
	}
	rule(netlinkx.Rule{Priority: block + blockSize - 2, Table: h.table})
	rule(netlinkx.Rule{Priority: block + blockSize - 1, Unreachable: true})
	rule(netlinkx.Rule{Priority: dispatchPriority, Input: h.name, Goto: block})
	for name := range h.ports {
		rule(netlinkx.Rule{Priority: dispatchPriority, Input: name, Goto: block})
	}
	return out
}

// allRules returns the rules that the VRF is known to have.
func (h *handle) allRules(block uint32) (out []netlinkx.Rule) {
	for _, s := range h.steering {
		for i := range s.classes {
			out = append(out, s.classes[i].rules(block)...)
		}
		out = slices.AppendSeq(out, maps.Keys(s.frame))
	}
	return out
}

// inBlock tells whether a rule is one of the VRF with a block.
func inBlock(r netlinkx.Rule, block uint32) bool {
	return r.Protocol == ours && (r.Priority >= block && r.Priority-block < blockSize || r.Goto == block)
}

// loadSteering makes what is known of rules what the kernel has, and deletes those that are
// no whole class and no part of the frame, which a crash may have left.
func (h *handle) loadSteering() error {
	h.steering = newSteering()
	block, err := blockOf(h.table)
	if err != nil {
		return nil // never had any
	}
	for family, s := range h.steering {
		list, err := rulesOf(h.d.k, family)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(r netlinkx.Rule) bool { return !inBlock(r, block) })
		slices.SortStableFunc(list, byPriority)
		if err := h.d.dropRules(s.take(list, block)); err != nil {
			return err
		}
	}
	return nil
}

// take makes rules of one block and IP version, by priority, what is known of it, and returns
// those that are of no use.
func (s *steering) take(list []netlinkx.Rule, block uint32) (useless []netlinkx.Rule) {
	for len(list) > 0 {
		slot, n := (list[0].Priority-block)/slotSize, 1
		if list[0].Goto == block || slot == 0 || slot == lastSlot {
			s.frame[list[0]] = true
			list = list[1:]
			continue
		}
		for n < len(list) && (list[n].Priority-block)/slotSize == slot {
			n++
		}
		c, ok := classOf(block, list[:n])
		if last := len(s.classes) - 1; ok && last >= 0 {
			ok = s.classes[last].Compare(c.Classifier) < 0
		}
		if ok {
			s.classes = append(s.classes, c)
		} else {
			useless = append(useless, list[:n]...)
		}
		list = list[n:]
	}
	return useless
}

// installedClasses appends the entries of classes.
func (h *handle) installedClasses(out []dataplane.Entry) ([]dataplane.Entry, error) {
	if len(h.steering[unix.AF_INET].classes)+len(h.steering[unix.AF_INET6].classes) == 0 {
		return out, nil
	}
	links, err := h.d.k.Links(0)
	if err != nil {
		return nil, err
	}
	ids := map[uint32]string{}
	for _, l := range links {
		if id, ours := instanceOf(l); ours {
			ids[l.Table] = id
		}
	}
	for _, o := range h.d.open {
		ids[o.table] = o.inst.ID
	}
	for _, s := range h.steering {
		for _, c := range s.classes {
			out = append(out, dataplane.Entry{Kind: dataplane.Redirect, Class: &c.Classifier, Target: ids[c.table]})
		}
	}
	return out, nil
}

// dropClasses deletes all rules of the VRF.
func (h *handle) dropClasses() error {
	block, err := blockOf(h.table)
	if err != nil {
		return nil // never had any
	}
	for _, s := range h.steering {
		err = errors.Join(err, h.frameFor(s, nil))
		for _, c := range s.classes {
			err = errors.Join(err, h.d.dropRules(c.rules(block)))
		}
	}
	if err == nil {
		h.steering = newSteering()
	}
	return err
}

// makeRules makes rules, all or none.
func (d *Driver) makeRules(rules []netlinkx.Rule) error {
	var reqs []netlinkx.Request
	for _, r := range rules {
		reqs = append(reqs, netlinkx.RuleRequest{Rule: r})
	}
	errs := make([]error, len(reqs))
	d.k.Do(reqs, errs)
	var made []netlinkx.Rule
	for i := range errs {
		if errs[i] == nil {
			made = append(made, rules[i])
		} else if errors.Is(errs[i], unix.EEXIST) {
			errs[i] = nil
		}
	}
	err := errors.Join(errs...)
	if err != nil {
		err = errors.Join(err, d.dropRules(made))
	}
	return err
}

// dropRules deletes rules.
func (d *Driver) dropRules(rules []netlinkx.Rule) error {
	var reqs []netlinkx.Request
	for _, r := range rules {
		reqs = append(reqs, netlinkx.RuleRequest{Delete: true, Rule: r})
	}
	return d.do(reqs)
}

// hasPortMasks tells whether the kernel has port masks in rules, by making one: a kernel
// without leaves them out without a word.
func (d *Driver) hasPortMasks() (bool, error) {
	if d.portMasks != nil {
		return *d.portMasks, nil
	}
	probe := netlinkx.Rule{Family: unix.AF_INET, Priority: probePriority, DestinationPorts: topPorts, Unreachable: true, Protocol: ours}
	if err := d.makeRules([]netlinkx.Rule{probe}); err != nil {
		return false, err
	}
	list, err := d.k.Rules(probe.Family)
	if err = errors.Join(err, d.dropRules([]netlinkx.Rule{probe})); err != nil {
		return false, err
	}
	has := hasRule(list, probe)
	d.portMasks = &has
	return has, nil
}

// rulesOf lists the rules of an IP version, none when the kernel has not that version.
func rulesOf(k kernel, family uint8) ([]netlinkx.Rule, error) {
	list, err := k.Rules(family)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return list, err
}

// sweepRules deletes the rules about classes of VRFs that are gone, and of a probe.
func (d *Driver) sweepRules() error {
	links, err := d.k.Links(0)
	if err != nil {
		return err
	}
	var blocks []uint32
	for _, l := range links {
		if _, ours := instanceOf(l); ours {
			if block, err := blockOf(l.Table); err == nil {
				blocks = append(blocks, block)
			}
		}
	}
	for _, family := range families {
		list, err := rulesOf(d.k, family)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(r netlinkx.Rule) bool {
			return r.Protocol != ours || max(r.Priority, r.Goto) <= guardPriority ||
				slices.ContainsFunc(blocks, func(block uint32) bool { return inBlock(r, block) })
		})
		slices.SortStableFunc(list, byPriority)
		if err := d.dropRules(list); err != nil {
			return err
		}
	}
	return nil
}

// findLostRules marks the instances that have lost rules.
func (d *Driver) findLostRules() error {
	have := map[netlinkx.Rule]bool{}
	for _, h := range d.open {
		block, err := blockOf(h.table)
		if err != nil {
			continue
		}
		want := h.allRules(block)
		if len(want) > 0 && len(have) == 0 {
			if err := d.rules(); err != nil { // the guard
				return err
			}
			for _, family := range families {
				list, err := rulesOf(d.k, family)
				if err != nil {
					return err
				}
				for _, r := range list {
					have[r] = true
				}
			}
		}
		h.stale = h.stale || slices.ContainsFunc(want, func(r netlinkx.Rule) bool { return !have[r] })
	}
	return nil
}
