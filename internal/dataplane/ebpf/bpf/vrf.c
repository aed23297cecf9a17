//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* Forwarding of VRFs at tc ingress: bagpipe_port on every port, bagpipe_tunnel where
 * packets of other nodes come in. build.sh compiles it. It needs nothing that Linux 6.1
 * has not, no type information of the kernel and no just-in-time compiler. */

#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "layout.h"
#include "packet.h"
#include "reply.h"
#include "tunnel.h"
#include "steer.h"

/* Delivers a packet whose frame is to have our Ethernet header to a port. */
static __always_inline int deliver(struct __sk_buff *skb, const struct target *t, __be16 type)
{
	__u32 ifindex = t->ifindex, vrf = t->vrf;
	struct port *port = bpf_map_lookup_elem(&bp1_ports, &ifindex);
	struct ethhdr eth;

	if (!port)
		return drop(skb, vrf, DROP_NO_PORT);
	__builtin_memcpy(eth.h_dest, t->mac, 6);
	__builtin_memcpy(eth.h_source, gateway_mac, 6);
	eth.h_proto = type;
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return drop(skb, vrf, DROP_FAILED);
	count_sent(skb, ifindex);
	return port->flags & PORT_PEER ? bpf_redirect_peer(ifindex, 0) : bpf_redirect(ifindex, 0);
}

/* Delivers a packet from one port of the node to another. */
static __always_inline int to_local(struct __sk_buff *skb, const struct origin *port, struct ethhdr *eth,
				    const struct packet *p, const struct hop *h, int on_link)
{
	struct target *t = find_target(SPACE_MPLS, h->label);
	__u32 mtu = 0;

	if (!t || t->kind != TARGET_PORT)
		return drop(skb, port->vrf, DROP_NO_PORT);
	if (bpf_check_mtu(skb, t->ifindex, &mtu, 0, skb->gso_size ? BPF_MTU_CHK_SEGS : 0) > 0)
		return too_big(skb, port, eth, p, mtu);
	if (!on_link && decrement(skb, p))
		return drop(skb, port->vrf, DROP_FAILED);
	return deliver(skb, t, p->v6 ? IP6 : IP4);
}

/* Routes a packet that came from a port. */
static __always_inline int route(struct __sk_buff *skb, const struct config *c, const struct origin *port,
				 struct ethhdr *eth, struct packet *p)
{
	__u32 vrf = port->flags & PORT_CLASSES ? steer(port->vrf, p) : port->vrf;
	struct route *r = find_route(vrf, p->v6, p->dst);
	struct way w = {};
	struct hop *h;
	__u32 mtu = 0;
	int on_link, err;

	if (!r)
		return fall_back(skb, vrf);
	on_link = r->flags & ROUTE_ON_LINK;
	if (!on_link && p->ttl <= 1)
		return ttl_exceeded(skb, port, eth, p);
	h = find_hop(r, vrf, p->hash);
	if (!h)
		return drop(skb, port->vrf, DROP_NO_ROUTE);
	if (!skb->gso_size && p->length < skb->len - L3) { /* what fills up a short frame */
		if (bpf_skb_change_tail(skb, L3 + p->length, 0))
			return drop(skb, port->vrf, DROP_FAILED);
		p->largest = p->length;
	}
	if (h->flags & HOP_SELF)
		return to_local(skb, port, eth, p, h, on_link);
	err = find_way(skb, c, p, h, &w, &mtu);
	if (err > 0)
		return too_big(skb, port, eth, p, mtu);
	if (err < 0)
		return drop(skb, port->vrf, DROP_UNDERLAY);
	if (!on_link && decrement(skb, p))
		return drop(skb, port->vrf, DROP_FAILED);
	return send(skb, c, port, p, h, &w, on_link ? p->ttl : p->ttl - 1);
}

static __always_inline int from_port(struct __sk_buff *skb, const struct config *c, const struct origin *port,
				     struct ethhdr *eth, struct packet *p)
{
	__u8 type = 0;
	int gateway;

	if (p->v6 && p->protocol == PROTO_ICMP6 && !p->fragment &&
	    !bpf_skb_load_bytes(skb, L3 + p->header, &type, 1) && type == 135)
		return from_port_nd(skb, port, eth, p);
	if (port->flags & PORT_BRIDGE && !same_mac(eth->h_dest, gateway_mac))
		return PASS;
	gateway = is_gateway(port->vrf, p->dst);
	if (gateway && p->v6 && is_confined(p, p->src) && !is_zero16(p->src))
		return to_gateway(skb, port, eth, p); /* from a link-local address */
	if (is_multicast(p, p->src) || is_confined(p, p->src) ||
	    (!gateway && (is_multicast(p, p->dst) || is_confined(p, p->dst))))
		return drop(skb, port->vrf, DROP_NOT_ROUTABLE);
	if (c->flags & CONFIG_ANTI_SPOOFING && !(port->flags & PORT_TRANSIT) && !find_source(port->ifindex, eth, p->src))
		return drop(skb, port->vrf, DROP_SPOOFED);
	return gateway ? to_gateway(skb, port, eth, p) : route(skb, c, port, eth, p);
}

