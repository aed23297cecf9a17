// SPDX-License-Identifier: Apache-2.0

// Package linux is the E-VPN data plane on a Linux bridge and a VXLAN device
// per instance, driven by netlink only; no process is started for anything.
//
// # What an instance is in the kernel
//
//	bridge evpn-<10 hex>    alias "bagpipe evpn <id>"   or an existing bridge
//	vxlan  vxlan-<9 hex>    alias "bagpipe evpn <id>"   or that bridge's own, of the same VNI
//
// The device names are hashes, the alias tells whose they are. A device
// without our alias is never changed, whatever its name.
//
//	LocalPort   the port's master is the bridge
//	LocalMAC    bridge fdb replace MAC dev PORT master extern_learn
//	RemoteMAC   bridge fdb replace MAC dev VXLAN dst VTEP vni VNI self master extern_learn
//	Neighbour   ip neigh replace IP lladdr MAC dev BRIDGE nud noarp extern_learn proto 19
//	Flood       bridge fdb append 00:00:00:00:00:00 dev VXLAN dst VTEP vni VNI self extern_learn
//
// The VXLAN port does not learn and has neigh_suppress: the bridge answers ARP
// and neighbour solicitations for known addresses (RFC 9161) and floods the others.
// A RemoteMAC is two entries, in the bridge and in the VXLAN device, because
// without the first the bridge, which must not learn from the VXLAN port, would
// flood to all ports. One message makes both under the kernel's lock.
//
// # What is ours
//
// Devices by their alias, FDB entries by extern_learn (the kernel keeps no
// other mark there), neighbours by extern_learn and protocol 19. In an existing
// bridge, entries of others without these marks are left alone.
//
// Limits: of an instance on an existing bridge with its own VXLAN device, no
// name is left in the kernel, so that after a crash Orphans cannot list it; its
// entries are found when the instance is opened again, or by Cleanup when
// neighbours are among them. The former port flags of such a device, and which
// far ends of a flood list begun by others are ours, are known only to the
// process that made the change. And a bridge of others may change its MAC as its
// ports come and go, upon which the kernel forgets all neighbours on it: only
// reading Installed again shows that.
package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernelVXLANPort is the kernel's default UDP port, from before IANA gave out 4789.
const kernelVXLANPort = 8472

// Config is what the driver must know.
type Config struct {
	// LocalAddr is our tunnel end point (VTEP); its family is that of all next hops.
	LocalAddr netip.Addr
	// VXLANPort is the UDP port, local and remote; 0 takes the kernel's default, 8472.
	VXLANPort uint16
}

// Driver implements dataplane.Driver.
type Driver struct {
	cfg   Config
	log   *slog.Logger
	conn  *netlinkx.Conn
	dumps *netlinkx.Conn // for long dumps, which changes must not wait for
	addrs *netlink.Handle
	ns    *os.File // our network namespace
	small sync.Once

	// opening is held for reading while devices are made or adopted, and for
	// writing while an orphan is removed. Taken before mu.
	opening sync.RWMutex

	mu sync.Mutex
	// open holds the instances by listed id, those just being opened included.
	open map[string]*handle
	// found holds indexes of devices with our alias by that alias: what earlier
	// runs left, and what we made. It spares a list of all devices per Open.
	found map[string][]int
}

// New returns a driver for the network namespace of the calling thread. A nil
// log discards messages.
func New(cfg Config, log *slog.Logger) (*Driver, error) {
	if !cfg.LocalAddr.IsValid() || cfg.LocalAddr.IsUnspecified() || cfg.LocalAddr.Is4In6() || cfg.LocalAddr.Zone() != "" {
		return nil, fmt.Errorf("local address %q is not valid: want an IPv4 or IPv6 address of this host", cfg.LocalAddr)
	}
	if cfg.VXLANPort == 0 {
		cfg.VXLANPort = kernelVXLANPort
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Driver{cfg: cfg, log: log, open: map[string]*handle{}, found: map[string][]int{}}
	if err := d.dial(); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Driver) dial() (err error) {
	if d.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	if d.conn, err = netlinkx.Dial(); err != nil {
		return err
	}
	if d.dumps, err = netlinkx.Dial(); err != nil {
		return err
	}
	if d.addrs, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	links, err := d.conn.Links(0)
	if err != nil {
		return err
	}
	for _, l := range links {
		switch _, ours := instanceOf(l); {
		case isHalfMade(l):
			if err := deleteLink(d.conn, l.Index); err != nil {
				return err
			}
		case ours:
			d.found[l.Alias] = append(d.found[l.Alias], l.Index)
		}
	}
	return nil
}

// Name returns "linux".
func (d *Driver) Name() string { return "linux" }

// Capabilities returns what E-VPN on a Linux bridge can do.
func (d *Driver) Capabilities() dataplane.Capabilities {
	return dataplane.Capabilities{
		Encaps:         []encap.Type{encap.VXLAN},
		AcceptDefault:  true,
		Directions:     []dataplane.Direction{dataplane.Both},
		ExistingBridge: true,
		IPv6Underlay:   d.cfg.LocalAddr.Is6(),
	}
}

// Open makes or adopts the bridge and the VXLAN device of an instance. What is
// right is left as it is, so that forwarding goes on over a restart.
func (d *Driver) Open(ctx context.Context, inst dataplane.Instance) (dataplane.Handle, error) {
	if err := d.check(ctx, inst); err != nil {
		return nil, fmt.Errorf("open instance %q: %w", inst.ID, err)
	}
	d.opening.RLock()
	defer d.opening.RUnlock()
	if err := d.reserve(inst); err != nil {
		return nil, fmt.Errorf("open instance %q: %w", inst.ID, err)
	}
	h, err := d.build(inst)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		delete(d.open, listedID(inst.ID))
		return nil, fmt.Errorf("open instance %q: %w", inst.ID, err)
	}
	d.open[listedID(inst.ID)] = h
	return h, nil
}

func (d *Driver) check(ctx context.Context, inst dataplane.Instance) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case inst.Type != dataplane.EVPN:
		return fmt.Errorf("type %q is not for this driver: want %q", inst.Type, dataplane.EVPN)
	case !validVNI(inst.VNI):
		return fmt.Errorf("VNI %d is not valid: want 1 to %d", inst.VNI, maxVNI)
	case inst.ID == "":
		return errors.New("instance has no id")
	}
	return nil
}

// reserve takes the id. An existing bridge serves one instance only, because
// local MACs in its table do not tell whose they are.
func (d *Driver) reserve(inst dataplane.Instance) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, taken := d.open[listedID(inst.ID)]; taken {
		return errors.New("it is open already")
	}
	if inst.Bridge != "" {
		for _, h := range d.open {
			if h.inst.Bridge == inst.Bridge {
				return badBridge("bridge %s is in use by instance %q", inst.Bridge, h.inst.ID)
			}
		}
	}
	d.open[listedID(inst.ID)] = &handle{d: d, inst: inst}
	return nil
}

// Describe returns members for the looking glass.
func (d *Driver) Describe() []dataplane.Member {
	return []dataplane.Member{
		{Name: "vxlan_dst_port", Value: d.cfg.VXLANPort},
	}
}

// Close closes the sockets. Forwarding goes on.
func (d *Driver) Close() error {
	var errs []error
	for _, c := range []*netlinkx.Conn{d.conn, d.dumps} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	if d.addrs != nil {
		d.addrs.Close()
	}
	if d.ns != nil {
		errs = append(errs, d.ns.Close())
	}
	return errors.Join(errs...)
}
