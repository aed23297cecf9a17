// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/client"
)

// green is a VRF that others see as blue: its routes are theirs, with another RD.
var green = vrf{id: "green", imports: "64512:999", exports: blue.imports}

// byDriver takes the port of a machine out of the bridge, so that the driver puts it in, and out again.
func (n *planeNode) byDriver(v *vm) {
	n.t.Helper()
	n.sw.Vsctl("del-port", "br-mpls", v.tap)
	v.port.OVS = &client.OVSPort{PortName: v.tap}
}

// Where flows have numbers of instances and of groups.
var (
	recordOf   = regexp.MustCompile(`^cookie=0xba61be00([0-9a-f]{8}), table=1, priority=1,reg0=0x([0-9a-f]+),reg3=0xba61be00 actions=note:([0-9a-f.]+)$`)
	groupOf    = regexp.MustCompile(`^(.*) actions=.*\bgroup:([0-9]+)`)
	groupGuess = "1107296256"
)

// switchImage returns the flows and groups of the bridge and the ports of the switch. Ports have
// their names, and so have instances, labels and groups: an attachment that was refused or undone in
// between has taken numbers. A number that belongs to nothing stays one.
func (c *crashing) switchImage() ([]string, error) {
	sw := c.a.sw
	list := flows(sw, "--names")
	var names []string
	for _, line := range list {
		if m := recordOf.FindStringSubmatch(line); m != nil {
			id := "<" + instanceOf(m[3]) + ">"
			names = append(names, "cookie=0xba61be00"+m[1]+",", "cookie="+id+",")
			for _, end := range []string{",", " "} {
				names = append(names, "reg0=0x"+m[2]+end, "reg0="+id+end)
			}
			names = append(names, "set_field:0x"+m[2]+"->reg0", "set_field:"+id+"->reg0")
		}
	}
	local, _ := c.a.identifiers() // none while the daemon is away
	for k, id := range local {
		names = append(names, localLabel("<"+k+">", labelOf(id), address(k))...)
		names = append(names, hopLabel("<"+k+">", labelOf(id), c.a.addr)...)
	}
	remote, _ := c.b.identifiers()
	for k, id := range remote {
		names = append(names, hopLabel("<"+k+">", labelOf(id), c.b.addr)...)
	}
	list = replaceAll(list, names)
	names = nil
	for _, line := range list {
		if m := groupOf.FindStringSubmatch(line); m != nil && m[2] != groupGuess {
			names = append(names, "group:"+m[2], "group:<"+m[1]+">", "group_id="+m[2]+",", "group_id=<"+m[1]+">,")
		}
	}
	list = replaceAll(list, names)
	for line := range strings.Lines(sw.Vsctl("-f", "csv", "--no-headings", "--columns=name,type,options,external_ids,error", "list", "Interface")) {
		list = append(list, "interface "+strings.TrimSpace(line))
	}
	slices.Sort(list)
	return list, nil
}

// instanceOf returns the id of an instance in a note: two octets of Open vSwitch, version, kind, text.
func instanceOf(note string) string {
	b, _ := hex.DecodeString(strings.ReplaceAll(note, ".", ""))
	return strings.TrimRight(string(b[min(4, len(b)):]), "\x00")
}

// replaceAll replaces text in lines, given as pairs.
func replaceAll(lines, pairs []string) (out []string) {
	r := strings.NewReplacer(pairs...)
	for _, line := range lines {
		out = append(out, r.Replace(line))
	}
	return out
}

// localLabel gives the label of an endpoint a name, in matches, actions and the note of its entry.
func localLabel(name string, label uint32, ip netip.Addr) (pairs []string) {
	for _, end := range []string{",", " "} {
		pairs = append(pairs, fmt.Sprintf("mpls_label=%d%s", label, end), "mpls_label="+name+end,
			fmt.Sprintf("reg1=0x%x%s", label, end), "reg1="+name+end)
	}
	return append(pairs, fmt.Sprintf("set_field:0x%x->reg1", label), "set_field:"+name+"->reg1",
		noted(octets(label))+noted(sized(ip)), "."+name+noted(sized(ip)))
}

// hopLabel gives the label of a next hop a name, in actions and the note of the route.
func hopLabel(name string, label uint32, hop netip.Addr) []string {
	to := fmt.Sprintf("->mpls_label,set_field:%s->tun_dst", hop)
	return []string{fmt.Sprintf("set_field:%d%s", label, to), "set_field:" + name + to, noted(sized(hop)) + noted(octets(label)), noted(sized(hop)) + "." + name}
}

// noted returns octets as notes in dumps have them.
func noted(b []byte) (s string) {
	for _, o := range b {
		s += "." + hex.EncodeToString([]byte{o})
	}
	return s
}

func octets(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func sized(ip netip.Addr) []byte { return append([]byte{byte(ip.BitLen() / 8)}, ip.AsSlice()...) }

// address returns the IP address of an endpoint's key.
func address(key string) netip.Addr { return netip.MustParsePrefix(strings.Fields(key)[2]).Addr() }

// labelOf returns the label in the identifiers of an endpoint.
func labelOf(identifiers string) (label uint32) {
	_, rest, _ := strings.Cut(identifiers, ", ")
	_, _ = fmt.Sscanf(rest, "label %d", &label)
	return label
}
