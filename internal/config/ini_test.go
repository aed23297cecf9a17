// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseINI(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want []string // "line SECTION.key=value"
		errs []string
	}{
		{name: "OK empty"},
		{name: "OK separators", in: "[A]\nk1 = v\nk2=v\nk3: v\nk4:v=w\nk5 = v:w\nk6 =\n",
			want: []string{"2 A.k1=v", "3 A.k2=v", "4 A.k3=v", "5 A.k4=v=w", "6 A.k5=v:w", "7 A.k6="}},
		{name: "OK section names of any case", in: "[bgp]\na=1\n[ BgP ]\nb=2", want: []string{"2 BGP.a=1", "4 BGP.b=2"}},
		{name: "OK comments", in: "# c\n; c\n[A]\n#k=1\n  # k=2\nk=v # w\n", want: []string{"6 A.k=v # w"}},
		{name: "OK continuation", in: "[A]\nk = a,\n  b,\n\tc\nm=1", want: []string{"2 A.k=a,\nb,\nc", "5 A.m=1"}},
		{name: "OK comment inside continuation", in: "[A]\nk = a,\n  # not b\n  c", want: []string{"2 A.k=a,\nc"}},
		{name: "OK quotes", in: "[A]\na=\"x \"\nb=' y'\nc=\"z'\nd=\"\ne=\"\"",
			want: []string{"2 A.a=x ", "3 A.b= y", "4 A.c=\"z'", "5 A.d=\"", "6 A.e="}},
		{name: "OK line ends and byte order mark", in: "\ufeff[A]\r\na=1\r\nb=2\rc=3", want: []string{"2 A.a=1", "3 A.b=2", "4 A.c=3"}},
		{name: "OK repeated", in: "[A]\na=1\na=2", want: []string{"2 A.a=1", "3 A.a=2"}},
		{name: "bad no separator", in: "[A]\nword\na=1", want: []string{"3 A.a=1"},
			errs: []string{`f:2: line "word": want "name = value", a [section] or a # comment`}},
		{name: "bad no name", in: "[A]\n= 1", errs: []string{`f:2: line "= 1": want "name = value": the name is missing`}},
		{name: "bad no section, once", in: "a=1\nb=2\n[A]\nc=3", want: []string{"4 A.c=3"},
			errs: []string{`f:1: line "a=1": want a [section] before the first option`}},
		{name: "bad open section hides its options", in: "[A]\na=1\n[B\nb=2\n c", want: []string{"2 A.a=1"},
			errs: []string{`f:3: line "[B": want a section like [BGP]: the closing bracket is missing`}},
		{name: "bad empty section", in: "[ ]", errs: []string{`f:1: line "[ ]": want a section like [BGP]: the name is missing`}},
		{name: "bad continuation of nothing", in: "[A]\n  a=1",
			errs: []string{`f:2: line "a=1": an indented line continues the value of an option, but none stands before it`}},
		{name: "bad continuation after blank line", in: "[A]\na=1\n\n b", want: []string{"2 A.a=1"},
			errs: []string{`f:4: line "b": an indented line continues the value of an option, but none stands before it`}},
		{name: "bad long value", in: "[A]\na=1\n " + strings.Repeat("x", maxValue), want: []string{"2 A.a=1"},
			errs: []string{`f:3: line "` + strings.Repeat("x", 80) + `"...: the value that this line continues is too long`}},
		{name: "bad bytes", in: "[A]\na=\xff\nb=\x00", errs: []string{
			`f:2: line "a=\xff": want UTF-8 text`, `f:3: line "b=\x00": want UTF-8 text`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := parseINI("f", 0, []byte(tt.in))
			var got, errs []string
			for _, s := range p.settings {
				got = append(got, fmt.Sprintf("%d %s.%s=%s", s.origin.Line, s.section, s.key, s.value))
			}
			for _, e := range p.problems {
				errs = append(errs, e.Error())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("unexpected settings (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.errs, errs); diff != "" {
				t.Errorf("unexpected problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseINIGivesUpOnGarbage(t *testing.T) {
	t.Parallel()
	p := parseINI("f", 0, []byte(strings.Repeat("garbage\n", 1000)))
	if len(p.problems) != maxLineProblems+1 {
		t.Errorf("got %d problems, want %d", len(p.problems), maxLineProblems+1)
	}
}

func TestProblemCutsLongValues(t *testing.T) {
	t.Parallel()
	p := &Problem{Option: "BGP.my_as", Value: strings.Repeat("é", 1000), Text: "want less"}
	want := `BGP.my_as: value "` + strings.Repeat("é", 40) + `"...: want less`
	if diff := cmp.Diff(want, p.Error()); diff != "" {
		t.Errorf("unexpected message (-want +got):\n%s", diff)
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	known := []string{"local_address", "peers", "my_as", "bgp_port"}
	tests := []struct{ name, in, want string }{
		{"OK letter changed", "local_adress", "; did you mean local_address?"},
		{"OK letters swapped", "my_sa", "; did you mean my_as?"},
		{"OK letter missing", "bg_port", "; did you mean bgp_port?"},
		{"OK case", "Peers", "; did you mean peers?"},
		{"OK dash", "my-as", "; did you mean my_as?"},
		{"OK nothing near", "wibble", ""},
		{"OK short words are not near everything", "as", ""},
		{"OK empty", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, hint(tt.in, known)); diff != "" {
				t.Errorf("unexpected hint (-want +got):\n%s", diff)
			}
		})
	}
}
