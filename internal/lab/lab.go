// SPDX-License-Identifier: Apache-2.0

// Package lab builds a demo network on one host: two nodes that run
// bagpipe-bgp, a route reflector between them, and network namespaces that
// stand for virtual machines, joined into one E-VPN. It proves that they reach
// each other, shows what runs, and takes all of it away again.
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
	"sync"
	"time"
)

// DefaultRunDir is where labs keep their state, configurations and logs.
const DefaultRunDir = "/run/bagpipe-lab"

// Kinds of labs that there are.
const (
	// VPNEVPN joins the machines by an E-VPN.
	VPNEVPN = "evpn"
	// DataplaneLinux forwards with Linux bridges and VXLAN.
	DataplaneLinux = "linux"
)

// Options choose a lab. Name, Underlay, VPN and Dataplane are its identity; the
// others say where things are.
type Options struct {
	// Name tells labs apart; it becomes a prefix of all namespaces. It may be empty.
	Name string `json:"name"`
	// Underlay is the IP version between the nodes, 4 or 6.
	Underlay int `json:"underlay"`
	// VPN is VPNEVPN.
	VPN string `json:"vpn"`
	// Dataplane is the driver of the nodes, DataplaneLinux.
	Dataplane string `json:"dataplane"`
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
	case o.VPN != VPNEVPN:
		return fmt.Errorf("VPN type %q: only %s can be shown yet", o.VPN, VPNEVPN)
	case o.Dataplane != DataplaneLinux:
		return fmt.Errorf("dataplane %q: only %s can be shown yet", o.Dataplane, DataplaneLinux)
	}
	return nil
}

// same tells whether two sets of options make the same lab.
func (o Options) same(other Options) bool {
	return o.Name == other.Name && o.Underlay == other.Underlay && o.VPN == other.VPN && o.Dataplane == other.Dataplane
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
	if o.Name == "" {
		return "bagpipe lab " + verb
	}
	return "bagpipe lab " + verb + " --name " + o.Name
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
