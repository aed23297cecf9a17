// SPDX-License-Identifier: Apache-2.0

package dataplane

// places holds the desired entries of remote origin by their place (Change.At).
type places struct {
	chunks []*[placeChunk]placed
	count  int
}

type placed struct {
	key   key // of kind 0: nothing
	value value
}

const (
	placeBits  = 5
	placeChunk = 1 << placeBits
)

// at returns what is at a place.
func (p *places) at(n uint32) *placed {
	for int(n>>placeBits) >= len(p.chunks) {
		p.chunks = append(p.chunks, nil)
	}
	if p.chunks[n>>placeBits] == nil {
		p.chunks[n>>placeBits] = new([placeChunk]placed)
	}
	return &p.chunks[n>>placeBits][n&(placeChunk-1)]
}

// remove empties a place; one that has nothing stays so.
func (p *places) remove(n uint32) {
	*p.at(n) = placed{}
	if p.count--; p.count == 0 {
		p.chunks = nil
	}
}

// each calls f for all entries.
func (p *places) each(f func(*placed)) {
	for _, c := range p.chunks {
		if c == nil {
			continue
		}
		for i := range c {
			if c[i].key.kind != 0 {
				f(&c[i])
			}
		}
	}
}
