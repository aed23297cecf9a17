/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* What the programs and the driver share: maps, their keys and values. layout.go has
 * the same in Go; a test compares sizes. Addresses are 16 octets, IPv4 as ::ffff:a.b.c.d,
 * except in routes4. Whoever changes a layout changes VERSION in all map names. */

#ifndef LAYOUT_H
#define LAYOUT_H

#define HOPS 64   /* next hops of a group */
#define CLASS_STEPS 64 /* classes and lists of them that are looked at for a packet */
#define SLOTS 128 /* a flow's hash chooses one of them, a power of 2 */

enum { /* struct config, flags */
	CONFIG_IPV6 = 1,          /* the underlay is IPv6 */
	CONFIG_ANTI_SPOOFING = 2, /* sources must be known */
};

enum { /* struct port, flags */
	PORT_FROM = 1,   /* its packets enter the VRF */
	PORT_PEER = 2,   /* a veth with its peer in another namespace */
	PORT_BRIDGE = 4, /* a bridge: most frames are not for us */
	PORT_TRANSIT = 8, /* it forwards for others: its packets may be from any address */
	PORT_CLASSES = 16, /* classes of its packets are routed in other VRFs */
};

enum { /* struct hop, tx */
	TX_DEFAULT,
	TX_MPLS_UDP,
	TX_MPLS_GRE,
	TX_VXLAN,
};

enum { /* struct hop, flags */
	HOP_SELF = 1, /* this node: deliver by label */
};

enum { /* struct route, flags */
	ROUTE_DEFAULT = 1, /* of length 0 */
	ROUTE_ON_LINK = 2, /* within the VRF's own subnet: the TTL stays */
};

enum { /* struct label_key, space */
	SPACE_MPLS,
	SPACE_VXLAN,
};

enum { /* struct target, kind */
	TARGET_PORT,
	TARGET_VRF,
};

enum reason { /* why a packet is dropped; names in counters.go */
	DROP_MALFORMED,
	DROP_PROTOCOL,
	DROP_NOT_ROUTABLE,
	DROP_NO_ROUTE,
	DROP_SPOOFED,
	DROP_TTL,
	DROP_TOO_BIG,
	DROP_TO_GATEWAY,
	DROP_NEIGHBOUR,
	DROP_NO_PORT,
	DROP_LABEL,
	DROP_ROUTER_MAC,
	DROP_UNDERLAY,
	DROP_FAILED,
	REASONS,
};

struct config {
	__u8 local[16];
	__u8 router_mac[6];
	__be16 vxlan_port;
	__u32 flags;
	__u32 default_tx;
};

struct port {
	__u32 vrf; /* that its packets enter, 0 for none */
	__u32 flags;
};

struct label_key {
	__u32 space;
	__u32 label;
};

struct target {
	__u32 vrf;
	__u32 ifindex;
	__u32 kind;
	__u8 mac[6];
	__u8 pad[2];
};

struct hop {
	__u8 remote[16];
	__u32 label;
	__u32 order;
	__u8 router_mac[6];
	__u8 tx;
	__u8 flags;
};

struct route {
	struct hop hop; /* unless there is a group */
	__u32 group;    /* 0 for none */
	__u32 flags;
};

struct key4 {
	__u32 bits;
	__u8 addr[4];
};

struct key6 {
	__u32 bits;
	__u8 addr[16];
};

struct group_key {
	__u32 vrf;
	__u32 id;
};

struct group {
	__u8 addr[16]; /* the prefix it belongs to */
	__u32 bits;
	__u32 count;
	__u8 slot[SLOTS];
	struct hop hop[HOPS];
};

struct gateway_key {
	__u32 vrf;
	__u8 addr[16];
};

struct source_key {
	__u32 bits;
	__u32 ifindex;
	__u8 mac[6];
	__u8 pad[2];
	__u8 addr[16];
};

struct source {
	__u32 vrf;
	__u8 gateway[16]; /* all zero for none */
};

enum { /* struct class */
	ANY_PROTOCOL = 256,
	CLASS_PORTS = 1, /* flags: packets with ports only */
};

struct class_key {
	__u32 bits; /* 64 more than of the address */
	__u32 vrf;
	__u32 v6;
	__u8 addr[16];
};

struct class_list {
	__u32 first; /* of bp1_classes */
	__u32 bits;
};

struct class {
	__u32 next; /* in its list, 0 at the end */
	__u32 target; /* VRF */
	__u32 vrf;
	__u32 v6;
	__u8 destination[16]; /* which chooses the list */
	__u8 source[16];
	__u32 destination_bits, source_bits; /* of 128 */
	__u16 destination_ports[2], source_ports[2];
	__u16 protocol;
	__u16 flags;
};

