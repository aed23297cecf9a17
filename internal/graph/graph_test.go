// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/golden"
)

// glass serves pages of a looking glass, 404 for all that is not there.
func glass(t *testing.T, name string, pages map[string]json.RawMessage) Glass {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[strings.TrimPrefix(r.URL.Path, "/a/glass")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(page)
	}))
	t.Cleanup(srv.Close)
	c, err := client.New(client.WithBaseURL(srv.URL))
	if err != nil {
		t.Fatal(err)
	}
	return Glass{Name: name, Client: c, Path: "/a/glass/"}
}

// read reads all servers of testdata/<name>.json, in the order in which they
// stand there.
func read(t *testing.T, name string) []Server {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := client.ParseJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	var servers []Server
	for _, m := range v.(client.Object) {
		pages := map[string]json.RawMessage{}
		for _, page := range m.Value.(client.Object) {
			body, err := json.Marshal(page.Value)
			if err != nil {
				t.Fatal(err)
			}
			pages[page.Name] = body
		}
		s, err := glass(t, m.Name, pages).Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
	}
	return servers
}

func TestPictures(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"chain", // service VRFs that re-advertise and attract
		"evpn",  // EVIs plugged into a VRF
		"odd",   // names that mean something in DOT, in records, to terminals
		"two",   // two servers that have the same instance
		"none",
		"example", // of docs/cli.md
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := read(t, name)
			golden.Check(t, name+"_dot", DOT(servers))
			golden.Check(t, name+"_text", Text(servers))
		})
	}
}

func TestOrderOfRepliesDoesNotMatter(t *testing.T) {
	t.Parallel()
	servers := read(t, "chain")
	want := DOT(servers) + Text(servers)
	pages := map[string]json.RawMessage{}
	text, err := os.ReadFile("testdata/chain.json")
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]map[string]json.RawMessage
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for path, page := range file["node-a"] {
		// The list of instances, and those of route targets, back to front.
		var v any
		if err := json.Unmarshal(page, &v); err != nil {
			t.Fatal(err)
		}
		reverse(v)
		if pages[path], err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	s, err := glass(t, "node-a", pages).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Prefixes and the classifier are shown as they come.
	for k := range s.Instances {
		s.Instances[k].Attract = servers[0].Instances[k].Attract
	}
	if diff := cmp.Diff(want, DOT([]Server{s})+Text([]Server{s})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// reverse turns all lists in a document round.
func reverse(v any) {
	switch v := v.(type) {
	case []any:
		slices.Reverse(v)
		for _, item := range v {
			reverse(item)
		}
	case map[string]any:
		for _, item := range v {
			reverse(item)
		}
	}
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, instances, instance, want string
	}{
		{"no list", `{"a": 1}`, `{}`, "read vpns instances of node-a: the daemon did not send a list"},
		{"no looking glass", ``, `{}`, "read vpns instances of node-a: 404"},
		{"no JSON", `<html>`, `{}`, "read vpns instances of node-a: parse JSON"},
		{"no object", `[{"id": "red\u0007", "name": "VRF-1"}]`, `[]`, `read vpns instances red\a of node-a: the daemon did not send an object`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pages := map[string]json.RawMessage{"/vpns/instances/red\a": []byte(tt.instance)}
			if tt.instances != "" {
				pages["/vpns/instances"] = []byte(tt.instances)
			}
			_, err := glass(t, "node-a", pages).Read(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestInstanceThatGoesAwayIsLeftOut(t *testing.T) {
	t.Parallel()
	s, err := glass(t, "node-a", map[string]json.RawMessage{
		"/vpns/instances":     []byte(`[{"id": "gone", "name": "VRF-1"}, {"id": "red", "name": "VRF-2"}]`),
		"/vpns/instances/red": []byte(`{"name": "VRF-2"}`),
	}).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Instance{{ID: "red", Name: "VRF-2", Type: VRF, Import: []string{}, Export: []string{}, Ports: []string{}}}
	if diff := cmp.Diff(want, s.Instances); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStrangeRepliesDoNoHarm feeds members of wrong types.
func TestStrangeRepliesDoNoHarm(t *testing.T) {
	t.Parallel()
	for _, instance := range []string{
		`{"route_targets": [], "readvertise": null, "attract_traffic": null, "gateway_port": null}`,
		`{"route_targets": {"import": "target:1:1", "export": [1, null, {"a": []}]}, "readvertise": {"from": 1}, "attract_traffic": {"x": 1}, "gateway_port": 5}`,
		`{"readvertise": {"to": [[]]}, "attract_traffic": {"classifier": [], "redirect_rts": {}}, "gateway_port": {"ipvpn": "x"}}`,
	} {
		s, err := glass(t, "node-a", map[string]json.RawMessage{
			"/vpns/instances":     []byte(`[{"id": "red"}, 5, null]`),
			"/vpns/instances/red": []byte(instance),
		}).Read(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", instance, err)
		}
		_, _ = io.WriteString(io.Discard, DOT([]Server{s})+Text([]Server{s}))
	}
}

// FuzzNames holds DOT to balanced quotes and both to printable text, whatever
// the names are.
func FuzzNames(f *testing.F) {
	f.Add("red", "64512:1", "tap1")
	f.Add("\"\\\"", "\\", "\x1b[0m\n{|}")
	f.Fuzz(func(t *testing.T, id, rt, port string) {
		servers := []Server{{Name: id, Instances: []Instance{{
			ID: id, Name: "VRF-1", Type: VRF, Import: []string{rt}, Export: []string{rt + "x"}, Ports: []string{port},
			Readvertise: &Readvertise{From: []string{rt}}, Attract: &Attract{Redirect: []string{rt}, Classifier: client.Object{{Name: id, Value: port}}},
		}}}}
		for _, text := range []string{DOT(servers), Text(servers)} {
			if got := visible(strings.ReplaceAll(text, "\n", "")); got != strings.ReplaceAll(text, "\n", "") {
				t.Errorf("not printable: %q", text)
			}
		}
		for line := range strings.Lines(DOT(servers)) {
			if err := quotesEnd(line); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	})
}

// quotesEnd checks that all quoted strings of a line end in it, and that outside
// of them there is nothing but what we write ourselves.
func quotesEnd(line string) error {
	var outside bytes.Buffer
	in := false
	for k := 0; k < len(line); k++ {
		switch {
		case in && line[k] == '\\':
			k++
		case line[k] == '"':
			in = !in
		case !in:
			outside.WriteByte(line[k])
		}
	}
	if in {
		return fmt.Errorf("a quoted string does not end")
	}
	for _, r := range outside.String() {
		if r > 0x7e || strings.ContainsRune("\\'|", r) {
			return fmt.Errorf("%q outside of quotes", r)
		}
	}
	return nil
}
