// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOpenVSwitchStuck stops ovs-vswitchd without ending it, so that calls wait for it: /readyz
// and /metrics are answered all the same, and what came meanwhile is installed when it goes on.
func TestOpenVSwitchStuck(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, sw := f.ovsNode("a", 11, settings{peers: f.reflectors()})
	b := f.ebpfNode("b", 12, "encapsulations = gre")
	a1, b1 := a.routed("a1", 1, 1400), b.routed("b1", 2, 1400)
	a1.joinOVS(blue)
	a.sound(a.http)
	raw, err := os.ReadFile(filepath.Join(sw.Dir, "ovs-vswitchd.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	signal := func(sig syscall.Signal) {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Error(err)
		}
	}
	signal(syscall.SIGSTOP)
	t.Cleanup(func() { signal(syscall.SIGCONT) })
	b1.join(blue)
	eventually(t, routeTimeout, func() error {
		body, err := a.api.Get(t.Context(), a.api.URL("looking-glass", "bgp", "routes"))
		if err == nil && !strings.Contains(string(body), b1.v6.Addr().String()) {
			err = fmt.Errorf("%s has no route to %s yet", a.label, b1.v6)
		}
		return err
	})
	hurried := &http.Client{Timeout: 5 * time.Second, Transport: a.http.Transport}
	for range 5 {
		res, err := hurried.Get(a.api.URL("readyz"))
		if err != nil {
			t.Fatalf("/readyz while Open vSwitch is stuck: %v", err)
		}
		var ready struct {
			NotReady []notReady `json:"not_ready"`
		}
		if err := json.NewDecoder(res.Body).Decode(&ready); err != nil {
			t.Error(err)
		}
		_ = res.Body.Close()
		if res, err = hurried.Get(a.api.URL("metrics")); err != nil {
			t.Fatalf("/metrics while Open vSwitch is stuck: %v", err)
		}
		_ = res.Body.Close()
	}
	signal(syscall.SIGCONT)
	eventually(t, routeTimeout, func() error {
		if lines := strings.Join(flows(sw), "\n"); !strings.Contains(lines, "nw_dst="+b1.v4.Addr().String()+" ") {
			return fmt.Errorf("no flow to %s:\n%s", b1.v4, lines)
		}
		return nil
	})
	a.sound(a.http)
}
