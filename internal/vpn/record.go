// SPDX-License-Identifier: Apache-2.0

package vpn

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
	"github.com/bagpipe-vpn/bagpipe/internal/store"
)

// instanceRecord is what is kept of an instance over a restart: what was fixed when it was
// made, its identifiers, and what its last attachment said. Its fields are the format of the
// store: one that is renamed is lost.
type instanceRecord struct {
	ID          string
	Type        dataplane.VPNType
	Number, RD  uint32
	VNI         uint32
	OwnVNI      bool `json:",omitempty"`
	Gateway     netip.Addr
	PrefixLen   int    `json:",omitempty"`
	Bridge      string `json:",omitempty"`
	AdvertiseAs Advertise

	Imports, Exports []string
	Description      json.RawMessage `json:",omitempty"`
	Fallback         *Fallback       `json:",omitempty"`
	Chain            *chainRecord    `json:",omitempty"`
	Join             *joinRecord     `json:",omitempty"`
}

// chainRecord is kept of an instance that is a hop of a service chain.
type chainRecord struct {
	From, To  []string // of Readvertise
	Redirect  []string // and the following, of Attract
	AttractTo []string
	Static    []netip.Prefix
	Class     wire.Flow
	Text      json.RawMessage `json:",omitempty"`
	RelayRD   *uint32         `json:",omitempty"`
}

// joinRecord is kept of a VRF that an E-VPN instance is plugged into.
type joinRecord struct {
	EVI, EVIPort string
	Port         dataplane.Port
	Pair         bool
}

// endpointRecord is what is kept of an endpoint.
type endpointRecord struct {
	Instance        string
	Port            string
	OVS             dataplane.OVSPort
	MAC             ethernet.MAC
	IP              netip.Prefix
	AdvertiseSubnet bool `json:",omitempty"`
	Gateway         netip.Addr
	LocalPref       uint32 `json:",omitempty"`
	HashOrder       uint32 `json:",omitempty"`
	Direction       dataplane.Direction
	Description     json.RawMessage `json:",omitempty"`

	Label   uint32  `json:",omitempty"`
	RD      *uint32 `json:",omitempty"`
	ChainRD *uint32 `json:",omitempty"`
	// Mobility is the MAC mobility sequence number announced.
	Mobility uint32 `json:",omitempty"`
}

func (r *endpointRecord) key() endpointKey { return endpointKey{r.MAC, r.IP.Addr()} }

// Names of records. Ids may have any characters but NUL.
const (
	instancePrefix = "instance\x00"
	endpointPrefix = "endpoint\x00"
)

func instanceRecordName(id string) string { return instancePrefix + id }

func endpointRecordName(id string, k endpointKey) string {
	ip := ""
	if k.ip.IsValid() {
		ip = k.ip.String()
	}
	return strings.Join([]string{endpointPrefix + id, k.mac.String(), ip}, "\x00")
}

// record returns what is to be kept of the instance. It runs with i.mu held.
func (i *Instance) record() *instanceRecord {
	r := &instanceRecord{
		ID: i.ID, Type: i.Type, Number: i.Number, RD: i.rdNumber, VNI: i.VNI, OwnVNI: i.ownVNI, Gateway: i.Gateway, PrefixLen: i.PrefixLen,
		Bridge: i.Bridge, AdvertiseAs: i.AdvertiseAs, Imports: rtTexts(i.imports), Exports: rtTexts(i.exports),
		Description: i.description, Fallback: i.fallback,
	}
	if c := &i.chain; !c.readvertise.equal(Readvertise{}) || !c.attract.equal(Attract{}) || c.hasRelayRD {
		r.Chain = &chainRecord{
			From: rtTexts(c.readvertise.From), To: rtTexts(c.readvertise.To), Redirect: rtTexts(c.attract.Redirect), AttractTo: rtTexts(c.attract.To),
			Static: c.attract.Static, Class: c.attract.Class, Text: c.attract.Text, RelayRD: optional(c.relayRD, c.hasRelayRD),
		}
	}
	i.m.mu.Lock()
	defer i.m.mu.Unlock()
	if j := i.m.joins[i.ID]; j != nil {
		r.Join = &joinRecord{EVI: j.evi, EVIPort: j.eviPort, Port: j.port, Pair: j.pair}
	}
	return r
}

