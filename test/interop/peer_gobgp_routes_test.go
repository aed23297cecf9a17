// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// A gobgpEntry is a path in the JSON of GoBGP 3 and 4.
type gobgpEntry struct {
	NLRI struct {
		RD     gobgpRD         `json:"rd"`
		Prefix string          `json:"prefix"`
		Labels []uint32        `json:"labels"`
		Type   int             `json:"type"`
		Value  json.RawMessage `json:"value"`
	} `json:"nlri"`
	Attrs []gobgpAttr `json:"attrs"`
}

type gobgpAttr struct {
	Type     int             `json:"type"`
	Value    json.RawMessage `json:"value"`
	Paths    []gobgpSegment  `json:"as_paths"`
	NextHop  string          `json:"nexthop"`
	Tunnel   int             `json:"tunnel-type"`
	Label    uint32          `json:"label"`
	TunnelID string          `json:"tunnel-id"`
}

type gobgpSegment struct {
	ASNs []uint32 `json:"asns"`
}

type gobgpCommunity struct {
	Type     uint8           `json:"type"`
	Subtype  uint8           `json:"subtype"`
	Value    json.RawMessage `json:"value"`
	Tunnel   uint32          `json:"tunnel_type"`
	Sequence uint32          `json:"sequence"`
}

// route brings a path into the common form.
func (e gobgpEntry) route(family string) (vpnRoute, error) {
	r := vpnRoute{Family: family, RD: e.NLRI.RD.String(), Prefix: e.NLRI.Prefix}
	if len(e.NLRI.Labels) == 1 {
		r.Label = e.NLRI.Labels[0]
	}
	var err error
	switch {
	case family == "EVPN":
		err = r.gobgpEVPN(e.NLRI.Type, e.NLRI.Value)
	case strings.HasPrefix(family, "FlowSpec"):
		r.Flow, err = gobgpFlow(e.NLRI.Value)
	case family == "RTC":
		r.RD, r.Prefix, r.Target = "", "", strings.TrimSuffix(e.NLRI.Prefix, "/96") // the length is in 4.8
	}
	for _, a := range e.Attrs {
		if err == nil {
			err = r.gobgpAttr(a)
		}
	}
	return r, err
}

func (r *vpnRoute) gobgpEVPN(typ int, value json.RawMessage) error {
	var v struct {
		RD     gobgpRD  `json:"rd"`
		ESI    string   `json:"esi"`
		MAC    string   `json:"mac"`
		IP     string   `json:"ip"`
		Labels []uint32 `json:"labels"`
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return err
	}
	r.Kind = map[int]string{2: "mac-ip", 3: "imet"}[typ]
	r.RD, r.MAC = v.RD.String(), v.MAC
	if v.IP != "<nil>" && v.IP != "invalid IP" {
		r.IP = v.IP
	}
	if len(v.Labels) > 0 {
		r.Label = v.Labels[0]
	}
	if r.Kind == "" || v.ESI != "single-homed" && v.ESI != "" {
		return fmt.Errorf("unexpected E-VPN route of type %d with ESI %q", typ, v.ESI)
	}
	return nil
}

// gobgpFlow renders FlowSpec components like flowText.
func gobgpFlow(value json.RawMessage) (string, error) {
	var list []struct {
		Type  int             `json:"type"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(value, &list); err != nil {
		return "", err
	}
	var parts []string
	for _, c := range list {
		if c.Type <= 2 {
			var p struct {
				Prefix string `json:"prefix"`
			}
			if err := json.Unmarshal(c.Value, &p); err != nil {
				return "", err
			}
			parts = append(parts, flowNames[c.Type]+" "+p.Prefix)
			continue
		}
		var items []struct {
			Op    byte   `json:"op"`
			Value uint16 `json:"value"`
		}
		if err := json.Unmarshal(c.Value, &items); err != nil {
			return "", err
		}
		var text strings.Builder
		for n, i := range items {
			if n > 0 {
				text.WriteString(map[bool]string{true: "&", false: " "}[i.Op&0x40 != 0])
			}
			fmt.Fprintf(&text, "%s%d", flowOperators[i.Op&7], i.Value)
		}
		parts = append(parts, flowNames[c.Type]+" "+text.String())
	}
	return strings.Join(parts, "; "), nil
}

func (r *vpnRoute) gobgpAttr(a gobgpAttr) error {
	text := strings.Trim(string(a.Value), `"`)
	switch a.Type {
	case 1:
		r.Origin = map[string]string{"0": "igp", "1": "egp", "2": "incomplete"}[text]
	case 2:
		var path []string
		for _, s := range a.Paths {
			for _, as := range s.ASNs {
				path = append(path, strconv.Itoa(int(as)))
			}
		}
		r.ASPath = strings.Join(path, " ")
	case 4:
		r.MED = text
	case 5:
		r.LocalPref = text
	case 14:
		if r.NextHop = unmapped(a.NextHop); r.Flow != "" {
			r.NextHop = "" // shown as 0.0.0.0
		}
	case 16:
		var list []gobgpCommunity
		if err := json.Unmarshal(a.Value, &list); err != nil {
			return err
		}
		for _, c := range list {
			if err := r.gobgpCommunity(c); err != nil {
				return err
			}
		}
	case 22:
		r.PMSI = fmt.Sprintf("type %d", a.Tunnel)
		if a.Tunnel == wire.PMSIIngressReplication {
			r.PMSI = fmt.Sprintf("ingress-replication %d %s", a.Label, a.TunnelID)
		}
	default:
		return fmt.Errorf("unexpected attribute %d", a.Type)
	}
	return nil
}

func (r *vpnRoute) gobgpCommunity(c gobgpCommunity) error {
	text := strings.Trim(string(c.Value), `"`)
	switch {
	case c.Type <= 2 && c.Subtype == 2:
		r.RTs = append(r.RTs, gobgpTarget(c.Type, text))
	case c.Type == 3 && c.Subtype == 12:
		r.Communities = append(r.Communities, map[uint32]string{8: "encap:vxlan", 10: "encap:mpls"}[c.Tunnel])
	case c.Type == 6 && c.Subtype == 0:
		r.Communities = append(r.Communities, fmt.Sprintf("mac-mobility:%d", c.Sequence))
	case c.Type&^0x83 == 0 && c.Subtype == 8:
		r.Communities = append(r.Communities, "redirect:"+gobgpTarget(c.Type&3, text))
	default:
		return fmt.Errorf("unexpected extended community %d, %d", c.Type, c.Subtype)
	}
	return nil
}

// gobgpTarget brings a route target into our form: a four-octet AS is shown as two
// numbers.
func gobgpTarget(form byte, text string) string {
	admin, n, _ := strings.Cut(text, ":")
	if high, low, ok := strings.Cut(admin, "."); ok && form == 2 {
		admin = strconv.Itoa(int(number(high))<<16 | int(number(low)))
	}
	return admin + ":" + n
}

// gobgpRoutes decodes a table, paths by prefix.
func gobgpRoutes(out []byte, family string) ([]vpnRoute, error) {
	var byPrefix map[string][]gobgpEntry
	if err := json.Unmarshal(out, &byPrefix); err != nil {
		return nil, fmt.Errorf("GoBGP: %w: %s", err, out)
	}
	var routes []vpnRoute
	for name, list := range byPrefix {
		for _, e := range list {
			r, err := e.route(family)
			if err != nil {
				return nil, fmt.Errorf("GoBGP route %s: %w", name, err)
			}
			routes = append(routes, r)
		}
	}
	return routes, nil
}
