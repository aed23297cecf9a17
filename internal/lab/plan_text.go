// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"slices"
	"strings"
)

// String shows the plan as text, one step a line.
func (p *Plan) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	for _, ns := range p.Namespaces {
		line("namespace %s", ns)
	}
	line("bridge %s:%s %s", p.Bridge.Namespace, p.Bridge.Name, p.Bridge.Address)
	for _, v := range p.Veths {
		line("veth %s -- %s", v.A, v.B)
	}
	for _, n := range p.Nodes {
		if n.Switch != nil {
			line("switch of %s in %s:", n.Name, n.Switch.Dir)
			for _, command := range [][]string{n.Switch.Create, n.Switch.Prepare, n.Switch.Plug} {
				line("  %s", strings.Join(command, " "))
			}
			line("  address %s", n.Switch.Port)
		}
	}
	for _, proc := range p.Processes() {
		line("run %s in %s: %s >%s", proc.Name, proc.Namespace,
			strings.Join(append(proc.Env[:len(proc.Env):len(proc.Env)], proc.Args...), " "), proc.Log)
		if proc.Config != "" {
			line("  %s:\n    %s", proc.Config, strings.ReplaceAll(strings.TrimSpace(proc.ConfigText), "\n", "\n    "))
		}
	}
	for _, a := range p.Attachments {
		line("attach at %s: %s", p.Nodes[a.Node].Name, a)
	}
	for _, list := range [][]Ping{p.Underlay, p.Pings} {
		for _, c := range list {
			line("check %s", c)
		}
	}
	for _, command := range p.Setup {
		line("setup %s", strings.Join(command, " "))
	}
	for _, c := range p.Crossings {
		line("check %s, %d flows", c, c.Runs)
	}
	for _, c := range p.Transfers {
		line("check %s", c)
	}
	for _, command := range p.Try {
		line("try %s", command)
	}
	return b.String()
}

// String shows what is attached as text.
func (a Attachment) String() string {
	r := a.Request
	port := r.LocalPort.LinuxIF
	if r.LocalPort.EVPN != nil {
		port = "E-VPN " + r.LocalPort.EVPN.ID
	}
	text := fmt.Sprintf("%s %s %s to %s %s", port, r.MACAddress, r.IPAddress, r.VPNType, r.VPNInstanceID)
	if r.LocalPort.OVS != nil {
		text += ", plugged as " + r.LocalPort.OVS.PortName
	}
	if r.GatewayIP != "" {
		text += ", gateway " + r.GatewayIP
	}
	if r.VNI != 0 {
		text += fmt.Sprintf(", VNI %d", r.VNI)
	}
	if r.AdvertiseSubnet {
		text += ", whole subnet"
	}
	if r.LBConsistentHashOrder != 0 {
		text += fmt.Sprintf(", hash order %d", r.LBConsistentHashOrder)
	}
	text += fmt.Sprintf(", %v", r.ImportRT)
	if !slices.Equal(r.ImportRT, r.ExportRT) {
		text += fmt.Sprintf(" exports %v", r.ExportRT)
	}
	if v := r.Readvertise; v != nil {
		text += fmt.Sprintf(", re-advertise %v to %v", v.FromRT, v.ToRT)
	}
	if v := r.AttractTraffic; v != nil {
		text += fmt.Sprintf(", attract to %v %+v", v.RedirectRTs, v.Classifier)
	}
	return text
}

// String shows the end as text.
func (e End) String() string {
	text := fmt.Sprintf("%s:%s mtu %d", e.Namespace, e.Name, e.MTU)
	if e.MAC != "" {
		text += " " + e.MAC
	}
	for _, a := range e.Addresses {
		text += " " + a.String()
	}
	for _, a := range e.Gateways {
		text += " via " + a.String()
	}
	if in := e.Bridge + e.Switch; in != "" {
		text += " in " + in
	}
	if e.Checksums {
		text += " with checksums"
	}
	return text
}
