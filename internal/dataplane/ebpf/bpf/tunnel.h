/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* The way to another node: headers, route and MTU of the underlay. */

#ifndef TUNNEL_H
#define TUNNEL_H

#define PORT_MPLS_UDP bpf_htons(6635) /* RFC 7510 §3 */
#define VXLAN_FLAGS bpf_htonl(0x08000000)

#define SHIM_UDP 12   /* UDP, MPLS */
#define SHIM_GRE 8    /* GRE, MPLS */
#define SHIM_VXLAN 30 /* UDP, VXLAN, Ethernet */

struct shim_udp {
	struct udphdr udp;
	__be32 mpls;
} __attribute__((packed));

struct shim_gre {
	__be16 flags, protocol;
	__be32 mpls;
} __attribute__((packed));

struct shim_vxlan {
	struct udphdr udp;
	__be32 flags, vni;
	struct ethhdr eth;
} __attribute__((packed));

/* Where a packet goes in the underlay. */
struct way {
	__u32 tx;
	__u32 room; /* octets of all headers */
	__u32 ifindex;
	struct bpf_redir_neigh neighbour;
};

/* Finds the way to a node. Returns 0, 1 when the packet is too big for it, with the
 * largest L3 size that is not, and -1 when there is none. The lookup is made as if the
 * packet came from the loopback interface, where alone forwarding must be on for that. */
static __always_inline int find_way(struct __sk_buff *skb, const struct config *c, const struct packet *p,
				    const struct hop *h, struct way *w, __u32 *mtu)
{
	__u32 v6 = c->flags & CONFIG_IPV6, need;
	struct bpf_fib_lookup f = {};
	long err;

	w->tx = h->tx == TX_DEFAULT ? c->default_tx : h->tx;
	w->room = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	w->room += w->tx == TX_MPLS_GRE ? SHIM_GRE : w->tx == TX_VXLAN ? SHIM_VXLAN : SHIM_UDP;
	need = p->largest + w->room;
	f.ifindex = LOOPBACK_IFINDEX;
	f.tot_len = need > 65535 ? 65535 : need;
	f.l4_protocol = w->tx == TX_MPLS_GRE ? PROTO_GRE : PROTO_UDP;
	if (w->tx != TX_MPLS_GRE) {
		f.sport = bpf_htons(0xc000 | (p->hash >> 16 & 0x3fff));
		f.dport = w->tx == TX_VXLAN ? c->vxlan_port : PORT_MPLS_UDP;
	}
	if (v6) {
		f.family = AF_INET6_;
		__builtin_memcpy(f.ipv6_src, c->local, 16);
		__builtin_memcpy(f.ipv6_dst, h->remote, 16);
	} else {
		f.family = AF_INET_;
		__builtin_memcpy(&f.ipv4_src, c->local + 12, 4);
		__builtin_memcpy(&f.ipv4_dst, h->remote + 12, 4);
	}
	err = bpf_fib_lookup(skb, &f, sizeof(f), 0);
	if (err == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		*mtu = f.mtu_result > w->room ? f.mtu_result - w->room : 0;
		return 1;
	}
	if (err != BPF_FIB_LKUP_RET_SUCCESS && err != BPF_FIB_LKUP_RET_NO_NEIGH)
		return -1;
	w->ifindex = f.ifindex;
	__builtin_memset(&w->neighbour, 0, sizeof(w->neighbour));
	w->neighbour.nh_family = f.family;
	if (f.family == AF_INET6_)
		__builtin_memcpy(w->neighbour.ipv6_nh, f.ipv6_dst, 16);
	else
		w->neighbour.ipv4_nh = f.ipv4_dst;
	return 0;
}

/* Makes a packet one of the family that its Ethernet header has. Taking off a VLAN tag does
 * that, and nothing else of it stays. */
static __always_inline long read_type(struct __sk_buff *skb)
{
	return bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 1) ?: bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 1) ?:
	       bpf_skb_vlan_pop(skb) ?: bpf_skb_vlan_pop(skb);
}

static __always_inline long make_room(struct __sk_buff *skb, __u32 v6, const struct packet *p, const struct way *w)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
	__be16 type;
	long err;

	flags |= v6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	flags |= w->tx == TX_MPLS_GRE ? BPF_F_ADJ_ROOM_ENCAP_L4_GRE : BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	flags |= w->tx == TX_VXLAN ? BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH :
				     BPF_F_ADJ_ROOM_ENCAP_L2(4);
	err = bpf_skb_adjust_room(skb, w->room, BPF_ADJ_ROOM_MAC, flags);
	/* A packet that came to this host in a tunnel, and that a namespace here sends on, keeps
	 * the mark of it. The tunnel's offsets still hold, so that those need not be set. */
	if (err != -114 /* EALREADY */)
		return err;
	err = bpf_skb_adjust_room(skb, w->room, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
	if (err || !v6 == !p->v6)
		return err;
	type = v6 ? IP6 : IP4;
	return bpf_skb_store_bytes(skb, 12, &type, 2, 0) ?: read_type(skb);
}

