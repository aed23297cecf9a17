// SPDX-License-Identifier: Apache-2.0

package config

// Encapsulation is how packets of an IP VPN travel between nodes.
type Encapsulation uint8

// Encapsulations, in the order of their choices.
const (
	EncapMPLS    Encapsulation = iota // over Ethernet
	EncapGRE                          // MPLS in GRE (RFC 4023)
	EncapMPLSUDP                      // RFC 7510
	EncapVXLAN
)

// String returns the choice, e.g. "mpls-udp".
func (e Encapsulation) String() string { return encapsulations[e] }

// AutoBool is a boolean that may be left to us.
type AutoBool uint8

// Values of AutoBool, in the order of their choices.
const (
	Auto AutoBool = iota
	True
	False
)

var autoBools = []string{"auto", "true", "false"}

// String returns the choice.
func (b AutoBool) String() string { return autoBools[b] }

// HashMethod is how OVS chooses the bucket of a group.
type HashMethod uint8

// Hash methods, in the order of their choices.
const (
	HashDatapath HashMethod = iota
	HashFields
)

var hashMethods = []string{"dp_hash", "hash"}

// String returns the choice.
func (m HashMethod) String() string { return hashMethods[m] }
