// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// nameTries is how many device names are tried before giving up.
const nameTries = 8

// tunnelPort is what we need of the VXLAN device as a bridge port: frames from
// the tunnel teach the bridge nothing, BGP does; and ARP and ND requests that
// the bridge can answer do not leave.
var tunnelPort = netlinkx.PortFlags{Learning: false, NeighSuppress: true}

// builder makes or adopts the devices of one instance.
type builder struct {
	*Driver
	inst    dataplane.Instance
	alias   string
	created []int // indexes, in order
	bridge  *netlinkx.Link
	vxlan   *netlinkx.Link
}

// build returns the handle of an instance whose devices are right.
func (d *Driver) build(inst dataplane.Instance) (*handle, error) {
	b := &builder{Driver: d, inst: inst, alias: aliasOf(inst.ID)}
	h, err := b.run()
	d.remember(b.alias, b.created)
	if err != nil {
		for i := len(b.created) - 1; i >= 0; i-- {
			err = errors.Join(err, d.deleteOurs(b.created[i], b.alias))
		}
		return nil, err
	}
	return h, nil
}

func (b *builder) run() (*handle, error) {
	if err := b.findOld(); err != nil {
		return nil, err
	}
	h := &handle{d: b.Driver, inst: b.inst, ownBridge: b.inst.Bridge == "", ownVXLAN: true, ports: map[string]int{}}
	bridge, err := b.ensureBridge()
	if err != nil {
		return nil, err
	}
	h.bridge, h.bridgeName = bridge.Index, bridge.Name
	vxlan, err := b.othersVXLAN(bridge)
	if err != nil {
		return nil, err
	}
	if vxlan != nil {
		err = h.borrow(*vxlan)
	} else {
		vxlan, err = b.ensureVXLAN(bridge)
	}
	if err != nil {
		return nil, err
	}
	h.vxlan, h.vxlanName, h.vni, h.mtu = vxlan.Index, vxlan.Name, vxlan.VXLAN.VNI, vxlan.MTU
	return h, b.dropUnused(h)
}

