// SPDX-License-Identifier: Apache-2.0

package api

import (
	"log/slog"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

const timeLayout = "2006-01-02 15:04:05"

// lookingGlass serves the tree of the looking glass. Hrefs are absolute and
// extend the URL of the request, which is what clients follow.
func (s *Server) lookingGlass(w http.ResponseWriter, r *http.Request) {
	path := lookingGlassPath(r.URL.EscapedPath())
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	root := scheme + "://" + r.Host + "/looking-glass"
	node, ok := resolve(s.root(), path)
	if last := len(path) - 1; !ok && last >= 0 && strings.HasSuffix(path[last], ".json") {
		path[last] = strings.TrimSuffix(path[last], ".json") // unless an id ends so
		node, ok = resolve(s.root(), path)
	}
	here := root
	for _, p := range path {
		here = join(here, p)
	}
	if !ok {
		writeError(w, http.StatusNotFound, "No such looking glass object: "+path[len(path)-1]+" at "+here)
		return
	}
	writeJSON(w, http.StatusOK, render(node, here, root))
}

// lookingGlassPath returns the segments of a URL's path below the root.
func lookingGlassPath(escaped string) []string {
	escaped = strings.TrimPrefix(escaped, "/looking-glass")
	var path []string
	for seg := range strings.SplitSeq(strings.Trim(escaped, "/"), "/") {
		if plain, err := url.PathUnescape(seg); err == nil && plain != "" {
			path = append(path, plain)
		}
	}
	return path
}

func (s *Server) root() any {
	return object{
		{"summary", s.summary()},
		{"config", subtree(s.configTree)},
		{"bgp", subtree(s.bgpTree)},
		{"vpns", subtree(s.vpnsTree)},
		{"logs", subtree(func() any { return s.logs("", true) })},
		{"not_ready", subtree(func() any { return shown(s.notReady()) })},
	}
}

func (s *Server) summary() object {
	return object{
		{"BGP_established_peers", s.Speaker.Established()},
		{"route_counts", s.routeCounts()},
		{"vpn_instances_count", s.Manager.Count()},
		{"warnings_and_errors", s.Logs.Len()},
		{"start_time", s.Started.Format(timeLayout)},
		{"version", s.Version},
	}
}

// routeCounts counts routes without those of route target constraint.
func (s *Server) routeCounts() object {
	received, local := s.RIB.Counts()
	sum := func(m map[wire.Family]int) (n int) {
		for f, c := range m {
			if f != wire.RTC {
				n += c
			}
		}
		return n
	}
	return object{{"local_routes_count", sum(local)}, {"received_routes_count", sum(received)}}
}

func (s *Server) configTree() any {
	var o object
	if s.Settings == nil {
		return o
	}
	for _, sec := range s.Settings() {
		var opts object
		for _, opt := range sec.Options {
			opts = append(opts, member{opt.Name, opt.Value})
		}
		o = append(o, member{sec.Name, opts})
	}
	return o
}

// logs returns the warnings about a subject, or all; named adds the member
// "name" that only the list of all has.
func (s *Server) logs(subject string, named bool) any {
	out := []object{}
	for _, r := range s.Logs.Records(subject) {
		o := object{{"level", levelText(r.Level)}, {"time", r.Time.Format(timeLayout + ",000")}}
		if named {
			o = append(o, member{"name", "bagpipe-bgp"})
		}
		out = append(out, append(o, member{"message", strings.ReplaceAll(r.Message, `"`, "'")}))
	}
	return out
}

// levelText names a level as the original does.
func levelText(l slog.Level) string {
	if l == slog.LevelWarn {
		return "WARNING"
	}
	return l.String()
}

func (s *Server) bgpTree() any {
	o := object{
		{"peers", subtree(s.peers)},
		{"routes", subtree(s.routes)},
		{"workers", subtree(s.workers)},
		{"route_counts", s.routeCounts()},
		{"adv_routes", subtree(func() any { return routeList(s.RIB.Paths(rib.FromSource(managerSource)), true) })},
	}
	if s.Monitoring != nil {
		o = append(o, member{"monitoring", subtree(s.monitoring)})
	}
	return o
}

// monitoring lists the BMP stations.
func (s *Server) monitoring() any {
	out := []object{}
	for _, st := range s.stations() {
		out = append(out, object{
			{"station", st.Station}, {"connected", st.Connected}, {"since", st.Since.Format(timeLayout)}, {"connections", st.Connections},
			{"messages_sent", st.Messages}, {"bytes_sent", st.Bytes}, {"routes_sent", st.Routes}, {"last_error", orNil(st.LastError)},
		})
	}
	return out
}

// managerSource is the source of the RTC routes that the daemon makes.
const managerSource = "BGPManager"

func (s *Server) peers() any {
	var c collection
	for _, n := range s.Speaker.Neighbours() {
		c = append(c, entry{
			id: n.Config().Peer.String(), shown: object{{"state", n.Status().State.String()}},
			get: func() any { return s.peer(n) },
		})
	}
	return c
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// workers lists all sources of routes by name, each with the object of the
// peer or instance.
func (s *Server) workers() any {
	c := collection{{id: managerSource, get: func() any {
		return object{{"name", managerSource}, {"adv_routes", subtree(func() any { return routeList(s.RIB.Paths(rib.FromSource(managerSource)), true) })}}
	}}}
	for _, n := range s.Speaker.Neighbours() {
		c = append(c, entry{id: n.Name, get: func() any { return s.peer(n) }})
	}
	for _, i := range s.Manager.Instances() {
		c = append(c, entry{id: i.Name, get: func() any { return s.instance(i) }})
	}
	return c
}

// routes lists all routes by family, under the names of the original.
func (s *Server) routes() any {
	var o object
	for _, f := range wire.Families {
		o = append(o, member{f.String() + ",*", subtree(func() any {
			return routeList(s.RIB.Paths(func(p rib.Path) bool { return p.NLRI.Kind.Family() == f }), true)
		})})
	}
	return inlined(o)
}

// inlined evaluates the subtrees of an object, for places where the original
// shows everything at once.
func inlined(o object) object {
	for i, m := range o {
		if sub, ok := m.value.(subtree); ok {
			o[i].value = sub()
		}
	}
	return o
}

func (s *Server) vpnsTree() any {
	perVNI := object{}
	for _, i := range s.Manager.Instances() {
		perVNI = append(perVNI, member{strconv.Itoa(int(i.VNI)), object{{"name", i.Name}, {"external_instance_id", i.ID}}})
	}
	return object{
		{"instances", subtree(s.instances)},
		{"dataplane", subtree(s.dataplane)},
		{"instances_per_vni", perVNI},
	}
}

func (s *Server) dataplane() any {
	return object{
		{"drivers", subtree(func() any {
			var c collection
			for _, t := range []dataplane.VPNType{dataplane.EVPN, dataplane.IPVPN} {
				if d := s.Reconciler.Driver(t); d != nil {
					c = append(c, entry{id: string(t), get: func() any { return s.driver(t, d) }})
				}
			}
			return c
		})},
		{"ids", subtree(func() any {
			ids := s.Manager.Labels()
			var sorted []int
			for n := range ids {
				sorted = append(sorted, int(n))
			}
			sort.Ints(sorted)
			o := object{}
			for _, n := range sorted {
				o = append(o, member{strconv.Itoa(n), ids[uint32(n)]})
			}
			return o
		})},
		{"problems", subtree(func() any {
			out := []object{}
			for _, p := range s.Reconciler.Problems() {
				out = append(out, object{
					{"instance", p.Instance}, {"count", p.Count}, {"change", p.Change.String()}, {"error", p.Err.Error()},
					{"since", p.Since.Format(timeLayout)}, {"attempts", p.Attempts},
				})
			}
			return out
		})},
	}
}

func (s *Server) driver(t dataplane.VPNType, d dataplane.Driver) any {
	o := object{}
	for _, m := range d.Describe() {
		o = append(o, member{m.Name, m.Value})
	}
	encaps := []string{}
	for _, e := range d.Capabilities().Encaps {
		encaps = append(encaps, "encap:"+e.String())
	}
	cfg := any(object{})
	if c, ok := resolve(s.configTree(), []string{"DATAPLANE_DRIVER_" + strings.ToUpper(string(t))}); ok {
		cfg = c
	}
	return append(o,
		member{"name", d.Name()}, member{"local_address", s.Manager.Tunnel[t].String()}, member{"supported_encaps", encaps},
		member{"config", cfg}, member{"kernel_release", kernelRelease()}, member{"logs", subtree(func() any { return s.logs("driver "+d.Name(), false) })},
	)
}
