// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// A kernel datapath cannot turn a neighbour solicitation into an advertisement: it
// sets no flags in them (OVS_KEY_ATTR_ND_EXTENSIONS). There the driver answers itself
// what flows send to it.

// answer answers neighbour solicitations for gateways, which flows of ours send.
func (d *Driver) answer(conn bridge, p of.PacketIn) {
	reply, ok := advertise(p.Data)
	if !ok || p.Cookie&cookieMask != cookieMark {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	errs := make([]error, 1)
	if err := conn.Exec(ctx, []of.Message{of.PacketOut{Port: p.InPort, Data: reply}}, errs); err != nil {
		d.log.Warn("a neighbour solicitation was not answered", "err", err)
	}
}

const (
	ipv6Header     = 40
	icmpv6         = 58
	solicitation   = 135
	advertised     = 136
	solicitedSize  = 24 // type to target
	advertisedSize = 32 // with the target's link-layer address
)

// advertise returns the neighbour advertisement of a gateway (RFC 4861 §4.4) that
// answers the solicitation in a frame, with the same VLAN tags; ok is false when the
// frame is none, or one that looks for duplicates.
func advertise(frame []byte) (reply []byte, ok bool) {
	at := 12
	for len(frame) >= at+4 && binary.BigEndian.Uint16(frame[at:]) == 0x8100 {
		at += 4
	}
	if len(frame) < at+2+ipv6Header+solicitedSize || binary.BigEndian.Uint16(frame[at:]) != typeIPv6 {
		return nil, false
	}
	ip := frame[at+2:]
	icmp := ip[ipv6Header:]
	src, target := ip[8:24], icmp[8:24]
	if ip[0]>>4 != 6 || ip[6] != icmpv6 || ip[7] != 255 || icmp[0] != solicitation || icmp[1] != 0 || bytes.Equal(src, make([]byte, 16)) {
		return nil, false
	}
	gw := dataplane.GatewayMAC
	reply = append(reply, frame[6:12]...)
	reply = append(reply, gw[:]...)
	reply = append(reply, frame[12:at+2]...)
	body := len(reply)
	reply = append(reply, 0x60, 0, 0, 0, 0, advertisedSize, icmpv6, 255)
	reply = append(append(reply, target...), src...)
	reply = append(reply, advertised, 0, 0, 0)
	reply = binary.BigEndian.AppendUint32(reply, naRouter|naSolicited|naOverride)
	reply = append(append(reply, target...), 2, 1) // option: target link-layer address, 8 octets
	reply = append(reply, gw[:]...)
	binary.BigEndian.PutUint16(reply[body+ipv6Header+2:], checksum(reply[body:]))
	return reply, true
}

// checksum is that of ICMPv6 in a packet without it (RFC 8200 §8.1).
func checksum(packet []byte) uint16 {
	sum := uint32(len(packet)-ipv6Header) + icmpv6
	for b := packet[8:]; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
