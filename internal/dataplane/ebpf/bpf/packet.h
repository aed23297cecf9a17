/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* Reading packets, and small things that all parts need. */

#ifndef PACKET_H
#define PACKET_H

#define PASS TC_ACT_UNSPEC /* to the next program, and then to the host */

#define AF_INET_ 2
#define AF_INET6_ 10
#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_GRE 47
#define PROTO_ICMP6 58
#define PROTO_SCTP 132
#define LOOPBACK_IFINDEX 1

#define IP4 bpf_htons(ETH_P_IP)
#define IP6 bpf_htons(ETH_P_IPV6)

/* How far the headers of a received frame start. */
#define L3 ETH_HLEN

static const __u8 gateway_mac[6] = { 0x00, 0x00, 0x5e, 0x00, 0x43, 0x64 };

/* The port that a packet came from. */
struct origin {
	__u32 vrf, flags, ifindex;
};

/* What is read of a packet. */
struct packet {
	__u8 src[16];
	__u8 dst[16];
	__u32 hash;    /* of the flow, the same both ways */
	__u32 header;  /* octets of the L3 header */
	__u32 length;  /* L3 octets by its own account */
	__u32 largest; /* L3 octets of the largest piece on the wire */
	__u8 v6;
	__u8 protocol;
	__u8 ttl;
	__u8 tos;
	__u8 fragment; /* 1: the first, 2: a later one */
	__u8 upper; /* protocol behind a fragment header, too */
	__u8 has_ports;
	__u8 pad;
	__be16 ports[2]; /* source and destination */
};

static __always_inline int drop(struct __sk_buff *skb, __u32 vrf, __u32 reason)
{
	struct drop_stats *s = bpf_map_lookup_elem(&bp1_drops, &vrf);

	if (s) {
		__sync_fetch_and_add(&s->of[reason & 15].packets, 1);
		__sync_fetch_and_add(&s->of[reason & 15].bytes, skb->len);
	}
	return TC_ACT_SHOT;
}

static __always_inline void count_sent(struct __sk_buff *skb, __u32 ifindex)
{
	struct port_stats *s = bpf_map_lookup_elem(&bp1_pstats, &ifindex);

	if (s) {
		s->tx_packets += skb->gso_segs ?: 1;
		s->tx_bytes += skb->len;
	}
}

static __always_inline void count_received(struct __sk_buff *skb, __u32 ifindex)
{
	struct port_stats *s = bpf_map_lookup_elem(&bp1_pstats, &ifindex);

	if (s) {
		s->rx_packets += skb->gso_segs ?: 1;
		s->rx_bytes += skb->len;
	}
}

static __always_inline int same16(const __u8 *a, const __u8 *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

static __always_inline int is_zero16(const __u8 *a)
{
	const __u32 *x = (const __u32 *)a;

	return !(x[0] | x[1] | x[2] | x[3]);
}

static __always_inline void map4(__u8 *to, const void *addr)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, addr, 4);
}

/* Folds a sum into 16 bits. */
static __always_inline __u16 fold(__u64 s)
{
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return s;
}

static __always_inline __u32 mix(__u32 h, __u32 v)
{
	h ^= v;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	return h ^ h >> 16;
}

static __always_inline __u32 hash_end(const __u8 *addr, __u16 l4port)
{
	const __u32 *w = (const __u32 *)addr;

	return mix(mix(mix(mix(mix(0x62616770, w[0]), w[1]), w[2]), w[3]), l4port);
}

/* Finishes a packet whose L3 header is read: the flow's hash, which has the same value
 * on all nodes and for both directions, and the size of the largest piece. */
static __always_inline int read_l4(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	__u32 l4 = at + p->header, l4_header = 8;
	__u16 ports[2] = {};
	__u8 offset;

	if (!p->fragment && (p->protocol == PROTO_TCP || p->protocol == PROTO_UDP || p->protocol == PROTO_SCTP)) {
		if (bpf_skb_load_bytes(skb, l4, ports, sizeof(ports)))
			return -1;
		p->has_ports = 1;
		p->ports[0] = ports[0];
		p->ports[1] = ports[1];
	}
	p->hash = mix(hash_end(p->src, ports[0]) + hash_end(p->dst, ports[1]), p->protocol);
	p->largest = skb->len - at;
	if (skb->gso_size) {
		if (p->protocol == PROTO_TCP) {
			if (bpf_skb_load_bytes(skb, l4 + 12, &offset, 1))
				return -1;
			l4_header = offset >> 4 << 2;
		}
		p->largest = p->header + l4_header + skb->gso_size;
	}
	return 0;
}

