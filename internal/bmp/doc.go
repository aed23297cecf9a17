// SPDX-License-Identifier: Apache-2.0

// Package bmp tells monitoring stations what the peers of a node announce: the
// BGP Monitoring Protocol (RFC 7854).
//
// An Exporter connects to each station and keeps the connection. A station gets
// Peer Up and Peer Down, and, as Route Monitoring, the Adj-RIB-In of each peer,
// pre-policy (there is no import policy): first all of it, then changes. The L
// and O flags of the per-peer header are therefore 0 (RFC 8671 §4). Reported is
// what the RIB keeps: not routes that loop, nor those that no instance imports
// where such are dropped, nor of a route what the node has no use for (ESI and
// second label of EVPN routes, gateways, further labels of VPN routes,
// attributes that were discarded). UPDATEs are built anew; attributes are as
// received, AS_PATH in the form of the session (the A flag tells which).
//
// Sessions and routes are level-triggered: a station is told the state as it is
// when there is room for it, so that one that reads slowly misses changes in
// between, and costs a key per changed route. Routes that are kept while a peer
// is away are not reported; when it is back, everything is sent again.
//
// Concurrency: a station has one goroutine, and while connected two more, which
// read and watch for the end. None of them holds up a session: what they take
// from the RIB is a bounded batch at a time. All have ended when Run returns.
package bmp
