// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// Glass is the looking glass of one daemon.
type Glass struct {
	// Name stands for the daemon in the picture.
	Name   string
	Client *client.Client
	// Path of the looking glass on the server.
	Path string
}

// Read returns the relations of all instances of a daemon, sorted by ID. An
// instance that goes away meanwhile is left out.
func (g Glass) Read(ctx context.Context) (Server, error) {
	s := Server{Name: g.Name, Instances: []Instance{}}
	v, err := g.get(ctx, "vpns", "instances")
	if err != nil {
		return s, err
	}
	items, ok := v.([]any)
	if !ok {
		return s, g.failed([]string{"vpns", "instances"}, errors.New("the daemon did not send a list"))
	}
	for _, item := range items {
		shown, _ := item.(client.Object)
		i, err := g.instance(ctx, shown)
		if gone(err) {
			continue
		}
		if err != nil {
			return s, err
		}
		s.Instances = append(s.Instances, i)
	}
	slices.SortStableFunc(s.Instances, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	return s, nil
}

func (g Glass) instance(ctx context.Context, shown client.Object) (Instance, error) {
	id := shown.Text("id")
	o, err := g.object(ctx, "vpns", "instances", id)
	if err != nil {
		return Instance{}, err
	}
	ports, err := g.object(ctx, "vpns", "instances", id, "ports")
	if err != nil && !gone(err) {
		return Instance{}, err
	}
	i := Instance{
		ID: id, Name: shown.Text("name"), Type: VRF, Ports: []string{},
		Import: targets(o.Object("route_targets"), "import"), Export: targets(o.Object("route_targets"), "export"),
		VRF: o.Object("gateway_port").Object("ipvpn").Text("external_instance_id"),
	}
	if strings.HasPrefix(i.Name, EVI) {
		i.Type = EVI
	}
	for _, m := range ports {
		i.Ports = append(i.Ports, m.Name)
	}
	slices.Sort(i.Ports)
	if r := o.Object("readvertise"); len(r) > 0 {
		i.Readvertise = &Readvertise{From: targets(r, "from"), To: targets(r, "to")}
	}
	if a := o.Object("attract_traffic"); len(a) > 0 {
		i.Attract = &Attract{
			Redirect: targets(a, "redirect_rts"), Classifier: a.Object("classifier"),
			To: targets(a, "to"), StaticPrefixes: texts(a, "static_destination_prefixes"),
		}
	}
	return i, nil
}

func (g Glass) get(ctx context.Context, path ...string) (any, error) {
	below := strings.FieldsFunc(g.Path, func(r rune) bool { return r == '/' })
	body, err := g.Client.Get(ctx, g.Client.URL(append(below, path...)...))
	if err != nil {
		return nil, g.failed(path, err)
	}
	v, err := client.ParseJSON(body)
	if err != nil {
		return nil, g.failed(path, err)
	}
	return v, nil
}

func (g Glass) object(ctx context.Context, path ...string) (client.Object, error) {
	v, err := g.get(ctx, path...)
	if err != nil {
		return nil, err
	}
	o, ok := v.(client.Object)
	if !ok {
		return nil, g.failed(path, errors.New("the daemon did not send an object"))
	}
	return o, nil
}

func (g Glass) failed(path []string, err error) error {
	return fmt.Errorf("read %s of %s: %w", visible(strings.Join(path, " ")), g.Name, err)
}

// gone tells that there is no such object, or no longer.
func gone(err error) bool {
	var refused *client.Error
	return errors.As(err, &refused) && refused.Code == http.StatusNotFound
}

// targets returns a member that is a list of route targets, sorted and each
// once, without the word that says what they are.
func targets(o client.Object, name string) []string {
	list := texts(o, name)
	for i, rt := range list {
		list[i] = strings.TrimPrefix(rt, "target:")
	}
	slices.SortFunc(list, compareTargets)
	return slices.Compact(list)
}

// texts returns a member that is a list of strings.
func texts(o client.Object, name string) []string {
	v, _ := o.Get(name)
	items, _ := v.([]any)
	list := make([]string, 0, len(items))
	for _, item := range items {
		list = append(list, fmt.Sprint(item))
	}
	return list
}
