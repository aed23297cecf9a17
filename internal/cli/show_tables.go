// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/client"
)

type instanceRow struct {
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	Type        string      `json:"type"`
	Label       json.Number `json:"label,omitempty"`
	Import      []string    `json:"import"`
	Export      []string    `json:"export"`
	Endpoints   int         `json:"endpoints"`
	Description string      `json:"description,omitempty"`
}

func (s *shower) instances(ctx context.Context, words []string) error {
	if len(words) > 0 {
		return s.tree(ctx, append([]string{"vpns", "instances"}, words...))
	}
	list, err := s.list(ctx, "vpns", "instances")
	if err != nil {
		return err
	}
	rows := []instanceRow{}
	for _, item := range list {
		id := item.Text("id")
		o, err := s.get(ctx, "vpns", "instances", id)
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		ports, err := s.endpoints(ctx, id)
		if err != nil {
			return err
		}
		rts := o.Object("route_targets")
		rows = append(rows, instanceRow{
			ID: id, Name: o.Text("name"), Type: o.Text("instance_type"), Label: number(o, "instance_dataplane_id"),
			Import: routeTargets(rts, "import"), Export: routeTargets(rts, "export"),
			Endpoints: len(ports), Description: o.Text("description"),
		})
	}
	return s.print(rows, func(w io.Writer) error {
		var cells [][]string
		for _, r := range rows {
			cells = append(cells, []string{r.ID, r.Type, r.Name, r.Label.String(), strings.Join(r.Import, " "),
				strings.Join(r.Export, " "), strconv.Itoa(r.Endpoints), r.Description})
		}
		return table(w, "INSTANCE|TYPE|NAME|LABEL|IMPORT|EXPORT|ENDPOINTS|DESCRIPTION", cells)
	})
}

type portRow struct {
	Instance  string      `json:"instance"`
	Port      string      `json:"port"`
	MAC       string      `json:"mac_address"`
	IP        string      `json:"ip_address"`
	Label     json.Number `json:"label,omitempty"`
	RD        string      `json:"rd"`
	Direction string      `json:"direction"`
}

// endpoints lists what is plugged into an instance, nothing for one that is gone.
func (s *shower) endpoints(ctx context.Context, instance string) ([]portRow, error) {
	ports, err := s.get(ctx, "vpns", "instances", instance, "ports")
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rows []portRow
	for _, m := range ports {
		port, _ := m.Value.(client.Object)
		endpoints, _ := port.Get("endpoints")
		items, _ := endpoints.([]any)
		for _, item := range items {
			e, _ := item.(client.Object)
			rows = append(rows, portRow{
				Instance: instance, Port: m.Name, MAC: e.Text("mac_address"), IP: e.Text("ip_address"),
				Label: number(e, "label"), RD: strings.TrimPrefix(e.Text("rd"), " rd "), Direction: e.Text("direction"),
			})
		}
	}
	return rows, nil
}

func (s *shower) ports(ctx context.Context, instances []string) error {
	if len(instances) == 0 {
		list, err := s.list(ctx, "vpns", "instances")
		if err != nil {
			return err
		}
		for _, item := range list {
			instances = append(instances, item.Text("id"))
		}
	} else if err := s.mustExist(ctx, instances); err != nil {
		return err
	}
	rows := []portRow{}
	for _, id := range instances {
		more, err := s.endpoints(ctx, id)
		if err != nil {
			return err
		}
		rows = append(rows, more...)
	}
	return s.print(rows, func(w io.Writer) error {
		var cells [][]string
		for _, r := range rows {
			cells = append(cells, []string{r.Instance, r.Port, r.MAC, r.IP, r.Label.String(), r.RD, r.Direction})
		}
		return table(w, "INSTANCE|PORT|MAC|IP|LABEL|RD|DIRECTION", cells)
	})
}

func (s *shower) mustExist(ctx context.Context, instances []string) error {
	for _, id := range instances {
		if _, err := s.get(ctx, "vpns", "instances", id); err != nil {
			return showError(err, []string{"vpns", "instances", id})
		}
	}
	return nil
}

type routeRow struct {
	Family       string   `json:"family"`
	Route        string   `json:"route"`
	NextHop      string   `json:"next_hop"`
	Source       string   `json:"source"`
	RouteTargets []string `json:"route_targets"`
	Stale        string   `json:"stale,omitempty"`
}

func (s *shower) routes(ctx context.Context, families []string) error {
	all, err := s.get(ctx, "bgp", "routes")
	if err != nil {
		return err
	}
	rows := []routeRow{}
	for _, m := range all {
		name := strings.TrimSuffix(m.Name, ",*")
		wanted := func(f string) bool { return strings.Contains(name, f) }
		if len(families) > 0 && !slices.ContainsFunc(families, wanted) {
			continue
		}
		items, _ := m.Value.([]any)
		for _, item := range items {
			o, _ := item.(client.Object)
			rows = append(rows, routeRows(name, o)...)
		}
	}
	return s.print(rows, func(w io.Writer) error {
		var cells [][]string
		for _, r := range rows {
			cells = append(cells, []string{r.Family, r.Route, r.NextHop, r.Source, strings.Join(r.RouteTargets, " "), r.Stale})
		}
		return table(w, "FAMILY|ROUTE|NEXT HOP|SOURCE|ROUTE TARGETS|STALE", cells)
	})
}

// routeRows takes a route object apart: its one member is named after the route.
func routeRows(family string, o client.Object) []routeRow {
	var rows []routeRow
	for _, m := range o {
		route, _ := m.Value.(client.Object)
		rows = append(rows, routeRow{
			Family: family, Route: m.Name, NextHop: route.Text("next_hop"),
			Source: route.Object("source").Text("id"), RouteTargets: routeTargets(route, "route_targets"), Stale: route.Text("stale"),
		})
	}
	return rows
}

// gone tells that an object went away between two requests.
func gone(err error) bool {
	var refused *client.Error
	return errors.As(err, &refused) && refused.Code == http.StatusNotFound
}

// texts returns a member that is a list of strings.
func texts(o client.Object, name string) []string {
	v, _ := o.Get(name)
	items, _ := v.([]any)
	list := make([]string, 0, len(items))
	for _, item := range items {
		list = append(list, scalar(item))
	}
	return list
}

// number returns a member that is a number, "" for anything else.
func number(o client.Object, name string) json.Number {
	v, _ := o.Get(name)
	n, _ := v.(json.Number)
	return n
}

// families returns the families of a peer's session, written as everywhere
// else: "(l2vpn, evpn)" becomes "l2vpn/evpn".
func families(peer client.Object) []string {
	list := texts(peer, "active_families")
	for i, f := range list {
		list[i] = strings.ReplaceAll(strings.Trim(f, "()"), ", ", "/")
	}
	return list
}

// routeTargets is texts without the word that says what they are.
func routeTargets(o client.Object, name string) []string {
	list := texts(o, name)
	for i, rt := range list {
		list[i] = strings.TrimPrefix(rt, "target:")
	}
	return list
}
