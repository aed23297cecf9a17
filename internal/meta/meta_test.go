// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bagpipe-vpn/bagpipe/"

// root is the module's directory.
const root = "../.."

// layers lists the packages of the daemon from top to bottom. A package may
// import those of later lines only.
var layers = [][]string{
	{"cmd/bagpipe-bgp", "cmd/bagpipe", "cmd/bagpipe-dot"},
	{"internal/daemon", "internal/cli"},
	{"internal/api", "internal/lab", "internal/graph", "internal/draw"},
	{"client", "internal/rr"},
	{"internal/vpn", "internal/bmp"},
	{"internal/bgp/speaker"},
	{"internal/bgp/session", "internal/rib", "internal/dataplane/linux", "internal/dataplane/ebpf", "internal/dataplane/ovs", "internal/dataplane/linuxvrf", "internal/dataplane/dummy", "internal/dataplane/fake"},
	{"internal/dataplane", "internal/bgp/wire", "internal/netlinkx", "internal/openflow", "internal/ovsdb"},
	{"internal/allocator", "internal/dataplane/devname", "internal/bfd", "internal/vethpair", "internal/bgp/transport", "internal/config", "internal/draw/nocache", "internal/encap", "internal/ethernet", "internal/logbook", "internal/netspace", "internal/nodelock", "internal/sdnotify", "internal/version", "internal/slab", "internal/store"},
}

func layerOf(pkg string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, pkg) })
}

// goFiles calls f with each Go file of the module, by its path from the root.
func goFiles(t *testing.T, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") {
			rel, _ := filepath.Rel(root, path)
			f(rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryFileNamesItsLicence(t *testing.T) {
	t.Parallel()
	goFiles(t, func(path string) {
		b, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(b), "// SPDX-License-Identifier: Apache-2.0\n") {
			t.Errorf("%s: first line is not the licence", path)
		}
		if strings.Contains(filepath.Base(path), "-") {
			t.Errorf("%s: file names use underscores", path)
		}
	})
}

func TestEveryPackageHasOneComment(t *testing.T) {
	t.Parallel()
	comments := map[string]int{}
	goFiles(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir := filepath.Dir(path)
		if _, ok := comments[dir]; !ok {
			comments[dir] = 0
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		if file.Doc != nil {
			comments[dir]++
		}
	})
	for dir, n := range comments {
		if n != 1 {
			t.Errorf("package %s has %d package comments: want 1", dir, n)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	t.Parallel()
	goFiles(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && receiverExported(d) {
					t.Errorf("%s: %s has no comment", path, d.Name.Name)
				}
			case *ast.GenDecl:
				checkSpecs(t, path, d)
			}
		}
	})
}

// receiverExported tells whether a function is no method, or one of an exported type.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && name.IsExported()
}

func checkSpecs(t *testing.T, path string, d *ast.GenDecl) {
	t.Helper()
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
				t.Errorf("%s: type %s has no comment", path, s.Name.Name)
			}
		case *ast.ValueSpec:
			if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
				t.Errorf("%s: %s has no comment", path, s.Names[0].Name)
			}
		}
	}
}

func TestImportsGoDownOnly(t *testing.T) {
	t.Parallel()
	goFiles(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		from := filepath.Dir(path)
		mine := layerOf(from)
		if mine < 0 && (strings.HasPrefix(from, "internal/") || strings.HasPrefix(from, "cmd/")) && !testOnly(from) {
			t.Errorf("package %s has no place in the layers of this test", from)
		}
		for _, imp := range file.Imports {
			to, ours := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
			if !ours {
				continue
			}
			if mine >= 0 && layerOf(to) <= mine {
				t.Errorf("%s: package %s imports %s, which is not below it", path, from, to)
			}
		}
	})
}

// testOnly tells whether a package exists for tests.
func testOnly(pkg string) bool {
	return slices.Contains([]string{
		"internal/dataplane/steertest", "internal/faultcall", "internal/golden", "internal/losstable", "internal/meta",
		"internal/nstest", "internal/oldversion", "internal/ovsdb/ovstest",
	}, pkg)
}

func TestDaemonDoesNotContainGoBGPServer(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "../../cmd/bagpipe-bgp").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		if strings.HasPrefix(pkg, "github.com/osrg/gobgp") && !strings.HasSuffix(pkg, "/pkg/packet/bgp") && !strings.HasSuffix(pkg, "/pkg/packet/bmp") && !strings.Contains(pkg, "/packet/bgp/") {
			t.Errorf("bagpipe-bgp contains %s", pkg)
		}
	}
}

// TestOnlyOneProgramContainsGraphviz: see package draw for why.
func TestOnlyOneProgramContainsGraphviz(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "../../cmd/bagpipe-bgp", "../../cmd/bagpipe").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "go-graphviz") {
		t.Error("bagpipe or bagpipe-bgp contains Graphviz, which belongs in bagpipe-dot")
	}
}

func TestDirectDependenciesAreExplained(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs/dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mod), "\n") {
		f := strings.Fields(line)
		if len(f) == 2 && strings.Contains(f[0], "/") && f[0] != "module" && !strings.Contains(string(doc), f[0]) {
			t.Errorf("docs/dependencies.md does not explain %s", f[0])
		}
	}
}

var docLink = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

func TestLinksInDocsResolve(t *testing.T) {
	t.Parallel()
	docs, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(docs, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range docLink.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: link to %s, which is not there", path, m[1])
			}
		}
	}
}

func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile(filepath.Join(root, "internal/api/metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`"(bagpipe_[a-z_]+)"`).FindAllStringSubmatch(string(src), -1) {
		if !strings.Contains(string(doc), "`"+name[1]+"`") {
			t.Errorf("docs/metrics.md does not have %s", name[1])
		}
	}
}
