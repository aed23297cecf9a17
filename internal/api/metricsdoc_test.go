// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/bagpipe-vpn/bagpipe/internal/api"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/golden"
)

const metricsDoc = "../../docs/metrics.md"

// metricsTable is the table of docs/metrics.md.
func metricsTable() string {
	var b strings.Builder
	b.WriteString("| Name | Type | Labels | Meaning |\n|---|---|---|---|\n")
	for _, m := range api.Metrics {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		b.WriteString("| `" + m.Name + "` | " + m.Type + " | " + labels + " | " + m.Help + " |\n")
	}
	return b.String()
}

// The table of docs/metrics.md is that of the code; -update writes it.
func TestMetricsDocument(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	from := strings.Index(doc, "| Name | Type | Labels | Meaning |\n")
	if from < 0 {
		t.Fatal("no table in " + metricsDoc)
	}
	have, rest, _ := strings.Cut(doc[from:], "\n\n")
	have += "\n"
	if golden.Updating() {
		if err := os.WriteFile(metricsDoc, []byte(doc[:from]+metricsTable()+"\n"+rest), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(metricsTable(), have); diff != "" {
		t.Errorf("%s (-want +got):\n%s", metricsDoc, diff)
	}
}

// names returns the metrics of the node that a text mentions, a histogram by its
// own name.
func names(text string) []string {
	var out []string
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	for _, name := range regexp.MustCompile(`bagpipe_\w+`).FindAllString(text, -1) {
		if base := suffix.ReplaceAllString(name, ""); base != name && kindOf(base) == "histogram" {
			name = base
		}
		out = append(out, name)
	}
	return out
}

// kindOf returns the type of a metric, "" when there is none of that name.
func kindOf(name string) string {
	i := slices.IndexFunc(api.Metrics, func(m api.Metric) bool { return m.Name == name })
	if i < 0 {
		return ""
	}
	return api.Metrics[i].Type
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What dashboard, alerts and documents mention exists; the dashboard shows about
// everything there is.
func TestMetricsInUseExist(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"../../packaging/grafana-dashboard.json", "../../packaging/alerts.yml", metricsDoc} {
		found := names(read(t, path))
		if len(found) == 0 {
			t.Errorf("%s mentions no metric", path)
		}
		for _, name := range found {
			if kindOf(name) == "" {
				t.Errorf("%s mentions %s, which is no metric of the node", path, name)
			}
		}
	}
	shown := names(read(t, "../../packaging/grafana-dashboard.json"))
	for _, m := range api.Metrics {
		if !slices.Contains(shown, m.Name) {
			t.Errorf("the dashboard does not show %s", m.Name)
		}
	}
}

// Alerts have a summary and a description, and a name once.
func TestAlertsAreDescribed(t *testing.T) {
	t.Parallel()
	text := read(t, "../../packaging/alerts.yml")
	alerts := regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatchIndex(text, -1)
	if len(alerts) == 0 {
		t.Fatal("no alerts")
	}
	seen := map[string]bool{}
	for i, at := range alerts {
		name, end := text[at[2]:at[3]], len(text)
		if i+1 < len(alerts) {
			end = alerts[i+1][0]
		}
		for _, want := range []string{`\n +expr: `, `\n +severity: (warning|critical)\n`, `\n +summary: \S`, `\n +description: \S`} {
			if !regexp.MustCompile(want).MatchString(text[at[0]:end]) {
				t.Errorf("alert %s has nothing like %q", name, want)
			}
		}
		if seen[name] {
			t.Errorf("alert %s is there twice", name)
		}
		seen[name] = true
	}
}

// dashboard is what the tests need to know of a Grafana dashboard.
type dashboard struct {
	Schema     int `json:"schemaVersion"`
	Templating struct {
		List []struct{ Name, Type string } `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID         int    `json:"id"`
		Type       string `json:"type"`
		Title      string `json:"title"`
		Datasource struct {
			UID string `json:"uid"`
		} `json:"datasource"`
		GridPos struct{ X, Y, W, H int } `json:"gridPos"`
		Targets []struct {
			Expr  string `json:"expr"`
			RefID string `json:"refId"`
		} `json:"targets"`
	} `json:"panels"`
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "../../packaging/grafana-dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.Schema < 39 || len(d.Templating.List) == 0 || d.Templating.List[0].Name != "datasource" || d.Templating.List[0].Type != "datasource" {
		t.Errorf("schema %d, variables %v: want schema 39 or later and a data source to choose", d.Schema, d.Templating.List)
	}
	ids, rows, taken := map[int]bool{}, []string{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q has the id %d of another", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies on %q or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %q has data source %q and %d queries", p.Title, p.Datasource.UID, len(p.Targets))
		}
	}
	want := []string{"Node", "Sessions", "Routes", "Stale routes", "BFD", "Monitoring (BMP)", "Dataplane", "API", "Process"}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// The collector says what it will send, sends it without faults, and the names
// are those that Prometheus asks for.
func TestCollectorPassesTheLinter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := filled(t)
		s.get("/ping")
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(s.Collector())
		all, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		problems, err := promlint.NewWithMetricFamilies(all).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	})
}

// What the engine counts shows under labels of which there are few.
func TestLabelsOfCodes(t *testing.T) {
	t.Parallel()
	got := api.ByCode(map[uint8]uint64{wire.CodeCease: 3, wire.CodeHold: 1, 0: 2, 99: 5, 255: 1})
	want := map[string]uint64{
		"message_header": 0, "open": 0, "update": 0, "hold_timer": 1, "fsm": 0, "cease": 3, "route_refresh": 0, "other": 8,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}
