// SPDX-License-Identifier: Apache-2.0

// Package ebpf is the IP VPN data plane in programs at tc ingress, one on each port and
// one where packets of other nodes come in: MPLS in UDP (RFC 7510), MPLS in GRE (RFC
// 4023) and VXLAN, for IPv4 and IPv6 over either. It needs no kernel module, no VRF
// device and no type information of the kernel, from Linux 6.1 on.
//
// # State
//
// All state is in maps of the kernel; the books in memory are made from them. Programs
// attached to devices hold on to the maps, so that forwarding outlives the process. New
// finds the maps by the program on the underlay's devices, and puts its own program, with
// the same maps, in place of it in one step. Nothing is pinned. Everything belongs to the
// network namespace of the devices.
//
//	LocalPort    the program bagpipe_port on the device; ports, plugs
//	LocalPrefix  endpoints; from them labels, gateways, sources
//	Prefix       a trie of the VRF in routes4 or routes6; groups for several next hops
//	Redirect     classes, in lists by their destinations
//	Fallback     fallbacks
//
// # What a VRF answers
//
// ARP and neighbour solicitations for gateways, and for all that has a route more
// specific than a default that leads elsewhere; pings of gateways; "time exceeded" and
// "too big" for what came from a port. Within the subnet that Instance.Gateway gives TTLs
// are left alone.
//
// # Limits
//
// IPv4 packets that are too big for the underlay are refused with "fragmentation needed"
// also when they may be fragmented. An IPv6 packet of up to 1280 octets that is too big
// is lost: nobody may ask for less. Packets that come from the underlay and have reached
// the end of their path get no ICMP error. Outer UDP checksums are neither sent nor
// looked at, with IPv6 neither (RFC 6935): another receiver must accept that. A packet
// that a namespace of this host sends on as it came in a tunnel of this driver, with its
// segments uncut, cannot change its encapsulation, and gets no ICMP error.
//
// A label has the TTL of the packet in it, which nobody copies back. DSCP and ECN are
// copied to the outer header, congestion marks are copied back (RFC 6040).
package ebpf

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	defaultVXLANPort = 4789
	defaultMaxRoutes = 1 << 20
	mplsUDPPort      = 6635
)

// Config is what the driver must know.
type Config struct {
	// LocalAddr is our tunnel end point; its family is that of all next hops.
	LocalAddr netip.Addr
	// Underlay are the devices where packets of other nodes come in; empty for the one
	// that has LocalAddr.
	Underlay []string
	// VXLANPort is the UDP port, local and remote; 0 for 4789.
	VXLANPort uint16
	// Encaps are some of MPLSInUDP, GRE (MPLS in it) and VXLAN, best first; empty for all.
	Encaps []encap.Type
	// DefaultEncap is used for next hops that name none; the first of Encaps when zero.
	DefaultEncap encap.Type
	// AntiSpoofing drops what comes from a port with a MAC and IP address that no
	// endpoint of the port has.
	AntiSpoofing bool
	// MaxRoutes is how many routes of one IP version a VRF may have; 0 for 1048576.
	MaxRoutes uint32

	// clsact does without tcx, sizes are other sizes of maps: for tests.
	clsact bool
	sizes  map[string]uint32
}

var txOf = map[encap.Type]uint8{
	encap.Default: txDefault, encap.MPLSInUDP: txMPLSUDP, encap.GRE: txMPLSGRE, encap.VXLAN: txVXLAN,
}

var encapOf = [...]encap.Type{encap.Default, encap.MPLSInUDP, encap.GRE, encap.VXLAN}

// complete checks the configuration and fills in defaults.
func (c *Config) complete() error {
	a := c.LocalAddr
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
		return fmt.Errorf("local address %q is not valid: want an IPv4 or IPv6 address of this host", a)
	}
	if c.VXLANPort == 0 {
		c.VXLANPort = defaultVXLANPort
	}
	if c.VXLANPort == mplsUDPPort {
		return fmt.Errorf("VXLAN port %d is not valid: it is that of MPLS in UDP", c.VXLANPort)
	}
	if c.MaxRoutes == 0 {
		c.MaxRoutes = defaultMaxRoutes
	}
	if len(c.Encaps) == 0 {
		c.Encaps = encapOf[1:]
	}
	for i, e := range c.Encaps {
		if txOf[e] == txDefault || slices.Contains(c.Encaps[:i], e) {
			return fmt.Errorf("encapsulation %s is not valid: want each of MPLS-in-UDP, GRE and VXLAN at most once", e)
		}
	}
	if c.DefaultEncap == encap.Default {
		c.DefaultEncap = c.Encaps[0]
	}
	if !slices.Contains(c.Encaps, c.DefaultEncap) {
		return fmt.Errorf("default encapsulation %s is not valid: want one of %v", c.DefaultEncap, c.Encaps)
	}
	return nil
}

// Driver implements dataplane.Driver and dataplane.Counting.
type Driver struct {
	cfg  Config
	log  *slog.Logger
	conn *netlinkx.Conn
	nl   *netlink.Handle
	ns   *os.File // our network namespace
	// hooks are those of the underlay, taps those of ports.
	hooks *hooks
	taps  *hooks
	maps  maps
	progs programs
	slow  *reassembly
	// background are calls that the kernel is slow to return from.
	background sync.WaitGroup
	closing    sync.Once

	mu sync.Mutex
	// open holds the open instances by id, vrfs what the kernel has, by number.
	open map[string]*handle
	vrfs map[uint32]vrfValue
	// ports are the plugged devices by index, with what each VRF has of them.
	ports map[int]map[uint32]plug
	// steered are the VRFs with classes of packets that are routed in others.
	steered   map[uint32]bool
	lastClass uint32
	lastVRF   uint32
}

