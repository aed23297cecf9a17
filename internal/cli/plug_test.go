// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

// attachHost is a host to make netns ports on, and a name for their namespace.
func attachHost(t *testing.T) (host *nstest.NS, inside string) {
	t.Helper()
	host = nstest.New(t, "host")
	inside = "bpt-in-" + strings.ToLower(rand.Text()[:6])
	t.Cleanup(func() {
		if err := netspace.Delete(inside); err != nil {
			t.Error(err)
		}
	})
	return host, inside
}

// run calls bagpipe-rest-attach on the host.
func run(t *testing.T, host *nstest.NS, d *daemon, args string) (got outcome) {
	t.Helper()
	if host == nil {
		return d.call(t, strings.Fields("bagpipe-rest-attach "+args)...)
	}
	// The daemon listens outside the host, so the post fails there: what
	// counts here is what was made before it.
	inNamespace(t, host.Name, func() { got = d.call(t, strings.Fields("bagpipe-rest-attach "+args)...) })
	return got
}

// inNamespace calls f on a thread inside. It is not nstest's Do: that one may
// leave the main thread inside, and then the end of the namespace ends the test.
func inNamespace(t *testing.T, name string, f func()) {
	t.Helper()
	err := netspace.Do(name, func() error {
		f()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ipIn(t *testing.T, ns, args string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", append([]string{"-n", ns}, strings.Fields(args)...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip -n %s %s: %v: %s", ns, args, err, out)
	}
	return string(out)
}

func TestNetnsPort(t *testing.T) {
	t.Parallel()
	host, inside := attachHost(t)
	d := newDaemon(t)
	args := "--network-type evpn --vpn-instance-id red --port netns:nsred --netns " + inside + " --ip 198.51.100.7 "
	// Twice: the second call replaces the pair.
	var got outcome
	for range 2 {
		got = run(t, host, d, "--attach "+args)
	}
	mac := regexp.MustCompile(`link/ether (\S+)`).FindStringSubmatch(ipIn(t, inside, "link show tovpn"))
	want := fmt.Sprintf("using 198.51.100.254 as gateway address\nWill plug local namespace %s into network\nLocal port: nsred (%s)\n", inside, mac[1])
	if !strings.HasPrefix(got.stdout, want) {
		t.Errorf("output %q, want %q first", got.stdout, want)
	}
	checks := []struct{ ns, args, want string }{
		{host.Name, "link show nsred", "mtu 9000 "},
		{host.Name, "link show nsred", "LOWER_UP"},
		{inside, "link show tovpn", "mtu 1420 "},
		{inside, "addr show tovpn", "inet 198.51.100.7/24 "},
		{inside, "route show default", "default via 198.51.100.254 dev tovpn"},
		{inside, "link show lo", "UP"},
	}
	for _, c := range checks {
		if out := ipIn(t, c.ns, c.args); !strings.Contains(out, c.want) {
			t.Errorf("%s: %q is missing in %s", c.args, c.want, out)
		}
	}
	// Detach makes nothing, and finds the MAC address again.
	got = run(t, nil, d, "--detach "+args)
	if got.status != 0 || !strings.Contains(got.stdout, fmt.Sprintf("Local port: nsred (%s)\n", mac[1])) ||
		strings.Contains(got.stdout, "Will plug") {
		t.Errorf("detach: %+v", got)
	}
	if out := ipIn(t, inside, "link show tovpn"); !strings.Contains(out, mac[1]) {
		t.Errorf("after detach: %s", out)
	}
}

func TestNetnsPortWithMACAndIPv6(t *testing.T) {
	t.Parallel()
	host, inside := attachHost(t)
	d := newDaemon(t)
	run(t, host, d, "--attach --network-type evpn --port netns --netns "+inside+
		" --if2vpn x1 --mac 00:00:5e:00:53:42 --ip 2001:db8:1::7")
	if out := ipIn(t, inside, "addr show x1"); !strings.Contains(out, "00:00:5e:00:53:42") ||
		!strings.Contains(out, "2001:db8:1::7/64 scope global nodad") {
		t.Errorf("inside: %s", out)
	}
	// The host's end is named after the namespace.
	name := ("ns-" + inside)[:15]
	if out := ipIn(t, host.Name, "link show "+name); !strings.Contains(out, name) {
		t.Errorf("outside: %s", out)
	}
}

// TestPortsOnOVS has a script in place of ovs-vsctl, for PATH decides which is
// run; so this test is not parallel.
func TestPortsOnOVS(t *testing.T) {
	host, inside := attachHost(t)
	bin := t.TempDir()
	log := filepath.Join(bin, "log")
	script := "#!/bin/sh\necho \"$@\" >>" + log + "\ncase $1 in get) echo 12;; esac\n"
	if err := os.WriteFile(filepath.Join(bin, "ovs-vsctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	d := newDaemon(t)
	for _, tt := range []struct {
		name, args, calls, port string
	}{
		{
			"namespace", "--attach --port netns:nsblue --netns " + inside,
			"--if-exists del-port nsblue\n--may-exist add-port br-x nsblue\nget Interface nsblue ofport\n",
			`{"linuxif": "nsblue", "ovs": {"plugged": true, "port_number": 12}}`,
		},
		{
			"interface", "--attach --port tap1 --ovs-vlan 5",
			"--may-exist add-port br-x tap1\nget Interface tap1 ofport\n",
			`{"linuxif": "tap1", "ovs": {"plugged": true, "port_number": 12, "vlan": 5}}`,
		},
		{
			"detach only looks", "--detach --port tap1 --ovs-vlan 5",
			"get Interface tap1 ofport\n",
			`{"linuxif": "tap1", "ovs": {"plugged": true, "port_number": 12, "vlan": 5}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_ = os.Remove(log)
			got := run(t, host, d, tt.args+" --network-type ipvpn --ip 198.51.100.7 --ovs-preplug --ovs-bridge br-x")
			calls, err := os.ReadFile(log)
			if err != nil {
				t.Fatalf("%v: %s", err, got.stderr)
			}
			if string(calls) != tt.calls {
				t.Errorf("calls %q, want %q", calls, tt.calls)
			}
			if want := `"local_port": ` + tt.port; !strings.Contains(got.stdout, want) {
				t.Errorf("%q is missing in %q", want, got.stdout)
			}
		})
	}
}

func TestNetnsPortWithVLAN(t *testing.T) {
	t.Parallel()
	host, inside := attachHost(t)
	d := newDaemon(t)
	got := run(t, host, d, "--attach --network-type ipvpn --port netns:nsblue --netns "+inside+" --ip 198.51.100.7 --ovs-vlan 5")
	if strings.Contains(got.stderr, "make VLAN 5 on ns2vpn-raw: operation not supported") {
		t.Skip("this kernel has no VLAN devices (module 8021q)")
	}
	if out := ipIn(t, inside, "-d link show tovpn"); !strings.Contains(out, "tovpn@ns2vpn-raw") || !strings.Contains(out, "id 5 ") ||
		!strings.Contains(out, "mtu 1420") {
		t.Errorf("inside: %s, %s", out, got.stderr)
	}
	if out := ipIn(t, inside, "link show ns2vpn-raw"); !strings.Contains(out, "mtu 65535") {
		t.Errorf("below: %s", out)
	}
}

func TestOVSOptionsNeedOVS(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	d := newDaemon(t)
	got := d.call(t, strings.Fields("bagpipe-rest-attach --attach --network-type ipvpn --port t --ip 198.51.100.7 --ovs-preplug")...)
	if got.status != 1 || !strings.Contains(got.stderr, "openvswitch-switch") {
		t.Errorf("got %+v", got)
	}
}
