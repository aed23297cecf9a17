// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
)

// The committed object is what the committed sources give: go generate notes both.
func TestObjectIsOfTheseSources(t *testing.T) {
	b, err := os.ReadFile("bpf/vrf.sum")
	if err != nil {
		t.Fatal(err)
	}
	noted := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		content, err := os.ReadFile(filepath.Join("bpf", name))
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(content); hex.EncodeToString(got[:]) != sum {
			t.Errorf("bpf/%s has changed since the object was made: run go generate", name)
		}
		noted[name] = true
	}
	files, err := filepath.Glob("bpf/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if name := filepath.Base(path); name != "vrf.sum" && !noted[name] {
			t.Errorf("%s is not noted in bpf/vrf.sum: add it to build.sh", path)
		}
	}
}

// Where the compiler is, it gives the committed object again.
func TestObjectIsReproducible(t *testing.T) {
	for _, tool := range []string{"clang-14", "llvm-strip-14"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s: the sums of sources and object are checked all the same", tool)
		}
	}
	if _, err := os.Stat("/usr/include/bpf/bpf_helpers.h"); err != nil {
		t.Skip("no libbpf headers: the sums of sources and object are checked all the same")
	}
	out := filepath.Join(t.TempDir(), "vrf.o")
	if text, err := exec.Command("bpf/build.sh", out).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v: %s", err, text)
	}
	fresh, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fresh, object) {
		t.Error("the compiler gives another object: run go generate")
	}
}

// Keys and values have the same size here and in the programs.
func TestLayout(t *testing.T) {
	spec, err := specification(nil)
	if err != nil {
		t.Fatal(err)
	}
	sizes := func(k, v uintptr) [2]uint32 { return [2]uint32{uint32(k), uint32(v)} }
	want := map[string][2]uint32{
		"bp1_config":    sizes(4, unsafe.Sizeof(configValue{})),
		"bp1_ports":     sizes(4, unsafe.Sizeof(portValue{})),
		"bp1_labels":    sizes(unsafe.Sizeof(labelKey{}), unsafe.Sizeof(targetValue{})),
		"bp1_routes4":   sizes(4, 4),
		"bp1_routes6":   sizes(4, 4),
		"bp1_groups":    sizes(unsafe.Sizeof(groupKey{}), unsafe.Sizeof(groupValue{})),
		"bp1_gateways":  sizes(unsafe.Sizeof(gatewayKey{}), 4),
		"bp1_sources":   sizes(unsafe.Sizeof(sourceKey{}), unsafe.Sizeof(sourceValue{})),
		"bp1_lists":     sizes(unsafe.Sizeof(classKey{}), unsafe.Sizeof(classList{})),
		"bp1_classes":   sizes(4, unsafe.Sizeof(classValue{})),
		"bp1_fallbacks": sizes(4, unsafe.Sizeof(fallbackValue{})),
		"bp1_pstats":    sizes(4, unsafe.Sizeof(portStats{})),
		"bp1_drops":     sizes(4, unsafe.Sizeof(dropStats{})),
		"bp1_vrfs":      sizes(4, unsafe.Sizeof(vrfValue{})),
		"bp1_plugs":     sizes(unsafe.Sizeof(plugKey{}), unsafe.Sizeof(plugValue{})),
		"bp1_endpoints": sizes(unsafe.Sizeof(endpointKey{}), unsafe.Sizeof(endpointValue{})),
	}
	for name, m := range spec.Maps {
		if got := [2]uint32{m.KeySize, m.ValueSize}; got != want[name] {
			t.Errorf("%s: key and value have %v octets in the programs, %v here", name, got, want[name])
		}
	}
	inner := func(m *ebpf.MapSpec) [2]uint32 { return [2]uint32{m.InnerMap.KeySize, m.InnerMap.ValueSize} }
	if got := inner(spec.Maps["bp1_routes4"]); got != sizes(unsafe.Sizeof(key4{}), unsafe.Sizeof(routeValue{})) {
		t.Errorf("IPv4 table: %v", got)
	}
	if got := inner(spec.Maps["bp1_routes6"]); got != sizes(unsafe.Sizeof(key6{}), unsafe.Sizeof(routeValue{})) {
		t.Errorf("IPv6 table: %v", got)
	}
	var m maps
	fields := 0
	m.each(func(name string, _ **ebpf.Map) {
		fields++
		if spec.Maps[name] == nil {
			t.Errorf("no map %s in the programs", name)
		}
	})
	if fields != len(spec.Maps) || fields != len(want) {
		t.Errorf("%d maps in the driver, %d in the programs", fields, len(spec.Maps))
	}
}

// Reasons have the same order here and in the programs.
func TestReasons(t *testing.T) {
	b, err := os.ReadFile("bpf/layout.h")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^\tDROP_([A-Z_]+),`).FindAllStringSubmatch(string(b), -1) {
		got = append(got, strings.ToLower(strings.ReplaceAll(m[1], "_", "-")))
	}
	if len(got) != len(reasons) {
		t.Fatalf("%d reasons in the programs, %d here", len(got), len(reasons))
	}
	for i, want := range got {
		name := map[string]string{
			"spoofed": "spoofed-source", "ttl": "ttl-exceeded", "label": "unknown-label", "underlay": "no-underlay-route",
		}[want]
		if name == "" {
			name = want
		}
		if reasons[i] != name {
			t.Errorf("reason %d is %s in the programs, %s here", i, want, reasons[i])
		}
	}
}
