// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/store"
)

// crowdSize is how large a crowd is. Each member has endpoints of its own, two for a
// MAC; it attaches them all, and then attaches and detaches at random, steps times.
type crowdSize struct {
	members, endpoints, steps int
	instances, ports          int // ports of each instance; every second instance is a VRF
	kills                     int // of the daemon, while the crowd is at work
	limit                     time.Duration
}

// crowdSizes by BAGPIPE_CROWD; "" is that of CI.
var crowdSizes = map[string]crowdSize{
	"":     {members: 500, endpoints: 2, steps: 4, instances: 20, ports: 5, kills: 3, limit: 2 * time.Minute},
	"full": {members: 500, endpoints: 20, steps: 60, instances: 200, ports: 5, kills: 12, limit: 20 * time.Minute},
}

// Route targets that a witness on another node imports.
const (
	crowdEVPN  = "64512:1"
	crowdIPVPN = "64512:2"
)

// TestCrowd has 500 clients attach and detach at once, while slow clients hold
// connections and the daemon is killed again and again. What it has answered holds: the
// looking glass, the kernel and another node have exactly what the clients were told,
// and when all is detached nothing is left anywhere.
func TestCrowd(t *testing.T) {
	size, known := crowdSizes[os.Getenv("BAGPIPE_CROWD")]
	if !known {
		t.Fatalf("BAGPIPE_CROWD=%q: want full, or nothing", os.Getenv("BAGPIPE_CROWD"))
	}
	f := newFabric(t)
	b := f.ebpfNode("b", 12)
	b.witness()
	dir := t.TempDir()
	socket := filepath.Join(t.TempDir(), "api")
	a := f.nodeWith("a", 11, settings{
		peers: f.reflectors(), common: []string{"state_directory = " + dir, "sweep_delay = 2"},
		ipvpn: []string{"dataplane_driver = ebpf", "[API]", "unix_socket = " + socket},
	})
	ports := a.taps(size.instances * size.ports)
	c := newCrowd(a, size, socket)
	before := a.stableDump()
	slow := a.slowClients("bgp/routes")

	ctx, cancel := context.WithTimeout(t.Context(), size.limit)
	defer cancel()
	work := c.start(ctx, (*member).work)
	total := int64(size.members * (size.endpoints + size.steps))
	for i := range size.kills {
		at := total * int64(i+1) / int64(size.kills+1)
		eventually(t, size.limit, func() error {
			if got := c.answered.Load(); got < at && work.Err() == nil {
				return fmt.Errorf("%d of %d requests answered", got, at)
			}
			return nil
		})
		a.restart(syscall.SIGKILL)
		if i%3 == 2 { // and once more before it has all its instances again
			a.restart(syscall.SIGKILL)
		}
	}
	c.wait(work)
	slow.stop()
	slow.tookPart(t)

	ledger := c.ledger()
	t.Logf("%d requests answered, %d sent again after a lost connection, %d turned away; %d endpoints stay",
		c.answered.Load(), c.lost.Load(), c.turnedAway.Load(), len(ledger))
	if lost := c.lost.Load(); lost == 0 {
		t.Error("no client has seen that the daemon was killed")
	}
	a.agrees(time.Minute, ledger, ports)
	b.sees(a, ledger)

	number := a.number()
	a.restart(syscall.SIGKILL)
	a.agrees(time.Minute, ledger, ports)
	if now := a.number(); now != number {
		t.Errorf("/ping is %s, was %s: agents attach all again", now, number)
	}
	c.wait(c.start(ctx, (*member).leave))
	a.agrees(time.Minute, nil, ports)
	b.sees(a, nil)
	a.showsNothing()
	a.looksUntouched(before)
	a.proc.end(syscall.SIGTERM)
	storeIsEmpty(t, dir)
	a.start()
	a.showsNothing()
}

// storeIsEmpty checks the store of a daemon that does not run.
func storeIsEmpty(t testing.TB, dir string) {
	t.Helper()
	s, err := store.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if !s.Kept() {
		t.Error("the daemon has kept no state")
	}
	for name := range s.All() {
		if strings.HasPrefix(name, "instance\x00") || strings.HasPrefix(name, "endpoint\x00") {
			t.Errorf("the store has %q left", name)
		}
	}
}

