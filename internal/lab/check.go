// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// reachTimeout is how long machines may take to reach each other after the
// last attachment: routes must get around first.
const reachTimeout = 15 * time.Second

// CheckResult is the outcome of one check of the traffic.
type CheckResult struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	// Detail says how well it went, or what went wrong.
	Detail string `json:"detail"`
}

// result makes a CheckResult of a check's error.
func result(check fmt.Stringer, detail string, err error) CheckResult {
	if err != nil {
		return CheckResult{Check: check.String(), Detail: err.Error()}
	}
	return CheckResult{Check: check.String(), OK: true, Detail: detail}
}

// pingAll runs pings at once. With patience each one is tried until it
// works, and must then work three times in a row.
func pingAll(ctx context.Context, checks []Ping, patient bool) []CheckResult {
	results := make([]CheckResult, len(checks))
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() {
			if patient {
				results[i] = check.patient(ctx)
				return
			}
			results[i] = result(check, check.outcome(1), check.try(ctx, 1))
		})
	}
	wg.Wait()
	return results
}

func (p Ping) patient(ctx context.Context) CheckResult {
	start := time.Now()
	err := poll(ctx, reachTimeout, func() error { return p.try(ctx, 1) })
	took := time.Since(start)
	if err == nil {
		err = p.try(ctx, 3)
	}
	return result(p, fmt.Sprintf("%s, first after %.1f s", p.outcome(3), took.Seconds()), err)
}

// outcome says that echo requests were answered, or not, as they must be.
func (p Ping) outcome(count int) string {
	if p.Fails {
		return fmt.Sprintf("0 of %d", count)
	}
	return fmt.Sprintf("%d of %[1]d", count)
}

// try sends echo requests and returns an error unless all are answered, or none if so it must be.
func (p Ping) try(ctx context.Context, count int) error {
	err := p.send(ctx, count)
	switch {
	case !p.Fails || ctx.Err() != nil:
		return err
	case err == nil:
		return fmt.Errorf("%d of %[1]d answered", count)
	}
	return nil
}

// send sends echo requests and returns an error unless all are answered.
func (p Ping) send(ctx context.Context, count int) error {
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", p.From,
		"ping", "-n", "-c", fmt.Sprint(count), "-i", "0.2", "-W", "1", p.Address.String())
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err == nil && strings.Contains(text, fmt.Sprintf("%d received", count)) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, "received") {
			return errors.New(strings.TrimSpace(line))
		}
	}
	return fmt.Errorf("ping: %w: %s", err, strings.TrimSpace(text))
}

// transferAll runs the transfers, one after the other.
func (p *Plan) transferAll(ctx context.Context) []CheckResult {
	results := make([]CheckResult, 0, len(p.Transfers))
	for _, t := range p.Transfers {
		start := time.Now()
		err := t.run(ctx, p.Options.Self)
		results = append(results, result(t, fmt.Sprintf("same content, %.1f s", time.Since(start).Seconds()), err))
	}
	return results
}

// run has the two machines exchange bytes, each by our own program run inside,
// and compares what they say went out and came in.
func (t Transfer) run(ctx context.Context, self string) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	receiver := insideCommand(ctx, t.To, self, "lab", "receive", "--listen", t.Address.String())
	var receiverErr bytes.Buffer
	receiver.Stderr = &receiverErr
	stdout, err := receiver.StdoutPipe()
	if err != nil {
		return err
	}
	if err := receiver.Start(); err != nil {
		return fmt.Errorf("start receiver: %w", err)
	}
	var ready, received string
	if _, err := fmt.Fscanln(stdout, &ready); err != nil {
		_ = receiver.Wait()
		return fmt.Errorf("start receiver: %w: %s", err, strings.TrimSpace(receiverErr.String()))
	}
	sent, sendErr := insideCommand(ctx, t.From, self, "lab", "send", "--to", t.Address.String(),
		"--bytes", fmt.Sprint(t.Bytes)).CombinedOutput()
	if sendErr != nil {
		cancel()
	}
	_, _ = fmt.Fscanln(stdout, &received)
	err = receiver.Wait()
	switch {
	case sendErr != nil:
		return fmt.Errorf("send: %w: %s", sendErr, strings.TrimSpace(string(sent)))
	case err != nil:
		return fmt.Errorf("receive: %w: %s", err, strings.TrimSpace(receiverErr.String()))
	case received != strings.TrimSpace(string(sent)):
		return fmt.Errorf("sent %s, received %s", strings.TrimSpace(string(sent)), received)
	}
	return nil
}

// insideCommand returns a command to run inside a namespace. It is ended with ctx.
func insideCommand(ctx context.Context, namespace string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", namespace}, args...)...)
	cmd.WaitDelay = time.Second
	return cmd
}

// look runs all pings once. Those between nodes may fail at first: a switch that
// has long been idle must learn its neighbours anew.
func (p *Plan) look(ctx context.Context) []CheckResult {
	return append(pingAll(ctx, p.Underlay, true), pingAll(ctx, p.Pings, false)...)
}

// verify runs all checks and tells of each as it is known.
func (p *Plan) verify(ctx context.Context, say *progress) []CheckResult {
	results := pingAll(ctx, p.Underlay, true)
	say.say("pinging between the machines, %d ways", len(p.Pings))
	results = append(results, pingAll(ctx, p.Pings, true)...)
	for _, r := range results {
		say.say("%s", r)
	}
	if countFailed(results) == 0 && len(p.Crossings) > 0 {
		say.say("sending through the service machines")
		crossings := p.crossAll(ctx)
		for _, r := range crossings {
			say.say("%s", r)
		}
		results = append(results, crossings...)
	}
	if countFailed(results) == 0 && len(p.Transfers) > 0 {
		say.say("sending %d MiB by TCP between the nodes", transferBytes>>20)
		transfers := p.transferAll(ctx)
		for _, r := range transfers {
			say.say("%s", r)
		}
		results = append(results, transfers...)
	}
	return results
}

// String returns the result as a line for people.
func (r CheckResult) String() string {
	if r.OK {
		return "ok:   " + r.Check + ": " + r.Detail
	}
	return "FAIL: " + r.Check + ": " + r.Detail
}

func countFailed(results []CheckResult) (n int) {
	for _, r := range results {
		if !r.OK {
			n++
		}
	}
	return n
}