// findOld finds what an earlier run left for the instance. Should there be two
// devices of a kind, the first is kept.
func (b *builder) findOld() error {
	for _, index := range b.devices(b.alias) {
		l, ok, err := b.conn.LinkByIndex(index)
		switch {
		case err != nil:
			return err
		case !ok || l.Alias != b.alias:
			b.forget(b.alias, index)
		case l.Kind == "bridge" && b.bridge == nil:
			b.bridge = &l
		case l.Kind == "vxlan" && b.vxlan == nil:
			b.vxlan = &l
		default:
			if err := b.deleteOurs(index, b.alias); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropUnused removes devices of an earlier run that used its own bridge or its
// own VXLAN device where this one does not.
func (b *builder) dropUnused(h *handle) error {
	if !h.ownVXLAN && b.vxlan != nil {
		if err := b.deleteOurs(b.vxlan.Index, b.alias); err != nil {
			return err
		}
	}
	if !h.ownBridge && b.bridge != nil {
		return b.deleteOurs(b.bridge.Index, b.alias)
	}
	return nil
}

func (b *builder) ensureBridge() (netlinkx.Link, error) {
	if b.inst.Bridge != "" {
		return b.existingBridge(b.inst.Bridge)
	}
	want := netlinkx.BridgeOptions{} // no STP, no forwarding delay, no multicast snooping
	if b.bridge != nil && b.bridge.Bridge == want && b.bridge.Up && b.bridge.NoAddrGen {
		return *b.bridge, b.shieldIPv6(b.bridge.Name)
	}
	if b.bridge == nil {
		made, err := b.create(bridgePrefix, bridgeDigits, &netlinkx.LinkRequest{
			Kind: "bridge", Bridge: &want, Address: randomMAC(0x02),
		})
		if err != nil {
			return made, err
		}
		b.bridge = &made
	}
	// IPv6 is tamed before the device comes up, so that it never answers.
	if err := b.shieldIPv6(b.bridge.Name); err != nil {
		return *b.bridge, err
	}
	if b.bridge.Bridge.STP {
		// While STP is on the kernel takes no forwarding delay below 2 s.
		off := netlinkx.BridgeOptions{ForwardDelay: b.bridge.Bridge.ForwardDelay}
		if err := b.conn.Link(&netlinkx.LinkRequest{Index: b.bridge.Index, Name: b.bridge.Name, Kind: "bridge", Bridge: &off}); err != nil {
			return *b.bridge, err
		}
	}
	return *b.bridge, b.setAndUp(&netlinkx.LinkRequest{
		Index: b.bridge.Index, Name: b.bridge.Name, Kind: "bridge", Bridge: &want,
		Alias: &b.alias, Group: new(uint32), NoAddrGen: true, IPv4: shieldIPv4,
	})
}

// existingBridge finds a bridge of others.
func (d *Driver) existingBridge(name string) (netlinkx.Link, error) {
	l, ok, err := d.conn.LinkByName(name)
	switch {
	case err != nil:
		return l, err
	case !ok:
		return l, badBridge("bridge %s does not exist: want one of this host", name)
	case l.Kind != "bridge":
		return l, badBridge("device %s is not a bridge", name)
	}
	if id, ours := instanceOf(l); ours {
		return l, badBridge("bridge %s was made for instance %q and cannot be shared", name, id)
	}
	return l, nil
}

// othersVXLAN finds a VXLAN device of others in an existing bridge that has our
// VNI already, such as Neutron's vxlan-<VNI>.
func (b *builder) othersVXLAN(bridge netlinkx.Link) (*netlinkx.Link, error) {
	if b.inst.Bridge == "" {
		return nil, nil
	}
	ports, err := b.conn.Links(bridge.Index)
	if err != nil {
		return nil, err
	}
	for _, l := range ports {
		_, ours := instanceOf(l)
		if l.Kind == "vxlan" && l.VXLAN.VNI == b.inst.VNI && !l.VXLAN.External && !ours {
			return &l, nil
		}
	}
	return nil, nil
}

func (b *builder) ensureVXLAN(bridge netlinkx.Link) (*netlinkx.Link, error) {
	mtu, err := b.tunnelMTU()
	if err != nil {
		return nil, err
	}
	want := b.vxlanOptions()
	if b.vxlan != nil && b.vxlan.VXLAN != want {
		// None of these can be changed, and two devices cannot share a VNI and port.
		if err := b.deleteOurs(b.vxlan.Index, b.alias); err != nil {
			return nil, err
		}
		b.vxlan = nil
	}
	if b.vxlan == nil {
		made, err := b.create(vxlanPrefix, vxlanDigits, &netlinkx.LinkRequest{
			Kind: "vxlan", VXLAN: &want, MTU: mtu, Master: &bridge.Index, Address: randomMAC(0xfe),
		})
		if err != nil {
			return nil, b.explain(err)
		}
		b.vxlan = &made
	}
	return b.vxlan, b.correctVXLAN(bridge, mtu)
}

func (b *builder) vxlanOptions() netlinkx.VXLANOptions {
	return netlinkx.VXLANOptions{
		VNI: b.inst.VNI, Local: b.cfg.LocalAddr, Port: b.cfg.VXLANPort,
		// RFC 7348 §5 and RFC 6935: VTEPs send VXLAN over IPv6 without UDP
		// checksum, which Linux drops unless told.
		ZeroChecksum6: b.cfg.LocalAddr.Is6(),
	}
}

// correctVXLAN sets what can be set on b.vxlan and is not yet right. Port flags
// can be given only to what is a port.
func (b *builder) correctVXLAN(bridge netlinkx.Link, mtu int) error {
	l := b.vxlan
	if l.Master != bridge.Index {
		if err := b.conn.Link(&netlinkx.LinkRequest{Index: l.Index, Name: l.Name, Master: &bridge.Index}); err != nil {
			return err
		}
		l.Master, l.Port = bridge.Index, netlinkx.PortFlags{}
	}
	if l.MTU == mtu && l.Port == tunnelPort && l.Up && l.NoAddrGen && l.Alias == b.alias {
		return nil
	}
	l.MTU = mtu
	return b.setAndUp(&netlinkx.LinkRequest{
		Index: l.Index, Name: l.Name, Alias: &b.alias, Group: new(uint32), MTU: mtu,
		Port: &tunnelPort, NoAddrGen: true,
	})
}

// setAndUp carries out a request and then brings the device up: in one request
// the kernel would do that first, and make an IPv6 address before it is told not to.
func (b *builder) setAndUp(r *netlinkx.LinkRequest) error {
	if err := b.conn.Link(r); err != nil {
		return err
	}
	return b.conn.Link(&netlinkx.LinkRequest{Index: r.Index, Name: r.Name, Up: true})
}

// create makes a device under the first free name and returns it as the kernel
// has it. It carries the half-made mark until it gets its alias.
func (b *builder) create(prefix string, digits int, r *netlinkx.LinkRequest) (netlinkx.Link, error) {
	mark := uint32(devname.HalfMade)
	r.Group = &mark
	for n := range nameTries {
		r.Name = devname.Candidate(prefix, digits, b.inst.ID, n)
		_, taken, err := b.conn.LinkByName(r.Name)
		if err != nil {
			return netlinkx.Link{}, err
		}
		if taken {
			continue
		}
		if err := b.conn.Link(r); err != nil {
			return netlinkx.Link{}, noKernelSupport(err, r.Kind)
		}
		l, ok, err := b.conn.LinkByName(r.Name)
		if err == nil && !ok {
			err = fmt.Errorf("device %s vanished", r.Name)
		}
		if ok {
			b.created = append(b.created, l.Index)
		}
		return l, err
	}
	return netlinkx.Link{}, fmt.Errorf("all %d device names like %s are taken by other devices", nameTries, r.Name)
}

func noKernelSupport(err error, kind string) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("this kernel cannot make %s devices (is module %s there?): %w", kind, kind, err)
	}
	return err
}

// explain names the device that holds our VNI, when that is why the kernel
// refused another one.
func (b *builder) explain(err error) error {
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	links, listErr := b.conn.Links(0)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	for _, l := range links {
		if l.Kind != "vxlan" || l.VXLAN.VNI != b.inst.VNI || l.VXLAN.Port != b.cfg.VXLANPort {
			continue
		}
		if id, ours := instanceOf(l); ours {
			return fmt.Errorf("VNI %d is held by device %s of instance %q: %w", b.inst.VNI, l.Name, id, err)
		}
		return fmt.Errorf("VNI %d is held by device %s: %w", b.inst.VNI, l.Name, err)
	}
	return err
}
