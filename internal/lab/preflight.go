// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// preflight checks what the host must have.
func preflight(o Options) error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes network namespaces: run it as root")
	}
	tools := map[string]string{"ip": "iproute2", "ping": "iputils-ping"}
	if o.Dataplane == DataplaneOVS {
		maps.Copy(tools, ovsTools)
	}
	if err := installed(tools); err != nil {
		return err
	}
	if _, err := exec.LookPath(o.Daemon); err != nil {
		return fmt.Errorf("find the daemon: %w", err)
	}
	return nil
}

// installed tells which of some programs are missing, given with their packages.
func installed(tools map[string]string) error {
	var missing, packages []string
	for _, tool := range slices.Sorted(maps.Keys(tools)) {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
			packages = append(packages, tools[tool])
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(packages)
	return fmt.Errorf("not installed: %s; apt-get install %s",
		strings.Join(missing, ", "), strings.Join(slices.Compact(packages), " "))
}
