// SPDX-License-Identifier: Apache-2.0

// Package linuxvrf is the IP VPN data plane of the Linux kernel: a VRF device per
// instance and MPLS, over Ethernet, GRE (RFC 4023) or UDP (RFC 7510), by netlink.
//
// # What an instance is in the kernel
//
//	vrf bvrf-<10 hex>    alias "bagpipe ipvpn <id>", with a table of its own
//
//	(always)      unreachable default table T metric 4278198272, so that no packet leaves the VRF
//	LocalPort     the port's master is the VRF; it answers ARP for all that the VRF has a route to
//	LocalPrefix   ip neigh replace IP lladdr MAC dev PORT nud permanent proto 19
//	              ip addr replace GATEWAY/32 dev PORT proto 19 noprefixroute
//	              ip -f mpls route replace LABEL via link MAC dev PORT proto 19
//	Prefix        ip nexthop replace id N encap mpls LABEL via PE dev TUNNEL onlink proto 19
//	              ip nexthop replace id G group N1/N2 proto 19
//	              ip route replace PREFIX table T metric 1024 proto 19 nhid G
//
//	Redirect      ip rule add iif PORT priority 0 goto BLOCK proto 19, also for the VRF device
//	              ip rule add to GATEWAY priority BLOCK lookup T proto 19
//	              ip rule add to PREFIX ipproto 6 dport 80 priority BLOCK+n lookup TARGET proto 19
//	              ip rule add priority BLOCK+262142 lookup T proto 19
//
// A next hop that is this node is one via the endpoint's address on its port, or, as
// long as there is no endpoint with that label, an unreachable route. Nexthop objects
// are shared by all routes, of all VRFs. To a PE over GRE or UDP there is a tunnel device,
// shared as well; one more takes what comes from PEs that we send nothing to.
//
// IPv6 routes have an IPv4 PE as an IPv4-mapped gateway (RFC 4798), for which the kernel
// asks by ARP.
//
// # Classes of packets
//
// Only what comes from ports is looked up in a VRF's table, so that rules with that input decide
// for classes of packets. Which input a packet has depends: the VRF device before Linux 5.19
// and for IPv6, otherwise the port; with a rule for each all are met. They lead to a block
// of priorities for each VRF, where there is no need to tell the input again: what is never
// redirected, the classes in their order (RFC 8955 §5.1), and the VRF's own table. No packet falls
// into a block, as one rule ends the search before the first.
//
// A class is a rule, or more for a range up to port 65535, which a range of the kernel cannot
// have. Ports are those that the kernel finds in packets that are not fragmented, and 0
// otherwise, so that port 0 is no port. A lookup for an ARP request is one of a packet without
// protocol: a class for any protocol decides where its answer is looked for.
//
// # What is ours
//
// Devices by their alias; routes, MPLS routes, nexthop objects, neighbours, addresses
// and rules by protocol 19. What others have is left alone, with one exception: the rule
// that looks into the table "local" for all packets goes from priority 0 to 2, behind
// one for VRFs. Otherwise a packet in a VRF to an address that this host happens to
// have would end here instead of in the VRF.
//
// Limits: the kernel chooses by its own hash among next hops, so that the order of
// consistent hashing is not kept; it decrements TTLs also within a subnet; packets that
// come with a label go to the endpoint without a look at their addresses.
package linuxvrf
