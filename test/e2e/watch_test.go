// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// watch notes every change of a node's kernel to the remote entries of a
// network: tunnel ends by MAC and MACs by IP address. So it knows what held at
// all times, not just when somebody looked.
type watch struct {
	t    testing.TB
	done chan struct{}
	wg   sync.WaitGroup
	dev  devices

	mu      sync.Mutex
	history map[string][]string // what an entry led to, "gone" for nothing
	err     error
}

// gone stands for a deletion in a history.
const gone = "gone"

// watch begins to watch a network whose devices are there.
func (n *node) watch(of network) *watch {
	n.t.Helper()
	d, err := n.devices(of)
	if err != nil || d.vxlan == 0 || d.bridge == 0 {
		n.t.Fatalf("devices of %s at %s: %+v, %v", of.id, n.label, d, err)
	}
	ns, err := netns.GetFromName(n.Name)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	w := &watch{t: n.t, done: make(chan struct{}), dev: d, history: map[string][]string{}}
	updates := make(chan netlink.NeighUpdate, 1024)
	err = netlink.NeighSubscribeWithOptions(updates, w.done, netlink.NeighSubscribeOptions{
		Namespace: &ns, ReceiveBufferSize: 1 << 20, ReceiveBufferForceSize: true,
		ErrorCallback: w.fail,
	})
	if err != nil {
		n.t.Fatalf("watch %s: %v", n.label, err)
	}
	w.wg.Go(func() {
		for u := range updates {
			w.note(u)
		}
	})
	n.t.Cleanup(w.stop)
	return w
}

func (w *watch) stop() {
	select {
	case <-w.done:
	default:
		close(w.done)
	}
	w.wg.Wait()
}

// fail keeps an error, such as lost events, unless the watch has ended.
func (w *watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.done:
	default:
		w.err = err
	}
}

// note takes one event into the history. An entry that is set to what it was
// already makes none.
func (w *watch) note(u netlink.NeighUpdate) {
	key, value := "", ""
	switch {
	case u.Family == unix.AF_BRIDGE && u.LinkIndex == w.dev.vxlan && u.MasterIndex == 0 && !isZero(u.HardwareAddr):
		key, value = u.HardwareAddr.String(), u.IP.String()
	case u.Family == unix.AF_BRIDGE && u.LinkIndex == w.dev.vxlan && u.MasterIndex != 0 && !isZero(u.HardwareAddr):
		key, value = "bridge "+u.HardwareAddr.String(), "tunnel"
	case u.Family != unix.AF_BRIDGE && u.LinkIndex == w.dev.bridge && u.Flags&unix.NTF_EXT_LEARNED != 0:
		key, value = u.IP.String(), u.HardwareAddr.String()
	default:
		return
	}
	if u.Type == unix.RTM_DELNEIGH {
		value = gone
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.history[key]; len(h) == 0 || h[len(h)-1] != value {
		w.history[key] = append(h, value)
	}
}

func isZero(mac net.HardwareAddr) bool { return mac.String() == "00:00:00:00:00:00" }

// of returns the history of a MAC or an address since the watch began.
func (w *watch) of(key string) []string {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		w.t.Fatalf("watch: %v", w.err)
	}
	return slices.Clone(w.history[key])
}

// never fails the test when an entry of a machine was ever deleted.
func (w *watch) never(what string, v *vm) {
	w.t.Helper()
	for _, key := range []string{v.mac, "bridge " + v.mac, v.v4.Addr().String(), v.v6.Addr().String()} {
		if h := w.of(key); slices.Contains(h, what) {
			w.t.Errorf("history of %s: %s", key, strings.Join(h, ", "))
		}
	}
}

// leads waits until the history of a MAC ends with a tunnel end.
func (w *watch) leads(mac, end string) {
	w.t.Helper()
	eventually(w.t, routeTimeout, func() error {
		if h := w.of(mac); len(h) == 0 || h[len(h)-1] != end {
			return fmt.Errorf("%s led to %v, want %s at last", mac, h, end)
		}
		return nil
	})
}
