// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

const (
	// bridgeUnderlay has the cable to the other nodes; its own port has the address.
	bridgeUnderlay = "br-phy"
	// bridgeVPN has the machines and the flows of the driver.
	bridgeVPN  = "br-mpls"
	ovsPackage = "openvswitch-switch"
	ovsSchema  = "/usr/share/openvswitch/vswitch.ovsschema"
	// maxSocketPath is what the kernel takes as path of a socket (unix(7)).
	maxSocketPath = 107
	// longestSocket is the end of the longest such path in a lab.
	longestSocket = "/node-a.ovs/ovs-vswitchd.ctl"
	// switchTimeout bounds a command that changes a switch; the first one waits
	// until the switch has started.
	switchTimeout = 20 * time.Second
)

// ovsTools are the programs of a lab with Open vSwitch, with their Debian packages.
var ovsTools = map[string]string{
	"ovsdb-tool": ovsPackage, "ovs-vsctl": ovsPackage, "ovsdb-server": ovsPackage, "ovs-vswitchd": ovsPackage,
	"ethtool": "ethtool",
}

// Switch is an Open vSwitch of a node's own. It forwards in user space, which
// works on any kernel.
type Switch struct {
	// Dir holds its database and sockets.
	Dir string
	// Create makes the database, Prepare fills it once Database runs, and Plug makes
	// the bridges once Forwarder runs.
	Create, Prepare, Plug []string
	// Database is ovsdb-server, Forwarder is ovs-vswitchd.
	Database, Forwarder Process
	// Port is the device of the bridge to the other nodes, which has the node's address.
	Port End
}

// socket is where the database listens.
func (s *Switch) socket() string { return filepath.Join(s.Dir, "db.sock") }

// management is where a bridge takes OpenFlow connections.
func (s *Switch) management(bridge string) string {
	return "unix:" + filepath.Join(s.Dir, bridge+".mgmt")
}

// vsctl returns a command that changes the switch and waits until it has.
func (s *Switch) vsctl(args ...string) []string {
	return append([]string{"ovs-vsctl", "--db=unix:" + s.socket(), fmt.Sprintf("--timeout=%d", int(switchTimeout.Seconds()))}, args...)
}

// newSwitch plans the switch of a node. What is plugged in is added at the end.
func (p *Plan) newSwitch(node Process, number int, address netip.Prefix) *Switch {
	s := &Switch{
		Dir: p.file(node.Name + ".ovs"),
		Port: End{
			Namespace: node.Namespace, Name: bridgeUnderlay, MTU: underlayMTU, Addresses: []netip.Prefix{address},
			// Not that of the cable: the host must not take packets there, too.
			MAC: fmt.Sprintf("00:00:5e:00:53:%02d", number),
		},
	}
	file := filepath.Join(s.Dir, "conf.db")
	s.Create = []string{"ovsdb-tool", "create", file, ovsSchema}
	s.Prepare = s.vsctl("--no-wait", "init")
	process := func(program string, args ...string) Process {
		return Process{
			Name: node.Name + "-" + program, Namespace: node.Namespace, Log: p.file(node.Name + "-" + program + ".log"),
			Env:  []string{"OVS_RUNDIR=" + s.Dir},
			Args: append([]string{program, "-vconsole:warn", "--unixctl=" + filepath.Join(s.Dir, program+".ctl")}, args...),
		}
	}
	s.Database = process("ovsdb-server", "--remote=punix:"+s.socket(), file)
	s.Forwarder = process("ovs-vswitchd", "unix:"+s.socket())
	return s
}

// addSwitches plugs the cables of nodes in their switches, and has the nodes
// reach each other first: a switch learns by that where tunnels lead.
func (p *Plan) addSwitches() {
	for _, n := range p.Nodes {
		if n.Switch == nil {
			continue
		}
		n.Switch.Plug = n.Switch.vsctl(
			"add-br", bridgeUnderlay, "--", "set", "bridge", bridgeUnderlay, "datapath_type=netdev", "other_config:hwaddr="+n.Switch.Port.MAC,
			"--", "set", "interface", bridgeUnderlay, fmt.Sprintf("mtu_request=%d", underlayMTU),
			"--", "add-br", bridgeVPN, "--", "set", "bridge", bridgeVPN, "datapath_type=netdev", "fail_mode=secure",
			"protocols=OpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14,OpenFlow15")
		for _, v := range p.Veths {
			if v.A.Namespace == n.Namespace && v.A.Switch != "" {
				n.Switch.Plug = append(n.Switch.Plug, "--", "add-port", v.A.Switch, v.A.Name)
			}
		}
		for _, other := range p.Nodes {
			if other.Name != n.Name {
				p.Underlay = append(p.Underlay, Ping{From: n.Namespace, To: other.Namespace, Address: other.Address})
			}
		}
	}
}

// startSwitch brings the switch of a node up.
func (b *builder) startSwitch(ctx context.Context, s *Switch) error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return fmt.Errorf("make directory of a switch: %w", err)
	}
	if err := run(ctx, s.Create); err != nil {
		return err
	}
	if _, err := b.start(s.Database); err != nil {
		return err
	}
	if err := b.await(ctx, startTimeout, s.listening); err != nil {
		return fmt.Errorf("wait for %s: %w", s.Database.Name, err)
	}
	if err := run(ctx, s.Prepare); err != nil {
		return err
	}
	if _, err := b.start(s.Forwarder); err != nil {
		return err
	}
	if err := run(ctx, s.Plug); err != nil {
		return errors.Join(err, b.ended())
	}
	return netspace.With(s.Port.Namespace, func(h *netlink.Handle) error {
		link, err := h.LinkByName(s.Port.Name)
		if err != nil {
			return fmt.Errorf("find %s: %w", s.Port, err)
		}
		return configure(h, link, s.Port)
	})
}

// listening returns an error until the database takes connections.
func (s *Switch) listening() error {
	c, err := net.Dial("unix", s.socket())
	if err != nil {
		return err
	}
	return c.Close()
}

// run runs a command to its end.
func run(ctx context.Context, args []string) error {
	limited, cancel := context.WithTimeout(ctx, switchTimeout+5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(limited, args[0], args[1:]...).CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