// New returns a driver for the network namespace of the calling thread, with its program
// on the underlay. A nil log discards messages.
func New(cfg Config, log *slog.Logger) (*Driver, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Driver{
		cfg: cfg, log: log,
		open: map[string]*handle{}, vrfs: map[uint32]vrfValue{}, ports: map[int]map[uint32]plug{}, steered: map[uint32]bool{},
	}
	if err := d.start(); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Driver) start() (err error) {
	if err = d.dial(); err != nil {
		return err
	}
	devices, err := d.underlay()
	if err != nil {
		return err
	}
	if err := d.allowLookups(); err != nil {
		return err
	}
	if err := d.takeOver(devices); err != nil {
		return err
	}
	for _, l := range devices {
		if err := d.hooks.attach(l.Index, d.progs.underlay, underlayProgram); err != nil {
			return fmt.Errorf("underlay device %s: %w", l.Name, err)
		}
	}
	if err := d.sweepHooks(devices); err != nil {
		return err
	}
	d.slow, err = startReassembly(d)
	return err
}

// dial opens the sockets, in the namespace of the calling thread.
func (d *Driver) dial() (err error) {
	if d.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	if d.conn, err = netlinkx.Dial(); err != nil {
		return err
	}
	if d.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	if d.hooks, err = newHooks(d.nl, d.ns, d.cfg.clsact); err != nil {
		return err
	}
	// The first tcx program at a device makes the kernel wait for all programs, some 10 ms
	// with its lock of network devices held. A node has many ports, so that they get filters.
	d.taps, err = newHooks(d.nl, d.ns, true)
	return err
}

// takeOver loads the programs with the maps of an earlier run, or with new ones.
func (d *Driver) takeOver(devices []netlinkx.Link) error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("allow memory for maps: %w", err)
	}
	spec, err := specification(d.cfg.sizes)
	if err != nil {
		return err
	}
	if err := d.adopt(spec, devices); err != nil {
		return err
	}
	if d.progs, err = load(spec, &d.maps); err != nil {
		return err
	}
	if err := d.configure(); err != nil {
		return err
	}
	return d.readJournals()
}

// adopt finds the maps of an earlier run: at the underlay's devices, or at others when
// it had others.
func (d *Driver) adopt(spec *ebpf.CollectionSpec, devices []netlinkx.Link) error {
	all, err := d.conn.Links(0)
	if err != nil {
		return err
	}
	for _, l := range slices.Concat(devices, all) {
		if !l.Ethernet {
			continue
		}
		id, err := d.hooks.attached(l.Index, underlayProgram)
		if err != nil {
			return err
		}
		if id == 0 {
			continue
		}
		m, ok, err := reopen(spec, id)
		if err != nil {
			return err
		}
		var c configValue
		if ok && (m.Config.Lookup(uint32(0), &c) != nil || c.Local != d.cfg.LocalAddr.As16()) {
			ok = false
			_ = m.close()
		}
		if !ok {
			d.log.Warn("forwarding of an earlier run cannot be taken over and is removed", "device", l.Name)
			return d.detachAll(all)
		}
		d.maps = m
		return nil
	}
	return nil
}

// configure writes the map that the programs are configured by.
func (d *Driver) configure() error {
	c := configValue{
		Local:     d.cfg.LocalAddr.As16(),
		RouterMAC: d.routerMAC(),
		VXLANPort: [2]byte{byte(d.cfg.VXLANPort >> 8), byte(d.cfg.VXLANPort)},
		DefaultTx: uint32(txOf[d.cfg.DefaultEncap]),
	}
	if d.cfg.LocalAddr.Is6() {
		c.Flags |= configIPv6
	}
	if d.cfg.AntiSpoofing {
		c.Flags |= configAntiSpoofing
	}
	if err := d.maps.Config.Put(uint32(0), &c); err != nil {
		return fmt.Errorf("configure programs: %w", err)
	}
	return nil
}

// routerMAC returns the node's MAC address for packets of VRFs in VXLAN, which is
// locally administered: with an IPv4 local address in it, or 40 bits of a hash of an IPv6 one.
func (d *Driver) routerMAC() ethernet.MAC {
	if d.cfg.LocalAddr.Is4() {
		b := d.cfg.LocalAddr.As4()
		return ethernet.MAC{0x02, 0x62, b[0], b[1], b[2], b[3]}
	}
	sum := sha256.Sum256(d.cfg.LocalAddr.AsSlice())
	return ethernet.MAC{0x06, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// Name returns "ebpf".
func (d *Driver) Name() string { return "ebpf" }

// Capabilities returns what the programs can do.
func (d *Driver) Capabilities() dataplane.Capabilities {
	c := dataplane.Capabilities{
		Encaps:        slices.Clone(d.cfg.Encaps),
		AcceptDefault: true,
		DefaultEncap:  d.cfg.DefaultEncap,
		ECMP:          true,
		Redirect:      true,
		Fallback:      true,
		Directions:    slices.Clone(directions),
		IPv6Underlay:  d.cfg.LocalAddr.Is6(),
		BridgePorts:   true,
	}
	if slices.Contains(d.cfg.Encaps, encap.VXLAN) {
		c.RouterMAC = d.routerMAC()
	}
	return c
}

// Close closes what the process has open; again it does nothing. Forwarding goes on.
func (d *Driver) Close() (err error) {
	d.closing.Do(func() { err = d.close() })
	return err
}

func (d *Driver) close() error {
	d.background.Wait()
	var errs []error
	errs = append(errs, d.slow.close(), d.progs.close(), d.maps.close(), closeIt(d.conn), closeIt(d.ns))
	if d.nl != nil {
		d.nl.Close()
	}
	return errors.Join(errs...)
}
