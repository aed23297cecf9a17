// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/google/go-cmp/cmp"
)

var (
	_ dataplane.Driver = (*Driver)(nil)
	_ dataplane.Handle = (*handle)(nil)
)

const (
	local4 = "192.0.2.1"
	local6 = "2001:db8:ffff::1"
)

// lockedBuffer is a log that tests read while drivers write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// host is a namespace with drivers in it.
type host struct {
	*nstest.NS
	t   testing.TB
	log lockedBuffer
}

func newHost(t testing.TB, label string) *host {
	t.Helper()
	return &host{NS: nstest.New(t, label), t: t}
}

// driver starts a driver, as a process start would.
func (h *host) driver(local string) *Driver {
	h.t.Helper()
	var d *Driver
	var err error
	h.Do(func() {
		d, err = New(Config{LocalAddr: netip.MustParseAddr(local), VXLANPort: 4789}, slog.New(slog.NewTextHandler(&h.log, nil)))
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = d.Close() })
	return d
}

func (h *host) conn() *netlinkx.Conn {
	h.t.Helper()
	var c *netlinkx.Conn
	var err error
	h.Do(func() { c, err = netlinkx.Dial() })
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// ip runs ip(8) with words split at blanks, bridge runs bridge(8).
func (h *host) ip(format string, args ...any) string {
	h.t.Helper()
	return h.Run(append([]string{"ip"}, strings.Fields(fmt.Sprintf(format, args...))...)...)
}

func (h *host) bridge(format string, args ...any) string {
	h.t.Helper()
	return h.Run(append([]string{"bridge"}, strings.Fields(fmt.Sprintf(format, args...))...)...)
}

// ports makes veth pairs; the ends "<name>" are for bridges.
func (h *host) ports(names ...string) {
	h.t.Helper()
	for _, n := range names {
		h.ip("link add %s type veth peer name %s-x", n, n)
		h.ip("link set %s-x addrgenmode none up", n) // silent: nothing to learn
	}
}

func (h *host) exists(device string) bool {
	_, err := h.Try("ip", "link", "show", device)
	return err == nil
}

// unstable is what the kernel changes by itself, some of it later: timers, carrier, multicast memberships.
var (
	unstable  = regexp.MustCompile(` (\w*_timer|promiscuity|allmulti|tso_max_size) +[0-9.]+| (state|qdisc) +\S+|NO-CARRIER,|,LOWER_UP|,M-DOWN|,LOWERLAYERDOWN`)
	multicast = regexp.MustCompile(`^(33:33|01:00:5e|224\.|ff0)`)
)

// state returns all devices, FDB entries and neighbours as text, without what
// the kernel changes by itself, and without lines that contain one of without.
func (h *host) state(without ...string) string {
	h.t.Helper()
	text := h.ip("-d -o link show") + h.bridge("fdb show") + h.ip("-d neigh show") + h.ip("-d -6 neigh show")
	var lines []string
	for line := range strings.Lines(text) {
		skip := multicast.MatchString(line) || strings.TrimSpace(line) == ""
		for _, w := range without {
			skip = skip || strings.Contains(line, w)
		}
		if !skip {
			lines = append(lines, unstable.ReplaceAllString(line, ""))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func instance(id string, vni uint32) dataplane.Instance {
	return dataplane.Instance{ID: id, Type: dataplane.EVPN, VNI: vni, Number: vni}
}

func mustOpen(t testing.TB, d *Driver, inst dataplane.Instance) *handle {
	t.Helper()
	h, err := d.Open(t.Context(), inst)
	if err != nil {
		t.Fatal(err)
	}
	return h.(*handle)
}

func mustApply(t testing.TB, h dataplane.Handle, changes ...dataplane.Change) {
	t.Helper()
	for _, err := range h.Apply(t.Context(), changes) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// wantErr checks that an error has all the words.
func wantErr(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not contain %q", err, w)
		}
	}
}

func texts(entries []dataplane.Entry) []string {
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.String())
	}
	slices.Sort(list)
	return list
}

func wantInstalled(t testing.TB, h dataplane.Handle, want ...dataplane.Entry) {
	t.Helper()
	got, err := h.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, w.Equal) {
			t.Errorf("installed has nothing equal to %s", w)
		}
	}
}

func wantSame(t testing.TB, what, before, after string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); diff != "" {
		t.Errorf("%s (-before +after):\n%s", what, diff)
	}
}
