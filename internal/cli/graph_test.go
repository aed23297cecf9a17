// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"image/png"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bagpipe-vpn/bagpipe/internal/golden"
)

// secondHost starts a looking glass on 127.0.0.2, at the port of another one. Its
// instance is the other end of what the first has.
func (d *daemon) secondHost(t *testing.T) {
	t.Helper()
	pages := map[string]string{
		"/vpns/instances":                `[{"id": "vrf-blue", "name": "VRF-1"}]`,
		"/vpns/instances/vrf-blue":       `{"name": "VRF-1", "route_targets": {"import": [], "export": ["target:64512:1"]}, "readvertise": {"from": ["target:64512:5"], "to": ["target:64512:2"]}, "attract_traffic": {"redirect_rts": ["target:64512:6"], "classifier": {"protocol": "udp"}, "to": ["target:64512:2"], "static_destination_prefixes": ["203.0.113.0/24"]}}`,
		"/vpns/instances/vrf-blue/ports": `{"to-fw": {}, "tap1": {}}`,
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.2:"+d.port())
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[strings.TrimPrefix(r.URL.Path, "/looking-glass")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(page))
	})}}
	srv.Start()
	t.Cleanup(srv.Close)
}

func TestGraph(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.secondHost(t)
	const two = " --server 127.0.0.1 --server 127.0.0.2 --server 127.0.0.1"
	for _, tt := range []struct{ name, args string }{
		{"graph_text", "bagpipe graph"},
		{"graph_two_text", "bagpipe graph" + two},
		{"graph_two_json", "bagpipe graph -o json" + two},
		{"graph_two_json", "bagpipe graph --format json" + two},
		{"graph_two_json", "bagpipe graph -o json --format json" + two},
		{"graph_two_dot", "bagpipe graph --format dot" + two},
		{"graph_two_dot", "bagpipe-impex2dot" + two},
		{"graph_two_dot", "bagpipe-impex2dot --prefix /looking-glass/" + two},
		{"graph_dot", "bagpipe-impex2dot --serv 127.0.0.1"},
	} {
		got := d.call(t, strings.Fields(tt.args)...)
		if got.status != 0 || got.stderr != "" {
			t.Errorf("%s: got %+v", tt.args, got)
		}
		golden.Check(t, tt.name, got.stdout)
	}
}

func TestGraphToFile(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	file := filepath.Join(t.TempDir(), "graph.txt")
	if got := d.call(t, "bagpipe", "graph", "--output-file", file); got != (outcome{}) {
		t.Errorf("got %+v", got)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "graph_text", string(text))
	got := d.call(t, "bagpipe", "graph", "--output-file", filepath.Join(file, "below"))
	if got.status != 1 || !strings.Contains(got.stderr, "below: not a directory") {
		t.Errorf("got %+v", got)
	}
}

// TestGraphOfServersThatAreNotThere: there is no picture of a part of the servers.
func TestGraphOfServersThatAreNotThere(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for _, command := range []string{"bagpipe graph", "bagpipe-impex2dot"} {
		got := d.call(t, strings.Fields(command+" --server 127.0.0.3 --server 127.0.0.1 --server 127.0.0.4")...)
		if got.status != 1 || got.stdout != "" {
			t.Errorf("%s: got %+v", command, got)
		}
		for _, want := range []string{"read vpns instances of 127.0.0.3: ", "read vpns instances of 127.0.0.4: ", "connection refused"} {
			if !strings.Contains(got.stderr, want) {
				t.Errorf("%s: %q is not in %q", command, want, got.stderr)
			}
		}
		got = d.call(t, strings.Fields(command+" --server 127.0.0.1 --prefix elsewhere")...)
		if got.status != 1 || !strings.Contains(got.stderr, "read vpns instances of 127.0.0.1: 404") {
			t.Errorf("%s: got %+v", command, got)
		}
	}
}

func TestGraphUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"bagpipe graph red", "Try 'bagpipe graph --help'."},
		{"bagpipe graph --format gif", "must be one of text, dot, svg, png, json\nTry 'bagpipe graph --help'."},
		{"bagpipe graph -o json --format svg", "bagpipe: -o json and --format svg exclude each other\nTry 'bagpipe graph --help'."},
		{"bagpipe-impex2dot red", "bagpipe-impex2dot: unexpected argument \"red\"\nTry 'bagpipe-impex2dot --help'."},
		{"bagpipe-impex2dot --format svg", "unknown option --format"},
	} {
		got := call(t, Env{}, strings.Fields(tt.args)...)
		if got.status != 2 || got.stdout != "" || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%s: got %+v", tt.args, got)
		}
	}
	got := call(t, Env{}, "bagpipe-impex2dot", "--help")
	if got.status != 0 || !strings.Contains(got.stdout, "--prefix") {
		t.Errorf("got %+v", got)
	}
}

// TestPictures runs the program that draws, found on PATH.
func TestPictures(t *testing.T) {
	bin := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/bagpipe-dot").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("PATH", bin)
	d := newDaemon(t)
	got := d.call(t, strings.Fields("bagpipe graph --format svg")...)
	if got.status != 0 || got.stderr != "" || !strings.Contains(got.stdout, ">64512:100</text>") || !strings.Contains(got.stdout, "EVI evi&#45;red") {
		t.Errorf("got %+v", got)
	}
	got = d.call(t, strings.Fields("bagpipe graph --format png")...)
	if _, err := png.Decode(bytes.NewReader([]byte(got.stdout))); got.status != 0 || got.stderr != "" || err != nil {
		t.Errorf("status %d, errors %q, %v", got.status, got.stderr, err)
	}
}

// TestPicturesByOthers: Graphviz's dot serves, too, and one that fails says why.
func TestPicturesByOthers(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	d := newDaemon(t)
	got := d.call(t, strings.Fields("bagpipe graph --format svg")...)
	if got.status != 1 || got.stdout != "" || !strings.Contains(got.stderr, "bagpipe-dot is not in ") || !strings.Contains(got.stderr, "not on PATH, nor is Graphviz's dot\n") {
		t.Errorf("got %+v", got)
	}
	script := "#!/bin/sh\necho \"$@\"\nread -r line && echo \"$line\"\n"
	if err := os.WriteFile(filepath.Join(bin, "dot"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	got = d.call(t, strings.Fields("bagpipe graph --format svg")...)
	if diff := cmp.Diff(outcome{0, "-Tsvg\ndigraph import_export {\n", ""}, got, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(bin, "bagpipe-dot"), []byte("#!/bin/sh\necho half\necho out of ink >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	got = d.call(t, strings.Fields("bagpipe graph --format svg")...)
	if got.status != 1 || got.stdout != "" || !strings.Contains(got.stderr, "exit status 3: out of ink\n") {
		t.Errorf("got %+v", got)
	}
}
