// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/faultcall"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// The test binary becomes a daemon under supervision.
func init() { faultcall.Exec() }

// crashes returns the numbers of the calls, 1 to all, that a test crashes before: some
// spread over them, or each with BAGPIPE_FAULTS=full.
func crashes(all, some int) (list []int) {
	if faultsFull || all <= some {
		some = all
	}
	for i := range some {
		list = append(list, 1+i*all/some)
	}
	return list
}

// startUnder starts the daemon under supervision and waits for its API, or its end.
func (n *node) startUnder(decide func(faultcall.Call) faultcall.Verdict) {
	n.t.Helper()
	s := faultcall.New(n.t, decide)
	n.proc = startProcess(n.t, n.NS, "node-"+n.label, s.Command(program("bagpipe-bgp"), "--config-file", n.conf)...)
	n.proc.show = n.show
	eventually(n.t, startTimeout, func() error {
		if n.proc.exited() {
			return nil
		}
		_, err := n.api.Ping(n.t.Context())
		return err
	})
}

// killed waits for the end of a daemon that a supervisor kills, and tells whether it was
// that; without one that ends otherwise the test fails.
func (n *node) killed() {
	n.t.Helper()
	<-n.proc.done
	if s := n.proc.cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGKILL {
		text, _ := os.ReadFile(n.proc.log)
		n.t.Fatalf("%s ended with %v, want killed\n%s", n.label, n.proc.err, text)
	}
}

// memory returns a directory in memory for the state of a daemon, where no disk holds up
// a test that starts many.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", runID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// op is an attach or detach of a script.
type op struct {
	detach  bool
	request client.AttachRequest
}

func (o op) key() string {
	return fmt.Sprintf("%s %s %s", o.request.VPNInstanceID, o.request.MACAddress, o.request.IPAddress)
}

func (n *node) do(o op) error {
	if o.detach {
		return n.api.Detach(n.t.Context(), o.request.Detach())
	}
	return n.api.Attach(n.t.Context(), o.request)
}

// identifiers returns the VNI, label and RD of each endpoint in the looking glass, by the
// key of its attachment.
func (n *node) identifiers() (map[string]string, error) {
	all := map[string]string{}
	for _, id := range []string{red.id, blue.id, green.id} {
		var i struct {
			VNI int `json:"instance_dataplane_id"`
		}
		var ports map[string]struct {
			Endpoints []struct {
				MAC   string `json:"mac_address"`
				IP    string `json:"ip_address"`
				RD    string `json:"rd"`
				Label int    `json:"label"`
			} `json:"endpoints"`
		}
		err := n.glass(&i, "vpns", "instances", id)
		if is := new(client.Error); errors.As(err, &is) && is.Code == http.StatusNotFound {
			continue
		}
		if err = errors.Join(err, n.glass(&ports, "vpns", "instances", id, "ports")); err != nil {
			return nil, err
		}
		for _, p := range ports {
			for _, e := range p.Endpoints {
				all[fmt.Sprintf("%s %s %s", id, e.MAC, e.IP)] = fmt.Sprintf("VNI %d, label %d, RD %s", i.VNI, e.Label, e.RD)
			}
		}
	}
	return all, nil
}

// stateScript attaches and detaches endpoints of both kinds; instances come, go and come
// again.
func stateScript() (list []op) {
	a, b := &vm{tap: "tap1", mac: vmMAC(1), number: 1, port: client.LocalPort{LinuxIF: "tap1"}}, &vm{tap: "tap2", mac: vmMAC(2), number: 2, port: client.LocalPort{LinuxIF: "tap2"}}
	for _, v := range []*vm{a, b} {
		v.v4, v.v6 = netip.PrefixFrom(gateway4(v.number).Addr().Next(), 28), netip.PrefixFrom(gateway6(v.number).Addr().Next(), 64)
	}
	l2a, l2b, l3a, l3b := a.requests(red), b.requests(red), a.vrfRequests(blue), b.vrfRequests(blue)
	for _, r := range [][]client.AttachRequest{l2a, l3a, l2b[:1], l3b} {
		for _, r := range r {
			list = append(list, op{request: r})
		}
	}
	for _, r := range [][]client.AttachRequest{l2a, l3b[:1], l2b[:1]} { // the last of red
		for _, r := range r {
			list = append(list, op{detach: true, request: r})
		}
	}
	return append(list, op{request: l2b[1]}, op{detach: true, request: l3a[0]})
}

