// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
)

const patience = 30 * time.Second

// process is the program, running in a namespace.
type process struct {
	t      *testing.T
	ns     *nstest.NS
	cmd    *exec.Cmd
	exited chan struct{}
	code   int // once exited

	mu  sync.Mutex
	log strings.Builder
}

// Write takes the log.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// start runs the program in a namespace. "ip netns exec" becomes the program, so
// signals reach it.
func start(t *testing.T, ns *nstest.NS, file string, env ...string) *process {
	t.Helper()
	p := prepare(t, ns, file, env...)
	p.run()
	return p
}

// prepare is start without its last step, run.
func prepare(t *testing.T, ns *nstest.NS, file string, env ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: t, ns: ns, cmd: ns.Command(ctx, self, "--config-file", file), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), append([]string{"BAGPIPE_BGP_RUN_MAIN=1", "JOURNAL_STREAM="}, env...)...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	t.Cleanup(cancel)
	return p
}

func (p *process) run() {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	p.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.exited })
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// logs waits until the log has count lines with a text.
func (p *process) logs(text string, count int) {
	p.t.Helper()
	nstest.Eventually(p.t, patience, func() bool { return strings.Count(p.text(), text) >= count },
		func() string { return fmt.Sprintf("%d times %q in the log:\n%s", count, text, p.text()) })
}

// ends waits for the end and returns the exit status.
func (p *process) ends() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("still running:\n%s", p.text())
	}
	return p.code
}

// get returns a part of the looking glass.
func (p *process) get(path string) string {
	p.t.Helper()
	return p.request("GET", "/looking-glass/"+path, "")
}

