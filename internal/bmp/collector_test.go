// SPDX-License-Identifier: Apache-2.0

package bmp

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	codec "github.com/osrg/gobgp/v4/pkg/packet/bmp"
)

// collector is a monitoring station. It notes each message as a line.
type collector struct {
	testing.TB
	mu       sync.Mutex
	lines    []string
	messages []*codec.BMPMessage
	octets   int
}

// read reads messages until the connection ends.
func (c *collector) read(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<16)
	for {
		head, err := in.Peek(codec.BMP_HEADER_SIZE)
		if err != nil {
			return err
		}
		var h codec.BMPHeader
		if err := h.DecodeFromBytes(head); err != nil {
			c.Error(err)
			return err
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(in, b); err != nil {
			return err
		}
		c.add(b)
	}
}

// add decodes a message, and checks that encoding it gives the same octets.
func (c *collector) add(b []byte) {
	var opts []*bgp.MarshallingOption
	m, err := codec.ParseBMPMessageWithOptions(b, func(h codec.BMPPeerHeader) []*bgp.MarshallingOption {
		opts = []*bgp.MarshallingOption{{Use2ByteAS: h.Flags&codec.BMP_PEER_FLAG_TWO_AS != 0, ExtendedMessage: true}}
		return opts
	})
	if err != nil {
		c.Errorf("%v in %x", err, b)
		return
	}
	if again, err := m.Serialize(opts...); err != nil || !bytes.Equal(timeless(again), timeless(b)) {
		c.Errorf("message does not survive: %v\n%x\n%x", err, b, again)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines, c.messages, c.octets = append(c.lines, lineOf(c, m)), append(c.messages, m), c.octets+len(b)
}

// timeless returns a message without its time, of which the codec does not give
// back the same octets.
func timeless(b []byte) []byte {
	b = bytes.Clone(b)
	if typ := b[5]; typ != codec.BMP_MSG_INITIATION && typ != codec.BMP_MSG_TERMINATION {
		clear(b[40:48])
	}
	return b
}

// take returns the lines that came since the last take.
func (c *collector) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lines
	c.lines = nil
	return l
}

// want compares the new lines with those expected.
func (c *collector) want(what string, want ...string) {
	c.Helper()
	if diff := cmp.Diff(want, c.take()); diff != "" {
		c.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// last returns the last message of a type.
func (c *collector) last(typ uint8) *codec.BMPMessage {
	c.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range slices.Backward(c.messages) {
		if m.Header.Type == typ {
			return m
		}
	}
	c.Fatalf("no message of type %d", typ)
	return nil
}

// lineOf describes a message.
func lineOf(t testing.TB, m *codec.BMPMessage) string {
	peer := m.PeerHeader.PeerAddress.String()
	switch b := m.Body.(type) {
	case *codec.BMPInitiation:
		return fmt.Sprintf("initiation %q %q", b.Info[0].(*codec.BMPInfoTLVString).Value, b.Info[1].(*codec.BMPInfoTLVString).Value)
	case *codec.BMPTermination:
		s := fmt.Sprintf("termination %d", b.Info[0].(*codec.BMPTermTLV16).Value)
		for _, i := range b.Info[1:] {
			s += fmt.Sprintf(" %q", i.(*codec.BMPTermTLVString).Value)
		}
		return s
	case *codec.BMPPeerUpNotification:
		return peer + " up"
	case *codec.BMPPeerDownNotification:
		s := fmt.Sprintf("%s down %d", peer, b.Reason)
		if b.BGPNotification != nil {
			n := b.BGPNotification.Body.(*bgp.BGPNotification)
			return s + fmt.Sprintf(" %d/%d %x", n.ErrorCode, n.ErrorSubcode, n.Data)
		}
		return s + fmt.Sprintf(" %x", b.Data)
	case *codec.BMPStatisticsReport:
		return peer + " statistics"
	case *codec.BMPRouteMonitoring:
		return peer + updateLine(t, b.BGPUpdate.Body.(*bgp.BGPUpdate))
	}
	return fmt.Sprintf("type %d", m.Header.Type)
}

// updateLine describes an UPDATE.
func updateLine(t testing.TB, u *bgp.BGPUpdate) string {
	if eor, f := u.IsEndOfRib(); eor {
		return " end of " + f.String()
	}
	s := ""
	for _, a := range u.PathAttributes {
		switch a := a.(type) {
		case *bgp.PathAttributeMpReachNLRI:
			s = " +" + names(t, a.Value) + s
		case *bgp.PathAttributeMpUnreachNLRI:
			s = " -" + names(t, a.Value) + s
		case *bgp.PathAttributeLocalPref:
			s += fmt.Sprintf(" pref %d", a.Value)
		}
	}
	return s
}

// names lists routes: "m<n>" for those of macRoute, else the octets. Five and more
// are counted.
func names(t testing.TB, all []bgp.PathNLRI) string {
	if len(all) > 4 {
		return fmt.Sprintf("(%d)", len(all))
	}
	var out []string
	for _, p := range all {
		b, err := p.NLRI.Serialize()
		if err != nil {
			t.Error(err)
		}
		name := hex.EncodeToString(b)
		if e, ok := p.NLRI.(*bgp.EVPNNLRI); ok {
			mac := e.RouteTypeData.(*bgp.EVPNMacIPAdvertisementRoute).MacAddress
			name = fmt.Sprintf("m%d", int(mac[3])<<16|int(mac[4])<<8|int(mac[5]))
		}
		out = append(out, name)
	}
	return strings.Join(out, ",")
}
