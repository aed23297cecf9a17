// SPDX-License-Identifier: Apache-2.0

package config

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the generated parts of docs and packaging")

const (
	sampleFile = "../../packaging/bgp.conf.sample"
	docFile    = "../../docs/configuration.md"
	docBegin   = "<!-- Generated from the option table by: go test ./internal/config -update -->\n"
	docEnd     = "<!-- End of the generated part. -->\n"
)

func TestSampleFileIsCurrent(t *testing.T) {
	t.Parallel()
	checkGenerated(t, sampleFile, Sample())
}

func TestDocumentationIsCurrent(t *testing.T) {
	t.Parallel()
	doc := readText(t, docFile)
	before, rest, begins := strings.Cut(doc, docBegin)
	_, after, ends := strings.Cut(rest, docEnd)
	if !begins || !ends {
		t.Fatalf("%s lacks the marks of the generated part", docFile)
	}
	checkGenerated(t, docFile, before+docBegin+"\n"+Reference()+"\n"+docEnd+after)
}

// checkGenerated compares a file with what it should be, or writes it.
func checkGenerated(t *testing.T, name, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, readText(t, name)); diff != "" {
		t.Errorf("%s is not current, run go test ./internal/config -update (-want +got):\n%s", name, diff)
	}
}

func readText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSampleGivesDefaults(t *testing.T) {
	t.Parallel()
	loadText(t, Sample()).check(t, defaults(), nil, nil)
	commented := regexp.MustCompile(`(?m)^#([a-z_]+ =|\[)`)
	want := defaults()
	want.BGP.Peers = []Peer{aPeer("192.0.2.101", "192.0.2.101")}
	loadText(t, commented.ReplaceAllString(Sample(), "$1")).check(t, want, nil, nil)
}

func TestSampleHasEveryOption(t *testing.T) {
	t.Parallel()
	for o := range rows() {
		if !o.described() {
			continue
		}
		found := regexp.MustCompile(`(?m)^#?` + o.name + ` =`).MatchString(Sample())
		if !found {
			t.Errorf("the sample lacks %s", o)
		}
	}
}

// Each example of the documentation is a whole file that must be accepted.
func TestDocumentationExamples(t *testing.T) {
	t.Parallel()
	examples := regexp.MustCompile("(?s)```ini\n(.*?)```").FindAllStringSubmatch(readText(t, docFile), -1)
	if len(examples) == 0 {
		t.Fatal("the documentation has no example")
	}
	for _, example := range examples {
		r := loadText(t, example[1])
		if r.problems != nil || r.warnings != nil {
			t.Errorf("example is not accepted: %q %q\n%s", r.problems, r.warnings, example[1])
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for o := range rows() {
		for _, name := range append([]string{o.name}, o.old...) {
			if seen[o.section+"."+name] {
				t.Errorf("%s.%s stands in the table twice", o.section, name)
			}
			seen[o.section+"."+name] = true
		}
		effect := o.field != nil || o.show != nil || o.setting != nil || o.peer != nil
		if effect == (o.ignored != "") {
			t.Errorf("%s: want either an effect or a reason for none", o)
		}
		if o.ignored == "" && (o.help == "" || !strings.HasSuffix(o.help, ".")) {
			t.Errorf("%s: help %q is no sentence", o, o.help)
		}
		numeric := slices.Contains([]optionType{typeInteger, typePort, typeSeconds, typeMilliseconds, typeSecret}, o.typ)
		if numeric && o.ignored == "" && o.min >= o.max {
			t.Errorf("%s: empty range", o)
		}
		if o.base != "" && bgp(o.base) == nil {
			t.Errorf("%s: there is no option %s of BGP", o, o.base)
		}
		if typeNames[o.typ] == "" {
			t.Errorf("%s: type %d has no name", o, o.typ)
		}
		for _, of := range o.of {
			if _, ok := o.choice().driver(of); !ok {
				t.Errorf("%s belongs to %s, which is no driver", o, of)
			}
		}
	}
}
