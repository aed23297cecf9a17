// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"
)

// peerMessage is a message that another implementation sent.
type peerMessage struct {
	speaker string
	msg     []byte
}

// typ returns the message's type, body what is behind its header.
func (m peerMessage) typ() MsgType { return MsgType(m.msg[18]) }

func (m peerMessage) body() []byte { return m.msg[HeaderLen:] }

// external tells whether an UPDATE is of an eBGP session: it has no LOCAL_PREF.
func (m peerMessage) external() bool {
	attrs, _, _ := updateFields(m.body())
	types := attrTypesOf(attrs)
	return slices.Contains(types, attrASPath) && !slices.Contains(types, attrLocalPref)
}

// peerBodies returns the bodies of the messages of one type, as seeds.
func peerBodies(t testing.TB, typ MsgType) (all [][]byte) {
	t.Helper()
	for _, m := range peerMessages(t) {
		if m.typ() == typ {
			all = append(all, m.body())
		}
	}
	return all
}

// peerMessages reads the messages recorded from other implementations.
func peerMessages(t testing.TB) []peerMessage {
	t.Helper()
	b, err := os.ReadFile("testdata/peers.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []peerMessage
	for line := range strings.Lines(string(b)) {
		speaker, text, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			continue
		}
		msg, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, peerMessage{speaker, msg})
	}
	if len(all) < 200 {
		t.Fatalf("%d messages: want all of them", len(all))
	}
	return all
}

// What other implementations send is read without a fault.
func TestMessagesOfPeers(t *testing.T) {
	t.Parallel()
	for _, m := range peerMessages(t) {
		switch m.typ() {
		case MsgOpen:
			if _, err := ParseOpen(m.body()); err != nil {
				t.Errorf("%s, OPEN %x: %v", m.speaker, m.msg, err)
			}
		case MsgUpdate:
			rules := ibgp
			rules.External = m.external()
			if got := outcome(m.body(), rules); !strings.HasPrefix(got, "ok ") || strings.Contains(got, "skipped") {
				t.Errorf("%s, UPDATE %x: %s", m.speaker, m.msg, got)
			}
		case MsgNotification:
			if _, err := ParseNotification(m.body()); err != nil {
				t.Errorf("%s, NOTIFICATION %x: %v", m.speaker, m.msg, err)
			}
		case MsgRouteRefresh:
			if _, _, err := ParseRouteRefresh(m.body()); err != nil {
				t.Errorf("%s, ROUTE-REFRESH %x: %v", m.speaker, m.msg, err)
			}
		default:
			t.Errorf("%s sent a message of type %d", m.speaker, m.typ())
		}
	}
}
