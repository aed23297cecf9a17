// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
)

const (
	instances        = 4 // of each VPN type
	portsPerInstance = 8 // one of them has a device that comes and goes
	targets          = 16
	routesPerTarget  = 400
	leastSamples     = 6
	warmUp           = 2 // cycles before the first sample
)

// TestSoak runs cycles of churn on a node for a while.
func TestSoak(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		// ovs has Open vSwitch forward IP VPNs, in place of eBPF.
		ovs bool
		// restarts ends the daemon in each cycle, in place of its sessions.
		restarts bool
	}{
		{name: "ebpf"}, {name: "ovs", ovs: true}, {name: "ebpf, restarts", restarts: true}, {name: "ovs, restarts", ovs: true, restarts: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSoak(t, tt.ovs)
			s.restarts = tt.restarts
			s.run(length(t))
		})
	}
}

// soak is a node under churn.
type soak struct {
	*node
	ovs      *ovstest.Switch
	restarts bool
	// cycle makes instances and routes new ones, gen the attributes of routes, phase the
	// route targets.
	cycle, gen, phase int
	reflected         time.Time // when the reflector was restarted
}

func newSoak(t *testing.T, ovs bool) *soak {
	t.Helper()
	s := &soak{}
	if !ovs {
		s.node = newNode(t, "dataplane_driver = ebpf\n")
	} else {
		s.node = newNode(t, "")
		s.ovs = ovstest.New(t, s.NS)
		s.ovs.AddBridge("br-mpls")
		s.text += "dataplane_driver = ovs\novs_bridge = br-mpls\nmpls_interface = *gre*\narp_responder = True\n" +
			"[OVS]\novsdb_connection = " + s.ovs.DB() + "\nrun_dir = " + s.ovs.Dir + "\n"
		s.configure("")
	}
	for i := range 2 * instances {
		for p := range portsPerInstance - 1 {
			s.addPort(portName(i, p))
		}
	}
	s.startReflector()
	s.node.start()
	s.feeder.connect()
	return s
}

// portName names a port of an instance; E-VPN instances come first.
func portName(instance, port int) string { return fmt.Sprintf("p%dx%d", instance, port) }

func (s *soak) addPort(name string) {
	s.t.Helper()
	s.Run("ip", "link", "add", name, "up", "type", "veth", "peer", "name", name, "netns", s.machine.Name)
	s.machine.Run("ip", "link", "set", name, "up")
}

// request returns the attachment of a port in the cycle, with the route targets of the phase.
func (s *soak) request(instance, port int) client.AttachRequest {
	name := portName(instance, port)
	r := client.AttachRequest{
		VPNType: client.EVPN, VPNInstanceID: fmt.Sprintf("evi %d of cycle %d", instance, s.cycle), LocalPort: client.LocalPort{LinuxIF: name},
		MACAddress: fmt.Sprintf("02:aa:00:00:%02x:%02x", instance, port), IPAddress: fmt.Sprintf("198.51.100.%d/24", 10+port),
	}
	target := (instance + s.phase) % (targets / 2)
	if instance < instances {
		if instance%2 == 0 {
			r.VNI = uint32(10_000 + s.cycle%1000*instances + instance)
		}
	} else {
		target += targets / 2
		r.VPNType, r.VPNInstanceID, r.GatewayIP = client.IPVPN, fmt.Sprintf("vrf %d of cycle %d", instance, s.cycle), "198.51.100.1"
		if port%2 == 1 {
			r.IPAddress, r.GatewayIP = fmt.Sprintf("2001:db8:1::%d/64", 10+port), "2001:db8:1::1"
		}
	}
	r.ImportRT, r.ExportRT = []string{routeTarget(target)}, []string{routeTarget(target)}
	return r
}

