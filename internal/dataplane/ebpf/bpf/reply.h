/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* What the VRF itself answers to a port: ARP, neighbour solicitations, pings of the
 * gateway, and ICMP errors. The answer is made of the packet that asked for it. */

#ifndef REPLY_H
#define REPLY_H

struct arp {
	__be16 hardware, protocol;
	__u8 hardware_length, protocol_length;
	__be16 op;
	__u8 sender_mac[6], sender[4], target_mac[6], target[4];
} __attribute__((packed));

struct icmp_head {
	__u8 type, code;
	__u16 checksum;
	__be32 rest;
};

/* A neighbour solicitation or advertisement with one option. */
struct nd {
	struct icmp_head head;
	__u8 target[16];
	__u8 option, option_length, mac[6];
};

/* The part of IPv6 that ICMPv6 checksums cover. */
struct pseudo6 {
	__u8 src[16], dst[16];
	__be32 length, next;
};

static __always_inline int reply(struct __sk_buff *skb, const struct origin *port)
{
	count_sent(skb, port->ifindex);
	return bpf_redirect(port->ifindex, 0);
}

static __always_inline void turn(struct ethhdr *eth)
{
	__builtin_memcpy(eth->h_dest, eth->h_source, 6);
	__builtin_memcpy(eth->h_source, gateway_mac, 6);
}

/* Tells whether packets for an address should be sent to us: the gateway, and what the
 * VRF has a route for that is more than a default and leads elsewhere. Of a bridge only
 * the first: what else it asks for may be in its own network. */
static __always_inline int answers_for(struct __sk_buff *skb, const struct origin *port, __u32 v6,
				       const __u8 *addr, int probe)
{
	struct route *r;
	struct hop *h;
	struct target *t;

	if (is_gateway(port->vrf, addr))
		return 1;
	if (probe || port->flags & PORT_BRIDGE)
		return 0;
	r = find_route(port->vrf, v6, addr);
	if (!r || r->flags & ROUTE_DEFAULT)
		return 0;
	h = find_hop(r, port->vrf, 0);
	if (!h)
		return 0;
	if (!(h->flags & HOP_SELF))
		return 1;
	t = find_target(SPACE_MPLS, h->label);
	return t && t->ifindex != port->ifindex;
}

static __always_inline int from_port_arp(struct __sk_buff *skb, const struct origin *port, struct ethhdr *eth)
{
	struct arp a;
	__u8 target[16];
	__u32 sender;

	if (bpf_skb_load_bytes(skb, L3, &a, sizeof(a)))
		return drop(skb, port->vrf, DROP_MALFORMED);
	__builtin_memcpy(&sender, a.sender, 4);
	map4(target, a.target);
	if (a.hardware != bpf_htons(1) || a.protocol != IP4 || a.hardware_length != 6 || a.protocol_length != 4 ||
	    a.op != bpf_htons(1) || !answers_for(skb, port, 0, target, !sender))
		return port->flags & PORT_BRIDGE ? PASS : drop(skb, port->vrf, DROP_NEIGHBOUR);
	turn(eth);
	a.op = bpf_htons(2);
	__builtin_memcpy(a.target_mac, a.sender_mac, 6);
	__builtin_memcpy(a.sender_mac, gateway_mac, 6);
	__builtin_memcpy(a.target, a.sender, 4);
	__builtin_memcpy(a.sender, target + 12, 4);
	if (bpf_skb_store_bytes(skb, 0, eth, sizeof(*eth), 0) || bpf_skb_store_bytes(skb, L3, &a, sizeof(a), 0))
		return drop(skb, port->vrf, DROP_FAILED);
	return reply(skb, port);
}

