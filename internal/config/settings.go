// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"time"
)

// Settings are the options that each neighbour has.
type Settings struct {
	// Description is text for the operator.
	Description string
	// PeerAS is the neighbour's AS number; a session with another AS than ours
	// is an external one (RFC 4271 §1.1).
	PeerAS uint32
	// Shutdown keeps the neighbour down until the operator enables it.
	Shutdown bool
	// Password is the key of TCP-MD5 signatures (RFC 2385), at most 80 octets;
	// "" is none.
	Password Secret
	// TTLSecurity is how many hops away the neighbour may be, 1 to 254 (GTSM,
	// RFC 5082); 0 turns the check off.
	TTLSecurity uint8
	// Device is the interface that the session is bound to; "" is any.
	Device string
	// Families are in order of their values, none twice. RTC is not among them
	// when BGP.EnableRTC is off.
	Families []Family
	// HoldTime is what we propose (RFC 4271 §4.2); 0 means no keepalives.
	HoldTime time.Duration
	// ConnectRetryTime is the ConnectRetryTimer's start value (RFC 4271 §8).
	ConnectRetryTime time.Duration
	// MaxPrefixes bounds the routes of each family; 0 is no bound.
	MaxPrefixes uint32
	// MaxPrefixesWarning is the percentage of MaxPrefixes that is warned about.
	MaxPrefixesWarning uint8
	// MaxPrefixesPause is how long the neighbour stays down beyond MaxPrefixes;
	// 0 means until the operator enables it.
	MaxPrefixesPause time.Duration
	// AllowOwnAS is how often our AS may be in the AS_PATH of a route.
	AllowOwnAS uint8
	// IrrelevantRoutes tells what becomes of routes that no VPN imports.
	IrrelevantRoutes IrrelevantRoutes
	// Restart configures graceful restart.
	Restart Restart
	// BFD configures the watch of the path to the neighbour.
	BFD BFD
}

// Restart configures graceful restart (RFC 4724).
type Restart struct {
	Mode RestartMode
	// Time is how long neighbours keep our routes, in RestartFull.
	Time time.Duration
	// StaleTime is how long stale routes wait for End-of-RIB once the neighbour
	// is back.
	StaleTime time.Duration
	// LongLivedTime bounds the times of long-lived graceful restart (RFC 9494);
	// 0 turns it off.
	LongLivedTime time.Duration
	// Notification keeps routes after NOTIFICATIONs, too (RFC 8538).
	Notification bool
}

// BFD configures a BFD session (RFC 5880).
type BFD struct {
	Mode BFDMode
	// MinTx is the time between packets that we would like to send, MinRx the
	// one that we can receive.
	MinTx, MinRx time.Duration
	// Multiplier is for how many intervals the neighbour waits for a packet.
	Multiplier uint8
	// MinTTL is the lowest TTL of received packets, in BFDMultihop.
	MinTTL uint8
}

// hidden stands for a secret wherever one would be shown.
const hidden = "***"

// Secret is text that is not to be shown. All of fmt, log/slog and
// encoding/json show "***"; only a conversion to string gives the text.
type Secret string

// String returns "***", or "" when there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString returns what String does, quoted.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText returns what String does.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Family is an address family that a session may carry.
type Family uint8

// Address families, in the order in which they are offered.
const (
	FamilyVPNv4         Family = iota // RFC 4364
	FamilyVPNv6                       // RFC 4659
	FamilyEVPN                        // RFC 7432
	FamilyFlowSpecVPNv4               // RFC 8955 §8
	FamilyFlowSpecVPNv6               // RFC 8956
	FamilyRTC                         // RFC 4684
)

var familyNames = []string{"vpnv4", "vpnv6", "evpn", "flowspec-vpnv4", "flowspec-vpnv6", "rtc"}

// String returns the name that the file has for the family, e.g. "vpnv4".
func (f Family) String() string { return choiceName(familyNames, uint8(f)) }

// IrrelevantRoutes tells what becomes of routes that no VPN imports.
type IrrelevantRoutes uint8

// What becomes of irrelevant routes.
const (
	// IrrelevantAuto drops them where the neighbour has route refresh, so that
	// they can be asked for again, and no RT constraint.
	IrrelevantAuto IrrelevantRoutes = iota
	// IrrelevantKeep keeps them.
	IrrelevantKeep
	// IrrelevantDrop drops them where the neighbour has route refresh.
	IrrelevantDrop
)

var irrelevantNames = []string{"auto", "keep", "drop"}

// String returns the value as the file has it, e.g. "auto".
func (r IrrelevantRoutes) String() string { return choiceName(irrelevantNames, uint8(r)) }

// RestartMode is the part we take in graceful restart.
type RestartMode uint8

// Parts in graceful restart.
const (
	// RestartOff is no part.
	RestartOff RestartMode = iota
	// RestartHelper keeps the routes of a neighbour that restarts, and asks it
	// to keep none of ours.
	RestartHelper
	// RestartFull asks neighbours to keep our routes, too.
	RestartFull
)

var restartNames = []string{"off", "helper", "full"}

// String returns the value as the file has it, e.g. "helper".
func (m RestartMode) String() string { return choiceName(restartNames, uint8(m)) }

// BFDMode is the kind of a BFD session.
type BFDMode uint8

// Kinds of BFD sessions.
const (
	BFDOff       BFDMode = iota // none
	BFDSingleHop                // RFC 5881
	BFDMultihop                 // RFC 5883
)

var bfdNames = []string{"off", "single-hop", "multihop"}

// String returns the value as the file has it, e.g. "single-hop".
func (m BFDMode) String() string { return choiceName(bfdNames, uint8(m)) }

// choiceName returns the name of value v, or its number when it has none.
func choiceName(names []string, v uint8) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%d", v)
}
