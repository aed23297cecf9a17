// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	kernel  = "/usr/bin/linux.uml"
	modules = "/usr/lib/uml/modules"
	memory  = "1024M"
	// shown is how much of a guest's output is told when a test fails there.
	shown = 40000
)

// guest is a User-Mode Linux to be started.
type guest struct {
	dir     string // where the program runs
	modules []string
	env     []string // of the program, "NAME=value"
	timeout time.Duration
}

// run runs a program in a guest and returns its output and exit status.
func (g guest) run(args ...string) (out string, status int, err error) {
	for path, pkg := range map[string]string{kernel: "user-mode-linux", modules: "user-mode-linux", "/sbin/modprobe": "kmod"} {
		if _, err := os.Stat(path); err != nil {
			return "", 0, fmt.Errorf("%w: install the Debian package %s", err, pkg)
		}
	}
	// The guest has a /tmp of its own, where this becomes /tmp/share.
	share, err := os.MkdirTemp("/var/cache", "bagpipe-uml")
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = os.RemoveAll(share) }()
	start := filepath.Join(share, "init")
	if err := os.WriteFile(start, []byte(g.script(share, args)), 0o755); err != nil {
		return "", 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, kernel, "mem="+memory, "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "loglevel=3",
		"init="+start, "con=null", "con0=null,fd:1", "ssl=null")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	runErr := cmd.Run()
	out = strings.ReplaceAll(stdout.String(), "\r", "")
	text, err := os.ReadFile(filepath.Join(share, "status"))
	if err != nil {
		return out, 0, errors.Join(fmt.Errorf("the guest did not come to an end within %v", g.timeout), ctx.Err(), runErr,
			errors.New(tail(stderr.String())))
	}
	status, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return out, status, err
}

// script is the first process of the guest: it makes the file systems, lets the kernel
// load modules, runs the program and ends the guest.
func (g guest) script(share string, args []string) string {
	return strings.Join([]string{
		"#!/bin/bash",
		"mount -t proc proc /proc; mount -t sysfs sys /sys",
		"mkdir -p /dev/shm; for d in /run /tmp /dev/shm; do mount -t tmpfs tmpfs $d; done",
		"mkdir -p /dev/pts /run/netns /run/bin /run/m/lib/modules /tmp/share",
		"mount -t tmpfs tmpfs /var/tmp; mount -t devpts devpts /dev/pts; mount -t hostfs -o " + quote(share) + " none /tmp/share",
		"ln -s " + modules + "/$(uname -r) /run/m/lib/modules/$(uname -r)",
		`printf '#!/bin/sh\nexec /sbin/modprobe -d /run/m "$@"\n' > /run/bin/modprobe; chmod +x /run/bin/modprobe`,
		"echo /run/bin/modprobe > /proc/sys/kernel/modprobe",
		"export PATH=/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp GOCACHE=/tmp/cache",
		"hostname uml; ip link set lo up",
		"for m in " + strings.Join(g.modules, " ") + "; do modprobe -q $m; done",
		// Open vSwitch 3.1 counts the processors first when the kernel is 10 s old, and takes them as none before.
		"while [ $(cut -d. -f1 /proc/uptime) -lt 11 ]; do sleep 0.1; done",
		"cd " + quote(g.dir),
		g.command(args) + " 2>&1; echo $? > /tmp/share/status",
		"sync; echo o > /proc/sysrq-trigger; sleep 30",
		"",
	}, "\n")
}

// command is the shell's form of a program with its environment.
func (g guest) command(args []string) string {
	var quoted []string
	for _, a := range slices.Concat([]string{"env"}, g.env, args) {
		quoted = append(quoted, quote(a))
	}
	return strings.Join(quoted, " ")
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// tail returns the end of a text.
func tail(s string) string { return s[max(0, len(s)-shown):] }

func count(text, what string) int { return strings.Count(text, what) }
