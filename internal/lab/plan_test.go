// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/golden"
)

func options() Options {
	return Options{
		Underlay: 4, VPN: VPNEVPN, Dataplane: DataplaneLinux,
		Daemon: "/usr/bin/bagpipe-bgp", Self: "/usr/bin/bagpipe", RunDir: DefaultRunDir,
	}
}

// combinations are all labs that there are, by the names of their golden files.
func combinations() map[string]Options {
	all := map[string]Options{"plan": options()}
	add := func(name, vpn, dataplane string, underlay int) {
		o := options()
		o.Name, o.VPN, o.Dataplane, o.Underlay = "demo-6", vpn, dataplane, underlay
		all[name] = o
	}
	add("plan_ipv6", VPNEVPN, "", 6)
	add("plan_ipvpn", VPNIPVPN, "", 4)
	add("plan_ipvpn_ipv6", VPNIPVPN, DataplaneEBPF, 6)
	add("plan_ipvpn_ovs", VPNIPVPN, DataplaneOVS, 4)
	add("plan_ipvpn_linux", VPNIPVPN, DataplaneLinux, 4)
	return all
}

func TestPlan(t *testing.T) {
	t.Parallel()
	for name, o := range combinations() {
		p, err := NewPlan(o)
		if err != nil {
			t.Fatal(err)
		}
		golden.Check(t, name, p.String())
	}
}

