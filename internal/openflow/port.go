// SPDX-License-Identifier: Apache-2.0

package openflow

import (
	"bytes"
	"fmt"

	"github.com/bagpipe-vpn/bagpipe/internal/ethernet"
)

// Port is a port of the bridge.
type Port struct {
	Number uint32
	Name   string
	MAC    ethernet.MAC
}

// String returns the port as "ovs-ofctl show" begins its line, e.g. "2(tap1): addr:02:00:00:00:00:01".
func (p Port) String() string { return fmt.Sprintf("%d(%s): addr:%s", p.Number, p.Name, p.MAC) }

// parsePorts reads the body of a reply.
func parsePorts(b []byte, out []Port) ([]Port, error) {
	for len(b) > 0 {
		if len(b) < 40 {
			return out, errShort
		}
		n := int(be.Uint16(b[4:]))
		if n < 40 || n > len(b) {
			return out, fmt.Errorf("port of %d octets is not valid: want 40 to %d", n, len(b))
		}
		name, _, _ := bytes.Cut(b[16:32], []byte{0})
		out = append(out, Port{Number: be.Uint32(b), MAC: ethernet.MAC(b[8:14]), Name: string(name)})
		b = b[n:]
	}
	return out, nil
}
