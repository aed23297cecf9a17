// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"unicode"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/bmp"
)

// stations returns the state of the BMP stations.
func (s *Server) stations() []bmp.Status {
	if s.Monitoring == nil {
		return nil
	}
	return s.Monitoring()
}

// heldDownReason is the label of what keeps a peer down, "" when nothing does.
func heldDownReason(st session.Status) string {
	switch st.Hold {
	case session.ByOperator:
		return reasonOperator
	case session.TooManyRoutes:
		return reasonMaxPrefixes
	case session.NotHeld:
	}
	return ""
}

// codeLabels names the error codes of NOTIFICATIONs (RFC 4271 §4.5, RFC 7313 §5).
var codeLabels = map[uint8]string{
	wire.CodeHeader: "message_header", wire.CodeOpen: "open", wire.CodeUpdate: "update", wire.CodeHold: "hold_timer",
	wire.CodeFSM: "fsm", wire.CodeCease: "cease", wire.CodeRefresh: "route_refresh",
}

// otherCode is the label of all other codes, which come from peers only.
const otherCode = "other"

// byCode turns counts of error codes into counts of labels; all labels are there.
func byCode(counts map[uint8]uint64) map[string]uint64 {
	m := map[string]uint64{otherCode: 0}
	for _, label := range codeLabels {
		m[label] = 0
	}
	for code, n := range counts {
		label := codeLabels[code]
		if label == "" {
			label = otherCode
		}
		m[label] += n
	}
	return m
}

// classLabels names the classes of faults (RFC 7606 §2).
var classLabels = map[wire.Class]string{
	wire.AttributeDiscard: "attribute_discard", wire.TreatAsWithdraw: "treat_as_withdraw",
	wire.DisableFamily: "afi_safi_disable", wire.SessionReset: "session_reset",
}

// printable replaces what a terminal could take for a command in text that a
// peer sent (RFC 9003 §6).
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
