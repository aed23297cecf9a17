// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// grammar makes requests of what docs/rest-api.md has, and spoils some of them.
type grammar struct{ *rand.Rand }

func choose[T any](g grammar, list ...T) T { return list[g.IntN(len(list))] }

// one is true once in n times.
func (g grammar) one(n int) bool { return g.IntN(n) == 0 }

// field is a member of a JSON object, its value as JSON or what shall pass for it.
type field struct{ name, value string }

// object writes fields as they are, in order.
func object(fields []field) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%s", quote(f.name), f.value)
	}
	return b.String() + "}"
}

func quote(s string) string {
	b, _ := json.Marshal(s) // of a string: never fails
	return string(b)
}

// What requests are about. The ports of an E-VPN are those of even number. Mostly a
// number has a port, a MAC and addresses of its own.
const fuzzPorts, fuzzInstances = 8, 3

func fuzzIPv4(number int) []string {
	return []string{fmt.Sprintf("198.51.100.%d", number), fmt.Sprintf("198.51.100.%d/24", 10+number), fmt.Sprintf("203.0.113.%d/28", number+1)}
}

func fuzzIPv6(number int) []string {
	return []string{fmt.Sprintf("2001:db8::%d", number), fmt.Sprintf("2001:0DB8:0::1%d/64", number)}
}

var fuzzRTs = []string{"64512:1", "64512:2", "4200000000:7", "192.0.2.1:9"}

func (g grammar) mac(n int) string {
	return quote(fmt.Sprintf(choose(g, "00:00:5e:00:53:%02x", "00-00-5E-00-53-%02X", "0000.5e00.53%02x", "00005e0053%02x"), n))
}

func (g grammar) rts() string {
	var list []string
	for range g.IntN(4) {
		list = append(list, choose(g, fuzzRTs...))
	}
	if g.one(3) {
		return quote(strings.Join(list, ","))
	}
	return g.list(list)
}

func (g grammar) list(texts []string) string {
	b, _ := json.Marshal(append([]string{}, texts...))
	return string(b)
}

// attach makes the fields of an attachment that mostly can be carried out; detach
// takes the same.
func (g grammar) attach() []field {
	number := g.IntN(fuzzPorts)
	vrf, instance := number%2 == 1, number/2%fuzzInstances
	port := quote(fmt.Sprintf("port%d", number))
	if g.one(10) {
		number = g.IntN(fuzzPorts)
	}
	kind, id, addresses := "evpn", fmt.Sprintf("net%d", instance), append([]string{""}, append(fuzzIPv4(number), fuzzIPv6(number)...)...)
	gateway := "null"
	if vrf {
		kind, id, addresses = "ipvpn", fmt.Sprintf("vrf%d", instance), fuzzIPv4(number)
		gateway = choose(g, "null", `"198.51.100.254"`)
		if g.one(2) {
			addresses, gateway = fuzzIPv6(number), choose(g, "null", `"2001:db8::fe"`)
		}
	}
	fields := []field{
		{"vpn_type", quote(kind)}, {"vpn_instance_id", quote(id)}, {"mac_address", g.mac(number)},
		{"local_port", choose(g, port, object([]field{{"linuxif", port}}))},
		{"import_rt", g.rts()}, {"export_rt", g.rts()},
	}
	if address := choose(g, addresses...); address != "" {
		fields = append(fields, field{"ip_address", quote(address)})
	}
	if vrf || g.one(4) {
		fields = append(fields, field{"gateway_ip", gateway})
	}
	for range g.IntN(3) {
		fields = append(fields, g.option(vrf, instance))
	}
	return fields
}

// option makes a member that may be left out.
func (g grammar) option(vrf bool, instance int) field {
	options := []func() field{
		func() field { return field{"vni", fmt.Sprint(choose(g, 0, 200+instance, 200+instance, 300+instance))} },
		func() field { return field{"local_pref", choose(g, "0", "7", "4294967295", "null", `"12"`)} },
		func() field { return field{"description", choose(g, "null", `{"a":[1,{"b":null}]}`, "3", quote("x"))} },
		func() field { return field{"instance_description", choose(g, "null", `[]`, `"blue"`)} },
		func() field { return field{"advertise_subnet", choose(g, "true", "false")} },
	}
	if vrf {
		options = append(options,
			func() field { return field{"direction", quote(choose(g, "both", "to-port", "from-port"))} },
			func() field { return field{"advertise_as", quote(choose(g, "vpn", "evpn", "both"))} },
			func() field { return field{"lb_consistent_hash_order", fmt.Sprint(g.Uint32())} },
			func() field { return field{"fallback", g.fallback()} },
			func() field { return field{"readvertise", g.readvertise()} },
			func() field { return field{"attract_traffic", g.attract()} },
			func() field {
				return field{"local_port", fmt.Sprintf(`{"evpn":{"id":"net%d"}}`, g.IntN(fuzzInstances))}
			},
		)
	} else {
		options = append(options, func() field { return field{"linuxbr", choose(g, `"br-other"`, `"port1"`, `"none"`)} })
	}
	return choose(g, options...)()
}

func (g grammar) fallback() string {
	return choose(g, "null", "{}", object([]field{{"src_mac", g.mac(1)}, {"dst_mac", g.mac(2)}, {"linuxif", `"port1"`}}),
		object([]field{{"src_mac", g.mac(1)}, {"dst_mac", g.mac(2)}, {"ovs_port_number", "3"}}))
}

func (g grammar) readvertise() string {
	return choose(g, "null", "{}", object([]field{{"from_rt", g.rts()}, {"to_rt", g.rts()}}), `{"from_rt":[],"to_rt":[]}`)
}