static __always_inline int read4(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return -1;
	__builtin_memset(p, 0, sizeof(*p));
	map4(p->src, &ip.saddr);
	map4(p->dst, &ip.daddr);
	p->header = ip.ihl * 4;
	p->length = bpf_ntohs(ip.tot_len);
	p->protocol = p->upper = ip.protocol;
	p->ttl = ip.ttl;
	p->tos = ip.tos;
	if (ip.frag_off & bpf_htons(0x3fff))
		p->fragment = ip.frag_off & bpf_htons(0x1fff) ? 2 : 1;
	if (!skb->gso_size && (p->length < p->header || p->length > skb->len - at))
		return -1;
	return read_l4(skb, at, p);
}

static __always_inline int read6(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	struct ipv6hdr ip;
	struct {
		__u8 next, reserved;
		__be16 offset;
	} fragment;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
		return -1;
	__builtin_memset(p, 0, sizeof(*p));
	__builtin_memcpy(p->src, &ip.saddr, 16);
	__builtin_memcpy(p->dst, &ip.daddr, 16);
	p->v6 = 1;
	p->header = sizeof(ip);
	p->length = bpf_ntohs(ip.payload_len) + sizeof(ip);
	p->protocol = p->upper = ip.nexthdr;
	p->ttl = ip.hop_limit;
	p->tos = ip.priority << 4 | ip.flow_lbl[0] >> 4;
	if (ip.nexthdr == 44) {
		if (bpf_skb_load_bytes(skb, at + sizeof(ip), &fragment, sizeof(fragment)))
			return -1;
		p->upper = fragment.next;
		p->fragment = fragment.offset & bpf_htons(0xfff8) ? 2 : 1;
	}
	if (!skb->gso_size && p->length > skb->len - at)
		return -1;
	return read_l4(skb, at, p);
}

static __always_inline int is_multicast(const struct packet *p, const __u8 *addr)
{
	return p->v6 ? addr[0] == 0xff : addr[12] >= 224; /* and class E, with the broadcast address */
}

/* An address that no packet is routed to or from. */
static __always_inline int is_confined(const struct packet *p, const __u8 *addr)
{
	if (!p->v6)
		return addr[12] == 0 || addr[12] == 127;
	if (addr[0] == 0xfe && (addr[1] & 0xc0) == 0x80)
		return 1;
	const __u32 *w = (const __u32 *)addr;
	return !(w[0] | w[1] | w[2]) && (w[3] == 0 || w[3] == bpf_htonl(1));
}

static __always_inline struct route *find_route(__u32 vrf, __u32 v6, const __u8 *dst)
{
	void *table;

	if (v6) {
		struct key6 k = { .bits = 128 };

		__builtin_memcpy(k.addr, dst, 16);
		table = bpf_map_lookup_elem(&bp1_routes6, &vrf);
		return table ? bpf_map_lookup_elem(table, &k) : NULL;
	}
	struct key4 k = { .bits = 32 };

	__builtin_memcpy(k.addr, dst + 12, 4);
	table = bpf_map_lookup_elem(&bp1_routes4, &vrf);
	return table ? bpf_map_lookup_elem(table, &k) : NULL;
}

static __always_inline struct hop *find_hop(struct route *r, __u32 vrf, __u32 hash)
{
	struct group_key k = { .vrf = vrf };
	struct group *g;
	__u32 slot;

	if (!r->group)
		return &r->hop;
	k.id = r->group;
	g = bpf_map_lookup_elem(&bp1_groups, &k);
	if (!g)
		return NULL;
	slot = g->slot[hash & (SLOTS - 1)];
	return slot < HOPS ? &g->hop[slot] : NULL;
}

static __always_inline struct target *find_target(__u32 space, __u32 label)
{
	struct label_key k = { .space = space, .label = label };

	return bpf_map_lookup_elem(&bp1_labels, &k);
}

static __always_inline struct source *find_source(__u32 ifindex, const struct ethhdr *eth, const __u8 *addr)
{
	struct source_key k = { .bits = 32 + 64 + 128, .ifindex = ifindex };

	__builtin_memcpy(k.mac, eth->h_source, 6);
	__builtin_memcpy(k.addr, addr, 16);
	return bpf_map_lookup_elem(&bp1_sources, &k);
}

static __always_inline int is_gateway(__u32 vrf, const __u8 *addr)
{
	struct gateway_key k = { .vrf = vrf };

	__builtin_memcpy(k.addr, addr, 16);
	return bpf_map_lookup_elem(&bp1_gateways, &k) != NULL;
}

/* Takes 1 from the TTL. */
static __always_inline int decrement(struct __sk_buff *skb, const struct packet *p)
{
	__u8 ttl = p->ttl - 1;

	if (!p->v6 && bpf_l3_csum_replace(skb, L3 + 10, p->ttl, ttl, 2))
		return -1;
	return bpf_skb_store_bytes(skb, L3 + (p->v6 ? 7 : 8), &ttl, 1, 0);
}

#endif
