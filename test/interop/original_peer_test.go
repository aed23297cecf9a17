// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// originalProgram is the Python daemon of Debian's networking-bagpipe. Our own
// program has the same name, so it is never looked up on PATH.
const originalProgram = "/usr/bin/bagpipe-bgp"

// An originalConfig is what tests choose of a node that runs the Python daemon.
type originalConfig struct {
	// peers are the addresses the node connects to.
	peers []string
	// evpnDriver is "linux" unless set.
	evpnDriver string
	// ipvpn is the text of the section of the IP VPN dataplane, a dummy unless set.
	ipvpn string
	// env are further variables of its environment.
	env   []string
	noRTC bool
}

// newOriginal starts the Python daemon on a host and waits for its API.
func newOriginal(h *host, c originalConfig) *node {
	h.t.Helper()
	need(h.t, needOrigin)
	n := newNode(h, h.v4.String(), h.v4.String())
	dir := workDir(h.t)
	if c.evpnDriver == "" {
		c.evpnDriver = "linux"
	}
	// The daemon loads the vxlan module through modprobe; here it is part of the
	// kernel, and a container may not have the program at all.
	stub := writeFile(h.t, dir, "modprobe", "#!/bin/sh\nexit 0\n")
	if err := os.Chmod(stub, 0o755); err != nil {
		h.t.Fatal(err)
	}
	path := "PATH=" + dir + ":" + os.Getenv("PATH")
	conf := filepath.Join(dir, "bgp.conf")
	var b strings.Builder
	// We are root already: no sudo.
	b.WriteString("[COMMON]\nroot_helper =\n")
	fmt.Fprintf(&b, "[privsep]\nhelper_command = env %s privsep-helper --config-file %s\n", path, conf)
	b.WriteString("[API]\nhost = 127.0.0.1\nport = 8082\n")
	fmt.Fprintf(&b, "[BGP]\nlocal_address = %s\npeers = %s\nmy_as = 64512\nenable_rtc = %t\n",
		n.local, strings.Join(c.peers, ","), !c.noRTC)
	if c.ipvpn == "" {
		c.ipvpn = "dataplane_driver = dummy\n"
	}
	b.WriteString(ipvpnSection + "\n" + c.ipvpn)
	fmt.Fprintf(&b, "[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = %s\n", c.evpnDriver)
	writeFile(h.t, dir, "bgp.conf", b.String())
	n.proc = startProcess(h.t, h.NS, dir, "original", append([]string{path}, c.env...), originalProgram, "--config-file", conf)
	// Its driver's clean-up fails like its unplug, and then it does not end.
	n.proc.abrupt = true
	h.fabric.onFailure(h.dumpForwarding)
	return n
}

// waitAPI waits until the daemon answers on its API.
func (n *node) waitAPI() {
	n.t.Helper()
	n.proc.ready(func() error {
		status, body, err := n.call(http.MethodGet, "/ping", nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("GET /ping: %d: %s", status, body)
		}
		return err
	})
}

// detachBroken detaches an endpoint of an original node with the linux driver:
// the route is withdrawn, but the call answers 500 and the instance and the
// bridge port stay, for the driver reads an attribute that pyroute2's objects
// do not have.
func (n *node) detachBroken(a attachment) {
	n.t.Helper()
	status, body, err := n.call(http.MethodPost, "/detach_localport", a)
	if err != nil || status != http.StatusInternalServerError {
		n.t.Errorf("%s: detach on the original: status %d, %v: %s; expected its usual failure, 500", n.label, status, err, body)
	}
}
