// SPDX-License-Identifier: Apache-2.0

// Package version tells which version of BaGPipe a binary is.
package version

import "runtime/debug"

// number is the release; the linker may set it (-X).
var number = "0.1.0-dev"

// String returns the release, with the commit when the build recorded one.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return number
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return number + "+" + s.Value[:12]
		}
	}
	return number
}
