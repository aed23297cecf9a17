// SPDX-License-Identifier: Apache-2.0

package ovsdb

import (
	"strings"
	"testing"

	"github.com/bagpipe-vpn/bagpipe/internal/nstest"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb/ovstest"
	"github.com/google/go-cmp/cmp"
)

func TestPorts(t *testing.T) {
	t.Parallel()
	s := ovstest.New(t, nstest.New(t, "db"))
	s.AddBridge("br-mpls", "protocols=OpenFlow13,OpenFlow15")
	db, err := Dial(t.Context(), s.DB(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	ctx := t.Context()

	if v, err := db.Version(ctx); err != nil || v != "0.0.0-test" {
		t.Errorf("version %q, %v", v, err)
	}
	b, ok, err := db.Bridge(ctx, "br-mpls")
	if err != nil || !ok || b.Datapath != "netdev" || !cmp.Equal(b.Protocols, []string{"OpenFlow13", "OpenFlow15"}) {
		t.Errorf("bridge %+v, %v, %v", b, ok, err)
	}
	if _, ok, err := db.Bridge(ctx, "br-none"); ok || err != nil {
		t.Errorf("a bridge that is not there: %v, %v", ok, err)
	}

	want := NewPort{Name: "mpls_gre", Type: "gre", Options: map[string]string{"remote_ip": "flow", "local_ip": "192.0.2.1"},
		ExternalIDs: map[string]string{"owner": "x"}}
	made, err := db.AddPort(ctx, "br-mpls", want)
	if err != nil || made.Number == 0 {
		t.Fatalf("added %+v, %v", made, err)
	}
	if !cmp.Equal(made.Options, want.Options) || !cmp.Equal(made.ExternalIDs, want.ExternalIDs) || made.Type != "gre" {
		t.Errorf("added %+v, want %+v", made, want)
	}
	if _, err := db.AddPort(ctx, "br-mpls", want); err == nil {
		t.Error("no error for a port that is there")
	}
	marked, err := db.Marked(ctx, "owner", "x")
	if err != nil || len(marked) != 1 || marked[0].Name != "mpls_gre" {
		t.Errorf("marked %v, %v", marked, err)
	}
	if in, err := db.BridgeOf(ctx, "mpls_gre"); in != "br-mpls" || err != nil {
		t.Errorf("port is in %q, %v", in, err)
	}

	// A device that is not there: nothing stays in the database.
	if _, err := db.AddPort(ctx, "br-mpls", NewPort{Name: "no-such-dev"}); err == nil || !strings.Contains(err.Error(), "no-such-dev") {
		t.Errorf("device that is not there: %v", err)
	}
	if _, ok, _ := db.Interface(ctx, "no-such-dev"); ok {
		t.Error("a port that failed is still in the database")
	}

	// The database server starts again: the next call connects again.
	s.Stop("ovsdb-server")
	if _, err := db.Version(ctx); err == nil {
		t.Error("no error without a server")
	}
	s.StartDB()
	if deleted, err := db.DeletePort(ctx, "br-mpls", "mpls_gre"); !deleted || err != nil {
		t.Errorf("deleted %v, %v", deleted, err)
	}
	if deleted, err := db.DeletePort(ctx, "br-mpls", "mpls_gre"); deleted || err != nil {
		t.Errorf("deleted again: %v, %v", deleted, err)
	}
}

func TestDialErrors(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"unix:/nowhere/db.sock", "tcp:127.0.0.1:1", "http://x", "\x00"} {
		if _, err := Dial(t.Context(), endpoint, nil); err == nil {
			t.Errorf("no error for %q", endpoint)
		}
	}
}