static __always_inline long store_outer(struct __sk_buff *skb, const struct config *c, const struct packet *p,
					const struct hop *h, const struct way *w, __u32 length)
{
	__u8 protocol = w->tx == TX_MPLS_GRE ? PROTO_GRE : PROTO_UDP;
	__be16 type;

	if (c->flags & CONFIG_IPV6) {
		struct ipv6hdr ip = {};
		__u32 flow = p->hash & 0xfffff;

		ip.version = 6;
		ip.priority = p->tos >> 4;
		ip.flow_lbl[0] = (p->tos & 15) << 4 | flow >> 16;
		ip.flow_lbl[1] = flow >> 8;
		ip.flow_lbl[2] = flow;
		ip.payload_len = bpf_htons(length - sizeof(ip));
		ip.nexthdr = protocol;
		ip.hop_limit = 64;
		__builtin_memcpy(&ip.saddr, c->local, 16);
		__builtin_memcpy(&ip.daddr, h->remote, 16);
		type = IP6;
		return bpf_skb_store_bytes(skb, 12, &type, 2, 0) ?: bpf_skb_store_bytes(skb, L3, &ip, sizeof(ip), 0);
	}
	struct iphdr ip = {};

	ip.version = 4;
	ip.ihl = 5;
	ip.tos = p->tos;
	ip.tot_len = bpf_htons(length);
	ip.frag_off = bpf_htons(0x4000);
	ip.ttl = 64;
	ip.protocol = protocol;
	__builtin_memcpy(&ip.saddr, c->local + 12, 4);
	__builtin_memcpy(&ip.daddr, h->remote + 12, 4);
	ip.check = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	type = IP4;
	return bpf_skb_store_bytes(skb, 12, &type, 2, 0) ?: bpf_skb_store_bytes(skb, L3, &ip, sizeof(ip), 0);
}

/* Stores what is between the outer IP header and the packet. UDP has no checksum, with
 * IPv6 neither (RFC 6935, RFC 7510 §3.1). The label has the packet's TTL, and nobody
 * copies it back: the label switched path is one hop (RFC 3443, pipe model). */
static __always_inline long store_shim(struct __sk_buff *skb, const struct config *c, const struct packet *p,
				       const struct hop *h, const struct way *w, __u8 ttl, __u32 length)
{
	__u32 at = L3 + (c->flags & CONFIG_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	__be32 mpls = bpf_htonl(h->label << 12 | 1 << 8 | ttl);
	__be16 source = bpf_htons(0xc000 | (p->hash >> 16 & 0x3fff));

	length -= at - L3;
	if (w->tx == TX_MPLS_GRE) {
		struct shim_gre s = { .protocol = bpf_htons(ETH_P_MPLS_UC), .mpls = mpls };

		return bpf_skb_store_bytes(skb, at, &s, sizeof(s), 0);
	}
	if (w->tx == TX_MPLS_UDP) {
		struct shim_udp s = { .mpls = mpls };

		s.udp.source = source;
		s.udp.dest = PORT_MPLS_UDP;
		s.udp.len = bpf_htons(length);
		return bpf_skb_store_bytes(skb, at, &s, sizeof(s), 0);
	}
	struct shim_vxlan s = { .flags = VXLAN_FLAGS, .vni = bpf_htonl(h->label << 8) };
	int router = h->router_mac[0] | h->router_mac[1] | h->router_mac[2] | h->router_mac[3] | h->router_mac[4] |
		     h->router_mac[5];

	s.udp.source = source;
	s.udp.dest = c->vxlan_port;
	s.udp.len = bpf_htons(length);
	if (router)
		__builtin_memcpy(s.eth.h_dest, h->router_mac, 6);
	else
		__builtin_memcpy(s.eth.h_dest, gateway_mac, 6);
	__builtin_memcpy(s.eth.h_source, c->router_mac, 6);
	s.eth.h_proto = p->v6 ? IP6 : IP4;
	return bpf_skb_store_bytes(skb, at, &s, sizeof(s), 0);
}

/* Sends a packet to another node. The outer header has its DSCP and ECN (RFC 6040). */
static __always_inline int send(struct __sk_buff *skb, const struct config *c, const struct origin *port,
				const struct packet *p, const struct hop *h, struct way *w, __u8 ttl)
{
	__u32 length = skb->len - L3 + w->room;

	if (length > 65535) /* of a large segment, set again when it is cut */
		length = 65535;
	if (make_room(skb, c->flags & CONFIG_IPV6, p, w) || store_outer(skb, c, p, h, w, length) ||
	    store_shim(skb, c, p, h, w, ttl, length))
		return drop(skb, port->vrf, DROP_FAILED);
	return bpf_redirect_neigh(w->ifindex, &w->neighbour, sizeof(w->neighbour), 0);
}

#endif
