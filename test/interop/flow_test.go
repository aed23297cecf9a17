// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"strings"
	"testing"
)

// flowCases are flows that we and peers send, in the words of flowRoute. Where a peer
// can send what we would encode otherwise, means tells what it is to us.
var flowCases = []struct {
	flow, means string
	// oursOnly: a peer's language has no word for it.
	oursOnly bool
}{
	{flow: "destination D"},
	{flow: "source S"},
	{flow: "destination D; source S"},
	{flow: "destination D; protocol =6"},
	{flow: "destination D; protocol =17"},
	{flow: "destination D; protocol =6 =17 =132"},
	{flow: "protocol =6", oursOnly: true}, // ExaBGP takes all without a prefix for IPv4
	{flow: "destination D; port =53"},
	{flow: "destination D; protocol =6; destination-port =80"},
	{flow: "destination D; protocol =17; source-port =5353"},
	{flow: "destination D; source S; protocol =6; destination-port =80 =443 >=8000&<=8999; source-port >=1000&<=2000"},
	{flow: "destination D; destination-port <=1023"},
	{flow: "destination D; destination-port >=49152"},
	{flow: "source S; protocol =6; source-port <=255"},
	{flow: "source S; protocol =6; source-port =256"},
	{flow: "source S; protocol =6; source-port >=255&<=256"},
	{flow: "source S; protocol =6; source-port =65535"},
	{flow: "source S; protocol =6; source-port <=65534"},
	// A peer's other words for a range.
	{flow: "destination D; destination-port <1024", means: "destination D; destination-port <=1023"},
	{flow: "destination D; destination-port >1024", means: "destination D; destination-port >=1025"},
	{flow: "destination D; destination-port >999&<2001", means: "destination D; destination-port >=1000&<=2000"},
	{flow: "source S; source-port =81 =80 =82", means: "source S; source-port >=80&<=82"},
	{flow: "source S; source-port !=22", means: "source S; source-port <=21 >=23"},
	{flow: "source S; protocol <17", means: "source S; protocol <=16"},
	{
		flow:  "destination D; destination-port =7; fragment is-fragment",
		means: "FlowSpec component fragment (type 12) is not supported: want destination, source, protocol, port, destination-port and source-port only",
	},
}

// TestFlowSpec has other implementations decode FlowSpec routes that our encoder
// generates, and our decoder read what theirs do: all components and forms of ranges
// that forwarding knows, each with its redirection.
func TestFlowSpec(t *testing.T) {
	for _, kind := range []peerKind{exabgpKind, gobgp3Kind} {
		t.Run(kind.name, func(t *testing.T) {
			need(t, kind.needs)
			families := []string{"FlowSpec VPNv4", "FlowSpec VPNv6"}
			p := (&matrix{kind: kind}).pair(t, engineSetup{}, peerSetup{families: families})
			p.up(t)
			for _, family := range families {
				t.Run(family, func(t *testing.T) { p.flows(t, family) })
			}
			p.faultless(t)
		})
	}
}

func (p *pairing) flows(t *testing.T, family string) {
	destination, source := "203.0.113.0/25", "10.1.0.0/17"
	if family == "FlowSpec VPNv6" {
		destination, source = "2001:db8:7::/49", "2001:db8:8::/61"
	}
	names := strings.NewReplacer("destination D", "destination "+destination, "source S", "source "+source)
	// A redirection of each form of a route target.
	redirects := []string{"64512:%d", "192.0.2.1:%d", "4200000001:%d"}
	if p.kind.name == exabgpKind.name {
		redirects = redirects[:2] // it closes the session at the third
	}
	var ours, theirs, means []vpnRoute
	for i, c := range flowCases {
		to := redirects[i%len(redirects)]
		r := vpnRoute{
			Family: family, RD: fmt.Sprintf("192.0.2.9:%d", i), LocalPref: "100", RTs: []string{"64512:100"},
			Flow: names.Replace(c.flow), Communities: []string{"redirect:" + fmt.Sprintf(to, i)},
		}
		if !c.oursOnly {
			theirs = append(theirs, r)
		}
		if c.means == "" {
			ours = append(ours, r)
		} else {
			r.Flow = names.Replace(c.means)
		}
		if !c.oursOnly {
			means = append(means, r)
		}
	}
	p.engine.announce(t, ours...)
	p.wantPeer(t, family, ours)
	p.peer.set(t, theirs)
	p.wantEngine(t, family, means)
	p.engine.withdraw(t, ours...)
	p.wantPeer(t, family, nil)
	p.peer.set(t, nil)
	p.wantEngine(t, family, nil)
}
