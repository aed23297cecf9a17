// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// A decoder takes any octets without panic, and what it took can be shown.
func FuzzFlows(f *testing.F) {
	for _, e := range everyFlow() {
		b := make([]byte, 24)
		b = e.flow.Match.append(b)
		b = append(b, 0, 0, 0, 16, 0x80, 0x02, 4<<1, 8, 0, 0, 0, 0, 0, 0, 0, 5)
		b = append(be.AppendUint16(append(b, 0, instApply), uint16(8+len(e.flow.Actions))), 0, 0, 0, 0)
		b = append(b, e.flow.Actions...)
		be.PutUint16(b, uint16(len(b)))
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		flows, _ := parseFlows(b, nil)
		for _, e := range flows {
			_ = e.String()
			e.Actions.NoteOf()
			e.Actions.GroupOf()
			e.Actions.DstMAC()
			e.Actions.Resubmits(1)
			e.Match.Value(Reg0)
		}
	})
}

func FuzzGroups(f *testing.F) {
	for _, g := range []Group{{ID: 1}, {ID: 7, Method: "hash", Fields: []Field{IPSrc}, Buckets: []Bucket{{ID: 3, Actions: Actions("").Output(2)}}}} {
		b := SetGroup(g).encode(nil, 1)
		array := int(be.Uint16(b[16:]))
		desc := append([]byte{0, 0, groupSelect, 0, 0, 0, 0, byte(g.ID), byte(array >> 8), byte(array), 0, 0, 0, 0, 0, 0}, b[24:]...)
		be.PutUint16(desc, uint16(len(desc)))
		f.Add(desc)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		groups, _ := parseGroups(b, nil)
		for _, g := range groups {
			_ = g.String()
		}
	})
}

func FuzzPorts(f *testing.F) {
	f.Add(make([]byte, 40))
	f.Fuzz(func(_ *testing.T, b []byte) {
		ports, _ := parsePorts(b, nil)
		for _, p := range ports {
			_ = p.String()
		}
	})
}

func FuzzPacketIn(f *testing.F) {
	b := append(make([]byte, 8), 0xba, 0x61, 0xbe, 0, 0, 0, 0, 1)
	f.Add(append(NewMatch(Is(InPort, 5)).append(b), 0, 0, 1, 2, 3))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parsePacketIn(b) })
}

// The whole client against a switch that answers anything: it ends with an
// error or an answer, in time.
func FuzzConn(f *testing.F) {
	hello := []byte{Version, 0, 0, 8, 0, 0, 0, 1}
	f.Add(append(bytes.Clone(hello), Version, typeBarrierReply, 0, 8, 0, 0, 0, 3))
	f.Add(append(bytes.Clone(hello), Version, typeError, 0, 12, 0, 0, 0, 2, 0, 2, 0, 4))
	f.Add(append(bytes.Clone(hello), Version, typeMultipartReply, 0, 16, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0))
	f.Add([]byte{1, 0, 0, 8, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, z := net.Pipe()
		go func() {
			go func() { // what the client says does not matter
				var buf [4096]byte
				for {
					if _, err := z.Read(buf[:]); err != nil {
						return
					}
				}
			}()
			_ = z.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = z.Write(b)
			_ = z.Close()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := greet(ctx, a)
		if err != nil {
			_ = a.Close()
			return
		}
		errs := make([]error, 1)
		_ = c.Exec(ctx, []Message{AddFlow{}}, errs)
		_, err = c.Flows(ctx, Filter{})
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no end: %v", err)
		}
		_ = c.Close()
	})
}