// each does something for all instances, for some at the same time.
func (s *soak) each(do func(instance int) error) {
	s.t.Helper()
	var wg sync.WaitGroup
	for i := range 2 * instances {
		wg.Go(func() {
			if err := do(i); err != nil {
				s.t.Error(err)
			}
		})
	}
	wg.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// attach attaches ports from first on of all instances.
func (s *soak) attach(first int) {
	s.t.Helper()
	s.each(func(i int) error {
		for p := first; p < portsPerInstance; p++ {
			r := s.request(i, p)
			if err := s.api.Attach(s.t.Context(), r); err != nil {
				return fmt.Errorf("attach %s to %s: %w", r.LocalPort.LinuxIF, r.VPNInstanceID, err)
			}
		}
		return nil
	})
}

// detach detaches ports from first to last of all instances.
func (s *soak) detach(first, last int) {
	s.t.Helper()
	s.each(func(i int) error {
		for p := first; p <= last; p++ {
			if err := s.api.Detach(s.t.Context(), s.request(i, p).Detach()); err != nil {
				return fmt.Errorf("detach %s: %w", portName(i, p), err)
			}
		}
		return nil
	})
}

// feed announces routes of the next generation.
func (s *soak) feed(thin bool) {
	s.gen++
	s.feeder.announce(load(s.cycle, s.gen%200, thin))
}

// forwards waits until the node forwards to all that it imports.
func (s *soak) forwards(thin bool) {
	s.t.Helper()
	routes := routesPerTarget
	if thin {
		routes -= (routesPerTarget + 3) / 4
	}
	all := float64(instances * routes)
	s.await(fmt.Sprintf("forwarding in cycle %d", s.cycle), map[string]float64{
		`bagpipe_dataplane_entries{kind="mac",vpn_type="evpn"}`:     all,
		`bagpipe_dataplane_entries{kind="neigh",vpn_type="evpn"}`:   all,
		`bagpipe_dataplane_entries{kind="flood",vpn_type="evpn"}`:   instances,
		`bagpipe_dataplane_entries{kind="prefix",vpn_type="ipvpn"}`: all + instances*portsPerInstance,
		`bagpipe_bgp_peer_up{peer="` + feederAddr + `"}`:            1,
		`bagpipe_bgp_peer_up{peer="` + rrAddr + `"}`:                1,
		`bagpipe_dataplane_problems`:                                0,
		`bagpipe_ready`:                                             1,
	})
}

// churn is a cycle: everything comes, changes, and goes.
func (s *soak) churn() {
	s.t.Helper()
	for i := range 2 * instances {
		s.addPort(portName(i, portsPerInstance-1))
	}
	s.phase = 0
	s.feed(false)
	s.attach(0)
	s.forwards(false)

	s.phase = 1 + s.cycle%(targets/2-1) // other route targets, by one port of each instance that is attached again
	s.detach(1, 3)
	s.attach(1)
	s.feed(true)
	s.forwards(true)

	if s.restarts {
		s.restart()
	} else {
		s.breakSessions()
	}
	s.forwards(true)
	if !s.restarts && s.cycle%3 == 0 {
		s.reload()
	}

	for i := range 2 * instances { // half of the devices go before their ports are detached
		if i%2 == 0 {
			s.Run("ip", "link", "del", portName(i, portsPerInstance-1))
		}
	}
	s.detach(0, portsPerInstance-1)
	s.feeder.announce(nil)
	for i := range 2 * instances {
		if i%2 == 1 {
			s.Run("ip", "link", "del", portName(i, portsPerInstance-1))
		}
	}
	s.cycle++
}

// breakSessions ends sessions in the ways that they end.
func (s *soak) breakSessions() {
	s.t.Helper()
	switch s.cycle % 4 {
	case 0:
		s.feeder.leave(false)
	case 1:
		s.feeder.leave(true)
	case 2:
		if err := s.api.ResetPeer(s.t.Context(), feederAddr, "soak"); err != nil {
			s.t.Fatal(err)
		}
		<-s.feeder.ended
	case 3:
		s.restartReflector()
		return
	}
	s.feeder.connect()
}

// restartReflector restarts the reflector, unless that was less than a minute ago: the
// node connects ever later to a peer whose sessions are short.
func (s *soak) restartReflector() {
	s.t.Helper()
	if time.Since(s.reflected) < 70*time.Second {
		return
	}
	const sessions = `bagpipe_bgp_peer_established_total{peer="` + rrAddr + `"}`
	before, err := s.metrics()
	if err != nil {
		s.t.Fatal(err)
	}
	s.rr.end(syscall.SIGKILL)
	s.startReflector()
	s.await("a session with the reflector", map[string]float64{sessions: before[sessions] + 1})
	s.reflected = time.Now()
}

// restart ends the daemon and starts it again.
func (s *soak) restart() {
	s.t.Helper()
	s.proc.end([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[s.cycle%2])
	s.feeder.leave(false)
	s.node.start()
	s.feeder.connect()
}

// reload adds a peer and takes it away again, by SIGHUP.
func (s *soak) reload() {
	s.t.Helper()
	up := `bagpipe_bgp_peer_up{peer="192.0.2.99"}`
	for _, there := range []bool{true, false} {
		more := ""
		if there {
			more = "[PEER 192.0.2.99]\npassive = true\n"
		}
		s.configure(more)
		if err := s.proc.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			s.t.Fatal(err)
		}
		s.eventually("reload", func() error {
			m, err := s.metrics()
			if _, is := m[up]; err == nil && is != there {
				err = fmt.Errorf("the peer is there: %v, want %v", is, there)
			}
			return err
		})
	}
}

// run runs cycles and compares what there is after each.
func (s *soak) run(length time.Duration) {
	s.t.Helper()
	var samples []sample
	for begin := time.Now(); time.Since(begin) < length || len(samples) < leastSamples; {
		s.churn()
		if s.cycle < warmUp {
			continue
		}
		var base *sample
		if len(samples) > 0 {
			base = &samples[0]
		}
		samples = append(samples, s.settle(base, s.more))
		if s.t.Failed() {
			break
		}
		if n := len(samples); n&(n-1) == 0 || n%100 == 0 {
			s.t.Logf("after %d cycles: %v", s.cycle, samples[n-1])
		}
	}
	s.t.Logf("after %d cycles: %v", s.cycle, samples[len(samples)-1])
	level(s.t, samples)
}

// more counts what Open vSwitch has.
func (s *soak) more() map[string]int64 {
	out := map[string]int64{}
	if s.ovs == nil {
		return out
	}
	for name, text := range map[string]string{
		"OpenFlow flows":   s.ovs.Ofctl("--no-stats", "dump-flows", s.ovs.Socket("br-mpls")),
		"OpenFlow groups":  s.ovs.Ofctl("dump-groups", s.ovs.Socket("br-mpls")),
		"OVSDB ports":      s.ovs.Vsctl("--columns=name", "list", "port"),
		"OVSDB interfaces": s.ovs.Vsctl("--columns=name", "list", "interface"),
	} {
		out[name] = int64(strings.Count(text, "\n"))
	}
	return out
}
