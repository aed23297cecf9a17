// SPDX-License-Identifier: Apache-2.0

// Package rib holds all VPN routes of a node, tells each VPN instance what its
// routes add up to, and tells each peer what to announce to it.
//
// A route is a path: a source (peer or instance), an NLRI and a set of
// attributes. Attribute sets are interned by their raw octets, decoded once,
// and know the paths that carry them and the instances that import them, so
// that route targets are matched per set and not per route.
//
// An instance has a Table with the entries its paths belong to: a MAC, an IP
// address, a flood destination, a prefix. A change marks entries dirty; the
// instance takes the dirty ones when it has time and gets for each the best
// paths as they are then. A peer has an Exporter that works the same way. So
// nothing queues up: a route that flaps ten times costs one change.
//
// Concurrency: one lock, taken per batch of routes by whoever writes and per
// batch of entries by whoever reads. The callbacks given to Table and Exporter
// run with the lock held and must only signal. Walks take the lock for a bounded
// number of paths at a time, so a listing never holds up a session.
package rib