// stateNode makes a node, not started yet, whose daemon forwards nothing and keeps its state.
func stateNode(t *testing.T) (n *node, dir string) {
	t.Helper()
	ns := newNS(t, "node-state")
	ip(t, ns, "address add 192.0.2.11/32 dev lo")
	dir = memory(t)
	n = &node{NS: ns, t: t, label: "state", daemon: program("bagpipe-bgp"), conf: filepath.Join(t.TempDir(), "bgp.conf")}
	text := "[BGP]\nlocal_address = 192.0.2.11\nmy_as = 64512\n[COMMON]\nstate_directory = " + dir +
		"\n[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = dummy\n[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = dummy\n"
	if err := os.WriteFile(n.conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: netspace.Dialer(n.Name), DisableKeepAlives: true}}
	var err error
	if n.api, err = client.New(client.WithHTTPClient(n.http)); err != nil {
		t.Fatal(err)
	}
	return n, dir
}

// TestCrashWhileStateIsWritten kills a daemon before a call that writes its state, and
// starts it again: what was answered holds, with the same identifiers, and agents see no
// restart.
func TestCrashWhileStateIsWritten(t *testing.T) {
	t.Parallel()
	all := crashWhileStateIsWritten(t, 0)
	if all < 5*len(stateScript()) {
		t.Fatalf("%d writing calls seen, want more", all)
	}
	t.Logf("%d writing calls", all)
	for _, at := range crashes(all, 24) {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			crashWhileStateIsWritten(t, at)
		})
	}
}

// crashWhileStateIsWritten crashes before call at, or with 0 not at all, and returns how many
// calls there were.
func crashWhileStateIsWritten(t *testing.T, at int) int {
	n, dir := stateNode(t)
	var seen atomic.Int64
	n.startUnder(func(c faultcall.Call) faultcall.Verdict {
		if c.Class == faultcall.File && strings.HasPrefix(c.Path, dir) && seen.Add(1) == int64(at) {
			return faultcall.Kill
		}
		return faultcall.Pass
	})
	want, ping := map[string]string{}, ""
	var open op
	for _, o := range stateScript() {
		open = o
		if n.do(o) != nil {
			break
		}
		open = op{}
		if number, err := n.api.Ping(t.Context()); err == nil {
			ping = number.String()
		}
		if o.detach {
			delete(want, o.key())
		} else {
			want[o.key()] = "" // in case that the daemon does not live to tell
		}
		if now, err := n.identifiers(); err == nil {
			want = now
		}
	}
	if at == 0 {
		n.proc.end(syscall.SIGKILL)
	} else {
		n.killed()
	}
	n.start()
	var got map[string]string
	eventually(t, startTimeout, func() (err error) { got, err = n.identifiers(); return err })
	if open.request.MACAddress != "" { // may be done or not
		delete(got, open.key())
		delete(want, open.key())
	}
	for k, id := range want {
		if id == "" && got[k] != "" {
			want[k] = got[k]
		}
	}
	if !maps.Equal(want, got) {
		t.Errorf("after a crash at call %d (-want +got):\n%s", at, cmp.Diff(want, got))
	}
	if now := n.number(); ping != "" && now != ping {
		t.Errorf("after a crash at call %d /ping is %s, was %s", at, now, ping)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*damaged*")); len(files) > 0 {
		t.Errorf("after a crash at call %d: %v", at, files)
	}
	for _, o := range stateScript() {
		if err := n.do(o); err != nil {
			t.Errorf("after a crash at call %d: %v", at, err)
		}
	}
	n.proc.end(syscall.SIGTERM)
	return int(seen.Load())
}
