// SPDX-License-Identifier: Apache-2.0

// Package ethernet holds the 48-bit MAC address as a comparable value, so that
// it can be a map key, a struct member of a route key and a JSON string.
package ethernet

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// MAC is an EUI-48 address in transmission order.
type MAC [6]byte

// ParseMAC reads a MAC address in any of the notations operators use:
// 00:11:22:33:44:55, 00-11-22-33-44-55, 0011.2233.4455 or 001122334455, in
// upper or lower case. The error names the text and what is allowed.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	digits, ok := macDigits(s)
	if !ok {
		return m, fmt.Errorf("MAC address %q is not valid: want six octets like 00:11:22:33:44:55", s)
	}
	if _, err := hex.Decode(m[:], []byte(digits)); err != nil {
		return MAC{}, fmt.Errorf("MAC address %q is not valid: want hexadecimal digits", s)
	}
	return m, nil
}

// macDigits strips the separators of s and tells whether twelve digits in a
// known grouping remain.
func macDigits(s string) (string, bool) {
	for _, form := range []struct {
		sep  string
		size int
	}{{":", 2}, {"-", 2}, {".", 4}} {
		if !strings.Contains(s, form.sep) {
			continue
		}
		groups := strings.Split(s, form.sep)
		if len(groups) != 12/form.size {
			return "", false
		}
		var b strings.Builder
		for _, g := range groups {
			if len(g) == 0 || len(g) > form.size {
				return "", false
			}
			b.WriteString(strings.Repeat("0", form.size-len(g)))
			b.WriteString(g)
		}
		return b.String(), true
	}
	return s, len(s) == 12
}

// String returns the lower-case colon form, the one used as key everywhere.
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	buf := make([]byte, 0, 17)
	for i, b := range m {
		if i > 0 {
			buf = append(buf, ':')
		}
		buf = append(buf, digits[b>>4], digits[b&15])
	}
	return string(buf)
}

// IsZero tells whether m is the all-zero address.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsMulticast tells whether the group bit of m is set (broadcast included).
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(b []byte) error {
	v, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}
