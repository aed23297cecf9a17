// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Where our filter is on a device without tcx: a handle and a priority that nobody else
// is likely to use. The programs say "next" to what is not ours.
const (
	filterHandle   = 0xba9
	filterPriority = 49
)

// hooks attaches programs at tc ingress of devices, such that they stay when the
// process ends: by tcx, or as filters of a clsact, which is the only way before Linux
// 6.6. The programs work in the namespace that the devices are in, and so must the calls.
type hooks struct {
	clsact bool
	nl     *netlink.Handle
	ns     *os.File
	// inside is set when the whole process is in that namespace.
	inside bool
	// same are programs of an earlier run that are the same as one of ours, by that.
	same map[*ebpf.Program]ebpf.ProgramID
}

// newHooks returns hooks for the namespace of the calling thread.
func newHooks(nl *netlink.Handle, ns *os.File, clsact bool) (*hooks, error) {
	h := &hooks{clsact: clsact, nl: nl, ns: ns, same: map[*ebpf.Program]ebpf.ProgramID{}}
	var own, main unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &own); err != nil {
		return nil, fmt.Errorf("look at own network namespace: %w", err)
	}
	if err := unix.Stat("/proc/self/ns/net", &main); err != nil {
		return nil, fmt.Errorf("look at network namespace of the process: %w", err)
	}
	h.inside = own.Dev == main.Dev && own.Ino == main.Ino
	if !clsact {
		_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			if !errors.Is(err, unix.EINVAL) && !errors.Is(err, ebpf.ErrNotSupported) {
				return nil, fmt.Errorf("look for tcx: %w", err)
			}
			h.clsact = true
		}
	}
	return h, nil
}

// mode names the way of attachment for the looking glass.
func (h *hooks) mode() string {
	if h.clsact {
		return "clsact"
	}
	return "tcx"
}

// do calls f inside the namespace.
func (h *hooks) do(f func() error) error {
	if h.inside {
		return f()
	}
	return netspace.OnThread(func() error {
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter own network namespace: %w", err)
		}
		return f()
	})
}

// attached returns our program at a device, 0 for none. A device that is gone has none.
func (h *hooks) attached(index int, name string) (ebpf.ProgramID, error) {
	if h.clsact {
		return h.filtered(index, name)
	}
	var res *link.QueryResult
	err := h.do(func() (err error) {
		res, err = link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
		return err
	})
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list programs of device #%d: %w", index, err)
	}
	for _, p := range res.Programs {
		got, err := nameOfProgram(p.ID)
		switch {
		case errors.Is(err, unix.ENOENT): // it has just gone
		case err != nil:
			return 0, fmt.Errorf("look at program %d of device #%d: %w", p.ID, index, err)
		case got == name:
			return p.ID, nil
		}
	}
	return 0, nil
}

// nameOfProgram returns the name that a program has in the kernel.
func nameOfProgram(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer func() { _ = p.Close() }()
	info, err := p.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}

func (h *hooks) filtered(index int, name string) (ebpf.ProgramID, error) {
	f, err := h.filter(index)
	if f == nil || err != nil || !strings.HasPrefix(f.Name, name) {
		return 0, err
	}
	return ebpf.ProgramID(f.Id), nil
}

// filter returns what is in our place at a device, or nil.
func (h *hooks) filter(index int) (*netlink.BpfFilter, error) {
	dev := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}
	list, err := h.nl.FilterList(dev, netlink.HANDLE_MIN_INGRESS)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil // no such device, or nothing that holds filters
	}
	if err != nil {
		return nil, fmt.Errorf("list filters of device #%d: %w", index, err)
	}
	for _, f := range list {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Handle == filterHandle && b.Priority == filterPriority {
			return b, nil
		}
	}
	return nil, nil
}

// attach makes our program run at a device. One of an earlier run is replaced in one
// step, unless it is the same.
func (h *hooks) attach(index int, p *ebpf.Program, name string) error {
	old, err := h.attached(index, name)
	if err != nil {
		return err
	}
	o := link.RawAttachProgramOptions{Target: index, Program: p, Attach: ebpf.AttachTCXIngress}
	if old != 0 {
		if h.same[p] == old {
			return nil
		}
		before, err := ebpf.NewProgramFromID(old)
		if err != nil {
			return fmt.Errorf("open program of an earlier run: %w", err)
		}
		defer func() { _ = before.Close() }()
		same, err := isSame(before, p)
		if same {
			h.same[p] = old
		}
		if err != nil || same {
			return err
		}
		o.Anchor = link.ReplaceProgram(before)
	}
	if h.clsact {
		err = h.addFilter(index, p, name)
	} else {
		err = h.do(func() error { return link.RawAttachProgram(o) })
	}
	if err != nil {
		return fmt.Errorf("attach program to device #%d: %w", index, err)
	}
	return nil
}

// isSame tells whether a program has the same instructions and the same maps as ours.
func isSame(old, p *ebpf.Program) (bool, error) {
	a, err := old.Info()
	if err != nil {
		return false, fmt.Errorf("read program of an earlier run: %w", err)
	}
	b, err := p.Info()
	if err != nil {
		return false, fmt.Errorf("read program: %w", err)
	}
	idsA, _ := a.MapIDs()
	idsB, _ := b.MapIDs()
	have := map[ebpf.MapID]bool{}
	for _, id := range idsA {
		have[id] = true
	}
	for _, id := range idsB {
		if !have[id] {
			return false, nil
		}
	}
	return a.Tag == b.Tag, nil
}

func (h *hooks) addFilter(index int, p *ebpf.Program, name string) error {
	f, err := h.filter(index)
	if err != nil {
		return err
	}
	if f != nil && !strings.HasPrefix(f.Name, name) {
		return fmt.Errorf("filter %q of somebody else has handle %#x and priority %d", f.Name, filterHandle, filterPriority)
	}
	err = h.nl.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	return h.nl.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: filterHandle,
			Protocol: unix.ETH_P_ALL, Priority: filterPriority,
		},
		Fd: p.FD(), Name: name, DirectAction: true,
	})
}

// detach takes our program from a device. It is no error when there is none.
func (h *hooks) detach(index int, name string) error {
	id, err := h.attached(index, name)
	if id == 0 || err != nil {
		return err
	}
	if h.clsact {
		var f *netlink.BpfFilter
		if f, err = h.filter(index); f != nil && err == nil {
			err = h.nl.FilterDel(f)
		}
	} else {
		err = h.detachTCX(index, id)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("detach program from device #%d: %w", index, err)
	}
	return nil
}

func (h *hooks) detachTCX(index int, id ebpf.ProgramID) error {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	return h.do(func() error {
		return link.RawDetachProgram(link.RawDetachProgramOptions{Target: index, Program: p, Attach: ebpf.AttachTCXIngress})
	})
}
