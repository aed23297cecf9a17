// SPDX-License-Identifier: Apache-2.0

package slab

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// slabModel drives a slab beside a Go map.
type slabModel struct {
	slab *Slab[uint16, int]
	pos  map[uint16]uint32
	val  map[uint16]int
	next int
	most int // items at once since it was last empty
}

func (m *slabModel) add(t *rapid.T, key uint16) {
	pos, added := m.slab.Add(key)
	old, have := m.pos[key]
	if added == have || have && pos != old {
		t.Fatalf("add(%d): position %d added %v, model has %d %v", key, pos, added, old, have)
	}
	if !added {
		return
	}
	if v := *m.slab.At(pos); v != 0 {
		t.Fatalf("add(%d): new value %d, want zero", key, v)
	}
	m.next++
	*m.slab.At(pos) = m.next
	m.pos[key], m.val[key] = pos, m.next
	m.most = max(m.most, len(m.pos))
}

func (m *slabModel) remove(key uint16) {
	pos, ok := m.pos[key]
	if !ok {
		return
	}
	m.slab.Remove(pos)
	delete(m.pos, key)
	delete(m.val, key)
	if len(m.pos) == 0 {
		m.most = 0
	}
}

// check compares everything with the model.
func (m *slabModel) check(t *rapid.T) {
	s := m.slab
	if s.count != len(m.pos) || int(s.end) != m.most {
		t.Fatalf("%d items to position %d, want %d items to position %d", s.count, s.end, len(m.pos), m.most)
	}
	if s.count >= len(s.slots) {
		t.Fatalf("%d items in %d slots", s.count, len(s.slots))
	}
	for key, pos := range m.pos {
		got, ok := s.Find(key)
		if !ok || got != pos || s.Key(pos) != key || *s.At(pos) != m.val[key] || !s.Live(pos) {
			t.Fatalf("find(%d): %d %v, want %d", key, got, ok, pos)
		}
	}
	live := 0
	for pos := range s.end + chunkSize {
		if s.Live(pos) {
			live++
		}
	}
	if live != len(m.pos) {
		t.Fatalf("%d positions in use, want %d", live, len(m.pos))
	}
}

func TestSlabBehavesLikeMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &slabModel{slab: New[uint16, int](), pos: map[uint16]uint32{}, val: map[uint16]int{}}
		keys := rapid.Uint16Range(0, 400)
		t.Repeat(map[string]func(*rapid.T){
			"add":    func(t *rapid.T) { m.add(t, keys.Draw(t, "key")) },
			"remove": func(t *rapid.T) { m.remove(keys.Draw(t, "key")) },
			"add many": func(t *rapid.T) {
				from := keys.Draw(t, "from")
				for key := from; key < from+rapid.Uint16Range(1, 300).Draw(t, "many"); key++ {
					m.add(t, key)
				}
			},
			"remove many": func(t *rapid.T) {
				from, to := keys.Draw(t, "from"), keys.Draw(t, "to")
				for key := from; key < to; key++ {
					m.remove(key)
				}
			},
			"absent": func(t *rapid.T) {
				if _, ok := m.slab.Find(rapid.Uint16Range(1000, 1010).Draw(t, "key")); ok {
					t.Fatal("found a key that was never added")
				}
			},
			"": m.check,
		})
	})
}

func TestEmptySlabIsSmall(t *testing.T) {
	t.Parallel()
	s := New[int, struct{}]()
	const n = 10000
	for i := range n {
		s.Add(i)
	}
	for pos := range uint32(n) {
		s.Remove(pos)
	}
	if s.chunks != nil || s.end != 0 || s.free != 0 || len(s.slots) > 64 {
		t.Errorf("an empty slab keeps %d chunks, %d slots, end %d, free %d", len(s.chunks), len(s.slots), s.end, s.free)
	}
}

func TestSlabReusesPositionsLastFreedFirst(t *testing.T) {
	t.Parallel()
	s := New[string, int]()
	for _, k := range []string{"a", "b", "c"} {
		s.Add(k)
	}
	s.Remove(0)
	s.Remove(1)
	var got []uint32
	for _, k := range []string{"d", "e", "f"} {
		pos, _ := s.Add(k)
		got = append(got, pos)
	}
	if diff := cmp.Diff([]uint32{1, 0, 3}, got); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
}

// Among 300,000 keys some twenty pairs share all 31 bits of their hash.
func TestSlabTellsKeysOfEqualHashApart(t *testing.T) {
	t.Parallel()
	s := New[int, int]()
	const n = 300_000
	for key := range n {
		if pos, added := s.Add(key); added {
			*s.At(pos) = key
		}
	}
	wrong := 0
	for key := range n {
		if pos, ok := s.Find(key); !ok || *s.At(pos) != key {
			wrong++
		}
	}
	if s.count != n || wrong != 0 {
		t.Errorf("%d items, %d keys at another's position; want %d and none", s.count, wrong, n)
	}
}
