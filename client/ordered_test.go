// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseJSONKeepsTheOrder(t *testing.T) {
	t.Parallel()
	got, err := ParseJSON([]byte(`{"z": 1, "a": [true, null, "x<y"], "m": {}, "e": []}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Object{
		{"z", json.Number("1")}, {"a", []any{true, nil, "x<y"}}, {"m", Object{}}, {"e", []any{}},
	}
	if diff := cmp.Diff(any(want), got); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestParseJSONRefuses(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{
		"", "{", `{"a"}`, `{"a":1,}`, "[1,", "1 2", "nul", `{1:2}`, "]",
		strings.Repeat("[", maxDepth+2) + strings.Repeat("]", maxDepth+2),
	} {
		if v, err := ParseJSON([]byte(doc)); err == nil {
			t.Errorf("%.20q was taken as %v", doc, v)
		}
	}
}

func TestObjectLookup(t *testing.T) {
	t.Parallel()
	o := Object{{"s", "text"}, {"n", json.Number("7")}, {"o", Object{{"x", nil}}}}
	if o.Text("s") != "text" || o.Text("n") != "7" || o.Text("o") != "" || o.Text("none") != "" {
		t.Error("wrong text")
	}
	if len(o.Object("o")) != 1 || o.Object("s") != nil {
		t.Error("wrong object")
	}
	if v, ok := o.Object("o").Get("x"); v != nil || !ok {
		t.Error("a null member is not found")
	}
}

func TestObjectInAStruct(t *testing.T) {
	t.Parallel()
	type page struct {
		Summary Object `json:"summary"`
	}
	var got page
	if err := json.Unmarshal([]byte(`{"summary": {"b": 1, "a": null}}`), &got); err != nil {
		t.Fatal(err)
	}
	want := page{Object{{"b", json.Number("1")}, {"a", nil}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	if err := json.Unmarshal([]byte(`{"summary": null}`), &got); err != nil || len(got.Summary) != 2 {
		t.Errorf("null: %v, %v", err, got)
	}
	if err := json.Unmarshal([]byte(`{"summary": [1]}`), &got); err == nil {
		t.Error("a list was taken")
	}
}

// FuzzParseJSON checks that what ParseJSON takes is what encoding/json takes,
// and that writing it gives the same document.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"b":1,"a":[1.5e3,"\u2028<",null]}`, "3", `{"a":{"a":{}}}`, "[[]]", "", "{]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		v, err := ParseJSON(doc)
		if err != nil {
			return
		}
		if !json.Valid(doc) {
			t.Fatalf("%q is not valid but was taken", doc)
		}
		var out bytes.Buffer
		if err := appendJSON(&out, v); err != nil {
			t.Fatal(err)
		}
		again, err := ParseJSON(out.Bytes())
		if err != nil {
			t.Fatalf("%q became %q: %v", doc, out.Bytes(), err)
		}
		if diff := cmp.Diff(v, again); diff != "" {
			t.Fatalf("changed (-first +again):\n%s", diff)
		}
	})
}
