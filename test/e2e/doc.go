// SPDX-License-Identifier: Apache-2.0

// Package e2e runs bagpipe as a user does: the programs as they are built, in
// network namespaces that stand for nodes, a route reflector and virtual
// machines. Only tests are in it.
//
// A fabric is the network between the nodes, with the reflector on it ("bagpipe
// rr"). A node is a namespace with a bagpipe-bgp daemon, driven through its REST
// API. A vm is a namespace with a cable to a node. Probes send traffic between
// machines without a pause and know which packets were lost and when; watches
// note each change of a node's forwarding entries; captures count what crosses
// the underlay. What a node forwards is always read from its kernel, never from
// what the daemon says of it.
//
// A crowd is many clients of one daemon's API, a fuzzer one that sends it nonsense.
// Both keep a ledger of what they were told, with which the looking glass and the
// kernel must agree; make crowd and make fuzz-api run them at full size.
//
// Everything that a test makes carries the run's name (runID). TestMain fails
// the run when a namespace, process or file of that name is left at its end.
//
// Some tests run a daemon under supervision of its system calls (package faultcall), which
// crash it or fail at calls spread over all that there are. BAGPIPE_FAULTS=full ("make
// faults") does so at each, and makes flaps and migrations as long as they are meant to be;
// the rows of both forms have the same names in docs/reliability.md.
//
// The programs are built with "go build", so that GOFLAGS=-overlay=FILE runs the
// tests against a changed source: a way to see that they can fail.
package e2e