// taps makes devices that endpoints may be behind, and returns their names.
func (n *node) taps(number int) (names []string) {
	n.t.Helper()
	var lines []string
	for i := range number {
		name := fmt.Sprintf("port%d", i)
		names = append(names, name)
		lines = append(lines, "tuntap add mode tap dev "+name, fmt.Sprintf("link set %s addrgenmode none up", name))
	}
	ip(n.t, n.NS, lines...)
	return names
}

// witness has a node import all routes of a crowd.
func (n *node) witness() {
	n.t.Helper()
	ip(n.t, n.NS, "tuntap add mode tap dev seer", "link set seer up", "tuntap add mode tap dev viewer", "link set viewer up")
	n.attach(client.AttachRequest{VPNType: client.EVPN, VPNInstanceID: red.id, VNI: 7, MACAddress: "02:00:5e:00:53:01",
		LocalPort: client.LocalPort{LinuxIF: "seer"}, ImportRT: []string{crowdEVPN}})
	n.attach(client.AttachRequest{VPNType: client.IPVPN, VPNInstanceID: blue.id, MACAddress: "02:00:5e:00:53:02", IPAddress: "192.0.2.99",
		LocalPort: client.LocalPort{LinuxIF: "viewer"}, ImportRT: []string{crowdIPVPN}})
}

// sees waits until the witness has routes for the ledger of another node, and no others:
// in the kernel for E-VPN, in the looking glass for IP VPN.
func (n *node) sees(other *node, ledger []place) {
	n.t.Helper()
	want := forwarding{MACs: map[string]string{}, Neighbours: map[string]string{}}
	var prefixes []string
	instances := map[string]bool{}
	for _, e := range ledger {
		a := netip.MustParseAddr(e.IP)
		if e.VPN == client.IPVPN {
			prefixes = append(prefixes, fmt.Sprintf("'%s'", netip.PrefixFrom(a, a.BitLen())))
			continue
		}
		want.MACs[e.MAC], want.Neighbours[e.IP] = other.addr.String(), e.MAC
		instances[e.Instance] = true
	}
	for range instances { // each has a VNI of its own
		want.Flood = append(want.Flood, other.addr.String())
	}
	slices.Sort(prefixes)
	n.forwards(red, want)
	eventually(n.t, routeTimeout, func() error {
		var best map[string]any
		if err := n.glass(&best, "vpns", "instances", blue.id, "best_routes"); err != nil {
			return err
		}
		var got []string
		for name := range best {
			got = append(got, name)
		}
		slices.Sort(got)
		if diff := cmp.Diff(prefixes, got, cmpopts.EquateEmpty()); diff != "" {
			return fmt.Errorf("routes of %s at %s (-want +got):\n%.5000s", other.label, n.label, diff)
		}
		return nil
	})
}

// crowd is many clients of one daemon.
type crowd struct {
	node    *node
	members []*member
	// answered counts requests; lost those that were sent again because the connection
	// was lost before the answer, turnedAway those because the daemon had too much to do.
	answered, lost, turnedAway atomic.Int64
}

// member is a client that does one thing after another.
type member struct {
	crowd    *crowd
	api      *client.Client
	dice     *rand.Rand
	steps    int
	own      []client.AttachRequest
	attached []bool // by index in own: what the daemon has answered last
}

func newCrowd(n *node, size crowdSize, socket string) *crowd {
	n.t.Helper()
	c := &crowd{node: n}
	for i := range size.members {
		// Half of them keep their connection, to the socket.
		transport := &http.Transport{DialContext: netspace.Dialer(n.Name), DisableKeepAlives: true}
		if i%2 == 1 {
			transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			}}
			n.t.Cleanup(transport.CloseIdleConnections)
		}
		api, err := client.New(client.WithHTTPClient(&http.Client{Timeout: time.Minute, Transport: transport}))
		if err != nil {
			n.t.Fatal(err)
		}
		m := &member{crowd: c, api: api, dice: rand.New(rand.NewPCG(1, uint64(i))), steps: size.steps, attached: make([]bool, size.endpoints)}
		for k := range size.endpoints {
			m.own = append(m.own, size.endpoint(i*size.endpoints+k))
		}
		c.members = append(c.members, m)
	}
	return c
}

