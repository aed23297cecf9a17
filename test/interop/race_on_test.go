// SPDX-License-Identifier: Apache-2.0

//go:build race

package interop

// buildFlags makes the daemon under test watch for data races when the tests do.
var buildFlags = []string{"-race"}
