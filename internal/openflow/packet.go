// SPDX-License-Identifier: Apache-2.0

package openflow

import "context"

// PortController is where a flow sends packets to whoever receives them.
const PortController uint32 = 0xfffffffd

// PacketIn is a packet that a flow sent to PortController.
type PacketIn struct {
	Cookie uint64
	InPort uint32
	Data   []byte // from the Ethernet header on
}

// PacketOut has the switch send a packet out of a port.
type PacketOut struct {
	Port uint32
	Data []byte
}

const (
	typeSetConfig = 9
	typePacketIn  = 10
	typePacketOut = 13
	typeSetAsync  = 28
)

// maxPackets bounds the packets that wait for who receives them; more are dropped.
const maxPackets = 256

func (p PacketOut) encode(b []byte, xid uint32) []byte {
	start := len(b)
	b = be.AppendUint32(header(b, typePacketOut, xid), noBuffer)
	actions := Actions("").Output(p.Port)
	b = append(be.AppendUint16(b, uint16(len(actions))), 0, 0)
	b = NewMatch(Is(InPort, uint64(PortController))).append(b)
	return finish(append(append(b, actions...), p.Data...), start)
}

// wholePackets asks for packets uncut (OFPT_SET_CONFIG).
type wholePackets struct{}

func (wholePackets) encode(b []byte, xid uint32) []byte {
	start := len(b)
	return finish(append(header(b, typeSetConfig, xid), 0, 0, 0xff, 0xff), start)
}

// packetsOfFlows asks for packets that flows send, for whatever reason (OFPT_SET_ASYNC,
// OFPACPT_PACKET_IN_MASTER).
type packetsOfFlows struct{}

func (packetsOfFlows) encode(b []byte, xid uint32) []byte {
	start := len(b)
	return finish(append(header(b, typeSetAsync, xid), 0, 1, 0, 8, 0, 0, 0, 0x3f), start)
}

// Receive has the switch send the packets of PortController, and calls handle for each,
// one after the other, until the connection ends.
func (c *Conn) Receive(ctx context.Context, handle func(PacketIn)) error {
	packets := make(chan PacketIn, maxPackets)
	c.mu.Lock()
	c.packets = packets
	c.mu.Unlock()
	go func() {
		for {
			select {
			case p := <-packets:
				handle(p)
			case <-c.done:
				return
			}
		}
	}()
	messages := []Message{wholePackets{}, packetsOfFlows{}}
	errs := make([]error, len(messages))
	if err := c.Exec(ctx, messages, errs); err != nil {
		return err
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver gives a packet to who receives them. It runs with c.mu held.
func (c *Conn) deliver(body []byte) {
	if c.packets == nil {
		return
	}
	p, err := parsePacketIn(body)
	if err != nil {
		return
	}
	select {
	case c.packets <- p:
	default:
	}
}

// parsePacketIn reads the body of a message.
func parsePacketIn(b []byte) (p PacketIn, err error) {
	const fixed = 16 // buffer_id, total_len, reason, table_id, cookie
	if len(b) < fixed {
		return p, errShort
	}
	p.Cookie = be.Uint64(b[8:])
	m, rest, err := parseMatch(b[fixed:])
	if err != nil {
		return p, err
	}
	if len(rest) < 2 {
		return p, errShort
	}
	port, _ := m.Value(InPort)
	p.InPort, p.Data = uint32(port), rest[2:]
	return p, nil
}
