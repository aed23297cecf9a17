// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const unitFile = "packaging/bagpipe-bgp.service"

// unitOptions are those that the unit may have (systemd.unit(5), .service(5),
// .exec(5), .kill(5)), as of systemd 252.
var unitOptions = map[string][]string{
	"Unit": {"Description", "Documentation", "Wants", "After", "StartLimitIntervalSec"},
	"Service": {
		"Type", "NotifyAccess", "ExecStart", "ExecReload", "Restart", "RestartSec", "WatchdogSec",
		"TimeoutStartSec", "TimeoutStopSec", "RuntimeDirectory", "StateDirectory", "LogsDirectory", "LimitNOFILE", "LimitMEMLOCK",
		"OOMScoreAdjust", "CapabilityBoundingSet", "NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp", "ProtectClock",
		"ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "RestrictAddressFamilies", "RestrictRealtime",
		"RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "SystemCallArchitectures",
	},
	"Install": {"WantedBy"},
}

// readUnit returns the options of the unit, "Section.Name" to value.
func readUnit(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, unitFile))
	if err != nil {
		t.Fatal(err)
	}
	unit, section := map[string]string{}, ""
	header, option := regexp.MustCompile(`^\[(\w+)\]$`), regexp.MustCompile(`^(\w+)=(\S.*\S|\S)$`)
	for i, line := range strings.Split(string(b), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		if m := header.FindStringSubmatch(line); m != nil {
			section = m[1]
			continue
		}
		m := option.FindStringSubmatch(line)
		switch {
		case m == nil:
			t.Errorf("%s:%d: %q is neither a section nor an option", unitFile, i+1, line)
		case !slices.Contains(unitOptions[section], m[1]):
			t.Errorf("%s:%d: no option %s of section %s is known", unitFile, i+1, m[1], section)
		case unit[section+"."+m[1]] != "":
			t.Errorf("%s:%d: %s again", unitFile, i+1, m[1])
		default:
			unit[section+"."+m[1]] = m[2]
		}
	}
	return unit
}

// The unit is what systemd reads, and says what the daemon counts on.
func TestServiceUnit(t *testing.T) {
	t.Parallel()
	unit := readUnit(t)
	for name, want := range map[string]string{
		"Service.Type": "notify", "Service.NotifyAccess": "main", "Service.Restart": "on-failure",
		"Service.ExecReload": "/bin/kill -HUP $MAINPID", "Service.RuntimeDirectory": "bagpipe-bgp", "Service.StateDirectory": "bagpipe-bgp",
		"Install.WantedBy": "multi-user.target",
	} {
		if unit[name] != want {
			t.Errorf("%s: %s is %q, want %q", unitFile, name, unit[name], want)
		}
	}
}

// Where there is systemd, it takes the unit without a remark.
func TestSystemdVerifiesUnit(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if errors.Is(err, exec.ErrNotFound) {
		t.Log("no systemd here: TestServiceUnit has read the unit")
		return
	}
	text, err := os.ReadFile(filepath.Join(root, unitFile))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable() // stands for the program, which need not be installed
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), filepath.Base(unitFile))
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "/usr/bin/bagpipe-bgp", self)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), filepath.Base(path)) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