func TestOptionsCheck(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"upper case name":   {func(o *Options) { o.Name = "Demo" }, `lab name "Demo": must be letters`},
		"path as name":      {func(o *Options) { o.Name = "../x" }, `lab name "../x"`},
		"long name":         {func(o *Options) { o.Name = strings.Repeat("x", 33) }, "32 at most"},
		"hyphen at end":     {func(o *Options) { o.Name = "x-" }, "inner hyphens"},
		"underlay 5":        {func(o *Options) { o.Underlay = 5 }, "underlay 5: must be 4 or 6"},
		"vpn l2vpn":         {func(o *Options) { o.VPN = "l2vpn" }, `VPN type "l2vpn": must be evpn or ipvpn`},
		"ovs for E-VPN":     {func(o *Options) { o.Dataplane = "ovs" }, `dataplane "ovs": must be linux for VPN type evpn`},
		"unknown dataplane": {func(o *Options) { o.VPN, o.Dataplane = "ipvpn", "dpdk" }, `dataplane "dpdk": must be ebpf or ovs or linux for`},
		"linux balances": {func(o *Options) { o.VPN, o.Dataplane, o.Scenario = "ipvpn", "linux", "chain-redirect-lb" },
			`dataplane "linux": must be ebpf or ovs with scenario chain-redirect-lb`},
		"ovs over IPv6": {func(o *Options) { o.VPN, o.Dataplane, o.Underlay = "ipvpn", "ovs", 6 },
			"underlay 6: must be 4 with dataplane ovs"},
		"long directory": {func(o *Options) { o.VPN, o.Dataplane, o.RunDir = "ipvpn", "ovs", "/"+strings.Repeat("d", 80) },
			"it has 89 octets, must have 79 at most"},
	} {
		o := options()
		tt.change(&o)
		if _, err := NewPlan(o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	for vpn, want := range map[string]string{VPNEVPN: DataplaneLinux, VPNIPVPN: DataplaneEBPF} {
		o := options()
		o.VPN, o.Dataplane = vpn, ""
		if p, err := NewPlan(o); err != nil || p.Options.Dataplane != want {
			t.Errorf("%s without dataplane: %v, %+v", vpn, err, p)
		}
	}
}

func TestInstalledNamesPackages(t *testing.T) {
	t.Parallel()
	err := installed(map[string]string{"ls": "coreutils", "no-such-b": "pkg", "no-such-a": "pkg", "no-such-c": "other"})
	if err == nil || err.Error() != "not installed: no-such-a, no-such-b, no-such-c; apt-get install other pkg" {
		t.Errorf("got %v", err)
	}
	if err := installed(map[string]string{"ls": "coreutils"}); err != nil {
		t.Error(err)
	}
}

func TestStoreIsForOneAtATime(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run", "x")
	if _, err := openStore(dir, false); !errors.Is(err, errNotUp) {
		t.Errorf("opened what is not there: %v", err)
	}
	s, err := openStore(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir, true); err == nil || !strings.Contains(err.Error(), "another bagpipe lab command") {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := s.load(); !errors.Is(err, errNotUp) {
		t.Errorf("read what is not there: %v", err)
	}
	want := &state{Options: options(), Ready: true, Namespaces: []string{"n"},
		Processes: []running{{Name: "p", PID: 7, Namespace: "n", Log: "l", Config: "c"}}}
	want.Options.RunDir = ""
	if err := s.save(want); err != nil {
		t.Fatal(err)
	}
	got, err := s.load()
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, state (-want +got):\n%s", err, diff)
	}
	if err := s.remove(); err != nil {
		t.Error(err)
	}
	s.close()
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the directory above is left")
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if got := tail(path); !strings.Contains(got, "no such file") {
		t.Errorf("no file: %q", got)
	}
	var text strings.Builder
	for i := range tailLines + 5 {
		_, _ = fmt.Fprintf(&text, "line %d\n", i)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	got := tail(path)
	if strings.Contains(got, "line 4\n") || !strings.Contains(got, "    line 5\n") || !strings.HasSuffix(got, "    line 19\n") {
		t.Errorf("got %q", got)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if got := tail(path); got != path+" is empty\n" {
		t.Errorf("empty: %q", got)
	}
}

func TestLastWords(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if got := lastWords(path); got != "" {
		t.Errorf("no file: %q", got)
	}
	for text, want := range map[string]string{
		"":                   "",
		"first\nlast one \n": "last one",
		"level=ERROR msg=stopped err=\"driver \\\"x\\\": no VRF\" more=1\n": `driver "x": no VRF`,
		"level=ERROR msg=stopped err=short more=1\n":                        "short",
		"level=ERROR err=\"cut\n":                                           `"cut`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := lastWords(path); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort(l.Addr().String())
	_ = l.Close()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- errors.Join(Receive(t.Context(), w, address), w.Close()) }()
	lines := bufio.NewScanner(r)
	if !lines.Scan() || lines.Text() != "listening" {
		t.Fatalf("first line %q", lines.Text())
	}
	var sent bytes.Buffer
	if err := Send(t.Context(), &sent, address, 1<<20+7); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text()+"\n" != sent.String() || !strings.HasPrefix(sent.String(), "1048583:") {
		t.Errorf("sent %q, received %q", sent.String(), lines.Text())
	}
	_, _ = io.Copy(io.Discard, r)
	if err := <-done; err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Receive(ctx, io.Discard, address); err == nil {
		t.Error("received after the end")
	}
	if err := Send(t.Context(), io.Discard, netip.MustParseAddrPort("127.0.0.1:1"), 1); err == nil {
		t.Error("sent to nobody")
	}
}

func TestPollReturnsTheLastError(t *testing.T) {
	t.Parallel()
	n := 0
	if err := poll(t.Context(), time.Minute, func() error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("%v after %d calls", err, n)
	}
	err := poll(t.Context(), time.Millisecond, func() error { return errors.New("never") })
	if err == nil || err.Error() != "not within 1ms: never" {
		t.Errorf("got %v", err)
	}
}

func TestReportText(t *testing.T) {
	t.Parallel()
	r := &Report{
		Namespaces: []string{"rr", "node-a"},
		Processes: []ProcessInfo{
			{Name: "rr", PID: 7, Namespace: "rr", Running: true, Log: "/run/bagpipe-lab/default/rr.log"},
			{Name: "node-a", PID: 8, Namespace: "node-a", Log: "/run/bagpipe-lab/default/node-a.log", Config: "/run/bagpipe-lab/default/node-a.conf"},
		},
		Nodes: []NodeStatus{
			{Name: "node-a", Sessions: []string{"192.0.2.1: Established"}, Instances: []string{"lab"},
				Dataplane: DataplaneStatus{Driver: "ebpf", Entries: map[string]int{"prefix": 6, "local-prefix": 4}}, Summary: client.Object{
					{Name: "route_counts", Value: client.Object{{Name: "local_routes_count", Value: "5"}}}}},
			{Name: "node-b", Error: "connection refused"},
			{Name: "node-c", NotReady: []string{"a: b", "c: d"}},
			{Name: "node-d", Sessions: []string{"192.0.2.1: Active"}, Instances: []string{"lab"}},
		},
		Checks: []CheckResult{
			{Check: "ping x", OK: true, Detail: "3 of 3"},
			{Check: "ping y", Detail: "0 received"},
		},
		Try: []string{"ip netns exec vm-a1 ping -c 3 198.51.100.50", "bagpipe lab down"},
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "report", b.String())
}
