// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/api"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/config"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/dummy"
	"github.com/bagpipe-vpn/bagpipe/internal/logbook"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
	"github.com/bagpipe-vpn/bagpipe/internal/vpn"
)

// blocks returns the fenced blocks of a language in the documents, by file.
func blocks(t *testing.T, language string) map[string][]string {
	t.Helper()
	docs, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	fence := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```")
	out := map[string][]string{}
	for _, path := range append(docs, filepath.Join(root, "README.md")) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllStringSubmatch(string(b), -1) {
			out[filepath.Base(path)] = append(out[filepath.Base(path)], m[1])
		}
	}
	return out
}

func TestConfigurationsInDocsLoad(t *testing.T) {
	t.Parallel()
	resolver := config.Resolver{
		InterfaceAddrs: func(string) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil },
		LookupHost:     func(string) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.0.2.101")}, nil },
	}
	found := blocks(t, "ini")
	if len(found["README.md"]) == 0 || len(found["configuration.md"]) == 0 {
		t.Fatalf("no examples found: %v", found)
	}
	for doc, texts := range found {
		for _, text := range texts {
			path := filepath.Join(t.TempDir(), "bgp.conf")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, warnings, err := config.Load(config.Source{Files: []string{path}, Resolver: resolver}); err != nil || len(warnings) > 0 {
				t.Errorf("%s: %v %v\n%s", doc, err, warnings, text)
			}
		}
	}
}

// node returns a daemon's HTTP side with dummy dataplanes.
func node(t *testing.T) http.Handler {
	t.Helper()
	local, log := netip.MustParseAddr("192.0.2.1"), slog.New(slog.DiscardHandler)
	rec := dataplane.NewReconciler(map[dataplane.VPNType]dataplane.Driver{
		dataplane.EVPN: dummy.New(dataplane.EVPN, local), dataplane.IPVPN: dummy.New(dataplane.IPVPN, local),
	}, log)
	r := rib.New()
	m, err := vpn.NewManager(vpn.Config{
		AS: 64512, RouterID: local, Local: local, Log: log,
		Tunnel: map[dataplane.VPNType]netip.Addr{dataplane.EVPN: local, dataplane.IPVPN: local},
	}, r, rec)
	if err != nil {
		t.Fatal(err)
	}
	sp, err := speaker.New(speaker.Config{AS: 64512, RouterID: local, Local: local, Log: log}, r)
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Node{Manager: m, RIB: r, Speaker: sp, Reconciler: rec, Logs: &logbook.Book{}, Log: log, Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRequestsInDocsAreAccepted(t *testing.T) {
	t.Parallel()
	h := node(t)
	sent := 0
	for doc, texts := range blocks(t, "json") {
		for _, text := range texts {
			if !strings.Contains(text, `"vpn_type"`) {
				continue
			}
			sent++
			for _, path := range []string{"/attach_localport", "/detach_localport"} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(text)))
				if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != "null" {
					t.Errorf("%s: %s answers %d %s to\n%s", doc, path, w.Code, w.Body, text)
				}
			}
		}
	}
	if sent == 0 {
		t.Error("no requests found")
	}
}
