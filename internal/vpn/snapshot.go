// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// Snapshot is the state of an instance for people, metrics and tests.
type Snapshot struct {
	Imports, Exports []wire.RT
	Description      json.RawMessage // nil when not set
	Fallback         *Fallback
	Readvertise      Readvertise
	Attract          Attract
	Endpoints        []EndpointInfo // by port, MAC, address
	// GatewayPort is the device of an EVI where VRF, by its id, is plugged in; both may be empty.
	GatewayPort, VRF string
}

// EndpointInfo is one endpoint of a Snapshot.
type EndpointInfo struct {
	Port      string
	MAC       ethernet.MAC
	IP        netip.Prefix // invalid for a wildcard endpoint
	Label     uint32       // MPLS label of a VRF, VNI of an EVI
	LocalPref uint32       // 0 when not set
	RD        wire.RD      // of its own if it has one, else the instance's
	Direction dataplane.Direction
	// MobilitySeq is the MAC mobility sequence number announced.
	MobilitySeq uint32
	Description json.RawMessage
}

// Snapshot returns the state of the instance.
func (i *Instance) Snapshot() Snapshot {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := Snapshot{Imports: i.imports, Exports: i.exports, Description: i.description, Fallback: i.fallback, Readvertise: i.chain.readvertise, Attract: i.chain.attract}
	if i.join != nil {
		s.GatewayPort, s.VRF = i.join.eviPort, i.join.vrf
	}
	for _, e := range i.endpoints {
		m := i.macs[e.MAC]
		info := EndpointInfo{
			Port: e.Port, MAC: e.MAC, IP: e.IP, Label: e.label, LocalPref: e.LocalPref, RD: i.RD,
			Direction: e.Direction, MobilitySeq: m.seq, Description: e.Description,
		}
		switch {
		case e.ownRD:
			info.RD = wire.MakeRD(i.m.RouterID, uint16(e.rdNumber))
		case e.hasChainRD:
			info.RD = wire.MakeRD(i.m.RouterID, uint16(e.chainRD))
		}
		if i.Type == dataplane.EVPN {
			info.Label = i.VNI
		}
		s.Endpoints = append(s.Endpoints, info)
	}
	slices.SortFunc(s.Endpoints, func(a, b EndpointInfo) int {
		switch {
		case a.Port != b.Port:
			if a.Port < b.Port {
				return -1
			}
			return 1
		case a.MAC != b.MAC:
			return slices.Compare(a.MAC[:], b.MAC[:])
		}
		return a.IP.Addr().Compare(b.IP.Addr())
	})
	return s
}

// Endpoints returns the number of endpoints. It does not wait for a driver.
func (i *Instance) Endpoints() int { return int(i.count.Load()) }

// Routes returns what the instance received and what is best, by entry.
func (i *Instance) Routes() []rib.TablePaths {
	i.mu.Lock()
	t := i.table
	i.mu.Unlock()
	if t == nil {
		return nil
	}
	return t.Entries()
}

// Announced returns the routes that the instance announces.
func (i *Instance) Announced() []rib.Path { return i.m.rib.Paths(rib.FromSource(i.Name)) }

// Readvertised returns the routes of others among them: those that bring traffic to the
// endpoints, and FlowSpec.
func (i *Instance) Readvertised() []rib.Path {
	ours := rib.FromSource(i.Name)
	return i.m.rib.Paths(func(p rib.Path) bool { return p.Apart && ours(p) })
}

// Forwarding returns the instance's forwarding state; nil while it is being created. It
// does not wait for a driver.
func (i *Instance) Forwarding() *dataplane.Forwarding { return i.plane.Load() }
