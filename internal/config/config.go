// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Config is the configuration of the daemon, complete and valid: Load returns
// no other. It is read-only after Load.
type Config struct {
	Log    Log
	Common Common
	API    API
	BGP    BGP
	BMP    BMP
	IPVPN  IPVPN
	EVPN   EVPN
}

// Log says what is logged and where to.
type Log struct {
	// Debug lowers the level from info to debug.
	Debug bool
	// File is a path, relative to Dir unless absolute.
	File string
	// Dir is the directory of the log file.
	Dir string
	// JSON makes each line a JSON object.
	JSON bool
}

// Path returns the file to log to, or "" for the standard error stream. With
// only a directory configured, the file is named after the daemon.
func (l Log) Path() string {
	switch {
	case l.Dir == "":
		return l.File
	case l.File == "":
		return filepath.Join(l.Dir, "bagpipe-bgp.log")
	case filepath.IsAbs(l.File):
		return l.File
	}
	return filepath.Join(l.Dir, l.File)
}

// Common holds what concerns the daemon as a whole.
type Common struct {
	// SweepDelay is how long after start the forwarding state left by an
	// earlier run is kept before what nobody re-attached is removed.
	SweepDelay time.Duration
	// StateDirectory is where attachments are kept over a restart; empty for nowhere.
	StateDirectory string
	// CleanupOnStop is set when a stop removes the forwarding state.
	CleanupOnStop bool
}

// API is where the REST API listens, and to whom. Paths are absolute; "" is none.
type API struct {
	// Host is an address or a host name.
	Host string
	// Port is 0 to let the system choose.
	Port uint16
	// UnixSocket is listened at beside Host and Port.
	UnixSocket string
	// TLSCertificate and TLSKey are PEM files, both or none; with them, the
	// port takes TLS only.
	TLSCertificate, TLSKey string
	// TLSClientCA is a PEM file of what certificates of clients are signed with;
	// without it, clients need none.
	TLSClientCA string
	// TokenFile has the bearer tokens (RFC 6750), one a line, that clients of the
	// port need one of.
	TokenFile string
}

// Loopback tells whether the port can be reached from this host only.
func (a API) Loopback() bool {
	addr, err := netip.ParseAddr(a.Host)
	if err != nil {
		return strings.TrimSuffix(a.Host, ".") == "localhost"
	}
	return addr.Unmap().IsLoopback()
}

// Addr returns host and port in the form net.Listen takes.
func (a API) Addr() string {
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// BGP holds what the BGP speaker needs.
type BGP struct {
	// LocalAddress is the source of sessions.
	LocalAddress netip.Addr
	// RouterID is our BGP identifier, an IPv4 address (RFC 4271 §4.2).
	RouterID netip.Addr
	// MyAS is our AS number.
	MyAS uint32
	// Peers are those of the list in its order, then those that only have a
	// section, without two of one address.
	Peers []Peer
	// EnableRTC turns on RT constraint (RFC 4684).
	EnableRTC bool
	// Port is the TCP port of peers that have none of their own.
	Port uint16
	// Listen makes us accept connections at LocalAddress, ListenPort.
	Listen bool
	// ListenPort is 0 to let the system choose.
	ListenPort uint16
	// Groups are the neighbours that may connect without being in Peers, without
	// two of one prefix. It is empty unless Listen is set.
	Groups []Group
	// EVPNAcceptNoEncapsulation takes an EVPN route without Encapsulation
	// Extended Community as VXLAN.
	EVPNAcceptNoEncapsulation bool
	// Settings are the defaults of Peers and Groups, which have them already.
	Settings
}

// Peer is one configured BGP peer.
type Peer struct {
	// Host is the address or host name as the file gives it, without brackets.
	Host string
	// Addr is the address; for a host name, what it resolved to at load.
	Addr netip.Addr
	// Port is the TCP port to dial.
	Port uint16
	// Passive is set when we wait for the peer to connect to us.
	Passive bool
	Settings
}

// Group is the dynamic neighbours of a prefix. Where prefixes overlap, the
// longest that contains the neighbour's address counts.
type Group struct {
	Prefix netip.Prefix
	Settings
}

// BMP says which stations are told about BGP (RFC 7854).
type BMP struct {
	// Stations are in the order of the file, without two of one host and port.
	Stations []Station
	// ConnectRetryTime is the time between attempts to connect.
	ConnectRetryTime time.Duration
	// StatisticsInterval is the time between Statistics Reports; 0 is none.
	StatisticsInterval time.Duration
}

// Station is where a BMP station listens.
type Station struct {
	// Host is an address or a host name, without brackets.
	Host string
	Port uint16
}

// Addr returns host and port in the form net.Dial takes.
func (s Station) Addr() string {
	return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port)))
}

// Dataplane holds what the dataplanes of both VPN types have in common.
type Dataplane struct {
	// Driver is the canonical name of the driver.
	Driver string
	// LocalAddress is the next hop of our routes and the source of tunnels.
	LocalAddress netip.Addr
}

// IPVPN configures the dataplane of IP VPN instances.
type IPVPN struct {
	Dataplane
	// Encapsulations are those of drivers ebpf and linux, best first.
	Encapsulations []Encapsulation
	// DefaultEncapsulation is for routes that name none; driver ebpf.
	DefaultEncapsulation Encapsulation
	// UnderlayInterfaces are where packets of other nodes arrive; empty for the
	// device of LocalAddress. Driver ebpf.
	UnderlayInterfaces []string
	// VXLANDstPort is the UDP port of VXLAN; driver ebpf.
	VXLANDstPort uint16
	// AntiSpoofing drops what ports send from addresses that are not theirs; driver ebpf.
	AntiSpoofing bool
	// MaxRoutes bounds the routes of a VRF by IP version; driver ebpf.
	MaxRoutes uint32
	// MPLSInterface is the device for MPLS over Ethernet, "*gre*" or empty; drivers
	// ovs and linux.
	MPLSInterface string
	OVS           OVS
}

// OVS configures the driver ovs.
type OVS struct {
	Connection       string // of OVSDB, "tcp:address:port" or "unix:path"
	RunDir           string // of management sockets
	Bridge           string
	MPLSOverGRE      AutoBool
	ProxyARP         bool
	ARPResponder     bool
	VXLANEncap       bool
	InputTable       uint8
	TableStart       uint8
	GRETunnel        string
	GRETunnelOptions []string // "key=value"
	InterfacesMTU    uint32   // 0 leaves it
	HashMethod       HashMethod
	HashMethodParam  uint64
	HashFields       []string
}

// EVPN configures the dataplane of E-VPN instances.
type EVPN struct {
	Dataplane
	// VXLANDstPort is the UDP port of VXLAN; 0 means the kernel's default.
	VXLANDstPort uint16
}