/* Answers a neighbour solicitation (RFC 4861 §7.2.4). */
static __always_inline int from_port_nd(struct __sk_buff *skb, const struct origin *port, struct ethhdr *eth,
					const struct packet *p)
{
	struct {
		struct ipv6hdr ip;
		struct nd nd;
	} a = {};
	struct pseudo6 sum = {};
	int probe = is_zero16(p->src);

	if (p->ttl != 255 || p->length < sizeof(a) - 8 ||
	    bpf_skb_load_bytes(skb, L3, &a, sizeof(a) - 8))
		return drop(skb, port->vrf, DROP_MALFORMED);
	if (!answers_for(skb, port, 1, a.nd.target, probe))
		return port->flags & PORT_BRIDGE ? PASS : drop(skb, port->vrf, DROP_NEIGHBOUR);
	__builtin_memcpy(&a.ip.saddr, a.nd.target, 16);
	if (probe) { /* of its own address: all nodes learn that it is taken */
		__builtin_memset(&a.ip.daddr, 0, 16);
		a.ip.daddr.s6_addr[0] = 0xff;
		a.ip.daddr.s6_addr[1] = 0x02;
		a.ip.daddr.s6_addr[15] = 1;
	} else {
		__builtin_memcpy(&a.ip.daddr, p->src, 16);
	}
	a.ip.hop_limit = 255;
	a.ip.nexthdr = PROTO_ICMP6;
	a.ip.payload_len = bpf_htons(sizeof(a.nd));
	a.nd.head.type = 136;
	a.nd.head.code = 0;
	a.nd.head.checksum = 0;
	a.nd.head.rest = bpf_htonl(probe ? 0xa0000000 : 0xe0000000); /* router, solicited, override */
	a.nd.option = 2;
	a.nd.option_length = 1;
	__builtin_memcpy(a.nd.mac, gateway_mac, 6);
	__builtin_memcpy(sum.src, &a.ip.saddr, 16);
	__builtin_memcpy(sum.dst, &a.ip.daddr, 16);
	sum.length = bpf_htonl(sizeof(a.nd));
	sum.next = bpf_htonl(PROTO_ICMP6);
	a.nd.head.checksum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&a.nd, sizeof(a.nd),
						 bpf_csum_diff(NULL, 0, (__be32 *)&sum, sizeof(sum), 0)));
	turn(eth);
	if (bpf_skb_change_tail(skb, L3 + sizeof(a), 0) || bpf_skb_store_bytes(skb, 0, eth, sizeof(*eth), 0) ||
	    bpf_skb_store_bytes(skb, L3, &a, sizeof(a), 0))
		return drop(skb, port->vrf, DROP_FAILED);
	return reply(skb, port);
}

/* Answers what was sent to the gateway: an echo request, and nothing else. */
static __always_inline int to_gateway(struct __sk_buff *skb, const struct origin *port, struct ethhdr *eth,
				      const struct packet *p)
{
	__u8 ttl = 64, type;
	__u32 at = L3 + p->header;

	if (p->fragment || p->protocol != (p->v6 ? PROTO_ICMP6 : PROTO_ICMP) || bpf_skb_load_bytes(skb, at, &type, 1) ||
	    type != (p->v6 ? 128 : 8))
		return drop(skb, port->vrf, DROP_TO_GATEWAY);
	turn(eth);
	if (bpf_skb_store_bytes(skb, 0, eth, sizeof(*eth), 0))
		return drop(skb, port->vrf, DROP_FAILED);
	if (p->v6) {
		type = 129;
		if (bpf_l4_csum_replace(skb, at + 2, 128, type, 2) || bpf_skb_store_bytes(skb, at, &type, 1, 0) ||
		    bpf_skb_store_bytes(skb, L3 + 7, &ttl, 1, 0) || bpf_skb_store_bytes(skb, L3 + 8, p->dst, 16, 0) ||
		    bpf_skb_store_bytes(skb, L3 + 24, p->src, 16, 0))
			return drop(skb, port->vrf, DROP_FAILED);
		return reply(skb, port);
	}
	type = 0;
	if (bpf_l4_csum_replace(skb, at + 2, 8, type, 2) || bpf_skb_store_bytes(skb, at, &type, 1, 0) ||
	    bpf_l3_csum_replace(skb, L3 + 10, p->ttl, ttl, 2) || bpf_skb_store_bytes(skb, L3 + 8, &ttl, 1, 0) ||
	    bpf_skb_store_bytes(skb, L3 + 12, p->dst + 12, 4, 0) || bpf_skb_store_bytes(skb, L3 + 16, p->src + 12, 4, 0))
		return drop(skb, port->vrf, DROP_FAILED);
	return reply(skb, port);
}