// request returns the body of the answer of the API.
func (p *process) request(method, path, body string) string {
	p.t.Helper()
	p.logs("api=", 1)
	var out []byte
	p.ns.Do(func() {
		c, err := net.DialTimeout("tcp", apiAddr.FindStringSubmatch(p.text())[1], patience)
		if err != nil {
			p.t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = fmt.Fprintf(c, "%s %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
		if out, err = io.ReadAll(c); err != nil {
			p.t.Fatal(err)
		}
	})
	_, answer, _ := strings.Cut(string(out), "\r\n\r\n")
	return answer
}

// serviceManager is a socket that the program notifies.
type serviceManager struct {
	t    *testing.T
	path string
	mu   sync.Mutex
	got  []string
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	s := &serviceManager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.got = append(s.got, strings.Split(string(b[:n]), "\n")...)
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return s
}

// hears waits for count lines that match.
func (s *serviceManager) hears(pattern string, count int) {
	s.t.Helper()
	re := regexp.MustCompile("^" + pattern + "$")
	var got []string
	nstest.Eventually(s.t, patience, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := 0
		for _, line := range s.got {
			if re.MatchString(line) {
				n++
			}
		}
		got = s.got
		return n >= count
	}, func() string { return fmt.Sprintf("%d times %q among %q", count, pattern, got) })
}

// pair is two namespaces on one link, with 192.0.2.1 and 192.0.2.2.
func pair(t *testing.T) (a, b *nstest.NS) {
	t.Helper()
	a, b = nstest.New(t, "sva"), nstest.New(t, "svb")
	nstest.Connect(a, "eth0", b, "eth0")
	a.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	b.Run("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
	b.Run("ip", "addr", "add", "192.0.2.3/24", "dev", "eth0")
	return a, b
}

func nodeConf(address, more string) string {
	return "[BGP]\nlocal_address = " + address + "\nmy_as = 64512\n" + more + "[API]\nport = 0\n"
}

// listening is the other side: it waits for our sessions.
func listening(t *testing.T, ns *nstest.NS, address string) *process {
	t.Helper()
	p := start(t, ns, confFile(t, nodeConf(address, "listen = true\ndynamic_neighbors = 192.0.2.0/24\n")))
	p.logs("msg=running", 1)
	return p
}

// TestService: what the service manager hears in the life of a daemon.
func TestService(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	listening(t, b, netip.MustParseAddr("192.0.2.2").String())
	m, state := newServiceManager(t), t.TempDir()
	p := start(t, a, confFile(t, nodeConf("192.0.2.1", "peers = 192.0.2.2\n")), "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=300000",
		"STATE_DIRECTORY="+state+":/none")
	m.hears("READY=1", 1)
	m.hears("STATUS=1 of 1 BGP sessions established, 0 VPN instances, 0 endpoints", 1)
	m.hears("WATCHDOG=1", 3)
	p.signal(syscall.SIGHUP)
	m.hears("RELOADING=1", 1)
	m.hears(`MONOTONIC_USEC=[0-9]+`, 1)
	m.hears("READY=1", 2)
	p.signal(syscall.SIGTERM)
	m.hears("STOPPING=1", 1)
	if code := p.ends(); code != 0 {
		t.Errorf("exit status %d, want 0:\n%s", code, p.text())
	}
	if files, err := os.ReadDir(state); err != nil || len(files) == 0 {
		t.Errorf("nothing is kept in the first of STATE_DIRECTORY: %v", err)
	}
}

func TestNotifySocketThatIsNotThere(t *testing.T) {
	t.Parallel()
	p := start(t, nstest.New(t, "svn"), confFile(t, goodConf), "NOTIFY_SOCKET=/none/notify")
	if code := p.ends(); code != 1 || !strings.Contains(p.text(), "NOTIFY_SOCKET") {
		t.Errorf("exit status %d, want 1 and what is wrong:\n%s", code, p.text())
	}
}

// TestReload: sessions whose settings did not change see nothing of SIGHUP.
func TestReload(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	two, three := listening(t, b, "192.0.2.2"), listening(t, b, "192.0.2.3")
	file := confFile(t, nodeConf("192.0.2.1", "peers = 192.0.2.2, 192.0.2.3\n"))
	p := start(t, a, file)
	const up, lost = `msg="BGP session established"`, `msg="BGP session lost"`
	p.logs(up, 2)
	reload := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		done := strings.Count(p.text(), "configuration reloaded") + strings.Count(p.text(), "configuration refused")
		p.signal(syscall.SIGHUP)
		nstest.Eventually(t, patience, func() bool {
			return strings.Count(p.text(), "configuration reloaded")+strings.Count(p.text(), "configuration refused") > done
		}, p.text)
	}
	// settle checks how often the sessions of the others were established and lost.
	settle := func(what string, ups2, ups3 int) {
		t.Helper()
		two.logs(up, ups2)
		three.logs(up, ups3)
		for _, o := range []struct {
			p   *process
			ups int
		}{{two, ups2}, {three, ups3}} {
			if n := strings.Count(o.p.text(), lost); n != o.ups-1 {
				t.Errorf("%s: a session was lost %d times, want %d:\n%s", what, n, o.ups-1, o.p.text())
			}
		}
	}
	settle("start", 1, 1)

	reload("[BGP]\nmy_as = x\nhold_time = 1\n")
	p.logs("BGP.my_as", 1)
	p.logs("BGP.hold_time", 1)
	settle("a bad file", 1, 1)
	if got := p.get("config/BGP/my_as"); got != "64512" {
		t.Errorf("my_as is %s after a bad file", got)
	}

	reload(nodeConf("192.0.2.1", "peers = 192.0.2.2, 192.0.2.3\n[PEER 192.0.2.2]\ndescription = reflector\n[PEER 192.0.2.3]\nhold_time = 30\n[COMMON]\nsweep_delay = 7\n"))
	p.logs("COMMON.sweep_delay: 7 needs a restart, until then it is 120", 1)
	settle("another hold time of one, another description of the other", 1, 2)
	var effective map[string]map[string]any
	if err := json.Unmarshal([]byte(p.get("config")), &effective); err != nil {
		t.Fatal(err, p.get("config"))
	}
	for _, want := range []struct {
		section, option string
		value           any
	}{
		{"COMMON", "sweep_delay", 120.},
		{"PEER 192.0.2.2", "description", "reflector"}, {"PEER 192.0.2.2", "hold_time", 90.}, {"PEER 192.0.2.3", "hold_time", 30.},
	} {
		if got := effective[want.section][want.option]; got != want.value {
			t.Errorf("%s.%s is %v in the looking glass, want %v", want.section, want.option, got, want.value)
		}
	}

	reload(nodeConf("192.0.2.1", "peers = 192.0.2.2\n"))
	three.logs(lost, 2)
	three.logs("peer de-configured", 1)
	if got := p.get("summary/BGP_established_peers"); got != "1" {
		t.Errorf("%s sessions, want 1", got)
	}
	reload(nodeConf("192.0.2.1", "peers = 192.0.2.2, 192.0.2.3\n"))
	settle("peer added", 1, 3)
}

func TestReloadChangesTheLogLevel(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "svl")
	file := confFile(t, goodConf+"[DEFAULT]\ndebug = false\n")
	p := start(t, ns, file)
	p.logs("msg=running", 1)
	more := "peers = 127.0.0.9\nbgp_port = 1\n[DEFAULT]\ndebug = "
	write := func(debug string) {
		if err := os.WriteFile(file, []byte(strings.Replace(goodConf, "[API]", more+debug+"\n[API]", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		p.signal(syscall.SIGHUP)
	}
	write("true")
	p.logs("level=DEBUG", 1) // connection refused
	write("false")
	p.logs("configuration reloaded", 2)
	before := strings.Count(p.text(), "level=DEBUG")
	p.signal(syscall.SIGHUP)
	p.logs("configuration reloaded", 3)
	if after := strings.Count(p.text(), "level=DEBUG"); after != before {
		t.Errorf("%d lines at level debug after it was turned off", after-before)
	}
}

// TestOneDaemonPerNamespace: two that touch no forwarding state do not disturb each
// other; of two that do, the second is told who the first is.
func TestOneDaemonPerNamespace(t *testing.T) {
	t.Parallel()
	a, b := nstest.New(t, "svx"), nstest.New(t, "svy")
	file := confFile(t, goodConf+"[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = linux\n")
	first := start(t, a, file)
	first.logs("msg=running", 1)
	second := start(t, a, file)
	if code := second.ends(); code != 1 || !strings.Contains(second.text(), fmt.Sprintf("process %d of user %d (", first.cmd.Process.Pid, os.Getuid())) {
		t.Errorf("exit status %d, want 1 and the process that was first:\n%s", code, second.text())
	}
	start(t, b, file).logs("msg=running", 1)
	start(t, a, confFile(t, goodConf)).logs("msg=running", 1)
	first.signal(syscall.SIGKILL) // leaves no lock behind
	first.ends()
	start(t, a, file).logs("msg=running", 1)
}

// stuck makes a pipe whose writers wait for ever. It is read until stop.
func stuck(t *testing.T, to io.Writer) (writer *os.File, stop func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(to, r) }()
	return w, func() {
		_ = r.SetReadDeadline(time.Now())
		<-done
		// Its own description of the pipe, so that only our writing does not wait.
		fill, err := syscall.Open(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Close(fill) }()
		for _, b := range [][]byte{make([]byte, 4096), {0}} {
			for err = nil; err == nil; {
				_, err = syscall.Write(fill, b)
			}
		}
	}
}

// TestSecondSignal: a stop hangs because nobody takes the log; a second signal ends it.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	listening(t, b, "192.0.2.2")
	m := newServiceManager(t)
	p := prepare(t, a, confFile(t, nodeConf("192.0.2.1", "peers = 192.0.2.2\n")), "NOTIFY_SOCKET="+m.path)
	log, stop := stuck(t, p)
	p.cmd.Stderr = log
	p.run()
	m.hears("STATUS=1 of 1 BGP .*", 1)
	stop()
	p.signal(syscall.SIGTERM)
	m.hears("STOPPING=1", 1)
	select {
	case <-p.exited:
		t.Fatalf("the stop did not hang:\n%s", p.text())
	default:
	}
	p.signal(syscall.SIGTERM)
	begin := time.Now()
	if code := p.ends(); code != 1 {
		t.Errorf("exit status %d, want 1:\n%s", code, p.text())
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("ended %v after the second signal", took)
	}
}

// capabilities returns those that the unit leaves, in the form of setpriv.
func capabilities(t *testing.T) string {
	t.Helper()
	unit, err := os.ReadFile("../../packaging/bagpipe-bgp.service")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindSubmatch(unit)
	if m == nil {
		t.Fatal("the unit has no CapabilityBoundingSet")
	}
	set := "-all"
	for name := range strings.FieldsSeq(string(m[1])) {
		set += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	return set
}

// TestDriversWorkInUnit: the capabilities that the unit leaves are enough for the
// drivers that need nothing but the kernel as it is.
func TestDriversWorkInUnit(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, "svc")
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	for _, link := range []string{"eth0", "eth1"} {
		ns.Run("ip", "link", "set", link, "up")
	}
	for _, port := range []string{"tap1", "tap2"} {
		ns.Run("ip", "link", "add", port, "type", "veth", "peer", "name", port+"p")
	}
	m := newServiceManager(t)
	file := confFile(t, nodeConf("192.0.2.1", "")+"[DATAPLANE_DRIVER_EVPN]\ndataplane_driver = linux\n[DATAPLANE_DRIVER_IPVPN]\ndataplane_driver = ebpf\n")
	p := prepare(t, ns, file, "NOTIFY_SOCKET="+m.path)
	at := slices.Index(p.cmd.Args, ns.Name) + 1
	p.cmd.Args = slices.Insert(p.cmd.Args, at, "setpriv", "--no-new-privs", "--bounding-set="+capabilities(t), "--inh-caps=-all")
	p.run()
	m.hears("READY=1", 1)
	for _, body := range []string{
		`{"vpn_type":"evpn","vpn_instance_id":"red","mac_address":"00:00:5e:00:53:01","ip_address":"198.51.100.11/24","local_port":{"linuxif":"tap1"},"vni":100,"import_rt":["64512:1"],"export_rt":["64512:1"]}`,
		`{"vpn_type":"ipvpn","vpn_instance_id":"blue","mac_address":"00:00:5e:00:53:02","ip_address":"203.0.113.2/28","gateway_ip":"203.0.113.1","local_port":{"linuxif":"tap2"},"import_rt":["64512:2"],"export_rt":["64512:2"]}`,
	} {
		if answer := p.request("POST", "/attach_localport", body); answer != "null" {
			t.Errorf("attach: %s\n%s", answer, p.text())
		}
	}
	m.hears("STATUS=0 of 0 BGP sessions established, 2 VPN instances, 2 endpoints", 1)
	p.signal(syscall.SIGTERM)
	if code := p.ends(); code != 0 {
		t.Errorf("exit status %d\n%s", code, p.text())
	}
}
