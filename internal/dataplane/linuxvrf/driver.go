// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
)

// Config is what the driver must know.
type Config struct {
	// LocalAddr is our tunnel end point (PE address); its family is that of all next hops.
	LocalAddr netip.Addr
	// Encaps are those to announce and accept, of MPLS (over Ethernet), GRE and
	// MPLSInUDP, best first.
	Encaps []encap.Type
	// MPLSInterface is the device for MPLS over Ethernet, to PEs on the same link.
	MPLSInterface string
}

// Driver implements dataplane.Driver.
type Driver struct {
	cfg Config
	log *slog.Logger
	k   kernel

	// mu is held by every call: nexthop objects and labels are shared by all instances.
	mu       sync.Mutex
	open     map[string]*handle // by listed id
	nexthops nexthopTable
	tunnels  map[tunnelKey]int // index of the device
	mplsPort int               // index of cfg.MPLSInterface, 0 for none
	// labels are the local ones, and labelled the MPLS routes that are ours.
	labels   map[uint32]*label
	labelled map[uint32]bool
	// users are the routes that have a local label as next hop.
	users map[uint32]map[routeKey]bool
	// portMasks tells whether rules have port masks; nil when nobody needed to know.
	portMasks *bool
}

// New returns a driver for the network namespace of the calling thread. It has the
// kernel load modules, and fails when something is missing. A nil log discards messages.
func New(cfg Config, log *slog.Logger) (*Driver, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	k, err := openSystem()
	if err != nil {
		return nil, err
	}
	d, err := start(cfg, k, log)
	if err != nil {
		_ = k.Close()
		return nil, err
	}
	return d, nil
}

func (c *Config) check() error {
	if !c.LocalAddr.IsValid() || c.LocalAddr.IsUnspecified() || c.LocalAddr.Is4In6() || c.LocalAddr.Zone() != "" {
		return fmt.Errorf("local address %q is not valid: want an IPv4 or IPv6 address of this host", c.LocalAddr)
	}
	if len(c.Encaps) == 0 {
		return errors.New("no encapsulation is chosen: want some of mpls, gre, mpls-udp")
	}
	for _, e := range c.Encaps {
		switch {
		case !slices.Contains([]encap.Type{encap.MPLS, encap.GRE, encap.MPLSInUDP}, e):
			return fmt.Errorf("encapsulation %s is not for this driver: want mpls, gre, mpls-udp", e)
		case e == encap.MPLS && c.MPLSInterface == "":
			return errors.New("encapsulation mpls needs mpls_interface, a device on the link of all other nodes")
		case e == encap.MPLSInUDP && c.LocalAddr.Is6():
			return fmt.Errorf("encapsulation mpls-udp is for IPv4 only here, and the local address is %s: want mpls or gre", c.LocalAddr)
		}
	}
	return nil
}

// start returns a driver that knows what an earlier run left.
func start(cfg Config, k kernel, log *slog.Logger) (*Driver, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Driver{
		cfg: cfg, log: log, k: k, open: map[string]*handle{}, nexthops: newNexthopTable(), tunnels: map[tunnelKey]int{},
		labels: map[uint32]*label{}, labelled: map[uint32]bool{}, users: map[uint32]map[routeKey]bool{},
	}
	for _, step := range []func() error{d.prepare, d.findTunnels, d.receive, d.findNexthops, d.sweepTables, d.sweepRules, d.findLabels, d.sweepNexthops} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Name returns "linux".
func (d *Driver) Name() string { return "linux" }

// Capabilities returns what VRFs of the kernel can do.
func (d *Driver) Capabilities() dataplane.Capabilities {
	return dataplane.Capabilities{
		Encaps:        d.cfg.Encaps,
		AcceptDefault: true,
		ECMP:          true,
		Directions:    []dataplane.Direction{dataplane.Both},
		IPv6Underlay:  d.cfg.LocalAddr.Is6(),
		Redirect:      true,
	}
}

// Open makes or adopts the VRF device of an instance, with the routes that are there.
func (d *Driver) Open(ctx context.Context, inst dataplane.Instance) (dataplane.Handle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, err := d.openLocked(ctx, inst)
	if err != nil {
		return nil, fmt.Errorf("open instance %q: %w", inst.ID, err)
	}
	return h, nil
}

func (d *Driver) openLocked(ctx context.Context, inst dataplane.Instance) (*handle, error) {
	if err := checkInstance(ctx, inst); err != nil {
		return nil, err
	}
	listed := devname.Listed(vrfAlias, inst.ID)
	if d.open[listed] != nil {
		return nil, errors.New("it is open already")
	}
	h := newHandle(d, inst)
	if err := h.ensure(); err != nil {
		return nil, err
	}
	if err := h.load(); err != nil {
		return nil, err
	}
	d.open[listed] = h
	return h, nil
}

func checkInstance(ctx context.Context, inst dataplane.Instance) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case inst.Type != dataplane.IPVPN:
		return fmt.Errorf("type %q is not for this driver: want %q", inst.Type, dataplane.IPVPN)
	case inst.ID == "":
		return errors.New("instance has no id")
	}
	return nil
}

// Check refuses ports that an instance cannot use.
func (d *Driver) Check(ctx context.Context, inst dataplane.Instance, port dataplane.Port) error {
	if err := checkInstance(ctx, inst); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.open[devname.Listed(vrfAlias, inst.ID)]
	if h == nil {
		h = newHandle(d, inst)
	}
	_, err := h.portDevice(port.Name)
	return err
}

// Describe returns members for the looking glass.
func (d *Driver) Describe() []dataplane.Member {
	d.mu.Lock()
	defer d.mu.Unlock()
	return []dataplane.Member{
		{Name: "mpls_interface", Value: d.cfg.MPLSInterface},
		{Name: "tunnels", Value: len(d.tunnels)},
		{Name: "nexthop_objects", Value: len(d.nexthops.byID)},
	}
}

// Close closes the sockets. Forwarding goes on.
func (d *Driver) Close() error { return d.k.Close() }

// device returns the first device of a list that f accepts.
func device(list []netlinkx.Link, f func(netlinkx.Link) bool) (netlinkx.Link, bool) {
	if i := slices.IndexFunc(list, f); i >= 0 {
		return list[i], true
	}
	return netlinkx.Link{}, false
}
