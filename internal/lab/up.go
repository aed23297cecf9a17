// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/bagpipe-vpn/bagpipe/internal/rr"
)

// How long the parts may take to come up.
const (
	startTimeout   = 10 * time.Second
	sessionTimeout = 20 * time.Second
)

// Report is what Up and Status have found.
type Report struct {
	Name       string        `json:"name"`
	Dir        string        `json:"dir"`
	OK         bool          `json:"ok"`
	Processes  []ProcessInfo `json:"processes"`
	Namespaces []string      `json:"namespaces"`
	Nodes      []NodeStatus  `json:"nodes"`
	Checks     []CheckResult `json:"checks"`
	// Try are commands to go on with, after Up.
	Try []string `json:"try,omitempty"`
}

// ProcessInfo is a process of the lab.
type ProcessInfo struct {
	Name      string `json:"name"`
	PID       int    `json:"pid"`
	Namespace string `json:"namespace"`
	Running   bool   `json:"running"`
	Log       string `json:"log"`
	Config    string `json:"config,omitempty"`
}

// ErrUnreachable is returned by Up and Status when the lab is there but does
// not work; the Report says what.
var ErrUnreachable = errors.New("not everything in the lab works")

// Up makes a lab and proves that its machines reach each other. Lines on what
// it does go to w. A lab that cannot be built is taken away again, also when ctx
// ends early; one that is built but does not work is left to be looked at, and
// the error is ErrUnreachable. A lab that is up already is only checked.
func Up(ctx context.Context, o Options, w io.Writer) (*Report, error) {
	p, err := NewPlan(o)
	if err != nil {
		return nil, err
	}
	o = p.Options
	if err := preflight(o); err != nil {
		return nil, err
	}
	s, err := openStore(p.Dir, true)
	if err != nil {
		return nil, fmt.Errorf("bring %s up: %w", o.title(), err)
	}
	defer s.close()
	st, err := s.load()
	if err == nil {
		return recheck(ctx, p, st, w)
	}
	if !errors.Is(err, errNotUp) {
		return nil, err
	}
	b := &builder{plan: p, store: s, say: newProgress(w), state: &state{Options: o, Namespaces: p.Namespaces}}
	if err := b.build(ctx); err != nil {
		return nil, b.giveUp(err)
	}
	checks := p.verify(ctx, b.say)
	if ctx.Err() != nil {
		return nil, b.giveUp(ctx.Err())
	}
	r := p.report(ctx, b.state, checks)
	if !r.OK {
		b.tails()
		return r, ErrUnreachable
	}
	r.Try = p.Try
	b.say.say("%s is up", o.title())
	return r, nil
}

// recheck looks at a lab that is there already.
func recheck(ctx context.Context, p *Plan, st *state, w io.Writer) (*Report, error) {
	o := p.Options
	if !st.Options.same(o) {
		return nil, fmt.Errorf("%s is up with other options (underlay %d, %s, %s); take it down first: %s",
			o.title(), st.Options.Underlay, st.Options.VPN, st.Options.Dataplane, o.command("down"))
	}
	if !st.Ready {
		return nil, fmt.Errorf("%s was left half made; take it down first: %s", o.title(), o.command("down"))
	}
	for _, r := range st.Processes {
		if !r.alive() {
			return nil, fmt.Errorf("%s is up but %s does not run any more; take it down first: %s",
				o.title(), r.Name, o.command("down"))
		}
	}
	say := newProgress(w)
	say.say("%s is up already, checking it", o.title())
	r := p.report(ctx, st, p.verify(ctx, say))
	if !r.OK {
		return r, ErrUnreachable
	}
	return r, nil
}

// builder carries a plan out.
type builder struct {
	plan    *Plan
	store   *store
	say     *progress
	state   *state
	started []*started
}

func (b *builder) build(ctx context.Context) error {
	p := b.plan
	for _, ns := range p.Namespaces {
		if netspace.Exists(ns) {
			b.state.Namespaces = nil // they are not ours to remove
			return fmt.Errorf("network namespace %s exists and is not of this lab; remove it or choose a --name", ns)
		}
	}
	// Recorded before it is made: whatever happens next, Down finds it.
	if err := b.store.save(b.state); err != nil {
		return err
	}
	b.say.say("making namespaces %s, underlay IPv%d", strings.Join(p.Namespaces, " "), p.Options.Underlay)
	if err := p.buildNetwork(ctx); err != nil {
		return err
	}
	if err := b.startSwitches(ctx); err != nil {
		return err
	}
	b.say.say("starting the route reflector at %s", p.Bridge.Address.Addr())
	if err := b.startReflector(ctx); err != nil {
		return err
	}
	b.say.say("starting %d nodes", len(p.Nodes))
	for _, n := range p.Nodes {
		if _, err := b.start(n.Process); err != nil {
			return err
		}
	}
	if err := b.eachNode(func(i int, n Node) error { return b.joinNode(ctx, i, n) }); err != nil {
		var ended *endedError
		if errors.As(err, &ended) {
			return ended // all who wait have it, once is enough
		}
		return err
	}
	b.state.Ready = true
	return b.store.save(b.state)
}

