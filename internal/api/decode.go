// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// body is a decoded JSON object whose members are read one by one. The first
// fault is kept; later reads return zero values.
type body struct {
	members map[string]json.RawMessage
	err     error
}

const (
	// maxOVSPort is the highest number of a physical OpenFlow port (OpenFlow 1.3 §7.2.1).
	maxOVSPort = 0xffffff00
	maxVLAN    = 4094
)

// maxDepth bounds the nesting of a request. What is kept of it is shown inside
// of other objects, and the encoder has a limit of its own.
const maxDepth = 100

// readBody reads the JSON object of a request; what names its content in errors.
func readBody(r io.Reader, what string) (*body, error) {
	b := &body{}
	dec := json.NewDecoder(r)
	if err := dec.Decode(&b.members); err != nil {
		return nil, fmt.Errorf("no %s received: want a JSON object: %w", what, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("no %s received: text after the JSON object", what)
	}
	for name, v := range b.members {
		if depth(v) > maxDepth {
			return nil, fmt.Errorf("%s: nested more than %d levels deep", name, maxDepth)
		}
	}
	return b, nil
}

// depth returns how deep objects and lists are nested in valid JSON.
func depth(v json.RawMessage) (deepest int) {
	level, quoted := 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

func (b *body) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// has tells whether a member is there and not null.
func (b *body) has(name string) bool {
	v, ok := b.members[name]
	return ok && !bytes.Equal(bytes.TrimSpace(v), []byte("null"))
}

func (b *body) require(names ...string) {
	for _, n := range names {
		if !b.has(n) {
			b.fail("Missing parameter: '%s'", n)
		}
	}
}

// text reads a string; "" when absent.
func (b *body) text(name string) string {
	var s string
	if b.has(name) && json.Unmarshal(b.members[name], &s) != nil {
		b.fail("%s: %s is not valid: want a string", name, b.members[name])
	}
	return s
}

// id reads a string, or a number as its decimal text; it must not be empty.
func (b *body) id(name string) string {
	var n json.Number
	if b.has(name) && json.Unmarshal(b.members[name], &n) == nil && b.members[name][0] != '"' {
		return n.String()
	}
	s := b.text(name)
	if s == "" {
		b.fail("%s: must not be empty", name)
	}
	return s
}

// integer reads a number or its decimal text within 0..most; 0 when absent.
func (b *body) integer(name string, most uint64) uint64 {
	if !b.has(name) {
		return 0
	}
	raw := string(b.members[name])
	var s string
	if json.Unmarshal(b.members[name], &s) == nil {
		raw = s
	}
	n, err := strconv.ParseUint(raw, 10, 64)
	if err != nil || n > most {
		b.fail("%s: %s is not valid: want an integer in 0..%d", name, b.members[name], most)
		return 0
	}
	return n
}

// boolean reads true or false; an explicit null is refused, as by the original.
func (b *body) boolean(name string) bool {
	var v *bool
	if raw, ok := b.members[name]; ok && (json.Unmarshal(raw, &v) != nil || v == nil) {
		b.fail("'%s' must be a boolean", name)
	}
	return v != nil && *v
}

var commas = regexp.MustCompile(`,+ *`)

// targets reads a list of route targets, or one string with commas.
func (b *body) targets(name string) []wire.RT {
	if !b.has(name) {
		return nil
	}
	var list []*string // a null among them is refused
	if json.Unmarshal(b.members[name], &list) != nil {
		var s string
		if json.Unmarshal(b.members[name], &s) != nil {
			b.fail("Unable to parse RT string into a list: %s: %s", name, b.members[name])
			return nil
		}
		for _, part := range commas.Split(s, -1) {
			list = append(list, &part)
		}
	}
	var rts []wire.RT
	for _, item := range list {
		if item == nil {
			b.fail("%s: null is not a route target", name)
			return nil
		}
		s := strings.TrimSpace(*item)
		if s == "" {
			continue
		}
		rt, err := wire.ParseRT(s)
		if err != nil {
			b.fail("%s: %v", name, err)
			return nil
		}
		rts = append(rts, rt)
	}
	return rts
}

func (b *body) mac(name string) ethernet.MAC {
	m, err := ethernet.ParseMAC(b.text(name))
	if err != nil {
		b.fail("%s: %v", name, err)
	}
	return m
}

// prefix reads an address with or without a length; invalid when absent.
func (b *body) prefix(name string) netip.Prefix {
	s := b.text(name)
	if s == "" && !b.has(name) {
		return netip.Prefix{}
	}
	p, err := parsePrefix(s)
	if err != nil {
		b.fail("%s: %v", name, err)
	}
	return p
}

// parsePrefix reads an address with or without a length.
func parsePrefix(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, errors.New(`IP address "" is not valid: must not be empty`)
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, aerr := netip.ParseAddr(s)
		if aerr != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("IP address %s is not valid: want a.b.c.d, a.b.c.d/length or the IPv6 forms", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		return p, fmt.Errorf("IP address %s is not valid: want IPv4 or IPv6, not IPv4-mapped", s)
	}
	return p, nil
}

// empty tells whether a member is absent, null, or an empty object or list.
func (b *body) empty(name string) bool {
	if !b.has(name) {
		return true
	}
	var v any
	if err := json.Unmarshal(b.members[name], &v); err != nil {
		return false
	}
	switch t := v.(type) {
	case map[string]any:
		return len(t) == 0
	case []any:
		return len(t) == 0
	}
	return false
}

// object returns a member that is an object or null, as it is.
func (b *body) object(name string) json.RawMessage {
	raw := b.raw(name)
	if raw != nil && bytes.TrimSpace(raw)[0] != '{' {
		b.fail("%s: %s is not valid: want an object", name, raw)
	}
	return raw
}

// raw returns the octets of a member, nil when absent.
func (b *body) raw(name string) json.RawMessage {
	if !b.has(name) {
		return nil
	}
	return b.members[name]
}

// localPort reads local_port: a device name, or an object with linuxif. A detach
// may name an E-VPN instance in place of a device, as the Neutron agent does for
// endpoints that it attached with linuxif: the port does not matter there.
func (b *body) localPort(detach bool) (port dataplane.Port, evi vpn.EVIPort) {
	const name = "local_port"
	if !b.has(name) {
		return port, evi
	}
	if json.Unmarshal(b.members[name], &port.Name) == nil {
		if port.Name == "" {
			b.fail("local_port: must not be empty")
		}
		return port, evi
	}
	var o struct {
		LinuxIf *string                    `json:"linuxif"`
		EVPN    json.RawMessage            `json:"evpn"`
		OVS     map[string]json.RawMessage `json:"ovs"`
	}
	if err := json.Unmarshal(b.members[name], &o); err != nil {
		b.fail("local_port: %s is not valid: want a device name, or an object with linuxif", b.members[name])
		return port, evi
	}
	evpn := len(o.EVPN) > 0 && string(o.EVPN) != "null"
	switch {
	case evpn && detach:
	case evpn && o.LinuxIf != nil:
		b.fail("local_port: linuxif and evpn: want one of them")
	case evpn:
		evi = b.eviPort(o.EVPN)
	case o.LinuxIf == nil:
		b.fail("Mandatory key is missing in local_port parameter (linuxif, or evpn)")
	case *o.LinuxIf == "":
		b.fail("local_port: linuxif: must not be empty")
	default:
		port.Name = *o.LinuxIf
	}
	if o.OVS != nil && !detach {
		port.OVS = b.ovsPort(o.OVS)
	}
	return port, evi
}

// ovsPort reads the place of a port in an Open vSwitch bridge.
func (b *body) ovsPort(members map[string]json.RawMessage) (p dataplane.OVSPort) {
	o := body{members: members}
	if o.has("plugged") {
		p.Plugged = o.boolean("plugged")
	}
	p.Name = o.text("port_name")
	p.Number = uint32(o.integer("port_number", maxOVSPort))
	p.VLAN = uint16(o.integer("vlan", maxVLAN))
	if o.err == nil && p.Plugged && p.Name == "" && p.Number == 0 {
		o.fail("plugged: true needs port_number or port_name")
	}
	if o.err != nil {
		b.fail("local_port: ovs: %v", o.err)
	}
	return p
}

// eviPort reads the E-VPN instance that is a VRF's port.
func (b *body) eviPort(raw json.RawMessage) (p vpn.EVIPort) {
	o := body{}
	if json.Unmarshal(raw, &o.members) != nil {
		b.fail("local_port: evpn: %s is not valid: want an object with id", raw)
		return p
	}
	o.require("id")
	if o.err == nil {
		p.ID, p.Device = o.id("id"), o.text("ovs_port_name")
	}
	if o.err != nil {
		b.fail("local_port: evpn: %v", o.err)
	}
	return p
}

// fallback reads where traffic without route goes; nil when absent or empty.
func (b *body) fallback() *vpn.Fallback {
	f := vpn.Fallback{Text: b.raw("fallback")}
	if !b.inside("fallback", func(o *body) {
		o.require("src_mac", "dst_mac")
		if !o.has("ovs_port_number") && !o.has("linuxif") {
			o.fail("Missing parameter: 'ovs_port_number', or 'linuxif'")
		}
		if o.err == nil {
			f.Source, f.MAC = o.mac("src_mac"), o.mac("dst_mac")
			f.Port, f.Device = uint32(o.integer("ovs_port_number", maxOVSPort)), o.text("linuxif")
		}
	}) {
		return nil
	}
	return &f
}

// vpnType reads vpn_type, which is checked before all else.
func (b *body) vpnType() dataplane.VPNType {
	if !b.has("vpn_type") {
		b.fail("missing instance_type: Missing parameter: 'vpn_type'")
		return ""
	}
	t := dataplane.VPNType(b.text("vpn_type"))
	if t != dataplane.EVPN && t != dataplane.IPVPN {
		b.fail("unknown vpn_type: %s: want evpn or ipvpn", t)
	}
	return t
}

// direction reads the direction of an endpoint; absent is both.
func (b *body) direction() dataplane.Direction {
	if !b.has("direction") {
		return dataplane.Both
	}
	d := dataplane.Direction(b.text("direction"))
	if d != dataplane.Both && d != dataplane.ToPort && d != dataplane.FromPort {
		b.fail("direction should be one of: both, to-port, from-port")
	}
	return d
}

// advertiseAs reads how a VRF's prefixes are announced; "" when absent.
func (b *body) advertiseAs() vpn.Advertise {
	if !b.has("advertise_as") {
		return ""
	}
	as := vpn.Advertise(b.text("advertise_as"))
	if as != vpn.AsVPN && as != vpn.AsEVPN && as != vpn.AsBoth {
		b.fail("advertise_as: %s is not valid: want %s, %s or %s", b.members["advertise_as"], vpn.AsVPN, vpn.AsEVPN, vpn.AsBoth)
	}
	return as
}

// attachment reads the body of an attach. The order of the checks is that of
// the original, since the first fault makes the text.
func (b *body) attachment() (vpn.Attachment, error) {
	a := vpn.Attachment{Type: b.vpnType()}
	b.require("vpn_instance_id", "mac_address", "local_port", "import_rt", "export_rt")
	if a.Type == dataplane.IPVPN {
		b.require("ip_address")
		if _, ok := b.members["gateway_ip"]; !ok { // may be null, but must be there
			b.fail("Missing parameter: 'gateway_ip'")
		}
	}
	if b.err != nil {
		return a, b.err
	}
	a.InstanceID = b.id("vpn_instance_id")
	a.Imports, a.Exports = b.targets("import_rt"), b.targets("export_rt")
	port, evi := b.localPort(false)
	a.Port, a.OVS, a.EVI = port.Name, port.OVS, evi
	if evi.ID != "" && a.Type != dataplane.IPVPN {
		b.fail("local_port: evpn: an E-VPN instance is plugged into an IP VPN: want vpn_type ipvpn")
	}
	a.MAC, a.IP = b.mac("mac_address"), b.prefix("ip_address")
	a.AdvertiseSubnet = b.boolean("advertise_subnet")
	a.Direction = b.direction()
	a.Gateway = b.prefix("gateway_ip").Addr()
	a.VNI = uint32(b.integer("vni", vpn.MaxVNI))
	a.AdvertiseAs = b.advertiseAs()
	a.LocalPref = uint32(b.integer("local_pref", 1<<32-1))
	a.HashOrder = uint32(b.integer("lb_consistent_hash_order", 1<<32-1))
	a.Bridge = b.text("linuxbr")
	a.Description, a.InstanceDescription = b.raw("description"), b.raw("instance_description")
	a.Fallback, a.Readvertise, a.Attract = b.fallback(), b.readvertise(), b.attract()
	return a, b.err
}

// detachment reads the body of a detach; what is not needed is checked, if
// present, and otherwise ignored.
func (b *body) detachment() (vpn.Detachment, error) {
	d := vpn.Detachment{Type: b.vpnType()}
	b.require("vpn_instance_id", "mac_address", "local_port")
	if d.Type == dataplane.IPVPN {
		b.require("ip_address")
	}
	if b.err != nil {
		return d, b.err
	}
	d.InstanceID = b.id("vpn_instance_id")
	b.localPort(true)
	d.MAC, d.IP = b.mac("mac_address"), b.prefix("ip_address").Addr()
	b.targets("import_rt")
	b.targets("export_rt")
	b.boolean("advertise_subnet")
	return d, b.err
}