/* Trims a packet to what an ICMP error quotes: its L3 header and the first octets of what
 * follows, read into quote, 20 of TCP and 8 of all else. Returns how many, 0 on failure.
 *
 * The L4 checksum of a packet may be left for hardware, or for whoever takes the packet
 * off the host, to fill in. If that happens to the quoted part, it must not spoil the
 * checksum around it. So the quoted checksum is set to the one value that filling in
 * gives back: with S the sum of the other octets it is F = ~(S + F), so that 2F = -S
 * modulo 65535, and the half of 1 is 32768. */
static __always_inline __u32 trim(struct __sk_buff *skb, const struct packet *p, __u8 *quote)
{
	__u32 size = p->protocol == PROTO_TCP && !p->fragment ? 20 : 8, at = L3 + p->header, half;

	if (p->length < p->header + size || bpf_skb_change_tail(skb, at + size, 0))
		return 0;
	if (size == 20) {
		if (bpf_skb_load_bytes(skb, at, quote, 20))
			return 0;
	} else if (bpf_skb_load_bytes(skb, at, quote, 8)) {
		return 0;
	}
	if (p->fragment || (p->protocol != PROTO_TCP && p->protocol != PROTO_UDP))
		return size;
	__u16 *sum = (__u16 *)(quote + (size == 20 ? 16 : 6));
	*sum = 0;
	half = 65535 - fold(bpf_csum_diff(NULL, 0, (__be32 *)quote, 20, 0));
	*sum = half & 1 ? (half + 65535) / 2 : half / 2;
	return bpf_skb_store_bytes(skb, at + (size == 20 ? 16 : 6), sum, 2, 0) ? 0 : size;
}

static __always_inline int error4(struct __sk_buff *skb, const struct origin *port, struct ethhdr *eth,
				  const struct packet *p, __u8 type, __u8 code, __u32 mtu)
{
	struct {
		struct iphdr ip;
		struct icmp_head icmp;
	} a = {};
	__u8 quote[20] = {};
	struct source *s = find_source(port->ifindex, eth, p->src);
	__u32 size = trim(skb, p, quote);
	__be32 from = bpf_htonl(0xc0000008); /* 192.0.0.8: a router without address (RFC 7600) */

	if (!size)
		return TC_ACT_SHOT;
	if (s && !is_zero16(s->gateway))
		__builtin_memcpy(&from, s->gateway + 12, 4);
	turn(eth);
	a.ip.version = 4;
	a.ip.ihl = 5;
	a.ip.tos = 0xc0;
	a.ip.tot_len = bpf_htons(sizeof(a.ip) + sizeof(a.icmp) + p->header + size);
	a.ip.ttl = 64;
	a.ip.protocol = PROTO_ICMP;
	a.ip.saddr = from;
	__builtin_memcpy(&a.ip.daddr, p->src + 12, 4);
	a.ip.check = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&a.ip, sizeof(a.ip), 0));
	a.icmp.type = type;
	a.icmp.code = code;
	a.icmp.rest = bpf_htonl(mtu);
	/* The quoted IP header counts nothing: with its own checksum it sums up to zero. */
	a.icmp.checksum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)quote, sizeof(quote),
					      bpf_csum_diff(NULL, 0, (__be32 *)&a.icmp, sizeof(a.icmp), 0)));
	if (bpf_skb_adjust_room(skb, sizeof(a), BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, 0, eth, sizeof(*eth), 0) || bpf_skb_store_bytes(skb, L3, &a, sizeof(a), 0))
		return TC_ACT_SHOT;
	return reply(skb, port);
}

