// SPDX-License-Identifier: Apache-2.0

// Package nocache keeps go-graphviz from its cache of machine code. As soon as it
// is imported that library compiles Graphviz, and it takes the result from
// go-graphviz in the directory for temporary files when it is there. Anyone may
// have put it there, and root would run it.
//
// The library finds no place for a cache when TMPDIR is no directory. Go
// initialises packages in the order of their paths, once those they import are
// ready (The Go Programming Language Specification, Package initialization). This
// one imports nothing but os, and its path comes before the library's.
package nocache

import "os"

var before, isSet = os.LookupEnv("TMPDIR")

func init() { _ = os.Setenv("TMPDIR", os.DevNull) }

// Undo gives TMPDIR its value back. It is for after the initialisation of
// go-graphviz.
func Undo() {
	if isSet {
		_ = os.Setenv("TMPDIR", before)
		return
	}
	_ = os.Unsetenv("TMPDIR")
}
