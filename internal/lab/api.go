// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// apiTimeout bounds one call of a node's API.
const apiTimeout = 10 * time.Second

// api returns a client that calls from inside the node's namespace, where the
// API listens on the loopback interface.
func (n Node) api() (*client.Client, error) {
	return client.New(client.WithBaseURL(apiURL), client.WithHTTPClient(&http.Client{
		Timeout: apiTimeout,
		Transport: &http.Transport{
			DialContext:       netspace.Dialer(n.Namespace),
			DisableKeepAlives: true, // a connection left open would hold the namespace
		},
	}))
}

// NodeStatus is what a node says of itself.
type NodeStatus struct {
	Name    string        `json:"name"`
	Summary client.Object `json:"summary,omitempty"`
	// Sessions are the BGP peers as "address: state".
	Sessions []string `json:"sessions"`
	// Instances are the ids of the VPN instances.
	Instances []string `json:"instances"`
	// Dataplane is what forwards for the lab's instance.
	Dataplane DataplaneStatus `json:"dataplane"`
	// NotReady are the reasons for which the node is not ready.
	NotReady []string `json:"not_ready,omitempty"`
	// Error is why the node could not be asked.
	Error string `json:"error,omitempty"`
}

// DataplaneStatus is what a driver has in the forwarding plane.
type DataplaneStatus struct {
	Driver string `json:"driver"`
	// Entries counts the entries by kind, such as "prefix".
	Entries map[string]int `json:"entries"`
}

// String returns e.g. "ebpf: local-prefix 4, prefix 6".
func (d DataplaneStatus) String() string {
	var counts []string
	for _, kind := range slices.Sorted(maps.Keys(d.Entries)) {
		counts = append(counts, fmt.Sprintf("%s %d", kind, d.Entries[kind]))
	}
	if d.Driver == "" || len(counts) == 0 {
		return d.Driver
	}
	return d.Driver + ": " + strings.Join(counts, ", ")
}

// OK tells whether the node does what it is there for.
func (s NodeStatus) OK() bool {
	return s.Error == "" && len(s.NotReady) == 0 && len(s.Instances) > 0 && s.established() > 0
}

func (s NodeStatus) established() (n int) {
	for _, session := range s.Sessions {
		if strings.HasSuffix(session, ": Established") {
			n++
		}
	}
	return n
}

// status asks a node. What it cannot be asked for is in the result.
func (n Node) status(ctx context.Context, vpn string) NodeStatus {
	s := NodeStatus{Name: n.Name, Sessions: []string{}, Instances: []string{}}
	if err := n.ask(ctx, vpn, &s); err != nil {
		s.Error = err.Error()
	}
	return s
}

func (n Node) ask(ctx context.Context, vpn string, s *NodeStatus) error {
	c, err := n.api()
	if err != nil {
		return err
	}
	summary, err := c.LookingGlass(ctx, "summary")
	if err != nil {
		return err
	}
	s.Summary, _ = summary.(client.Object)
	err = each(ctx, c, func(o client.Object) {
		s.Sessions = append(s.Sessions, o.Text("id")+": "+o.Text("state"))
	}, "bgp", "peers")
	if err != nil {
		return err
	}
	err = each(ctx, c, func(o client.Object) { s.Instances = append(s.Instances, o.Text("id")) }, "vpns", "instances")
	if err != nil {
		return err
	}
	if slices.Contains(s.Instances, instance) {
		if s.Dataplane, err = askDataplane(ctx, c, vpn); err != nil {
			return err
		}
	}
	ready, err := c.Ready(ctx)
	for _, condition := range ready.NotReady {
		s.NotReady = append(s.NotReady, condition.String())
	}
	return err
}

// askDataplane asks a node about the forwarding of the lab's instance.
func askDataplane(ctx context.Context, c *client.Client, vpn string) (d DataplaneStatus, err error) {
	v, err := c.LookingGlass(ctx, "vpns", "dataplane", "drivers", vpn)
	if err != nil {
		return d, err
	}
	if o, ok := v.(client.Object); ok {
		d.Driver = o.Text("name")
	}
	if v, err = c.LookingGlass(ctx, "vpns", "instances", instance, "dataplane", "entries"); err != nil {
		return d, err
	}
	d.Entries = map[string]int{}
	lines, _ := v.([]any)
	for _, line := range lines {
		text, _ := line.(string)
		kind, _, _ := strings.Cut(text, " ")
		d.Entries[kind]++
	}
	return d, nil
}

// each calls f with every object of a collection of the looking glass.
func each(ctx context.Context, c *client.Client, f func(client.Object), path ...string) error {
	v, err := c.LookingGlass(ctx, path...)
	if err != nil {
		return err
	}
	items, _ := v.([]any)
	for _, item := range items {
		if o, ok := item.(client.Object); ok {
			f(o)
		}
	}
	return nil
}

// answering returns an error until the API answers.
func (n Node) answering(ctx context.Context) error {
	c, err := n.api()
	if err != nil {
		return err
	}
	_, err = c.Ping(ctx)
	return err
}

// session returns an error until the node has an established BGP session.
func (n Node) session(ctx context.Context) error {
	c, err := n.api()
	if err != nil {
		return err
	}
	v, err := c.LookingGlass(ctx, "summary", "BGP_established_peers")
	if err != nil {
		return err
	}
	if count, ok := v.(json.Number); !ok || count == "0" {
		return errors.New("no BGP session is established")
	}
	return nil
}

// attach plugs the machines of one node, one after the other: the first call
// makes the instance.
func (p *Plan) attach(ctx context.Context, node int) error {
	c, err := p.Nodes[node].api()
	if err != nil {
		return err
	}
	for _, a := range p.Attachments {
		if a.Node != node {
			continue
		}
		if err := c.Attach(ctx, a.Request); err != nil {
			return fmt.Errorf("attach %s %s at %s: %w", a.Request.MACAddress, a.Request.IPAddress, p.Nodes[node].Name, err)
		}
	}
	return nil
}
