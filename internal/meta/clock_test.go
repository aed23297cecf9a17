// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wallClock lists the names that make a time.Time without reading of the monotonic
// clock, or a number of the wall clock. Intervals between such times are wrong when
// the clock of the host is set.
var wallClock = []string{
	"Unix", "UnixNano", "UnixMilli", "UnixMicro", "UTC", "Local", "AddDate", "Date", "Parse", "ParseInLocation",
}

// wallClockAllowed has the calls of these names that do no harm, by file, with the
// name and the reason.
var wallClockAllowed = map[string]struct{ name, why string }{
	"internal/bmp/message.go": {"Unix", "BMP puts the wall clock on the wire (RFC 7854 §4.2)"},
}

// Clocks that are set, by hand or by NTP, change no timer, no hold time and no
// interval: code of the programs takes no time apart and puts none together.
func TestIntervalsDoNotUseTheWallClock(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	goFiles(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		for _, name := range wallClockCalls(t, path) {
			if wallClockAllowed[path].name == name {
				used[path] = true
				continue
			}
			t.Errorf("%s: %s uses the wall clock: keep a time.Time of time.Now, or a duration since one", path, name)
		}
	})
	for path, a := range wallClockAllowed {
		if !used[path] {
			t.Errorf("%s does not call %s any more: take the exception away", path, a.name)
		}
	}
}

// wallClockCalls returns the names of wallClock that a file calls, in so far as it
// imports package time.
func wallClockCalls(t *testing.T, path string) (found []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"time"` }) {
		return nil
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains(wallClock, f.Sel.Name) {
			return true
		}
		if pkg, ok := f.X.(*ast.Ident); ok && pkg.Obj == nil && pkg.Name != "time" && isImport(file, pkg.Name) {
			return true // e.g. template.Parse
		}
		found = append(found, f.Sel.Name)
		return true
	})
	return found
}

// isImport tells whether a file imports a package of that name.
func isImport(file *ast.File, name string) bool {
	return slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool {
		return i.Name != nil && i.Name.Name == name || strings.HasSuffix(strings.Trim(i.Path.Value, `"`), "/"+name) || strings.Trim(i.Path.Value, `"`) == name
	})
}
