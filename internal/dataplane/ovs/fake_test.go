// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb"
)

// fake is a switch and its database in memory, which counts changes.
type fake struct {
	mu      sync.Mutex
	flows   map[of.FlowKey]of.Flow
	groups  map[uint32]of.Group
	ports   map[string]ovsdb.Interface
	refuse  func(of.Message) bool
	changed int
}

func newFake() *fake {
	f := &fake{flows: map[of.FlowKey]of.Flow{}, groups: map[uint32]of.Group{}, ports: map[string]ovsdb.Interface{}}
	for i, name := range []string{"tap1", "tap2", "p-int", "eth9"} {
		f.ports[name] = ovsdb.Interface{Name: name, Number: uint32(i + 2)}
	}
	return f
}

func (f *fake) do(m of.Message) error {
	if f.refuse != nil && f.refuse(m) {
		return &of.Error{Type: 2, Code: 4}
	}
	f.changed++
	switch m := m.(type) {
	case of.AddFlow:
		f.flows[of.Flow(m).Key()] = of.Flow(m)
	case of.DeleteFlow:
		if f.flows[of.Flow(m).Key()].Cookie == m.Cookie {
			delete(f.flows, of.Flow(m).Key())
		}
	case of.DeleteFlows:
		for k, e := range f.flows {
			if e.Cookie&m.Mask == m.Cookie {
				delete(f.flows, k)
			}
		}
	case of.SetGroup:
		f.groups[m.ID] = of.Group(m)
	case of.DeleteGroup:
		delete(f.groups, m.ID)
		for k, e := range f.flows {
			if g, ok := e.Actions.GroupOf(); ok && g == m.ID {
				delete(f.flows, k)
			}
		}
	default:
		return errors.New("message of another kind")
	}
	return nil
}

func (f *fake) Exec(_ context.Context, messages []of.Message, errs []error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, m := range messages {
		errs[i] = f.do(m)
	}
	return nil
}

func (f *fake) Bundle(_ context.Context, messages []of.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range messages {
		if f.refuse != nil && f.refuse(m) {
			return &of.Error{Type: 2, Code: 4}
		}
	}
	for _, m := range messages {
		if err := f.do(m); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Flows(_ context.Context, filter of.Filter) (out []of.FlowStats, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.flows {
		if e.Cookie&filter.Mask == filter.Cookie && (filter.Table == 0 || int(e.Table)+1 == filter.Table) && strings.Contains(string(e.Match), string(filter.Match)) {
			out = append(out, of.FlowStats{Flow: e})
		}
	}
	return out, nil
}

func (f *fake) CountFlows(ctx context.Context, filter of.Filter) (uint64, error) {
	list, err := f.Flows(ctx, filter)
	return uint64(len(list)), err
}

func (f *fake) Groups(context.Context) (out []of.Group, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.groups {
		out = append(out, g)
	}
	return out, nil
}

func (f *fake) Ports(context.Context) (out []of.Port, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.ports {
		if i.Number != 0 {
			out = append(out, of.Port{Name: i.Name, Number: i.Number})
		}
	}
	return out, nil
}

func (f *fake) Receive(context.Context, func(of.PacketIn)) error { return nil }
func (f *fake) Alive() bool                                      { return true }
func (f *fake) Close() error                                     { return nil }

func (f *fake) Version(context.Context) (string, error) { return "3.1.0", nil }

func (f *fake) Bridge(_ context.Context, name string) (ovsdb.Bridge, bool, error) {
	return ovsdb.Bridge{Name: name}, name == "br-mpls", nil
}

func (f *fake) BridgeOf(_ context.Context, name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch _, ok := f.ports[name]; {
	case name == "elsewhere":
		return "br-other", nil
	case ok:
		return "br-mpls", nil
	}
	return "", nil
}

func (f *fake) Interface(_ context.Context, name string) (ovsdb.Interface, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, ok := f.ports[name]
	return i, ok, nil
}

func (f *fake) Marked(_ context.Context, key, value string) (out []ovsdb.Interface, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.ports {
		if i.ExternalIDs[key] == value {
			out = append(out, i)
		}
	}
	return out, nil
}

func (f *fake) AddPort(_ context.Context, _ string, p ovsdb.NewPort) (ovsdb.Interface, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	number := uint32(1)
	for slices.ContainsFunc(f.list(), func(i ovsdb.Interface) bool { return i.Number == number }) {
		number++
	}
	i := ovsdb.Interface{Name: p.Name, Type: p.Type, Number: number, Options: p.Options, ExternalIDs: p.ExternalIDs}
	f.ports[p.Name] = i
	return i, nil
}

func (f *fake) list() (out []ovsdb.Interface) {
	for _, i := range f.ports {
		out = append(out, i)
	}
	return out
}

func (f *fake) DeletePort(_ context.Context, _, name string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.ports[name]
	delete(f.ports, name)
	return ok, nil
}

func (f *fake) SetMTU(context.Context, string, uint32) error { return nil }

// text returns flows, without records, and groups in the order of the tables.
func (f *fake) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, e := range f.flows {
		if _, record := e.Match.Value(regRecord); !record && e.Cookie != cookieMark {
			lines = append(lines, e.String())
		}
	}
	for _, g := range f.groups {
		if g.ID != groupGuess {
			lines = append(lines, g.String())
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// driver starts a driver on the switch.
func (f *fake) driver(t testing.TB, change func(*Config)) *Driver {
	t.Helper()
	cfg := Config{LocalAddr: netip.MustParseAddr("192.0.2.1"), ARPResponder: true}
	if change != nil {
		change(&cfg)
	}
	d, err := newDriver(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.db = f
	d.dial = func(context.Context) (bridge, error) { return f, nil }
	d.device = func(name string) (bool, error) { return strings.HasPrefix(name, "tap") || name == "elsewhere", nil }
	if err := d.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}
