// SPDX-License-Identifier: Apache-2.0

// Package bfd watches the paths to BGP neighbours by Bidirectional Forwarding
// Detection: asynchronous mode (RFC 5880), over one hop (RFC 5881) and over
// several (RFC 5883), IPv4 and IPv6. Echo, demand mode of our own and
// authentication are left out; a remote in demand mode is served.
//
// A Node has the sessions of a daemon and shares listening sockets between
// them. Node.Add starts a Session, which tells its user about each Change of
// state and has a Status for people and metrics. What a change means for BGP
// (RFC 5882) is for the user to know.
//
// Each listening socket has a reader on a goroutine of its own, which finds
// the session of a packet and puts the packet into that session's queue. Each
// session has a goroutine that owns its timers and sends, and one that calls
// the user, so that a slow user delays no packet. A packet that makes its
// handler panic is counted, logged and forgotten.
//
// From the edge inwards: network is what the sockets offer (udp.go; tests have
// one in memory), packet the codec, variables the state machine with the
// negotiated times. The latter two are pure.
package bfd