// recordOf returns what is to be kept of an endpoint. It runs with i.mu held.
func (i *Instance) recordOf(e *endpoint) *endpointRecord {
	return &endpointRecord{
		Instance: i.ID, Port: e.Port, OVS: e.OVS, MAC: e.MAC, IP: e.IP, AdvertiseSubnet: e.AdvertiseSubnet, Gateway: e.Gateway,
		LocalPref: e.LocalPref, HashOrder: e.HashOrder, Direction: e.Direction, Description: e.Description,
		Label: e.label, RD: optional(e.rdNumber, e.ownRD), ChainRD: optional(e.chainRD, e.hasChainRD), Mobility: i.macs[e.MAC].seq,
	}
}

func optional(n uint32, has bool) *uint32 {
	if !has {
		return nil
	}
	return &n
}

func rtTexts(rts []wire.RT) []string {
	var out []string
	for _, rt := range rts {
		out = append(out, rt.String())
	}
	return out
}

func parseRTs(list []string) (out []wire.RT, err error) {
	for _, s := range list {
		rt, err := wire.ParseRT(s)
		if err != nil {
			return nil, err
		}
		out = append(out, rt)
	}
	return out, nil
}

// attachment returns what the last attachment said of the instance.
func (r *instanceRecord) attachment() (a Attachment, err error) {
	a = Attachment{
		Type: r.Type, InstanceID: r.ID, Gateway: r.Gateway, Bridge: r.Bridge, AdvertiseAs: r.AdvertiseAs,
		InstanceDescription: r.Description, Fallback: r.Fallback,
	}
	lists := []struct {
		to   *[]wire.RT
		from []string
	}{{&a.Imports, r.Imports}, {&a.Exports, r.Exports}}
	if c := r.Chain; c != nil {
		a.Readvertise, a.Attract = &Readvertise{}, &Attract{Static: c.Static, Class: c.Class, Text: c.Text}
		lists = append(lists, []struct {
			to   *[]wire.RT
			from []string
		}{{&a.Readvertise.From, c.From}, {&a.Readvertise.To, c.To}, {&a.Attract.Redirect, c.Redirect}, {&a.Attract.To, c.AttractTo}}...)
	}
	for _, l := range lists {
		if *l.to, err = parseRTs(l.from); err != nil {
			return a, err
		}
	}
	return a, nil
}

// with returns the attachment of an endpoint of the instance that shared is about.
func (r *endpointRecord) with(shared Attachment) Attachment {
	a := shared
	a.Port, a.OVS, a.MAC, a.IP, a.AdvertiseSubnet, a.Gateway = r.Port, r.OVS, r.MAC, r.IP, r.AdvertiseSubnet, r.Gateway
	a.LocalPref, a.HashOrder, a.Direction, a.Description = r.LocalPref, r.HashOrder, r.Direction, r.Description
	return a
}

// change returns the change of the store that keeps a record.
func change(name string, record any) store.Change {
	b, err := json.Marshal(record)
	if err != nil { // text of requests, which was JSON when it came
		panic(fmt.Sprintf("record %q: %v", name, err))
	}
	return store.Change{Name: name, Value: b}
}

// decode reads a record, which must have no fields that are not known.
func decode(b []byte, record any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(record)
}

// unkept is the wait for what nobody keeps.
func unkept(context.Context) {}

// keep has the store keep the instance and its endpoints that have changed, and forget those that
// have left. It returns the wait for that, and runs with i.mu held.
func (i *Instance) keep(changed ...*endpoint) (wait func(context.Context)) {
	left := i.left
	for _, k := range i.changed {
		if e := i.endpoints[k]; e != nil {
			changed = append(changed, e)
		}
	}
	i.left, i.changed, i.unkept = nil, nil, false
	if i.m.Store == nil || i.ended && !i.stored {
		return unkept
	}
	i.stored = true
	var changes []store.Change
	for _, k := range left {
		changes = append(changes, store.Change{Name: endpointRecordName(i.ID, k)})
	}
	if i.ended {
		return i.m.Store.Stage(append(changes, store.Change{Name: instanceRecordName(i.ID)})...)
	}
	changes = append(changes, change(instanceRecordName(i.ID), i.record()))
	for _, e := range changed {
		changes = append(changes, change(endpointRecordName(i.ID, keyOf(e.Attachment)), i.recordOf(e)))
	}
	return i.m.Store.Stage(changes...)
}
