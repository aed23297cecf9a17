// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// Down removes every trace of a lab: processes, namespaces and files. It is no
// error when there is none. Lines on what it does go to w.
func Down(o Options, w io.Writer) error {
	if o.Name != "" && !goodName.MatchString(o.Name) {
		return fmt.Errorf("lab name %q is not one", o.Name)
	}
	if os.Geteuid() != 0 {
		return errors.New("the lab is made of network namespaces: run it as root")
	}
	s, err := openStore(stateDir(o), false)
	if errors.Is(err, errNotUp) {
		_, err = fmt.Fprintf(w, "%s is not up\n", o.title())
		return err
	}
	if err != nil {
		return fmt.Errorf("take %s down: %w", o.title(), err)
	}
	defer s.close()
	st, err := s.load()
	if errors.Is(err, errNotUp) {
		st = &state{} // a directory that was made and nothing more
	} else if err != nil {
		return err
	}
	say := newProgress(w)
	say.say("ending %d processes, removing %d namespaces", len(st.Processes), len(st.Namespaces))
	if others := st.strangers(); len(others) > 0 {
		say.say("still inside, not started by the lab and left alone: %s", strings.Join(others, ", "))
	}
	if err := st.tearDown(s); err != nil {
		return fmt.Errorf("take %s down: %w", o.title(), err)
	}
	say.say("%s is down", o.title())
	return nil
}

// tearDown ends the processes, removes the namespaces and then the record of
// them. What could not be removed stays recorded for another try.
func (st *state) tearDown(s *store) error {
	errs := make([]error, len(st.Processes))
	var wg sync.WaitGroup
	for i, r := range st.Processes {
		wg.Go(func() { errs[i] = r.stop() })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err // without their namespaces they could not be found again
	}
	for _, ns := range st.Namespaces {
		errs = append(errs, netspace.Delete(ns))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return s.remove()
}

// strangers lists processes in the lab's namespaces that the lab did not start,
// such as a shell that someone has open there.
func (st *state) strangers() []string {
	known := map[int]bool{}
	for _, r := range st.Processes {
		known[r.PID] = true
	}
	var list []string
	for _, ns := range st.Namespaces {
		pids, err := netspace.Processes(ns)
		if err != nil {
			continue
		}
		for _, pid := range pids {
			if !known[pid] {
				comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				list = append(list, fmt.Sprintf("%s (process %d in %s)", strings.TrimSpace(string(comm)), pid, ns))
			}
		}
	}
	return list
}