// endpoint returns the attachment of a number: an even one and the next are the IPv4
// and IPv6 addresses of one MAC.
func (s crowdSize) endpoint(number int) client.AttachRequest {
	pair := number / 2
	instance, port := pair%s.instances, pair/s.instances%s.ports
	id := binary.BigEndian.AppendUint32(nil, uint32(pair+1)) // 0 is no host
	r := client.AttachRequest{
		VPNType: client.EVPN, VPNInstanceID: fmt.Sprintf("crowd%d", instance), VNI: uint32(1<<20 + instance), // no label is that large
		MACAddress: fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", id[0], id[1], id[2], id[3]),
		LocalPort:  client.LocalPort{LinuxIF: fmt.Sprintf("port%d", instance*s.ports+port)},
		ExportRT:   []string{crowdEVPN},
	}
	r.IPAddress = netip.AddrFrom4([4]byte{198, 18, id[2], id[3]}).String() + "/15"
	if number%2 == 1 {
		r.IPAddress = fmt.Sprintf("2001:db8:1::%x/64", pair+1)
	}
	if instance%2 == 1 {
		r.VPNType, r.VNI, r.ExportRT, r.GatewayIP = client.IPVPN, 0, []string{crowdIPVPN}, "198.18.0.0"
		if number%2 == 1 {
			r.GatewayIP = "2001:db8:1::"
		}
	}
	return r
}

// crowdWork is the work of all members.
type crowdWork struct {
	context.Context
	group *errgroup.Group
}

// start has all members do something at once.
func (c *crowd) start(ctx context.Context, do func(*member, context.Context) error) crowdWork {
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range c.members {
		g.Go(func() error { return do(m, ctx) })
	}
	return crowdWork{ctx, g}
}

func (c *crowd) wait(w crowdWork) {
	c.node.t.Helper()
	if err := w.group.Wait(); err != nil {
		c.node.t.Fatal(err)
	}
}

// ledger lists what is attached by what the clients were told.
func (c *crowd) ledger() (list []place) {
	for _, m := range c.members {
		for i, r := range m.own {
			if m.attached[i] {
				list = append(list, placeOf(r))
			}
		}
	}
	return list
}

// work attaches all, then attaches and detaches at random.
func (m *member) work(ctx context.Context) error {
	for i := range m.own {
		if err := m.attach(ctx, i); err != nil {
			return err
		}
	}
	for range m.steps {
		i := m.dice.IntN(len(m.own))
		do := m.detach
		if m.dice.IntN(2) == 0 {
			do = m.attach
		}
		if err := do(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// leave detaches all that is attached.
func (m *member) leave(ctx context.Context) error {
	for i, attached := range m.attached {
		if !attached {
			continue
		}
		if err := m.detach(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// attach attaches an endpoint, or attaches it again with something changed.
func (m *member) attach(ctx context.Context, i int) error {
	r := m.own[i]
	r.LocalPref = m.dice.Uint32N(3)
	_, err := m.ask(ctx, func() error { return m.api.Attach(ctx, r) })
	if err != nil {
		return fmt.Errorf("attach %v: %w", placeOf(r), err)
	}
	m.attached[i] = true
	return nil
}

// detach detaches an endpoint. One that is not attached is refused; so is one that
// was detached by a request whose answer was lost.
func (m *member) detach(ctx context.Context, i int) error {
	r := m.own[i]
	unclear, err := m.ask(ctx, func() error { return m.api.Detach(ctx, r.Detach()) })
	var refused *client.Error
	switch {
	case err == nil && !m.attached[i]:
		return fmt.Errorf("detach %v: done, though it is not attached", placeOf(r))
	case errors.As(err, &refused) && refused.Code == http.StatusBadRequest && (unclear || !m.attached[i]):
	case err != nil:
		return fmt.Errorf("detach %v, attached %v: %w", placeOf(r), m.attached[i], err)
	}
	m.attached[i] = false
	return nil
}

// ask sends a request until it is answered. It tells whether an answer was lost before:
// then the daemon may have carried it out.
func (m *member) ask(ctx context.Context, send func() error) (unclear bool, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := send()
		var answer *client.Error
		var op *net.OpError
		switch {
		case ctx.Err() != nil:
			return unclear, fmt.Errorf("%w, last answer: %w", context.Cause(ctx), err)
		case errors.As(err, &answer) && answer.Code == http.StatusServiceUnavailable:
			m.crowd.turnedAway.Add(1)
		case err == nil || answer != nil:
			m.crowd.answered.Add(1)
			return unclear, err
		case errors.As(err, &op) && op.Op == "dial": // not sent
		default:
			m.crowd.lost.Add(1)
			unclear = true
		}
		pause(ctx, tick)
	}
}
