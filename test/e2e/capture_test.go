// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// capture counts the tenants' packets that cross the underlay in VXLAN, by what
// they are: "arp request 198.51.100.21", "ns 2001:db8:1::21", "echo
// 198.51.100.21", and "fragment" for pieces of tunnel packets.
type capture struct {
	t    testing.TB
	file *os.File
	wg   sync.WaitGroup

	mu     sync.Mutex
	counts map[string]int
}

// startCapture listens to all that a host sends to the fabric.
func startCapture(t testing.TB, ns *nstest.NS) *capture {
	t.Helper()
	c := &capture{t: t, counts: map[string]int{}}
	c.file = packetSocket(t, ns.Name, "eth0")
	c.wg.Go(c.read)
	t.Cleanup(c.stop)
	return c
}

// packetSocket opens a socket that sees all frames of a device.
func packetSocket(t testing.TB, namespace, device string) *os.File {
	t.Helper()
	fd := -1
	err := netspace.Do(namespace, func() (err error) {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: link.Attrs().Index})
	})
	if err != nil {
		t.Fatalf("capture at %s in %s: %v", device, namespace, err)
	}
	return os.NewFile(uintptr(fd), "capture")
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (c *capture) stop() {
	_ = c.file.Close()
	c.wg.Wait()
}

func (c *capture) read() {
	buf := make([]byte, 1<<16)
	for {
		n, err := c.file.Read(buf)
		if err != nil {
			return
		}
		if what := tenantPacket(buf[:n]); what != "" {
			c.mu.Lock()
			c.counts[what]++
			c.mu.Unlock()
		}
	}
}

// count returns how many packets of a kind there were.
func (c *capture) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[what]
}

// wait waits for a packet of a kind.
func (c *capture) wait(what string) {
	c.t.Helper()
	eventually(c.t, routeTimeout, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.counts[what] == 0 {
			return fmt.Errorf("no %s seen, only %v", what, c.counts)
		}
		return nil
	})
}

// tenantPacket names what is in a frame of the underlay, "" when it is none of
// the kinds that are counted.
func tenantPacket(frame []byte) string {
	if len(frame) < 14 {
		return ""
	}
	udp, piece := udpOf(binary.BigEndian.Uint16(frame[12:]), frame[14:])
	switch {
	case piece:
		return "fragment"
	case len(udp) < 8+8+14 || binary.BigEndian.Uint16(udp[2:]) != 4789:
		return ""
	}
	return innerPacket(udp[16:])
}

// udpOf returns the UDP packet in an IP packet, and whether that is a fragment.
func udpOf(etherType uint16, b []byte) (udp []byte, fragment bool) {
	switch {
	case etherType == unix.ETH_P_IP && len(b) >= 20:
		const moreOrOffset = 0x3fff
		return pick(b[9] == unix.IPPROTO_UDP, b[20:]), binary.BigEndian.Uint16(b[6:])&moreOrOffset != 0
	case etherType == unix.ETH_P_IPV6 && len(b) >= 40:
		return pick(b[6] == unix.IPPROTO_UDP, b[40:]), b[6] == unix.IPPROTO_FRAGMENT
	}
	return nil, false
}

func pick(ok bool, b []byte) []byte {
	if ok {
		return b
	}
	return nil
}

func innerPacket(frame []byte) string {
	b := frame[14:]
	switch etherType := binary.BigEndian.Uint16(frame[12:]); {
	case etherType == unix.ETH_P_ARP && len(b) >= 28 && b[7] == 1:
		return "arp request " + netip.AddrFrom4([4]byte(b[24:28])).String()
	case etherType == unix.ETH_P_IP && len(b) >= 28 && b[9] == unix.IPPROTO_ICMP && b[20] == 8:
		return "echo " + netip.AddrFrom4([4]byte(b[16:20])).String()
	case etherType == unix.ETH_P_IPV6 && len(b) >= 64 && b[6] == unix.IPPROTO_ICMPV6 && b[40] == 135:
		return "ns " + netip.AddrFrom16([16]byte(b[48:64])).String()
	case etherType == unix.ETH_P_IPV6 && len(b) >= 48 && b[6] == unix.IPPROTO_ICMPV6 && b[40] == 128:
		return "echo " + netip.AddrFrom16([16]byte(b[24:40])).String()
	}
	return ""
}