SEC("tc")
int bagpipe_port(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex, zero = 0;
	struct port *known = bpf_map_lookup_elem(&bp1_ports, &ifindex);
	struct config *c = bpf_map_lookup_elem(&bp1_config, &zero);
	struct ethhdr eth;
	struct packet p;

	if (!known || !c || !(known->flags & PORT_FROM))
		return PASS;
	struct origin from = { .vrf = known->vrf, .flags = known->flags, .ifindex = ifindex };
	const struct origin *port = &from;

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return PASS;
	if (skb->vlan_present)
		return port->flags & PORT_BRIDGE ? PASS : drop(skb, port->vrf, DROP_PROTOCOL);
	count_received(skb, ifindex);
	if (eth.h_proto == bpf_htons(ETH_P_ARP))
		return from_port_arp(skb, port, &eth);
	if (eth.h_proto == IP4) {
		if (read4(skb, L3, &p))
			return drop(skb, port->vrf, DROP_MALFORMED);
	} else if (eth.h_proto == IP6) {
		if (read6(skb, L3, &p))
			return drop(skb, port->vrf, DROP_MALFORMED);
	} else {
		return port->flags & PORT_BRIDGE ? PASS : drop(skb, port->vrf, DROP_PROTOCOL);
	}
	return from_port(skb, c, port, &eth, &p);
}

/* A packet that came in a tunnel. */
struct arrival {
	__u32 strip; /* octets of the headers around it */
	__u8 v6;     /* the underlay's */
	__u8 tos;
};

/* Takes the headers off and delivers. The outer header is first made one of the inner
 * packet's family: the kernel tells the family of what it strips by that. */
