// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strings"
)

// driverEncaps are the encapsulations of the drivers that offer a choice, with
// their default order.
var driverEncaps = map[string][]Encapsulation{
	"ebpf":  {EncapMPLSUDP, EncapGRE, EncapVXLAN},
	"linux": {EncapMPLS, EncapGRE, EncapMPLSUDP},
}

func ipvpn(name string) *option { return options[sectionIPVPN][name] }

func (l *loader) deriveIPVPN() {
	l.deriveEncapsulations()
	if l.cfg.IPVPN.Driver == "ovs" {
		l.deriveOVS()
	}
}

func (l *loader) deriveEncapsulations() {
	c := &l.cfg.IPVPN
	all, o := driverEncaps[c.Driver], ipvpn("encapsulations")
	switch {
	case all == nil || l.failed[o]:
		return
	case !l.given(o) && c.Driver != "linux":
		c.Encapsulations = all
	case !l.given(o) && c.MPLSInterface != "" && !strings.Contains(c.MPLSInterface, "*gre*"):
		c.Encapsulations = []Encapsulation{EncapMPLS}
	case !l.given(o):
		c.Encapsulations = []Encapsulation{EncapGRE}
	}
	names := func(list []Encapsulation) string { return strings.Join(texts(list, Encapsulation.String), ", ") }
	for _, e := range c.Encapsulations {
		if !slices.Contains(all, e) {
			l.fail(o, l.expanded[o], fmt.Sprintf("driver %s has no %s; want some of %s", c.Driver, e, names(all)))
			return
		}
	}
	def := ipvpn("default_encapsulation")
	if slices.Contains(c.Encapsulations, c.DefaultEncapsulation) || l.failed[def] {
		return
	}
	if l.given(def) && l.chosen[def].value != "" && c.Driver == "ebpf" {
		l.fail(def, l.expanded[def], fmt.Sprintf("not one of %s; want %s", o, names(c.Encapsulations)))
		return
	}
	c.DefaultEncapsulation = c.Encapsulations[0]
}

func (l *loader) deriveOVS() {
	c := &l.cfg.IPVPN.OVS
	if in := ipvpn("input_table"); c.InputTable == c.TableStart || c.InputTable == c.TableStart+1 {
		l.fail(in, l.expanded[in], fmt.Sprintf("is one of the two tables from %s (%d and %d)",
			ipvpn("ovs_table_id_start"), c.TableStart, c.TableStart+1))
	}
	o := ipvpn("gre_tunnel_options")
	for _, item := range c.GRETunnelOptions {
		if key, _, ok := strings.Cut(item, "="); !ok || key == "" {
			l.fail(o, l.expanded[o], quote(item)+" is no key=value")
			return
		}
	}
}
