// SPDX-License-Identifier: Apache-2.0

// Package oldversion builds the daemon of an earlier version, for tests of upgrades.
package oldversion

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Revision is the version: the first that keeps its attachments.
const Revision = "17b32cc2d2c234e4cc8e9b755598e712368fb81d"

// Build builds the daemon of that version from the history of the repository at root, and
// returns the path of the program, in a directory.
func Build(root, dir string) (program string, err error) {
	program = filepath.Join(dir, "bagpipe-bgp-old")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	source, err := os.MkdirTemp(dir, "source")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(source)) }()
	archive := filepath.Join(source, "archive.tar")
	for _, c := range []struct {
		dir  string
		args []string
	}{
		{root, []string{"git", "archive", "--output", archive, Revision}},
		{source, []string{"tar", "-xf", archive}},
		{source, []string{"go", "build", "-o", program, "./cmd/bagpipe-bgp"}},
	} {
		cmd := exec.Command(c.args[0], c.args[1:]...)
		cmd.Dir = c.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("the earlier version %.12s, from the history of the repository: %s: %w: %s", Revision, strings.Join(c.args, " "), err, out)
		}
	}
	return program, nil
}
