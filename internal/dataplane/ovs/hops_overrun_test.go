// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// While the switch is slow the kernel has more changes of neighbours than a socket holds. What is
// lost then is read from the table, and changes are followed on.
func TestOverrunOfNeighbours(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "hops")
	batch := func(lines ...string) {
		t.Helper()
		c := ns.Command(t.Context(), "ip", "-batch", "-")
		c.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	hop := netip.MustParseAddr("192.0.2.9")
	set := func(mac ethernet.MAC) string {
		return fmt.Sprintf("neigh replace %s lladdr %s dev d0 nud permanent", hop, mac)
	}
	macs := [4]ethernet.MAC{}
	for i := range macs {
		macs[i] = ethernet.MAC{0, 0, 0x5e, 0, 0x53, byte(i + 1)}
	}
	batch("link add d0 type veth peer name d1", "addr add 192.0.2.1/24 dev d0", "link set d0 up", "link set d1 up", set(macs[0]))

	var log lockedBuffer
	called, release := make(chan struct{}), make(chan struct{})
	block := sync.OnceFunc(func() { close(called); <-release })
	var n *neighbours
	var err error
	ns.Do(func() {
		n, err = watchNeighbours(slog.New(slog.NewTextHandler(&log, nil)), func(netip.Addr) { block() })
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	wantMAC := func(want ethernet.MAC) {
		t.Helper()
		var got ethernet.MAC
		nstest.Eventually(t, 20*time.Second, func() bool {
			got, _ = n.lookup(hop)
			return got == want
		}, func() string { return fmt.Sprintf("MAC of %s is %s, want %s", hop, got, want) })
	}
	wantMAC(macs[0])
	batch(set(macs[1]))
	<-called
	var storm []string
	for i := range 8000 {
		storm = append(storm, fmt.Sprintf("neigh replace 192.0.2.%d lladdr 00:00:5e:00:53:%02x dev d0 nud permanent", 20+i%100, 0x80+i/100%2))
	}
	batch(append(storm, set(macs[2]))...)
	close(release)
	wantMAC(macs[2])
	log.mu.Lock()
	lost := bytes.Contains(log.b.Bytes(), []byte("changes of the neighbour table are lost"))
	log.mu.Unlock()
	if !lost {
		t.Error("nothing was lost: the storm is too small to show anything")
	}
	batch(set(macs[3]))
	wantMAC(macs[3])
}