// startSwitches brings the switches of all nodes up that have one.
func (b *builder) startSwitches(ctx context.Context) error {
	for _, n := range b.plan.Nodes {
		if n.Switch == nil {
			continue
		}
		b.say.say("starting the switch of %s", n.Name)
		if err := b.startSwitch(ctx, n.Switch); err != nil {
			return fmt.Errorf("start the switch of %s: %w", n.Name, err)
		}
	}
	return nil
}

// start starts a process and records it.
func (b *builder) start(p Process) (*started, error) {
	s, err := p.start()
	if s != nil {
		b.started = append(b.started, s)
		b.state.Processes = append(b.state.Processes, s.record())
		err = errors.Join(err, b.store.save(b.state))
	}
	return s, err
}

func (b *builder) startReflector(ctx context.Context) error {
	s, err := b.start(b.plan.Reflector)
	if err != nil {
		return err
	}
	// A node that comes earlier is turned away and loses a second.
	return b.await(ctx, startTimeout, func() error { return logged(s.Log, rr.ListeningMessage) })
}

// joinNode waits for a node, attaches its machines and waits for its session.
func (b *builder) joinNode(ctx context.Context, i int, n Node) error {
	if err := b.await(ctx, startTimeout, func() error { return n.answering(ctx) }); err != nil {
		return fmt.Errorf("wait for the API of %s: %w", n.Name, err)
	}
	b.say.say("%s answers, attaching its machines", n.Name)
	if err := b.plan.attach(ctx, i); err != nil {
		return err
	}
	if err := b.await(ctx, sessionTimeout, func() error { return n.session(ctx) }); err != nil {
		return fmt.Errorf("wait for the BGP session of %s: %w", n.Name, err)
	}
	b.say.say("%s has its BGP session", n.Name)
	return nil
}

// eachNode calls f for all nodes at once.
func (b *builder) eachNode(f func(int, Node) error) error {
	errs := make([]error, len(b.plan.Nodes))
	var wg sync.WaitGroup
	for i, n := range b.plan.Nodes {
		wg.Go(func() { errs[i] = f(i, n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// await polls check, but gives up at once when a process has ended: what it
// waits for will not come then.
func (b *builder) await(ctx context.Context, within time.Duration, check func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := poll(ctx, within, func() error {
		if err := b.ended(); err != nil {
			cancel(err)
			return err
		}
		return check()
	})
	if err != nil && context.Cause(ctx) != nil {
		return context.Cause(ctx)
	}
	return err
}

// ended returns an error when a process has ended.
func (b *builder) ended() error {
	for _, s := range b.started {
		if err := s.alive(); err != nil {
			return err
		}
	}
	return nil
}

// giveUp takes away what was made so far, after showing the logs of what has
// failed, and returns the reason with what could not be taken away.
func (b *builder) giveUp(reason error) error {
	if errors.Is(reason, context.Canceled) {
		b.say.say("interrupted")
	} else {
		b.say.say("failed: %v", reason)
		b.tails()
	}
	b.say.say("removing what was made")
	if err := b.state.tearDown(b.store); err != nil {
		return errors.Join(reason, err)
	}
	return reason
}

// tails shows the end of every log.
func (b *builder) tails() {
	for _, s := range b.started {
		_, _ = io.WriteString(b.say.w, tail(s.Log))
	}
}

// report gathers what there is to tell about a lab.
func (p *Plan) report(ctx context.Context, st *state, checks []CheckResult) *Report {
	r := &Report{Name: p.Options.Name, Dir: p.Dir, Namespaces: st.Namespaces, Checks: checks}
	r.OK = countFailed(checks) == 0
	for _, proc := range st.Processes {
		info := ProcessInfo{Name: proc.Name, PID: proc.PID, Namespace: proc.Namespace,
			Running: proc.alive(), Log: proc.Log, Config: proc.Config}
		r.OK = r.OK && info.Running
		r.Processes = append(r.Processes, info)
	}
	for _, n := range p.Nodes {
		s := n.status(ctx, p.Options.VPN)
		r.OK = r.OK && s.OK()
		r.Nodes = append(r.Nodes, s)
	}
	return r
}
