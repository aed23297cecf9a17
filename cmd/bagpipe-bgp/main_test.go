// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test binary the program itself when it is asked to, so
// that the tests run the real main, its exit status and its signals.
func TestMain(m *testing.M) {
	if os.Getenv("BAGPIPE_BGP_RUN_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// program returns the program with arguments.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, self, args...)
	c.Env = append(os.Environ(), "BAGPIPE_BGP_RUN_MAIN=1", "JOURNAL_STREAM=")
	return c
}

func confFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bgp.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const goodConf = "[BGP]\nlocal_address = 127.0.0.1\nmy_as = 64512\n[API]\nport = 0\n"

// takenConf is goodConf with a port of the API that is in use.
func takenConf(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // after all parallel subtests
	return strings.Replace(goodConf, "port = 0", fmt.Sprintf("port = %d", l.Addr().(*net.TCPAddr).Port), 1)
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	taken := takenConf(t)
	good, none := confFile(t, goodConf), filepath.Join(t.TempDir(), "none.conf")
	for _, tt := range []struct {
		name    string
		in      []string
		want    int
		wantOut []string // in standard output
		wantErr []string // in standard error
	}{
		{"version", []string{"--version"}, 0, []string{"bagpipe-bgp "}, nil},
		{"help", []string{"--help"}, 0, []string{"usage: bagpipe-bgp", "--config-file", "--version"}, nil},
		{"unknown option", []string{"--no-such-option"}, 2, nil, []string{"bagpipe-bgp: read command line", "no-such-option"}},
		{"option without value", []string{"--config-file"}, 2, nil, []string{"config-file"}},
		{"argument", []string{"start"}, 2, nil, []string{"start"}},
		{"no such file", []string{"--config-file", none}, 1, nil, []string{"none.conf"}},
		{"empty file", []string{"--config-file", confFile(t, "")}, 1, nil, []string{"local_address", "my_as"}},
		{
			"all faults at once", []string{"--config-file", confFile(t, "[BGP]\nlocal_address = nowhere0\nmy_as = x\nhold_time = 1\n[API]\nport = 70000\n[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = none\n")}, 1, nil,
			[]string{"local_address", "nowhere0", "my_as", "hold_time", "port", "70000", "dataplane_driver"},
		},
		{"log file that cannot be written", []string{"--config-file", good, "--log-file", filepath.Join(none, "x.log")}, 1, nil, []string{"open log file"}},
		{"port of the API in use", []string{"--config-file", confFile(t, taken)}, 1, nil, []string{"listen for the API", "address already in use"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := program(t, tt.in...)
			var out, errs bytes.Buffer
			c.Stdout, c.Stderr = &out, &errs
			err := c.Run()
			if got := c.ProcessState.ExitCode(); got != tt.want {
				t.Fatalf("exit status %d (%v), want %d\n%s%s", got, err, tt.want, &out, &errs)
			}
			for _, w := range tt.wantOut {
				if !strings.Contains(out.String(), w) {
					t.Errorf("standard output lacks %q:\n%s", w, &out)
				}
			}
			for _, w := range tt.wantErr {
				if !strings.Contains(errs.String(), w) {
					t.Errorf("standard error lacks %q:\n%s", w, &errs)
				}
			}
			if tt.want == 0 && errs.Len() > 0 || tt.want != 0 && out.Len() > 0 {
				t.Errorf("output on the wrong stream:\n%s\n%s", &out, &errs)
			}
		})
	}
}

var apiAddr = regexp.MustCompile(`api=(\S+)`)

// TestSignals: the daemon ends with status 0 on SIGTERM and SIGINT.
func TestSignals(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			c := program(t, "--config-file", confFile(t, goodConf+"no_such_option = 1\n"))
			pipe, err := c.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			log := bufio.NewScanner(pipe)
			var text, addr string
			for addr == "" && log.Scan() {
				text += log.Text() + "\n"
				if m := apiAddr.FindStringSubmatch(log.Text()); m != nil {
					addr = m[1]
				}
			}
			if !strings.Contains(text, "no_such_option") {
				t.Errorf("unknown option is not warned about:\n%s", text)
			}
			resp, err := http.Get("http://" + addr + "/healthz")
			if err != nil {
				_ = c.Process.Kill()
				t.Fatalf("%v\n%s", err, text)
			}
			_ = resp.Body.Close()
			if err := c.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(pipe)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); err != nil {
				t.Errorf("after %v: %v, want status 0\n%s%s", sig, err, text, rest)
			}
		})
	}
}

// TestLogFile: with a log file nothing goes to the terminal.
func TestLogFile(t *testing.T) {
	t.Parallel()
	taken := takenConf(t)
	file := filepath.Join(t.TempDir(), "x.log")
	c := program(t, "--config-file", confFile(t, taken), "--log-file", file, "--use-json")
	out, _ := c.CombinedOutput()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(out) > 0 || !strings.HasPrefix(string(b), `{"time":`) || !strings.Contains(string(b), "address already in use") {
		t.Errorf("terminal %q, log file %q", out, b)
	}
}
