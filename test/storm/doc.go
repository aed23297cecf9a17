// SPDX-License-Identifier: Apache-2.0

// Package storm loads the BGP engine beyond what a node meets in a day: bursts,
// flaps, hostile peers, crowds of peers, and random events in random order. Only
// tests are in it.
//
// A node is speaker, RIB and VPN manager as the daemon puts them together, over
// a dataplane in memory. Peers are played octet by octet over TCP on loopback.
//
// The storm tests run at a size that suits every commit; BAGPIPE_STORM=full runs
// them at the size that operators may see (sizes in main_test.go).
//
// The random-event test compares a node with a model of plain maps: events are
// drawn from a seed, a failure prints the seed and the shortest list of events
// found that still fails. BAGPIPE_STORM_SEED=n runs that seed alone.
package storm
