// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Group types.
const (
	groupAll    = 0
	groupSelect = 1
)

// The Netronome extension that carries the selection method of a group.
const (
	netronome       = 0x154d
	selectionMethod = 1
	methodLen       = 16
)

// Bucket is one choice of a group.
type Bucket struct {
	ID      uint32
	Actions Actions
}

// Group sends each packet through one of its buckets ("select"), or a copy
// through each ("all").
type Group struct {
	ID  uint32
	All bool
	// Method is "dp_hash", "hash" or empty for the switch's own choice.
	Method string
	// Param is the parameter of the method: for dp_hash, which hash and its seed.
	Param uint64
	// Fields are what "hash" hashes; all of the flow when empty.
	Fields  []Field
	Buckets []Bucket
}

// Equal tells whether two groups are the same.
func (g Group) Equal(o Group) bool {
	return g.ID == o.ID && g.All == o.All && g.Method == o.Method && g.Param == o.Param &&
		slices.Equal(g.Fields, o.Fields) && slices.Equal(g.Buckets, o.Buckets)
}

// String returns the group as ovs-ofctl writes it.
func (g Group) String() string {
	var b strings.Builder
	typ := "select"
	if g.All {
		typ = "all"
	}
	fmt.Fprintf(&b, "group_id=%d,type=%s", g.ID, typ)
	if g.Method != "" {
		fmt.Fprintf(&b, ",selection_method=%s", g.Method)
	}
	if g.Param != 0 {
		fmt.Fprintf(&b, ",selection_method_param=%d", g.Param)
	}
	if len(g.Fields) > 0 {
		names := make([]string, len(g.Fields))
		for i, f := range g.Fields {
			names[i] = f.action()
		}
		fmt.Fprintf(&b, ",fields(%s)", strings.Join(names, ","))
	}
	for _, k := range g.Buckets {
		fmt.Fprintf(&b, ",bucket=bucket_id:%d,actions=%s", k.ID, k.Actions)
	}
	return b.String()
}

// Group-mod commands. Adding or replacing is an extension of Open vSwitch.
const (
	groupDelete   = 2
	groupAddOrMod = 0x8000
)

// SetGroup adds a group, or replaces the one with the same id.
type SetGroup Group

// DeleteGroup deletes a group and the flows that point to it.
type DeleteGroup struct{ ID uint32 }

func (g SetGroup) encode(b []byte, xid uint32) []byte {
	start := len(b)
	typ := uint8(groupSelect)
	if g.All {
		typ = groupAll
	}
	b = groupMod(b, xid, groupAddOrMod, typ, g.ID)
	array := len(b)
	for _, k := range g.Buckets {
		bucket := len(b)
		b = be.AppendUint16(b, uint16(8+len(k.Actions)))
		b = be.AppendUint16(b, uint16(len(k.Actions)))
		b = be.AppendUint32(b, k.ID)
		b = append(b, k.Actions...)
		if !g.All {
			b = append(b, 0, 0, 0, 8, 0, 1, 0, 0) // OFPGBPT_WEIGHT: 1
			be.PutUint16(b[bucket:], uint16(len(b)-bucket))
		}
	}
	be.PutUint16(b[start+16:], uint16(min(len(b)-array, maxMessage)))
	if g.Method != "" {
		b = g.appendMethod(b)
	}
	return finish(b, start)
}

func (g SetGroup) appendMethod(b []byte) []byte {
	prop := len(b)
	b = append(b, 0xff, 0xff, 0, 0)
	b = be.AppendUint32(b, netronome)
	b = be.AppendUint32(b, selectionMethod)
	b = append(b, 0, 0, 0, 0)
	var name [methodLen]byte
	copy(name[:methodLen-1], g.Method)
	b = append(b, name[:]...)
	b = be.AppendUint64(b, g.Param)
	for _, f := range g.Fields {
		size := int(fields[f].size)
		b = append(f.oxm(b, false, size), bytes.Repeat([]byte{0xff}, size)...)
	}
	be.PutUint16(b[prop+2:], uint16(len(b)-prop))
	return pad(b, prop)
}

func (g DeleteGroup) encode(b []byte, xid uint32) []byte {
	start := len(b)
	return finish(groupMod(b, xid, groupDelete, groupAll, g.ID), start)
}

func groupMod(b []byte, xid uint32, command uint16, typ uint8, id uint32) []byte {
	b = header(b, typeGroupMod, xid)
	b = be.AppendUint16(b, command)
	b = append(b, typ, 0)
	b = be.AppendUint32(b, id)
	b = append(b, 0, 0, 0, 0)           // length of the buckets
	return be.AppendUint32(b, groupAny) // OFPG_BUCKET_ALL is the same number
}

// parseGroups reads the body of a reply. Groups of other types have no buckets here.
func parseGroups(b []byte, out []Group) ([]Group, error) {
	for len(b) > 0 {
		if len(b) < 16 {
			return out, errShort
		}
		n, array := int(be.Uint16(b)), int(be.Uint16(b[8:]))
		if n < 16 || n > len(b) || 16+array > n {
			return out, fmt.Errorf("group of %d octets with %d of buckets is not valid: want 16 to %d", n, array, len(b))
		}
		g := Group{ID: be.Uint32(b[4:])}
		if b[2] == groupSelect || b[2] == groupAll {
			g.All = b[2] == groupAll
			var err error
			if g.Buckets, err = parseBuckets(b[16 : 16+array]); err != nil {
				return out, err
			}
			if err := g.parseProperties(b[16+array : n]); err != nil {
				return out, err
			}
		}
		out = append(out, g)
		b = b[n:]
	}
	return out, nil
}

func parseBuckets(b []byte) (out []Bucket, err error) {
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, errShort
		}
		n, acts := int(be.Uint16(b)), int(be.Uint16(b[2:]))
		if n < 8 || n > len(b) || 8+acts > n {
			return nil, fmt.Errorf("bucket of %d octets with %d of actions is not valid: want 8 to %d", n, acts, len(b))
		}
		k := Bucket{ID: be.Uint32(b[4:])}
		if k.Actions, err = parseActions(b[8 : 8+acts]); err != nil {
			return nil, err
		}
		out = append(out, k)
		b = b[n:]
	}
	return out, nil
}

func (g *Group) parseProperties(b []byte) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return errShort
		}
		n := int(be.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return fmt.Errorf("group property of %d octets is not valid: want 4 to %d", n, len(b))
		}
		p := b[:n]
		b = b[min(padded(n), len(b)):]
		if be.Uint16(p) != 0xffff || n < 40 || be.Uint32(p[4:]) != netronome || be.Uint32(p[8:]) != selectionMethod {
			continue
		}
		name, _, _ := bytes.Cut(p[16:16+methodLen], []byte{0})
		g.Method, g.Param = string(name), be.Uint64(p[32:])
		for rest := p[40:]; len(rest) > 0; {
			tlv, more, err := cutOXM(rest)
			if err != nil {
				return err
			}
			rest = more
			if f := fieldOf(tlv); f < numFields {
				g.Fields = append(g.Fields, f)
			}
		}
	}
	return nil
}
