// SPDX-License-Identifier: Apache-2.0

// Package soak runs a node for long under churn and checks that it stays as large
// as it was. Only tests are in it.
//
// The node is bagpipe-bgp, a process in a namespace, with real dataplane drivers.
// A cycle brings routes, ports, changed route targets, ends of sessions and reloads,
// and takes all of it away again. After each cycle the same state is there, and what
// the process and the kernel hold is counted: kernel objects, open files and
// goroutines must be exactly as many as after the first cycles; heap and resident
// memory may grow by the slack in sample_test.go.
//
// A run takes 20 seconds, or as long as BAGPIPE_SOAK says ("make soak": 30 minutes).
package soak