static __always_inline int unpack(struct __sk_buff *skb, const struct arrival *a, const struct target *t)
{
	__u32 strip = a->strip, vrf = t->vrf;
	__u8 first;
	__be16 type;

	if (bpf_skb_load_bytes(skb, L3 + strip, &first, 1))
		return drop(skb, vrf, DROP_MALFORMED);
	first >>= 4;
	if (first != 4 && first != 6)
		return drop(skb, vrf, DROP_PROTOCOL);
	type = first == 6 ? IP6 : IP4;
	if (first == 6 && !a->v6) {
		strip += sizeof(struct ipv6hdr) - sizeof(struct iphdr);
		if (bpf_skb_change_proto(skb, IP6, 0))
			return drop(skb, vrf, DROP_FAILED);
	} else if (first == 4 && a->v6) {
		strip -= sizeof(struct ipv6hdr) - sizeof(struct iphdr);
		if (bpf_skb_change_proto(skb, IP4, 0))
			return drop(skb, vrf, DROP_FAILED);
	}
	if (bpf_skb_adjust_room(skb, -(__s32)strip, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return drop(skb, vrf, DROP_MALFORMED); /* nothing left, or no whole IP header */
	if ((a->tos & 3) == 3 && !bpf_skb_ecn_set_ce(skb)) /* congestion (RFC 6040 §4.2) */
		return drop(skb, vrf, DROP_MALFORMED);
	return deliver(skb, t, type);
}

static __always_inline int from_mpls(struct __sk_buff *skb, struct arrival *a)
{
	struct target *t;
	__be32 entry;
	__u32 e;

	if (bpf_skb_load_bytes(skb, L3 + a->strip, &entry, 4))
		return drop(skb, 0, DROP_MALFORMED);
	a->strip += 4;
	e = bpf_ntohl(entry);
	if (!(e & 0x100) && (e >> 12 == 0 || e >> 12 == 2)) { /* explicit null, on top */
		if (bpf_skb_load_bytes(skb, L3 + a->strip, &entry, 4))
			return drop(skb, 0, DROP_MALFORMED);
		a->strip += 4;
		e = bpf_ntohl(entry);
	}
	if (!(e & 0x100))
		return drop(skb, 0, DROP_LABEL);
	t = find_target(SPACE_MPLS, e >> 12);
	if (!t || t->kind != TARGET_PORT)
		return drop(skb, 0, DROP_LABEL);
	return unpack(skb, a, t);
}

/* Finds the endpoint that a packet for a whole VRF is for (RFC 9136 §4.4.1). */
static __always_inline struct target *find_endpoint(struct __sk_buff *skb, __u32 at, __u32 vrf, __be16 type, int *why)
{
	struct packet p;
	struct route *r;
	struct hop *h;

	*why = DROP_MALFORMED;
	if (type == IP4) {
		if (read4(skb, at, &p))
			return NULL;
	} else if (read6(skb, at, &p)) {
		return NULL;
	}
	*why = DROP_NO_ROUTE;
	r = find_route(vrf, p.v6, p.dst);
	if (!r)
		return NULL;
	h = find_hop(r, vrf, p.hash);
	if (!h || !(h->flags & HOP_SELF))
		return NULL;
	*why = DROP_NO_PORT;
	return find_target(SPACE_MPLS, h->label);
}

/* Takes what belongs to a VNI of ours. All others are the host's. */
static __always_inline int from_vxlan(struct __sk_buff *skb, const struct config *c, struct arrival *a)
{
	struct {
		__be32 flags, vni;
		struct ethhdr eth;
	} __attribute__((packed)) v;
	struct target *t;
	__u32 vrf;
	int why;

	if (bpf_skb_load_bytes(skb, L3 + a->strip, &v, sizeof(v)) || !(v.flags & VXLAN_FLAGS))
		return PASS;
	t = find_target(SPACE_VXLAN, bpf_ntohl(v.vni) >> 8);
	if (!t)
		return PASS;
	a->strip += sizeof(v);
	vrf = t->vrf;
	if (v.eth.h_proto != IP4 && v.eth.h_proto != IP6)
		return drop(skb, vrf, DROP_PROTOCOL);
	if (t->kind == TARGET_VRF) {
		if (!same_mac(v.eth.h_dest, c->router_mac))
			return drop(skb, vrf, DROP_ROUTER_MAC);
		t = find_endpoint(skb, L3 + a->strip, vrf, v.eth.h_proto, &why);
		if (!t || t->kind != TARGET_PORT)
			return drop(skb, vrf, why);
	}
	return unpack(skb, a, t);
}

SEC("tc")
int bagpipe_tunnel(struct __sk_buff *skb)
{
	__u32 zero = 0, gre;
	struct config *c = bpf_map_lookup_elem(&bp1_config, &zero);
	struct arrival a = {};
	struct udphdr udp;
	__u8 protocol;

	if (!c || skb->vlan_present)
		return PASS;
	if (skb->protocol == IP4 && !(c->flags & CONFIG_IPV6)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, L3, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl != 5 ||
		    ip.frag_off & bpf_htons(0x3fff) || __builtin_memcmp(&ip.daddr, c->local + 12, 4))
			return PASS;
		protocol = ip.protocol;
		a.tos = ip.tos;
		a.strip = sizeof(ip);
	} else if (skb->protocol == IP6 && c->flags & CONFIG_IPV6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, L3, &ip, sizeof(ip)) || ip.version != 6 ||
		    !same16((__u8 *)&ip.daddr, c->local))
			return PASS;
		protocol = ip.nexthdr;
		a.v6 = 1;
		a.tos = ip.priority << 4 | ip.flow_lbl[0] >> 4;
		a.strip = sizeof(ip);
	} else {
		return PASS;
	}
	if (protocol == PROTO_GRE) {
		if (bpf_skb_load_bytes(skb, L3 + a.strip, &gre, 4) || gre != bpf_htonl(ETH_P_MPLS_UC))
			return PASS;
		a.strip += 4;
		return from_mpls(skb, &a);
	}
	if (protocol != PROTO_UDP || bpf_skb_load_bytes(skb, L3 + a.strip, &udp, sizeof(udp)))
		return PASS;
	a.strip += sizeof(udp);
	if (udp.dest == PORT_MPLS_UDP)
		return from_mpls(skb, &a);
	if (udp.dest == c->vxlan_port)
		return from_vxlan(skb, c, &a);
	return PASS;
}

/* Lets a raw UDP socket have what is VXLAN for a VNI of ours. That comes so far only when it
 * came in fragments. An IPv4 socket sees the IP header, an IPv6 one does not. */
SEC("socket")
int bagpipe_whole(struct __sk_buff *skb)
{
	__u32 zero = 0, at = 0, label;
	struct config *c = bpf_map_lookup_elem(&bp1_config, &zero);
	struct {
		struct udphdr udp;
		__be32 flags, vni;
	} v;
	__u8 first;

	if (!c || bpf_skb_load_bytes(skb, 0, &first, 1))
		return 0;
	if (!(c->flags & CONFIG_IPV6))
		at = (first & 15) * 4;
	if (bpf_skb_load_bytes(skb, at, &v, sizeof(v)) || v.udp.dest != c->vxlan_port)
		return 0;
	label = bpf_ntohl(v.vni) >> 8;
	return find_target(SPACE_VXLAN, label) ? skb->len : 0;
}

/* The kernel's helpers are for programs under the GPL; this one may be used under either. */
char _license[] SEC("license") = "Dual BSD/GPL";
