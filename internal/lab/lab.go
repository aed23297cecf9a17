// SPDX-License-Identifier: Apache-2.0

// Package lab builds a demo network on one host: two nodes that run
// bagpipe-bgp, a route reflector between them, and network namespaces that
// stand for virtual machines, joined into one E-VPN or one IP VPN. It proves
// that they reach each other, shows what runs, and takes all of it away again.
//
// NewPlan turns Options into a Plan: every namespace, link, process, attachment
// and check, as plain data. It touches nothing, so that the plan can be tested
// and shown. Up carries a plan out, Status looks at it, Down removes it.
//
// What exists is recorded under Options.RunDir before it is made, so that Down
// finds it even after an Up that was killed. Down ends a process only if it is
// both recorded and inside the lab's namespace, and removes only recorded
// namespaces. One command at a time works on a lab: each holds a lock.
package lab

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// DefaultRunDir is where labs keep their state, configurations and logs.
const DefaultRunDir = "/run/bagpipe-lab"

// Kinds of labs that there are.
const (
	// VPNEVPN has the machines in one network, an E-VPN.
	VPNEVPN = "evpn"
	// VPNIPVPN has each machine in a network of its own, joined by an IP VPN.
	VPNIPVPN = "ipvpn"
	// DataplaneLinux forwards with the kernel: bridges and VXLAN for an E-VPN, VRF
	// devices and MPLS for an IP VPN.
	DataplaneLinux = "linux"
	// DataplaneEBPF forwards with eBPF programs; for an IP VPN.
	DataplaneEBPF = "ebpf"
	// DataplaneOVS forwards with an Open vSwitch of each node; for an IP VPN.
	DataplaneOVS = "ovs"
)

// dataplanes lists the drivers of each VPN type. The first is the default.
var dataplanes = map[string][]string{
	VPNEVPN:  {DataplaneLinux},
	VPNIPVPN: {DataplaneEBPF, DataplaneOVS, DataplaneLinux},
}

// Options choose a lab. Name, Underlay, VPN, Dataplane and Scenario are its identity; the
// others say where things are.
type Options struct {
	// Name tells labs apart; it becomes a prefix of all namespaces. It may be empty.
	Name string `json:"name"`
	// Underlay is the IP version between the nodes, 4 or 6.
	Underlay int `json:"underlay"`
	// VPN is VPNEVPN, also when it is empty, or VPNIPVPN, which scenarios have.
	VPN string `json:"vpn"`
	// Dataplane is the driver of the nodes. When it is empty, a plan has
	// DataplaneLinux for an E-VPN and DataplaneEBPF for an IP VPN.
	Dataplane string `json:"dataplane"`
	// Scenario is the name of one of Scenarios, or empty.
	Scenario string `json:"scenario,omitempty"`
	// Daemon is the path of bagpipe-bgp.
	Daemon string `json:"daemon"`
	// Self is the path of bagpipe, for the reflector and the transfers.
	Self string `json:"self"`
	// RunDir is DefaultRunDir unless for tests.
	RunDir string `json:"-"`
}

var goodName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Check tells what is wrong with the options.
func (o Options) Check() error {
	switch {
	case o.Name != "" && !goodName.MatchString(o.Name):
		return fmt.Errorf("lab name %q: must be letters a-z, digits and inner hyphens, 32 at most", o.Name)
	case o.Underlay != 4 && o.Underlay != 6:
		return fmt.Errorf("underlay %d: must be 4 or 6", o.Underlay)
	}
	s := findScenario(o.Scenario)
	switch {
	case o.Scenario != "" && s == nil:
		return fmt.Errorf("scenario %q: must be one of %s", o.Scenario, ScenarioNames())
	case s != nil && o.VPN == VPNEVPN:
		return fmt.Errorf("VPN type %q: must be %s with a scenario", o.VPN, VPNIPVPN)
	case s != nil && s.balance && o.Dataplane == DataplaneLinux:
		return fmt.Errorf("dataplane %q: must be %s or %s with scenario %s: the kernel balances each direction by itself", o.Dataplane, DataplaneEBPF, DataplaneOVS, s.Name)
	}
	o = o.withDefaults()
	drivers, ok := dataplanes[o.VPN]
	if !ok {
		return fmt.Errorf("VPN type %q: must be %s or %s", o.VPN, VPNEVPN, VPNIPVPN)
	}
	if !slices.Contains(drivers, o.Dataplane) {
		return fmt.Errorf("dataplane %q: must be %s for VPN type %s", o.Dataplane, strings.Join(drivers, " or "), o.VPN)
	}
	if o.Dataplane != DataplaneOVS {
		return nil
	}
	if o.Underlay == 6 {
		return fmt.Errorf("underlay 6: must be 4 with dataplane %s", o.Dataplane)
	}
	if dir, most := stateDir(o), maxSocketPath-len(longestSocket); len(dir) > most {
		return fmt.Errorf("run directory %q: with the lab's name it has %d octets, must have %d at most: paths of sockets are short",
			o.RunDir, len(dir), most)
	}
	return nil
}

// withDefaults fills in what was left open.
func (o Options) withDefaults() Options {
	switch {
	case o.VPN == "" && o.Scenario != "":
		o.VPN = VPNIPVPN
	case o.VPN == "":
		o.VPN = VPNEVPN
	}
	if drivers := dataplanes[o.VPN]; o.Dataplane == "" && len(drivers) > 0 {
		o.Dataplane = drivers[0]
	}
	return o
}

// same tells whether two sets of options make the same lab.
func (o Options) same(other Options) bool {
	return o.Name == other.Name && o.Underlay == other.Underlay && o.VPN == other.VPN && o.Dataplane == other.Dataplane && o.Scenario == other.Scenario
}

// title names the lab in messages.
func (o Options) title() string {
	if o.Name == "" {
		return "the lab"
	}
	return "lab " + o.Name
}

// command returns a command line for this lab, for advice in messages.
func (o Options) command(verb string) string {
	text := "bagpipe lab " + verb
	if o.Name != "" {
		text += " --name " + o.Name
	}
	if o.RunDir != DefaultRunDir {
		text += " --run-dir " + o.RunDir
	}
	return text
}

// progress tells what goes on, each line with the seconds since the start.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func newProgress(w io.Writer) *progress { return &progress{w: w, start: time.Now()} }

func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.w, "[%5.1fs] %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}
