// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"reflect"
)

// Reload returns the configuration in effect once a running daemon of c has read
// next, the same files later: c with the level of the log, cleanup_on_stop and all that
// concerns neighbours from next. Pending says, for each other option that differs, that it
// needs a restart.
//
// Neighbours stay as they are, too, where an option differs that they are made of
// and that needs a restart: next has settings for another node then.
func (c *Config) Reload(next *Config) (effective *Config, pending []string) {
	e := *c
	e.Log.Debug, e.Common.CleanupOnStop = next.Log.Debug, next.Common.CleanupOnStop
	basis := c.changedBasis(next)
	if basis == nil {
		e.BGP.Peers, e.BGP.Groups, e.BGP.Port, e.BGP.Settings = next.BGP.Peers, next.BGP.Groups, next.BGP.Port, next.BGP.Settings
	}
	for o := range rows() {
		if o.field != nil && !same(o, &e, next) {
			pending = append(pending, fmt.Sprintf("%s: %v needs a restart, until then it is %v", o, o.value(next), o.value(c)))
		}
	}
	if basis != nil && !reflect.DeepEqual([]any{c.BGP.Peers, c.BGP.Groups}, []any{next.BGP.Peers, next.BGP.Groups}) {
		pending = append(pending, fmt.Sprintf("neighbours stay as they are until the restart that %s needs", basis))
	}
	return &e, pending
}

// changedBasis returns an option that differs, needs a restart and goes into what
// neighbours are made of, or nil.
func (c *Config) changedBasis(next *Config) *option {
	for _, name := range []string{"local_address", "my_as", "enable_rtc", "listen"} {
		if o := bgp(name); !same(o, c, next) {
			return o
		}
	}
	return nil
}

// same tells whether an option has the same value in both configurations.
func same(o *option, a, b *Config) bool {
	return reflect.DeepEqual(o.field(a), o.field(b))
}