struct fallback {
	__u8 macs[12]; /* of the new frame: to, from */
	__u32 ifindex;
	__u8 port[16];
};

struct port_stats {
	__u64 rx_packets, rx_bytes, tx_packets, tx_bytes;
};

struct drop_stats {
	struct {
		__u64 packets, bytes;
	} of[16]; /* by reason */
};

/* Of the following the programs use nothing: it is what the driver notes. */

struct vrf {
	__u32 vni;
	__u8 gateway[16];
	__u8 gateway_bits; /* of 128 */
	__u8 has_gateway;
	__u8 l3vni;
	__u8 id_length;
	__u8 id[256];
};

struct plug_key {
	__u32 vrf;
	__u8 name[16];
};

struct plug {
	__u32 ifindex;
	__u32 direction;
};

struct endpoint_key {
	__u32 vrf;
	__u32 label;
	__u8 addr[16];
};

struct endpoint {
	__u8 port[16];
	__u32 ifindex;
	__u8 mac[6];
	__u8 direction;
	__u8 has_gateway;
	__u8 prefix[16];
	__u8 gateway[16];
	__u32 prefix_bits; /* of 128 */
};

#define MAP(name, kind, k, v, size, f)        \
	struct {                              \
		__uint(type, kind);           \
		__type(key, k);               \
		__type(value, v);             \
		__uint(max_entries, size);    \
		__uint(map_flags, f);         \
	} name SEC(".maps")

MAP(bp1_config, BPF_MAP_TYPE_ARRAY, __u32, struct config, 1, 0);
MAP(bp1_ports, BPF_MAP_TYPE_HASH, __u32, struct port, 1 << 16, BPF_F_NO_PREALLOC);
MAP(bp1_labels, BPF_MAP_TYPE_HASH, struct label_key, struct target, 1 << 18, BPF_F_NO_PREALLOC);
MAP(bp1_groups, BPF_MAP_TYPE_HASH, struct group_key, struct group, 1 << 16, BPF_F_NO_PREALLOC);
MAP(bp1_gateways, BPF_MAP_TYPE_HASH, struct gateway_key, __u32, 1 << 17, BPF_F_NO_PREALLOC);
MAP(bp1_sources, BPF_MAP_TYPE_LPM_TRIE, struct source_key, struct source, 1 << 18, BPF_F_NO_PREALLOC);
MAP(bp1_lists, BPF_MAP_TYPE_LPM_TRIE, struct class_key, struct class_list, 1 << 18, BPF_F_NO_PREALLOC);
MAP(bp1_classes, BPF_MAP_TYPE_HASH, __u32, struct class, 1 << 18, BPF_F_NO_PREALLOC);
MAP(bp1_fallbacks, BPF_MAP_TYPE_HASH, __u32, struct fallback, 1 << 13, BPF_F_NO_PREALLOC);
MAP(bp1_pstats, BPF_MAP_TYPE_PERCPU_HASH, __u32, struct port_stats, 1 << 16, BPF_F_NO_PREALLOC);
MAP(bp1_drops, BPF_MAP_TYPE_HASH, __u32, struct drop_stats, 1 << 14, BPF_F_NO_PREALLOC);
MAP(bp1_vrfs, BPF_MAP_TYPE_HASH, __u32, struct vrf, 1 << 13, BPF_F_NO_PREALLOC);
MAP(bp1_plugs, BPF_MAP_TYPE_HASH, struct plug_key, struct plug, 1 << 17, BPF_F_NO_PREALLOC);
MAP(bp1_endpoints, BPF_MAP_TYPE_HASH, struct endpoint_key, struct endpoint, 1 << 18, BPF_F_NO_PREALLOC);

/* A table of routes per VRF, so that a full one is full for its VRF only. */
#define TABLES(name, k)                                                       \
	struct {                                                              \
		__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);                      \
		__uint(max_entries, 1 << 13);                                 \
		__type(key, __u32);                                           \
		__array(values, struct {                                      \
			__uint(type, BPF_MAP_TYPE_LPM_TRIE);                  \
			__uint(key_size, sizeof(k));                          \
			__uint(value_size, sizeof(struct route));             \
			__uint(max_entries, 1 << 20);                         \
			__uint(map_flags, BPF_F_NO_PREALLOC);                 \
		});                                                           \
	} name SEC(".maps")

TABLES(bp1_routes4, struct key4);
TABLES(bp1_routes6, struct key6);

#endif
