// SPDX-License-Identifier: Apache-2.0

// Package session runs the BGP sessions with one peer: finite state machine,
// timers, collision detection, reader and writer (RFC 4271, RFC 6286, RFC 6608).
//
// A machine is the pure FSM of one TCP connection: event in, state and actions
// out. A Peer drives up to two of them, one for the connection it makes and one
// for the connection the other side makes, resolves collisions, and owns the
// timers; all of that happens on one goroutine. Each connection has a reader,
// and once established a writer, on goroutines of their own. The reader hands
// UPDATE messages straight to the Flow of the session, without a detour over
// the peer's goroutine; everything else becomes an event.
//
// What routes mean is not known here: a Consumer makes a Flow for each
// established session, and the Flow takes and gives routes.
package session
