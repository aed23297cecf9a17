// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// ErrNotUp is returned by Status for a lab that is not there.
var ErrNotUp = errors.New("not up")

// Status looks at a lab: processes, sessions, instances, and one ping each way.
// The error is ErrNotUp when there is no lab, and ErrUnreachable when something
// in it does not work; then there is a Report too.
func Status(ctx context.Context, o Options) (*Report, error) {
	if o.Name != "" && !goodName.MatchString(o.Name) {
		return nil, fmt.Errorf("lab name %q is not one", o.Name)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab is made of network namespaces: run it as root")
	}
	s, err := openStore(stateDir(o), false)
	if errors.Is(err, errNotUp) {
		return nil, fmt.Errorf("%s is %w", o.title(), ErrNotUp)
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", o.title(), err)
	}
	defer s.close()
	st, err := s.load()
	if errors.Is(err, errNotUp) {
		return nil, fmt.Errorf("%s is %w", o.title(), ErrNotUp)
	}
	if err != nil {
		return nil, err
	}
	options := st.Options
	options.RunDir = o.RunDir
	p, err := NewPlan(options)
	if err != nil {
		return nil, err
	}
	r := p.report(ctx, st, p.look(ctx))
	if !st.Ready || !r.OK {
		r.OK = false
		return r, ErrUnreachable
	}
	return r, nil
}

// Write writes the report as text for people.
func (r *Report) Write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { _, _ = fmt.Fprintln(tw, strings.Join(cells, "\t")) }
	line("NODE", "BGP SESSIONS", "INSTANCES", "LOCAL ROUTES", "RECEIVED ROUTES", "DATAPLANE", "WARNINGS", "STATE")
	for _, n := range r.Nodes {
		routes := n.Summary.Object("route_counts")
		line(n.Name, orDash(strings.Join(n.Sessions, " ")), orDash(strings.Join(n.Instances, " ")),
			orDash(routes.Text("local_routes_count")), orDash(routes.Text("received_routes_count")),
			orDash(n.Dataplane.String()), orDash(n.Summary.Text("warnings_and_errors")), n.condition())
	}
	line()
	line("PROCESS", "PID", "NAMESPACE", "STATE", "LOG", "CONFIGURATION")
	for _, p := range r.Processes {
		state := "running"
		if !p.Running {
			state = "GONE"
		}
		line(p.Name, fmt.Sprint(p.PID), p.Namespace, state, p.Log, orDash(p.Config))
	}
	line()
	if err := tw.Flush(); err != nil {
		return err
	}
	text := fmt.Sprintf("namespaces: %s\ntraffic: %s\n", strings.Join(r.Namespaces, " "), r.traffic())
	if len(r.Try) > 0 {
		text += "try:\n  " + strings.Join(r.Try, "\n  ") + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// traffic sums the checks up and names those that failed.
func (r *Report) traffic() string {
	text := fmt.Sprintf("%d of %d checks passed", len(r.Checks)-countFailed(r.Checks), len(r.Checks))
	for _, c := range r.Checks {
		if !c.OK {
			text += "\n  " + c.String()
		}
	}
	return text
}

func (s NodeStatus) condition() string {
	switch {
	case s.Error != "":
		return "no answer: " + s.Error
	case len(s.NotReady) > 0:
		return "not ready: " + strings.Join(s.NotReady, "; ")
	case !s.OK():
		return "no session or instance"
	}
	return "ok"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
