// SPDX-License-Identifier: Apache-2.0

//go:build !race

package interop

// buildFlags are the flags the daemon under test is built with.
var buildFlags []string
