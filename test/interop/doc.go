// SPDX-License-Identifier: Apache-2.0

// Package interop tests the daemon bagpipe-bgp against other people's BGP
// speakers: FRR 8.4 as route reflector and as E-VPN speaker, GoBGP 3.10 as
// route reflector, and nodes that run the original networking-bagpipe 17.0.0,
// each in a network namespace of its own. All of them are Debian 12 packages
// and are used as black boxes: started with a configuration, asked through
// their command line or REST API, stopped by process id.
//
// TestMatrix runs our BGP engine, without the rest of the daemon, against BIRD,
// ExaBGP, OpenBGPD, FRR and GoBGP 3 and 4: every family that a peer has, both
// ways. It writes docs/interop.md.
//
// The tests need root. A missing program fails the test and names the package.
//
// Routes are compared as a whole: what a node sent, what the peer holds and
// what the node at the other end received are brought into one form (evpnRoute)
// whatever program reported them.
package interop
