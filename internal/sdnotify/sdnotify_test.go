// SPDX-License-Identifier: Apache-2.0

package sdnotify

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestSend(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "notify"), "@bagpipe-test-" + strconv.Itoa(os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		t.Setenv("NOTIFY_SOCKET", path)
		n, err := FromEnvironment()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
			t.Error("NOTIFY_SOCKET is left for children")
		}
		if err := n.Send("READY=1", "STATUS=all is well"); err != nil {
			t.Fatal(err)
		}
		if err := n.Reloading(); err != nil {
			t.Fatal(err)
		}
		_ = l.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 100)
		size, err := l.Read(b)
		if got := string(b[:size]); err != nil || got != "READY=1\nSTATUS=all is well" {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
		size, err = l.Read(b)
		if got := string(b[:size]); err != nil || !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
}

func TestFromEnvironment(t *testing.T) {
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	path, self := l.LocalAddr().String(), strconv.Itoa(os.Getpid())
	for _, tt := range []struct {
		socket, usec, pid string
		want              time.Duration
		err               string
	}{
		{path, "", "", 0, ""},
		{path, "2000000", "", 2 * time.Second, ""},
		{path, "2000000", self, 2 * time.Second, ""},
		{path, "2000000", "1", 0, ""},
		{"", "2000000", self, 0, ""},
		{path, "0", "", 0, `WATCHDOG_USEC: "0" is not valid`},
		{path, "soon", "", 0, `WATCHDOG_USEC: "soon" is not valid`},
		{path, "9223372036854775807", "", 0, "WATCHDOG_USEC"},
		{"notify", "", "", 0, `NOTIFY_SOCKET: "notify" is not valid`},
		{path + "x", "", "", 0, "no such file"},
	} {
		t.Setenv("NOTIFY_SOCKET", tt.socket)
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		n, err := FromEnvironment()
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v: error %v", tt, err)
			}
		case err != nil:
			t.Errorf("%+v: error %v", tt, err)
		case tt.socket == "":
			if n != nil || n.Send("READY=1") != nil {
				t.Errorf("%+v: there is somebody to notify", tt)
			}
		case n.Watchdog != tt.want:
			t.Errorf("%+v: watchdog %v", tt, n.Watchdog)
		}
	}
}
