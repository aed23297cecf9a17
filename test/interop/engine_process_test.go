// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bfd"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/session"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/speaker"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/transport"
	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
	"github.com/bagpipe-vpn/bagpipe/internal/rib"
)

// engineVariable holds the setup of an engine process.
const engineVariable = "BAGPIPE_INTEROP_ENGINE"

// An engineSetup is what tests choose of an engine with one neighbour.
type engineSetup struct {
	AS, PeerAS  uint32
	Local, Peer string
	Passive     bool // we wait for the peer
	Families    []string
	// GracefulRestart keeps the peer's routes while it restarts, and asks it to
	// keep ours.
	GracefulRestart bool
	Password        string
	TTLSecurity     int
	BFD             string // "single-hop", "multihop"
}

// An engineCommand is a line that the process reads, an engineReply one that it
// writes for it.
type engineCommand struct {
	Do     string // "announce", "withdraw", "imports", "state"
	Routes []vpnRoute
	RTs    []string
}

type engineReply struct {
	Error string
	engineState
}

// An engineState is what the engine knows of its neighbour.
type engineState struct {
	State     string
	Sessions  uint64
	Families  []string
	LastError string
	Routes    []vpnRoute
	BFD       string
	// EndOfRIB is set when the peer has sent all its routes.
	EndOfRIB bool
	// Faults counts what was wrong in received messages.
	Faults uint64
}

// An engine is our speaker and RIB with a local source of any routes.
type engine struct {
	rib    *rib.RIB
	in     *rib.Interner
	source rib.SourceID
	tables []*rib.Table
	sp     *speaker.Speaker
}

// runEngine is the engine process: it obeys the commands of standard input
// until that ends, and logs to standard error.
func runEngine(setup string) error {
	var s engineSetup
	if err := json.Unmarshal([]byte(setup), &s); err != nil {
		return err
	}
	e, err := newEngine(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- e.sp.Run(ctx) }()
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var c engineCommand
		var r engineReply
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			return err
		}
		if err := e.do(c); err != nil {
			r.Error = err.Error()
		}
		r.engineState = e.state()
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	cancel()
	return <-done
}

func newEngine(s engineSetup) (*engine, error) {
	e := &engine{rib: rib.New()}
	e.in = e.rib.NewInterner()
	local := netip.MustParseAddr(s.Local)
	var err error
	if e.source, err = e.rib.AddSource("local", rib.Local); err != nil {
		return nil, err
	}
	rtc, err := e.rib.AddSource("rtc", rib.Local)
	if err != nil {
		return nil, err
	}
	e.rib.OriginateRTC(rtc, s.AS, wire.LocalAttrs{NextHop: local}.Build())
	for _, view := range []rib.View{rib.EVI, rib.VRF} {
		e.tables = append(e.tables, e.rib.NewTable(rib.TableConfig{
			View: view, Source: e.source, Dirty: func() {},
			Usable: func(wire.Route, *wire.Attrs) bool { return true },
		}))
	}
	c := speaker.Config{
		AS: s.AS, RouterID: local, Local: local, Hostname: "engine", Settings: s.settings(),
		Peers: []speaker.PeerConfig{{Addr: netip.MustParseAddr(s.Peer), Port: 179, Passive: s.Passive}},
		// A node that dials does not listen, so that the side that dials is known.
		Listen: s.Passive, ListenPort: 179,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if s.BFD != "" {
		c.BFD = bfd.NewNode(c.Log)
	}
	e.sp, err = speaker.New(c, e.rib)
	return e, err
}

// settings returns the neighbour's options.
func (s engineSetup) settings() speaker.Settings {
	out := speaker.Settings{
		AS: s.PeerAS, HoldTime: 90, RetryMax: time.Second, Irrelevant: speaker.Keep,
		Transport: transport.Options{Password: s.Password, TTLSecurity: s.TTLSecurity},
	}
	for _, f := range s.Families {
		out.Families = append(out.Families, families[f])
	}
	if s.GracefulRestart {
		out.Restart = &speaker.Restart{Time: 60, Notification: true, StaleTime: time.Minute}
	}
	if s.BFD != "" {
		out.BFD = &bfd.Config{
			Multihop: s.BFD == "multihop", MinTx: 50 * time.Millisecond, MinRx: 50 * time.Millisecond, Multiplier: 3,
		}
	}
	return out
}

// do carries a command out.
func (e *engine) do(c engineCommand) error {
	var b rib.Batch
	switch c.Do {
	case "announce", "withdraw":
		for _, r := range c.Routes {
			route, attrs, err := r.wire()
			if err != nil {
				return fmt.Errorf("%+v: %w", r, err)
			}
			if c.Do == "withdraw" {
				b.Withdraw(route.NLRI)
				continue
			}
			set := e.in.InternLocal(attrs)
			b.Hold(set)
			b.Announce(route, set)
		}
		e.rib.Apply(e.source, &b)
	case "imports":
		var rts []wire.RT
		for _, s := range c.RTs {
			rt, err := wire.ParseRT(s)
			if err != nil {
				return err
			}
			rts = append(rts, rt)
		}
		for _, t := range e.tables {
			t.SetImports(rts)
		}
	}
	return nil
}

// state describes the neighbour.
func (e *engine) state() engineState {
	n := e.sp.Neighbours()[0]
	st := n.Status()
	out := engineState{
		State: strings.ToLower(st.State.String()), Sessions: st.Established, LastError: st.LastError, EndOfRIB: e.sp.Converged(),
	}
	if st.State == session.Established {
		out.State = "established"
		for _, f := range st.Negotiated.Families {
			out.Families = append(out.Families, familyName(f))
		}
	}
	for _, p := range e.rib.Paths(rib.FromSource(n.Name)) {
		out.Routes = append(out.Routes, routeOf(p))
	}
	if path, ok := n.Path(); ok {
		out.BFD = strings.ToLower(path.State.String())
	}
	for _, count := range n.Faults() {
		out.Faults += count
	}
	out.Faults += n.Ignored()
	return out
}
