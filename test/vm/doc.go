// SPDX-License-Identifier: Apache-2.0

// Package vm runs tests of other packages under another kernel: Debian's User-Mode
// Linux 6.1, with the modules that a machine for tests may lack. Its root file system is
// this machine's own, for reading only, with /tmp, /run and /dev/shm of its own.
//
// What that kernel lacks, FOU on tunnels, runs under the kernel that Debian installs, by
// QEMU. Neither needs virtualisation of hardware.
package vm