func (g grammar) attract() string {
	class := object([]field{
		{"sourcePrefix", choose(g, "null", `"198.51.100.0/24"`, `"2001:db8::/32"`)}, {"destinationPort", choose(g, "80", `"1000:2000"`)},
		{"protocol", choose(g, `"tcp"`, `"udp"`, "17", "null")},
	})
	return choose(g, "null", "{}", object([]field{{"redirect_rts", g.rts()}, {"classifier", class}}),
		object([]field{{"redirect_rts", g.rts()}, {"classifier", class}, {"to_rt", `["64512:9"]`},
			{"static_destination_prefixes", choose(g, "[]", `["203.0.113.0/24"]`, `["2001:db8:7::/48"]`)}}))
}

// known are all names that a description of a fault may give.
var known = []string{
	"vpn_type", "vpn_instance_id", "mac_address", "ip_address", "gateway_ip", "local_port", "import_rt", "export_rt", "vni", "advertise_as",
	"local_pref", "advertise_subnet", "direction", "lb_consistent_hash_order", "linuxbr", "fallback", "readvertise", "attract_traffic",
	"description", "instance_description",
}

// junk is a value that most members do not take.
func (g grammar) junk() string {
	return choose(g,
		func() string {
			return choose(g, "null", "true", "false", "0", "-1", "1.5", "1e400", "-0", "18446744073709551616", "4294967296", "16777216", strings.Repeat("9", 400))
		},
		func() string {
			return choose(g, `""`, `" "`, `"\u0000"`, `"a\u0000b"`, `"\ud800"`, `"\u202e"`, `"../.."`, `"%s%n"`, `"red\n"`)
		},
		func() string { return quote(strings.Repeat(choose(g, "x", "1", "a:", "é"), 1<<g.IntN(18))) },
		func() string { return "\"" + choose(g, "\xff", "\xc3", "\xed\xa0\x80", "a\xfe\xffb") + "\"" },
		func() string {
			depth := choose(g, 1, 50, 99, 101, 5000, 20000)
			open, shut := "[", "]"
			if g.one(2) {
				open, shut = `{"a":`, "}"
			}
			return strings.Repeat(open, depth) + "0" + strings.Repeat(shut, depth)
		},
		func() string {
			return choose(g, "[]", "{}", "[null]", "[[]]", `{"linuxif":null}`, `{"evpn":{}}`, `{"ovs":{"plugged":true}}`, `{"":0}`)
		},
		func() string { return g.list(slices.Repeat(fuzzRTs, 1+g.IntN(300))) },
		func() string {
			return quote(choose(g, "::", "0.0.0.0", "0.0.0.0/0", "255.255.255.255", "224.0.0.1", "fe80::1%eth0", "::ffff:192.0.2.1", "198.51.100.1/33", "ff02::1"))
		},
		func() string {
			return quote(choose(g, "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "01:00:5e:00:00:01", "00:00:5e:00:53", "0:0:0:0:0:1"))
		},
		func() string {
			return quote(choose(g, "lo", "eth0", "br-other", "none", "port0", "port1", "bonding_masters", strings.Repeat("n", 16)))
		},
		func() string { return quote(choose(g, "redirect-to-64512:1", "net0", "vrf0", "evpn", "both")) },
	)()
}

// spoil changes something in the fields of a request.
func (g grammar) spoil(fields []field) []field {
	i := g.IntN(len(fields))
	name := fields[i].name
	switch g.IntN(8) {
	case 0:
		return slices.Delete(fields, i, i+1)
	case 1: // the last of the two counts
		return append(fields, field{name, g.junk()})
	case 2:
		return append(fields, field{choose(g, known...), g.junk()})
	case 3:
		fields[i].name = choose(g, strings.ToUpper(name), name+" ", "", "__proto__", strings.Repeat(name, 100))
		return fields
	}
	fields[i].value = g.junk()
	return fields
}

// mangle damages a text.
func (g grammar) mangle(text string) string {
	at := g.IntN(len(text) + 1)
	switch g.IntN(8) {
	case 0:
		return text[:at]
	case 1:
		return text[:at] + string(rune(g.IntN(256))) + text[at:]
	case 2:
		return text[:at] + "\xff" + text[min(at+1, len(text)):]
	case 3:
		return text + choose(g, "{}", "x", ",", "\x00", text)
	case 4:
		return choose(g, "\ufeff", "[", "/**/", " \n") + text
	case 5:
		return "[" + text + "]"
	case 6:
		return choose(g, "", "null", "0", `""`, "[]", "{}")
	}
	return text + strings.Repeat(" ", choose(g, 1, 1000, 1<<20))
}

// path makes a path, mostly of what there is.
func (g grammar) path() string {
	if g.one(3) {
		return choose(g, "/", "/ping", "/ping/", "/ping.json", "/healthz", "/readyz", "/metrics", "/attach_localport", "/detach_localport.json", "//ping", "/./ping",
			"/looking-glass/../ping", "/%70ing", "/looking-glass/%00", "/looking-glass/%ff%fe", "/"+strings.Repeat("a/", 1<<g.IntN(12)), "/.json", "/;", "/?a=%zz", "/ping?x=1")
	}
	words := []string{
		"summary", "config", "logs", "bgp", "peers", "routes", "workers", "monitoring", "vpns", "instances", "dataplane", "drivers", "problems", "ids", "entries",
		"ports", "received_routes", "best_routes", "adv_routes", "counters", "evpn", "ipvpn", "net0", "net1", "vrf0", "EVI-1", "VRF-2", "BGPManager", "192.0.2.1",
		"0", "-1", "..", ".", "", "%2f", "%00", "x", "instances_per_vni",
	}
	text := "/looking-glass"
	for range g.IntN(6) {
		text += "/" + choose(g, words...)
	}
	return text
}
