// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bagpipe-vpn/bagpipe/internal/bgp/wire"
)

// runSender is the sender process: it connects to BENCH_SENDER, or waits for a
// connection there if BENCH_SENDER_WAITS is set, brings a session up, says
// "ready", and carries out the commands on standard input.
// BENCH_SENDER_HOLD is the hold time in seconds, 0 without. If BENCH_SENDER_GRACEFUL is
// set it keeps routes (RFC 4724): it connects when it has a load, again whenever the session
// has ended, and announces the load each time. The commands:
//
//	load <load>              encode it; answers "made <relevant> <entries>"
//	announce                 send it; answers "sent" when all is written
//	withdraw                 withdraw it; answers "sent"
//	churn <rate> <seconds>   announce its routes again, each in a message of its
//	                         own with another next hop; answers "sent <messages>"
func runSender() error {
	if os.Getenv("BENCH_SENDER_GRACEFUL") != "" {
		return runGraceful()
	}
	c, err := connectSender(os.Getenv("BENCH_SENDER"), os.Getenv("BENCH_SENDER_FROM"))
	if err != nil {
		return err
	}
	r, err := handshake(c, senderOpen())
	if err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	if hold := senderOpen().HoldTime; hold > 0 {
		go keepAlive(c, time.Duration(hold)*time.Second/4)
	}
	fmt.Println("ready")
	s := sending{conn: c}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := s.command(in.Text()); err != nil {
			return fmt.Errorf("%s: %w", in.Text(), err)
		}
	}
	return nil
}

// senderFamilies are those of the sender's sessions.
var senderFamilies = []wire.Family{wire.VPNv4, wire.VPNv6, wire.EVPN}

func senderOpen() wire.Open {
	hold, _ := strconv.Atoi(os.Getenv("BENCH_SENDER_HOLD"))
	return wire.Open{
		AS: benchAS, HoldTime: uint16(hold), RouterID: netip.MustParseAddr("10.0.0.1"),
		Families: senderFamilies, FourOctetAS: true, RouteRefresh: true,
	}
}