static __always_inline int error6(struct __sk_buff *skb, const struct origin *port, struct ethhdr *eth,
				  const struct packet *p, __u8 type, __u32 mtu)
{
	struct {
		struct ipv6hdr ip;
		struct icmp_head icmp;
	} a = {};
	struct pseudo6 sum = {};
	__u8 quote[20] = {};
	struct ipv6hdr quoted;
	struct source *s = find_source(port->ifindex, eth, p->src);
	__u32 size = trim(skb, p, quote);

	if (!size || bpf_skb_load_bytes(skb, L3, &quoted, sizeof(quoted)))
		return TC_ACT_SHOT;
	if (s && !is_zero16(s->gateway)) {
		__builtin_memcpy(sum.src, s->gateway, 16);
	} else { /* the link-local address that goes with the gateway's MAC */
		sum.src[0] = 0xfe;
		sum.src[1] = 0x80;
		sum.src[8] = 0x02;
		sum.src[10] = 0x5e;
		sum.src[11] = 0xff;
		sum.src[12] = 0xfe;
		sum.src[14] = 0x43;
		sum.src[15] = 0x64;
	}
	__builtin_memcpy(sum.dst, p->src, 16);
	sum.length = bpf_htonl(sizeof(a.icmp) + sizeof(quoted) + size);
	sum.next = bpf_htonl(PROTO_ICMP6);
	turn(eth);
	a.ip.version = 6;
	a.ip.payload_len = bpf_htons(sizeof(a.icmp) + sizeof(quoted) + size);
	a.ip.nexthdr = PROTO_ICMP6;
	a.ip.hop_limit = 64;
	__builtin_memcpy(&a.ip.saddr, sum.src, 16);
	__builtin_memcpy(&a.ip.daddr, sum.dst, 16);
	a.icmp.type = type;
	a.icmp.rest = bpf_htonl(mtu);
	__u32 s32 = bpf_csum_diff(NULL, 0, (__be32 *)&sum, sizeof(sum), 0);
	s32 = bpf_csum_diff(NULL, 0, (__be32 *)&quoted, sizeof(quoted), s32);
	s32 = bpf_csum_diff(NULL, 0, (__be32 *)quote, sizeof(quote), s32);
	a.icmp.checksum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&a.icmp, sizeof(a.icmp), s32));
	if (bpf_skb_adjust_room(skb, sizeof(a), BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, 0, eth, sizeof(*eth), 0) || bpf_skb_store_bytes(skb, L3, &a, sizeof(a), 0))
		return TC_ACT_SHOT;
	return reply(skb, port);
}

/* Tells whether an ICMP error may be sent about a packet (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)). */
static __always_inline int may_complain(struct __sk_buff *skb, const struct packet *p)
{
	__u8 type;

	if (p->fragment == 2)
		return 0;
	if (p->protocol != (p->v6 ? PROTO_ICMP6 : PROTO_ICMP))
		return 1;
	if (bpf_skb_load_bytes(skb, L3 + p->header, &type, 1))
		return 0;
	return p->v6 ? type >= 128 : type == 0 || type == 8 || type >= 13;
}

/* Tells the sender that a packet's TTL ran out. */
static __always_inline int ttl_exceeded(struct __sk_buff *skb, const struct origin *port, struct ethhdr *eth,
					const struct packet *p)
{
	int action = drop(skb, port->vrf, DROP_TTL);

	if (!may_complain(skb, p))
		return action;
	return p->v6 ? error6(skb, port, eth, p, 3, 0) : error4(skb, port, eth, p, 11, 0, 0);
}

/* Tells the sender of a packet that is too big what would fit. IPv4 packets that might be
 * fragmented are refused too: no program can split a packet. */
static __always_inline int too_big(struct __sk_buff *skb, const struct origin *port, struct ethhdr *eth,
				   const struct packet *p, __u32 mtu)
{
	int action = drop(skb, port->vrf, DROP_TOO_BIG);

	if (!may_complain(skb, p))
		return action;
	if (p->v6)
		return error6(skb, port, eth, p, 2, mtu < 1280 ? 1280 : mtu);
	return error4(skb, port, eth, p, 3, 4, mtu);
}

#endif
