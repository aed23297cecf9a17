// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/lab"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// scenarioLab is a lab of a scenario that is up.
type scenarioLab struct {
	*labRun
	plan *lab.Plan
}

// newScenario brings a scenario up, with all its checks.
func newScenario(t *testing.T, label, scenario, dataplane string) *scenarioLab {
	t.Helper()
	l := &scenarioLab{labRun: newLab(t, label)}
	l.run(0, []string{"lab " + l.name + " is up"}, "up", "--scenario", scenario, "--dataplane", dataplane)
	var err error
	l.plan, err = lab.NewPlan(lab.Options{
		Name: l.name, Underlay: 4, Scenario: scenario, Dataplane: dataplane,
		Daemon: program("bagpipe-bgp"), Self: program("bagpipe"), RunDir: lab.DefaultRunDir,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// api returns a client of a node.
func (l *scenarioLab) api(node int) *client.Client {
	l.t.Helper()
	c, err := client.New(client.WithBaseURL("http://127.0.0.1:8082"), client.WithHTTPClient(&http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{DialContext: netspace.Dialer(l.plan.Nodes[node].Namespace), DisableKeepAlives: true},
	}))
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// each calls f with the attachments that match: to an instance, by a namespace, "" for all.
func (l *scenarioLab) each(instance, namespace string, f func(*client.Client, client.AttachRequest) error) {
	l.t.Helper()
	for _, a := range l.plan.Attachments {
		text, _ := a.Request.Description.(string)
		if instance != "" && a.Request.VPNInstanceID != instance || namespace != "" && !strings.HasPrefix(text, l.name+"-vm-"+namespace+" ") {
			continue
		}
		if err := f(l.api(a.Node), a.Request); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *scenarioLab) detach(instance, namespace string) {
	l.t.Helper()
	l.each(instance, namespace, func(c *client.Client, r client.AttachRequest) error { return c.Detach(l.t.Context(), r.Detach()) })
}

func (l *scenarioLab) attach(instance, namespace string, change func(*client.AttachRequest)) {
	l.t.Helper()
	l.each(instance, namespace, func(c *client.Client, r client.AttachRequest) error {
		if change != nil {
			change(&r)
		}
		return c.Attach(l.t.Context(), r)
	})
}

// instances lists the VPN instances of a node.
func (l *scenarioLab) instances(node int) (ids []string) {
	l.t.Helper()
	v, err := l.api(node).LookingGlass(l.t.Context(), "vpns", "instances")
	if err != nil {
		l.t.Fatal(err)
	}
	list, _ := v.([]any)
	for _, item := range list {
		ids = append(ids, item.(client.Object).Text("id"))
	}
	slices.Sort(ids)
	return ids
}

func (l *scenarioLab) wantInstances(node int, want ...string) {
	l.t.Helper()
	slices.Sort(want)
	eventually(l.t, routeTimeout, func() error {
		if got := l.instances(node); !slices.Equal(got, want) {
			return fmt.Errorf("%s has the instances %v, want %v", l.plan.Nodes[node].Name, got, want)
		}
		return nil
	})
}

// crosses waits until a check of the plan holds; without services, that traffic goes straight.
func (l *scenarioLab) crosses(c lab.Crossing) {
	l.t.Helper()
	eventually(l.t, 20*time.Second, func() error { return c.Run(l.t.Context(), l.plan.Options.Self) })
}

// straight is a check of the plan whose traffic goes through no service.
func straight(c lab.Crossing) lab.Crossing {
	c.Avoid, c.Hops = c.Hops, nil
	return c
}

// TestScenarios is each sample scenario as a user runs it, with eBPF and with Open vSwitch.
func TestScenarios(t *testing.T) {
	t.Parallel()
	for _, dataplane := range []string{lab.DataplaneEBPF, lab.DataplaneOVS} {
		for n, s := range lab.Scenarios {
			t.Run(s.Name+" by "+dataplane, func(t *testing.T) {
				t.Parallel()
				devices := hostDevices(t)
				l := newScenario(t, fmt.Sprintf("s%d%s", n, dataplane[:1]), s.Name, dataplane)
				r := l.report(0)
				for _, node := range r.Nodes {
					if w := node.Summary.Text("warnings_and_errors"); w != "0" {
						t.Errorf("%s has logged %s warnings", node.Name, w)
					}
				}
				if strings.Contains(s.Name, "redirect") {
					for node, want := range []string{"redirect-to-ipvpn-64512_300", "redirect-to-ipvpn-64512_400"} {
						if ids := l.instances(node); !slices.Contains(ids, want) {
							t.Errorf("%s has the instances %v, want %s", r.Nodes[node].Name, ids, want)
						}
					}
				}
				l.run(0, []string{"is down"}, "down")
				l.wantNoTrace(r, devices)
			})
		}
	}
}

// TestChainOrder looks at the TTL of packets at each leg: they pass the service machines in
// order, and back in the other.
func TestChainOrder(t *testing.T) {
	t.Parallel()
	l := newScenario(t, "order", "chain-example3", lab.DataplaneEBPF)
	legs := []string{"svc1 x1", "svc1 h1", "svc2 h2", "svc2 x2"}
	seen := make([]*ttls, len(legs))
	for i, leg := range legs {
		machine, dev, _ := strings.Cut(leg, " ")
		seen[i] = watchTTL(t, l.name+"-vm-"+machine, dev)
	}
	l.crosses(l.plan.Crossings[0])
	there, back := netip.MustParseAddr("12.0.0.1"), netip.MustParseAddr("11.0.0.1")
	eventually(t, routeTimeout, func() error {
		for i := 1; i < len(legs); i++ {
			before, after := seen[i-1].of(there), seen[i].of(there)
			if before == 0 || after == 0 || before <= after {
				return fmt.Errorf("TTL to %s: %d at %s, then %d at %s", there, before, legs[i-1], after, legs[i])
			}
			before, after = seen[i].of(back), seen[i-1].of(back)
			if before == 0 || after == 0 || before <= after {
				return fmt.Errorf("TTL to %s: %d at %s, then %d at %s", back, before, legs[i], after, legs[i-1])
			}
		}
		return nil
	})
}

// ttls are the TTLs of IPv4 packets at a device, by destination.
type ttls struct {
	mu sync.Mutex
	by map[netip.Addr]int
}

func (s *ttls) of(dst netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[dst]
}

// watchTTL notes the TTL of the last packet to each destination that a device receives or sends.
func watchTTL(t *testing.T, namespace, device string) *ttls {
	t.Helper()
	s := &ttls{by: map[netip.Addr]int{}}
	file := packetSocket(t, namespace, device)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := file.Read(buf)
			if err != nil {
				return
			}
			if n >= 34 && binary.BigEndian.Uint16(buf[12:]) == unix.ETH_P_IP && buf[23] == unix.IPPROTO_TCP {
				s.mu.Lock()
				s.by[netip.AddrFrom4([4]byte(buf[30:34]))] = int(buf[22])
				s.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		_ = file.Close()
		wg.Wait()
	})
	return s
}

// TestChainChanges has machines that reach each other straight, too: what a chain attracts goes
// through it, what not straight, and all of it straight when a service goes. Chains change by
// later attachments.
func TestChainChanges(t *testing.T) {
	t.Parallel()
	for _, dataplane := range []string{lab.DataplaneEBPF, lab.DataplaneOVS} {
		t.Run(dataplane, func(t *testing.T) {
			t.Parallel()
			l := newScenario(t, "chg"+dataplane[:1], "chain-traffic-redirect", dataplane)
			l.attach("vm1", "", func(r *client.AttachRequest) { r.ImportRT = append(r.ImportRT, "64512:2") })
			l.attach("vm2", "", func(r *client.AttachRequest) { r.ImportRT = append(r.ImportRT, "64512:1") })
			web := l.plan.Crossings[0]
			other := straight(web)
			other.Transfer.Address = netip.AddrPortFrom(web.Transfer.Address.Addr(), 81)
			l.crosses(web)
			l.crosses(other)

			t.Log("the classifier changes: another port is attracted")
			to81 := func(r *client.AttachRequest) {
				a := *r.AttractTraffic // the plan's stays as it is
				if a.Classifier.DestinationPort != "" {
					a.Classifier.DestinationPort = "81"
				} else {
					a.Classifier.SourcePort = "81"
				}
				r.AttractTraffic = &a
			}
			l.attach("x1", "", to81)
			l.attach("x2", "", to81)
			l.crosses(straight(web))
			crossed := web
			crossed.Transfer.Address = other.Transfer.Address
			l.crosses(crossed)

			t.Log("a service goes, both legs of it: all traffic goes straight, and nobody redirects any more")
			l.detach("", "svc1")
			l.detach("", "svc2")
			l.crosses(straight(web))
			l.crosses(other)
			l.wantInstances(0, "vm1")
			l.wantInstances(1, "vm2")

			t.Log("it comes back")
			l.attach("", "svc1", nil)
			l.attach("", "svc2", nil)
			l.crosses(web)
			l.crosses(other)

			t.Log("nothing is attracted any more: all is re-advertised, which the machines do not import")
			none := func(r *client.AttachRequest) { r.AttractTraffic = &client.AttractTraffic{RedirectRTs: []string{}} }
			l.attach("x1", "", none)
			l.attach("x2", "", none)
			l.crosses(straight(web))
			l.wantInstances(0, "vm1", "x2", "h2")
			l.wantInstances(1, "vm2", "x1", "h1")
		})
	}
}

// TestBalanceChanges takes copies of a balanced service away: the others have all flows.
func TestBalanceChanges(t *testing.T) {
	t.Parallel()
	for _, dataplane := range []string{lab.DataplaneEBPF, lab.DataplaneOVS} {
		t.Run(dataplane, func(t *testing.T) {
			t.Parallel()
			l := newScenario(t, "lb"+dataplane[:1], "chain-redirect-lb2", dataplane)
			c := l.plan.Crossings[0]
			for _, copy := range []string{"svc2b", "svc2a"} {
				l.detach("", copy)
				i := slices.IndexFunc(c.Hops[1], func(s lab.Service) bool { return strings.HasSuffix(s.Namespace, "-"+copy) })
				c.Avoid = append(c.Avoid, lab.Hop{c.Hops[1][i]})
				c.Hops = []lab.Hop{c.Hops[0], slices.Delete(slices.Clone(c.Hops[1]), i, i+1)}
				l.crosses(c)
			}
			l.detach("", "svc2c")
			l.wantInstances(0, "vm1", "redirect-to-ipvpn-64512_300")
			l.detach("", "svc1")
			l.wantInstances(0, "vm1")
			l.wantInstances(1, "vm2")
		})
	}
}