// handshake brings a session up and returns what is read from then on.
func handshake(c net.Conn, open wire.Open) (*bufio.Reader, error) {
	msg, err := open.Message()
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(append(msg, wire.Keepalive()...)); err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	for range 2 { // OPEN, KEEPALIVE
		if err := skipMessage(r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// runGraceful is a sender that outlives its sessions.
func runGraceful() error {
	open := senderOpen()
	open.GracefulRestart = &wire.GracefulRestart{Time: 120}
	for _, f := range senderFamilies {
		open.GracefulRestart.Families = append(open.GracefulRestart.Families, wire.ForwardingState{Family: f, Preserved: true})
	}
	var mu sync.Mutex
	var s sending
	loaded := make(chan struct{})
	go func() {
		<-loaded
		for {
			_ = s.session(open, &mu)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	once := sync.OnceFunc(func() { close(loaded) })
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		mu.Lock()
		err := s.command(in.Text())
		mu.Unlock()
		if err != nil {
			return fmt.Errorf("%s: %w", in.Text(), err)
		}
		once()
	}
	return nil
}

// session is one session of a graceful sender. It announces the load again when it is asked.
func (s *sending) session(open wire.Open, mu *sync.Mutex) error {
	c, err := connectSender(os.Getenv("BENCH_SENDER"), os.Getenv("BENCH_SENDER_FROM"))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	r, err := handshake(c, open)
	if err != nil {
		return err
	}
	go keepAlive(c, time.Duration(open.HoldTime)*time.Second/4)
	say := func(families ...wire.Family) error {
		mu.Lock()
		all := slices.Clone(s.made.announce)
		mu.Unlock()
		for _, f := range families {
			all = append(all, wire.EndOfRIBMessage(f)...)
		}
		_, err := c.Write(all)
		return err
	}
	if err := say(senderFamilies...); err != nil {
		return err
	}
	for {
		head := make([]byte, wire.HeaderLen)
		if _, err := io.ReadFull(r, head); err != nil {
			return err
		}
		if _, err := r.Discard(int(binary.BigEndian.Uint16(head[16:])) - wire.HeaderLen); err != nil {
			return err
		}
		if wire.MsgType(head[18]) == wire.MsgRouteRefresh {
			if err := say(); err != nil {
				return err
			}
		}
	}
}

// keepAlive sends KEEPALIVEs, between other messages, until the connection ends.
func keepAlive(c net.Conn, every time.Duration) {
	for range time.Tick(every) {
		if _, err := c.Write(wire.Keepalive()); err != nil {
			return
		}
	}
}

// connectSender dials, again while nobody listens, or waits to be dialled.
func connectSender(at, from string) (net.Conn, error) {
	if os.Getenv("BENCH_SENDER_WAITS") != "" {
		lis, err := net.Listen("tcp", at)
		if err != nil {
			return nil, err
		}
		defer func() { _ = lis.Close() }()
		return lis.Accept()
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		c, err := d.Dial("tcp", at)
		if err == nil || time.Now().After(end) {
			return c, err
		}
	}
}

// sending is the state of a sender process.
type sending struct {
	conn net.Conn
	load load
	made made
}

func (s *sending) command(line string) (err error) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "load":
		if s.load, err = parseLoad(rest); err != nil {
			return err
		}
		s.made = s.load.encode()
		fmt.Println("made", s.made.relevant, s.made.entries)
	case "announce", "withdraw":
		b := s.made.announce
		if word == "withdraw" {
			b = s.made.withdraw
		}
		if err = s.write(b); err != nil {
			return err
		}
		fmt.Println("sent")
	case "churn":
		var rate, seconds int
		if _, err = fmt.Sscanf(rest, "%d %d", &rate, &seconds); err != nil {
			return err
		}
		return s.churn(rate, seconds)
	default:
		return fmt.Errorf("unknown command %q", line)
	}
	return nil
}

// write sends messages: as fast as the receiver takes them, or if
// BENCH_SENDER_GENTLE is set one at a time with pauses for it to handle each.
func (s *sending) write(b []byte) error {
	if os.Getenv("BENCH_SENDER_GENTLE") == "" {
		_, err := s.conn.Write(b)
		return err
	}
	pace := time.NewTimer(0)
	for len(b) > 0 {
		<-pace.C
		n := int(binary.BigEndian.Uint16(b[wire.HeaderLen-3:]))
		if _, err := s.conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		pace.Reset(10*time.Millisecond + time.Duration(n)*40*time.Microsecond)
	}
	return nil
}

// churn sends rate messages per second, some every few milliseconds. A sender
// that the receiver or the machine holds up catches up.
func (s *sending) churn(rate, seconds int) error {
	total := rate * seconds
	msgs := s.churnMessages(total)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for sent := 0; sent < total; <-tick.C {
		due := min(total, int(time.Since(start).Seconds()*float64(rate)))
		for ; sent < due; sent++ {
			if _, err := s.conn.Write(msgs[sent]); err != nil {
				return err
			}
		}
	}
	fmt.Println("sent", total)
	return nil
}

// churnMessages makes the messages for the routes of the load in their order, and
// from the start again.
func (s *sending) churnMessages(total int) [][]byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	msgs := make([][]byte, 0, total)
	p := wire.NewPacker(wire.MaxMessage)
	for len(msgs) < total {
		s.load.groups(func(g group) {
			for _, r := range g.routes {
				if len(msgs) == total {
					return
				}
				a := s.load.attrs(g.instance, rnd.IntN(remotePEs))
				p.Announce(r.NLRI.Kind.Family(), a.Raw, a.NextHop)
				p.Add(r)
				msgs = append(msgs, append([]byte(nil), p.Flush()...))
			}
		})
	}
	return msgs
}

func skipMessage(r *bufio.Reader) error {
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	_, err := r.Discard(int(binary.BigEndian.Uint16(head[16:])) - wire.HeaderLen)
	return err
}

// sender drives a sender process.
type sender struct {
	b     *testing.B
	in    io.WriteCloser
	out   *bufio.Scanner
	close func()
	// What the receiver makes of the load.
	relevant, entries int
}

// startSender starts a process that connects to addr from a local address.
func startSender(b *testing.B, addr, from string, wrap ...string) *sender {
	b.Helper()
	s := launchSender(b, []string{"BENCH_SENDER=" + addr, "BENCH_SENDER_FROM=" + from}, wrap...)
	s.expect("ready")
	return s
}

// launchSender starts a sender process and does not wait for its session.
func launchSender(b *testing.B, env []string, wrap ...string) *sender {
	b.Helper()
	args := append(wrap, os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := &sender{b: b, in: in, out: bufio.NewScanner(out)}
	s.close = sync.OnceFunc(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	b.Cleanup(s.close)
	return s
}

// expect reads an answer that begins with a word and returns the rest.
func (s *sender) expect(word string) string {
	s.b.Helper()
	if s.out.Scan() {
		if first, rest, _ := strings.Cut(s.out.Text(), " "); first == word {
			return rest
		}
	}
	s.b.Fatalf("sender said %q: want %q", s.out.Text(), word)
	return ""
}

func (s *sender) do(command string) { fmt.Fprintln(s.in, command) }

// prepare makes the sender encode a load.
func (s *sender) prepare(l load) {
	s.b.Helper()
	s.do("load " + l.String())
	if _, err := fmt.Sscanf(s.expect("made"), "%d %d", &s.relevant, &s.entries); err != nil {
		s.b.Fatal(err)
	}
}

// send makes it send the load; sent waits until all is written.
func (s *sender) send() { s.do("announce") }

func (s *sender) sent() string { return s.expect("sent") }
