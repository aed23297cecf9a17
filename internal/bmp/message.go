// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	codec "github.com/osrg/gobgp/v4/pkg/packet/bmp"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// message is a BMP message; header is the per-peer header or nil.
type message struct {
	typ          uint8
	header, body []byte
}

// append appends the octets of m, with the common header (RFC 7854 §4.1).
func (m message) append(b []byte) []byte {
	b = append(b, codec.BMP_VERSION)
	b = binary.BigEndian.AppendUint32(b, uint32(codec.BMP_HEADER_SIZE+len(m.header)+len(m.body)))
	b = append(b, m.typ)
	return append(append(b, m.header...), m.body...)
}

// encode returns the octets of a body. What is encoded here always has a form on
// the wire: an error would be a fault of ours.
func encode(b codec.BMPBody) []byte {
	octets, err := b.Serialize()
	if err != nil {
		panic(err)
	}
	return octets
}

// initiation is the first message (RFC 7854 §4.3).
func initiation(sysName, sysDescr string) message {
	return message{typ: codec.BMP_MSG_INITIATION, body: encode(&codec.BMPInitiation{Info: []codec.BMPInfoTLVInterface{
		codec.NewBMPInfoTLVString(codec.BMP_INIT_TLV_TYPE_SYS_DESCR, sysDescr),
		codec.NewBMPInfoTLVString(codec.BMP_INIT_TLV_TYPE_SYS_NAME, sysName),
	}})}
}

// maxReason bounds the text of a Termination, in octets.
const maxReason = 1024

// termination is the last message (RFC 7854 §4.5).
func termination(cause error) message {
	info := []codec.BMPTermTLVInterface{codec.NewBMPTermTLV16(codec.BMP_TERM_TLV_TYPE_REASON, codec.BMP_TERM_REASON_ADMIN)}
	if cause != nil && !errors.Is(cause, context.Canceled) {
		text := cause.Error()
		text = strings.ToValidUTF8(text[:min(len(text), maxReason)], "")
		info = append(info, codec.NewBMPTermTLVString(codec.BMP_TERM_TLV_TYPE_STRING, text))
	}
	return message{typ: codec.BMP_MSG_TERMINATION, body: encode(&codec.BMPTermination{Info: info})}
}

// peerHeader returns the per-peer header of a session, without a time (RFC 7854
// §4.2).
func peerHeader(s *Session) []byte {
	flags := uint8(0)
	if !s.FourOctetAS {
		flags = codec.BMP_PEER_FLAG_TWO_AS
	}
	h := codec.NewBMPPeerHeader(codec.BMP_PEER_TYPE_GLOBAL, flags, 0, s.Peer.Unmap(), s.PeerAS, s.PeerID, 0)
	b, err := h.Serialize()
	if err != nil {
		panic(err)
	}
	return b
}

// stamp puts a time into a per-peer header; the zero time says that it is not
// known. The codec has it as a float and rounds up, to a full second at worst.
func stamp(header []byte, t time.Time) {
	at := header[codec.BMP_PEER_HEADER_SIZE-8:]
	if t.IsZero() {
		clear(at)
		return
	}
	binary.BigEndian.PutUint32(at, uint32(t.Unix()))
	binary.BigEndian.PutUint32(at[4:], uint32(t.Nanosecond()/1000))
}

// rawBody is the body of a BGP message that is sent as it is.
type rawBody []byte

// DecodeFromBytes implements bgp.BGPBody.
func (rawBody) DecodeFromBytes([]byte, ...*bgp.MarshallingOption) error {
	return errors.New("not for decoding")
}

// Serialize implements bgp.BGPBody.
func (b rawBody) Serialize(...*bgp.MarshallingOption) ([]byte, error) { return b, nil }

// rawMessage wraps a whole BGP message for the codec, which would not give back
// the same octets had it decoded them.
func rawMessage(octets []byte) *bgp.BGPMessage {
	return &bgp.BGPMessage{Header: bgp.BGPHeader{Type: octets[wire.HeaderLen-1]}, Body: rawBody(octets[wire.HeaderLen:])}
}

// peerUp tells of a session (RFC 7854 §4.10).
func peerUp(header []byte, s *Session) message {
	return message{codec.BMP_MSG_PEER_UP_NOTIFICATION, header, encode(&codec.BMPPeerUpNotification{
		LocalAddress: s.Local.Unmap(), LocalPort: s.LocalPort, RemotePort: s.PeerPort,
		SentOpenMsg: rawMessage(s.SentOpen), ReceivedOpenMsg: rawMessage(s.ReceivedOpen),
	})}
}

// fsmTCPConnectionFails is the FSM event of a connection that broke or that the
// peer closed (RFC 4271 §8.1.4, event 18).
const fsmTCPConnectionFails = 18

// peerDown tells how a session ended (RFC 7854 §4.9).
func peerDown(header []byte, l session.Loss) message {
	b := &codec.BMPPeerDownNotification{}
	switch {
	case l.Sent != nil:
		b.Reason, b.BGPNotification = codec.BMP_PEER_DOWN_REASON_LOCAL_BGP_NOTIFICATION, rawMessage(l.Sent.Message())
	case l.Received != nil:
		b.Reason, b.BGPNotification = codec.BMP_PEER_DOWN_REASON_REMOTE_BGP_NOTIFICATION, rawMessage(l.Received.Message())
	case l.FSMEvent == fsmTCPConnectionFails:
		b.Reason = codec.BMP_PEER_DOWN_REASON_REMOTE_NO_NOTIFICATION
	default:
		b.Reason, b.Data = codec.BMP_PEER_DOWN_REASON_LOCAL_NO_NOTIFICATION, binary.BigEndian.AppendUint16(nil, l.FSMEvent)
	}
	return message{codec.BMP_MSG_PEER_DOWN_NOTIFICATION, header, encode(b)}
}

// peerGone tells that a peer is not configured any more (RFC 7854 §4.9, reason 5).
func peerGone(header []byte) message {
	return message{codec.BMP_MSG_PEER_DOWN_NOTIFICATION, header, encode(&codec.BMPPeerDownNotification{Reason: codec.BMP_PEER_DOWN_REASON_PEER_DE_CONFIGURED})}
}

// statisticsReport has what is known of a peer (RFC 7854 §4.8): routes in its
// Adj-RIB-In, all and by family, and UPDATEs handled as withdrawals (RFC 7606).
func statisticsReport(header []byte, s *Session, routes map[wire.Family]int) message {
	total := uint64(0)
	for _, n := range routes {
		total += uint64(n)
	}
	stats := []codec.BMPStatsTLVInterface{codec.NewBMPStatsTLV64(codec.BMP_STAT_TYPE_ADJ_RIB_IN, total)}
	for _, f := range s.Families {
		stats = append(stats, codec.NewBMPStatsTLVPerAfiSafi64(codec.BMP_STAT_TYPE_PER_AFI_SAFI_ADJ_RIB_IN, f.AFI, f.SAFI, uint64(routes[f])))
	}
	stats = append(stats, codec.NewBMPStatsTLV32(codec.BMP_STAT_TYPE_WITHDRAW_UPDATE, uint32(s.TreatAsWithdraw)))
	return message{codec.BMP_MSG_STATISTICS_REPORT, header, encode(&codec.BMPStatisticsReport{Stats: stats})}
}
