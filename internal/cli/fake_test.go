// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// daemon stands in for bagpipe-bgp: a looking glass read from
// testdata/daemon.json and other such files, and the calls that change things.
type daemon struct {
	*httptest.Server
	// posts are "path body" of the calls received.
	posts []string
	// refuse is the description of an error to answer calls with.
	refuse string
}

// newDaemon returns a daemon; pages of later files take the place of earlier ones.
func newDaemon(t *testing.T, more ...string) *daemon {
	t.Helper()
	var pages map[string]json.RawMessage
	for _, file := range append([]string{"daemon.json"}, more...) {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &pages); err != nil {
			t.Fatal(err)
		}
	}
	d := &daemon{}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			d.post(w, r)
			return
		}
		page, ok := pages[strings.TrimPrefix(r.URL.Path, "/looking-glass")]
		switch {
		case strings.HasSuffix(r.URL.Path, "/broken"):
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"code": 500, "title": "Internal Server Error", "description": "Server error"}`)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code": 404, "title": "Not Found", "description": "No such looking glass object"}`)
		default:
			_, _ = io.WriteString(w, strings.ReplaceAll(string(page), "HOST", r.Host))
		}
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *daemon) post(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	d.posts = append(d.posts, r.URL.Path+" "+string(body))
	if d.refuse == "" {
		_, _ = io.WriteString(w, "null")
		return
	}
	w.WriteHeader(http.StatusBadRequest)
	_, _ = fmt.Fprintf(w, `{"code": 400, "title": "Bad Request", "description": %q}`, d.refuse)
}

// config writes a configuration file with the daemon's port.
func (d *daemon) config(t *testing.T) string {
	t.Helper()
	return configFile(t, "[API]\nport = "+d.port()+"\n")
}

func (d *daemon) port() string {
	_, port, _ := net.SplitHostPort(d.Listener.Addr().String())
	return port
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bgp.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// outcome is what a command did.
type outcome struct {
	status         int
	stdout, stderr string
}

// call runs a command line with an environment.
func call(t *testing.T, env Env, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env.Stdout, env.Stderr = &stdout, &stderr
	if env.ConfigFile == "" {
		env.ConfigFile = filepath.Join(t.TempDir(), "none.conf")
	}
	status := Run(t.Context(), env, args)
	return outcome{status, stdout.String(), stderr.String()}
}

// call runs a command line against the daemon.
func (d *daemon) call(t *testing.T, args ...string) outcome {
	t.Helper()
	got := call(t, Env{ConfigFile: d.config(t), Version: "1.2.3"}, args...)
	got.stdout = strings.ReplaceAll(got.stdout, d.Listener.Addr().String(), "HOST")
	got.stderr = strings.ReplaceAll(got.stderr, d.Listener.Addr().String(), "HOST")
	return got
}
