// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/dummy"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/ebpf"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/linux"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/linuxvrf"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/ovs"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
)

// openDrivers opens the driver of each VPN type.
func (d *Daemon) openDrivers() (err error) {
	d.drivers = map[dataplane.VPNType]dataplane.Driver{}
	for _, t := range []struct {
		vpn  dataplane.VPNType
		name string
		open func() (dataplane.Driver, error)
	}{
		{dataplane.EVPN, d.cfg.EVPN.Driver, d.openEVPN},
		{dataplane.IPVPN, d.cfg.IPVPN.Driver, d.openIPVPN},
	} {
		if d.drivers[t.vpn], err = t.open(); err != nil {
			delete(d.drivers, t.vpn)
			return fmt.Errorf("dataplane driver %s of %s: %w", t.name, t.vpn, err)
		}
	}
	return nil
}

func (d *Daemon) openEVPN() (dataplane.Driver, error) {
	c := &d.cfg.EVPN
	switch c.Driver {
	case "dummy":
		return dummy.New(dataplane.EVPN, c.LocalAddress), nil
	case "linux":
		return linux.New(linux.Config{LocalAddr: c.LocalAddress, VXLANPort: c.VXLANDstPort}, d.log)
	}
	return nil, errNotThere
}

func (d *Daemon) openIPVPN() (dataplane.Driver, error) {
	c := &d.cfg.IPVPN
	switch c.Driver {
	case "dummy":
		return dummy.New(dataplane.IPVPN, c.LocalAddress), nil
	case "ebpf":
		return ebpf.New(ebpf.Config{
			LocalAddr: c.LocalAddress, Underlay: c.UnderlayInterfaces, VXLANPort: c.VXLANDstPort,
			Encaps: encapTypes(c.Encapsulations), DefaultEncap: encapType[c.DefaultEncapsulation],
			AntiSpoofing: c.AntiSpoofing, MaxRoutes: c.MaxRoutes,
		}, d.log)
	case "linux":
		return linuxvrf.New(linuxvrf.Config{
			LocalAddr: c.LocalAddress, Encaps: encapTypes(c.Encapsulations), MPLSInterface: c.MPLSInterface,
		}, d.log)
	case "ovs":
		return ovs.New(ovsConfig(c), d.log)
	}
	return nil, errNotThere
}

func ovsConfig(c *config.IPVPN) ovs.Config {
	o := &c.OVS
	out := ovs.Config{
		LocalAddr: c.LocalAddress, Bridge: o.Bridge, OVSDB: o.Connection, RunDir: o.RunDir,
		MPLSInterface: c.MPLSInterface, MPLSOverGRE: o.MPLSOverGRE.String(),
		ProxyARP: o.ProxyARP, ARPResponder: o.ARPResponder, VXLANEncap: o.VXLANEncap,
		InputTable: o.InputTable, TableStart: o.TableStart,
		GRETunnel: o.GRETunnel, GRETunnelOptions: map[string]string{}, InterfacesMTU: o.InterfacesMTU,
		HashMethod: o.HashMethod.String(), HashMethodParam: o.HashMethodParam, HashFields: o.HashFields,
	}
	for _, item := range o.GRETunnelOptions {
		key, value, _ := strings.Cut(item, "=")
		out.GRETunnelOptions[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return out
}

// errNotThere is for a driver that the option table has and the program has not.
var errNotThere = fmt.Errorf("it is not in this program")

var encapType = map[config.Encapsulation]encap.Type{
	config.EncapMPLS: encap.MPLS, config.EncapGRE: encap.GRE, config.EncapMPLSUDP: encap.MPLSInUDP, config.EncapVXLAN: encap.VXLAN,
}

func encapTypes(list []config.Encapsulation) (out []encap.Type) {
	for _, e := range list {
		out = append(out, encapType[e])
	}
	return out
}
