/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* Where classes of packets are routed (VPN FlowSpec), and those without a route. */

#ifndef STEER_H
#define STEER_H

static __always_inline int prefix_holds(const __u8 *prefix, __u32 bits, const __u8 *addr)
{
	const __u32 *x = (const __u32 *)prefix, *y = (const __u32 *)addr;
	__u32 i, mask;

	for (i = 0; i < 4; i++) {
		if (!bits)
			return 1;
		mask = bits >= 32 ? 0xffffffff : bpf_htonl(0xffffffff << (32 - bits));
		if ((x[i] ^ y[i]) & mask)
			return 0;
		bits = bits > 32 ? bits - 32 : 0;
	}
	return 1;
}

static __always_inline int class_holds(const struct class *c, const struct packet *p)
{
	__u16 source = bpf_ntohs(p->ports[0]), destination = bpf_ntohs(p->ports[1]);

	if (c->protocol != ANY_PROTOCOL && c->protocol != p->upper)
		return 0;
	if (c->flags & CLASS_PORTS &&
	    (!p->has_ports || source < c->source_ports[0] || source > c->source_ports[1] ||
	     destination < c->destination_ports[0] || destination > c->destination_ports[1]))
		return 0;
	return prefix_holds(c->source, c->source_bits, p->src);
}

/* Returns the VRF that a packet from a port is routed in. Classes are in lists by their
 * destination: the longest that holds the packet comes first. Nobody makes lists that
 * are longer, with those of shorter destinations, than CLASS_STEPS. */
static __always_inline __u32 steer(__u32 vrf, const struct packet *p)
{
	struct class_key k = { .bits = 64 + 128, .vrf = vrf, .v6 = p->v6 };
	struct class_list *list;
	struct class *c;
	__u32 id, i;

	__builtin_memcpy(k.addr, p->dst, 16);
	list = bpf_map_lookup_elem(&bp1_lists, &k);
	if (!list)
		return vrf;
	id = list->first;
	for (i = 0; i < CLASS_STEPS; i++) {
		if (!id) {
			if (list->bits == 0)
				return vrf;
			k.bits = 64 + list->bits - 1;
			list = bpf_map_lookup_elem(&bp1_lists, &k);
			if (!list)
				return vrf;
			id = list->first;
			continue;
		}
		c = bpf_map_lookup_elem(&bp1_classes, &id);
		if (!c)
			return vrf;
		if (class_holds(c, p))
			return c->target;
		id = c->next;
	}
	return vrf;
}

/* Sends a packet that has no route where the VRF has those go, as it is but for its
 * Ethernet addresses. */
static __always_inline int fall_back(struct __sk_buff *skb, __u32 vrf)
{
	struct fallback *f = bpf_map_lookup_elem(&bp1_fallbacks, &vrf);

	if (!f)
		return drop(skb, vrf, DROP_NO_ROUTE);
	if (bpf_skb_store_bytes(skb, 0, f->macs, sizeof(f->macs), 0))
		return drop(skb, vrf, DROP_FAILED);
	return bpf_redirect(f->ifindex, 0);
}

#endif
