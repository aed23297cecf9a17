// SPDX-License-Identifier: Apache-2.0

// Package vpn makes VPN instances of attachments: it turns local endpoints
// into routes for the RIB, and what the RIB selects into forwarding state for
// the dataplane.
//
// A Manager holds the instances: E-VPN instances (EVI, RFC 7432) and IP VPN
// instances (VRF, RFC 4364). Attach and Detach validate the whole request
// against the state of the instance first and then change everything or
// nothing. Instances have no goroutine: a small pool of workers serves those
// whose routes changed, some hundred entries at a time.
//
// Locks, in the order they may be taken: an instance's, the Manager's, the
// RIB's, the pool's. An API call holds one instance; nothing holds the Manager
// while a dataplane driver works.
package vpn
