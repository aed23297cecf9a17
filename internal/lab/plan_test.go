// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
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
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func options() Options {
	return Options{
		Underlay: 4, VPN: VPNEVPN, Dataplane: DataplaneLinux,
		Daemon: "/usr/bin/bagpipe-bgp", Self: "/usr/bin/bagpipe", RunDir: DefaultRunDir,
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	six := options()
	six.Name, six.Underlay = "demo-6", 6
	for name, o := range map[string]Options{"plan": options(), "plan_ipv6": six} {
		p, err := NewPlan(o)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, p.String())
	}
}

// TestPlanIsSound checks what must hold for any plan.
func TestPlanIsSound(t *testing.T) {
	t.Parallel()
	o := options()
	o.Name = strings.Repeat("x", 32)
	p, err := NewPlan(o)
	if err != nil {
		t.Fatal(err)
	}
	namespaces, ends, addresses := map[string]bool{}, map[string]bool{}, map[netip.Addr]string{}
	for _, ns := range p.Namespaces {
		if namespaces[ns] || !strings.HasPrefix(ns, o.Name+"-") {
			t.Errorf("namespace %s", ns)
		}
		namespaces[ns] = true
	}
	for _, v := range p.Veths {
		for _, e := range []End{v.A, v.B} {
			if !namespaces[e.Namespace] || ends[e.Namespace+e.Name] || len(e.Name) > 15 {
				t.Errorf("end %s", e)
			}
			ends[e.Namespace+e.Name] = true
			for _, a := range e.Addresses {
				if was, ok := addresses[a.Addr()]; ok {
					t.Errorf("%s is at %s and %s", a, was, e)
				}
				addresses[a.Addr()] = e.Namespace
			}
		}
	}
	for _, a := range p.Attachments {
		if !ends[p.Nodes[a.Node].Namespace+a.Request.LocalPort.LinuxIF] {
			t.Errorf("attachment of %s, which is not there", a.Request.LocalPort.LinuxIF)
		}
	}
	for _, c := range p.Pings {
		if addresses[c.Address] != c.To || c.From == c.To {
			t.Errorf("check %s", c)
		}
	}
}

func TestOptionsCheck(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){
		"upper case name": func(o *Options) { o.Name = "Demo" },
		"path as name":    func(o *Options) { o.Name = "../x" },
		"long name":       func(o *Options) { o.Name = strings.Repeat("x", 33) },
		"hyphen at end":   func(o *Options) { o.Name = "x-" },
		"underlay 5":      func(o *Options) { o.Underlay = 5 },
		"vpn ipvpn":       func(o *Options) { o.VPN = "ipvpn" },
		"dataplane ovs":   func(o *Options) { o.Dataplane = "ovs" },
	} {
		o := options()
		change(&o)
		if _, err := NewPlan(o); err == nil {
			t.Errorf("%s was taken", name)
		}
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
			{Name: "node-a", Sessions: []string{"192.0.2.1: Established"}, Instances: []string{"lab"}, Summary: client.Object{
				{Name: "route_counts", Value: client.Object{{Name: "local_routes_count", Value: "5"}}}}},
			{Name: "node-b", Error: "connection refused"},
			{Name: "node-c", NotReady: []string{"a: b", "c: d"}},
			{Name: "node-d", Sessions: []string{"192.0.2.1: Active"}, Instances: []string{"lab"}},
		},
		Checks: []CheckResult{
			{Check: "ping x", OK: true, Detail: "3 of 3"},
			{Check: "ping y", Detail: "0 received"},
		},
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "report", b.String())
}
