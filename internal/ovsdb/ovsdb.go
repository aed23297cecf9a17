// SPDX-License-Identifier: Apache-2.0

// Package ovsdb reads and changes what a dataplane needs of the database of
// Open vSwitch: bridges, ports and interfaces (ovs-vswitchd.conf.db(5)). It asks
// for single rows and keeps no copy of tables, which on a large node change all
// the time.
package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// timeout bounds a transaction, or connecting, whose context has no earlier deadline.
const timeout = 10 * time.Second

// portTimeout is how long ovs-vswitchd has to make a port.
const portTimeout = 10 * time.Second

// DB is a connection with the database. It is made again when it was lost.
// Methods may be called from several goroutines.
type DB struct {
	endpoint string
	log      *slog.Logger
	model    model.ClientDBModel

	mu     sync.Mutex
	client client.Client // nil when there is none
}

// row is what the library wants to know of tables at least.
type row struct {
	UUID string `ovsdb:"_uuid"`
}

// Dial connects to the database, e.g. at "tcp:127.0.0.1:6640" or
// "unix:/var/run/openvswitch/db.sock". A nil log discards messages.
func Dial(ctx context.Context, endpoint string, log *slog.Logger) (*DB, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := model.NewClientDBModel("Open_vSwitch", map[string]model.Model{"Open_vSwitch": &row{}})
	if err != nil {
		return nil, err
	}
	db := &DB{endpoint: endpoint, log: log, model: m}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := db.connected(ctx); err != nil {
		return nil, err
	}
	return db, nil
}

// connected returns the client, connected anew if need be.
func (db *DB) connected(ctx context.Context) (client.Client, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.client != nil && db.client.Connected() {
		return db.client, nil
	}
	if db.client != nil {
		db.client.Close()
		db.client = nil
	}
	quiet := logr.FromSlogHandler(slog.DiscardHandler)
	c, err := client.NewOVSDBClient(db.model, client.WithEndpoint(db.endpoint), client.WithLogger(&quiet))
	if err != nil {
		return nil, fmt.Errorf("OVSDB %q: %w: want tcp:ADDRESS:PORT or unix:PATH", db.endpoint, err)
	}
	if err := c.Connect(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to OVSDB %s: %w", db.endpoint, err)
	}
	db.client = c
	return c, nil
}

// drop forgets a client that has lost its connection, if nobody else did.
func (db *DB) drop(c client.Client) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.client == c {
		db.client = nil
		c.Close()
	}
}

// Close ends the connection.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.client != nil {
		db.client.Close()
		db.client = nil
	}
	return nil
}

// transact does all operations or none. They are sent again once on a new connection
// when the old one was lost before, or did not take them whole.
func (db *DB) transact(ctx context.Context, ops ...ovsdb.Operation) ([]ovsdb.OperationResult, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for try := 0; ; try++ {
		c, err := db.connected(ctx)
		if err != nil {
			return nil, err
		}
		results, err := c.Transact(ctx, ops...)
		if unsent(err) {
			db.drop(c)
			if try == 0 {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("OVSDB: %w", err)
		}
		return results, check(results)
	}
}

// unsent tells whether the server has not got the request. The library refuses all that comes after
// a request that could not be written, and says that it is connected still.
func unsent(err error) bool {
	failed := new(net.OpError)
	return errors.Is(err, client.ErrNotConnected) || errors.As(err, &failed) && failed.Op == "write"
}

// check returns the first error of a transaction.
func check(results []ovsdb.OperationResult) error {
	for _, r := range results {
		if r.Error != "" {
			return fmt.Errorf("OVSDB: %s: %s", r.Error, r.Details)
		}
	}
	return nil
}

// selectRows reads columns of the rows that meet all conditions.
func (db *DB) selectRows(ctx context.Context, table string, columns []string, where ...ovsdb.Condition) ([]ovsdb.Row, error) {
	if where == nil {
		where = everyRow()
	}
	results, err := db.transact(ctx, ovsdb.Operation{Op: ovsdb.OperationSelect, Table: table, Where: where, Columns: columns})
	if err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return nil, errors.New("OVSDB: answer without result")
	}
	return results[0].Rows, nil
}

// Version returns the version of Open vSwitch, e.g. "3.1.0", or "" when it is not known.
func (db *DB) Version(ctx context.Context) (string, error) {
	rows, err := db.selectRows(ctx, "Open_vSwitch", []string{"ovs_version"})
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return text(rows[0]["ovs_version"]), nil
}

// Bridge is a row of table Bridge.
type Bridge struct {
	Name string
	// Datapath is its datapath_type: "netdev" is userspace, "" or "system" the kernel.
	Datapath string
	// Protocols are the OpenFlow versions that it is restricted to, if any.
	Protocols []string

	uuid  string
	ports []string
}

// Bridge returns the bridge of that name, if there is one.
func (db *DB) Bridge(ctx context.Context, name string) (Bridge, bool, error) {
	list, err := db.bridges(ctx, ovsdb.NewCondition("name", ovsdb.ConditionEqual, name))
	if err != nil || len(list) == 0 {
		return Bridge{}, false, err
	}
	return list[0], true, nil
}

func (db *DB) bridges(ctx context.Context, where ...ovsdb.Condition) (out []Bridge, err error) {
	rows, err := db.selectRows(ctx, "Bridge", []string{"_uuid", "name", "datapath_type", "protocols", "ports"}, where...)
	for _, r := range rows {
		out = append(out, Bridge{
			Name: text(r["name"]), Datapath: text(r["datapath_type"]), Protocols: texts(r["protocols"]),
			uuid: text(r["_uuid"]), ports: texts(r["ports"]),
		})
	}
	return out, err
}

// BridgeOf returns the name of the bridge that a port is in, or "".
func (db *DB) BridgeOf(ctx context.Context, port string) (string, error) {
	rows, err := db.selectRows(ctx, "Port", []string{"_uuid"}, ovsdb.NewCondition("name", ovsdb.ConditionEqual, port))
	if err != nil || len(rows) == 0 {
		return "", err
	}
	uuid := text(rows[0]["_uuid"])
	bridges, err := db.bridges(ctx)
	for _, b := range bridges {
		for _, p := range b.ports {
			if p == uuid {
				return b.Name, nil
			}
		}
	}
	return "", err
}

// Interface is a row of table Interface.
type Interface struct {
	Name, Type string
	// Number is the OpenFlow port number, 0 while it has none or when it failed.
	Number      uint32
	Options     map[string]string
	ExternalIDs map[string]string
	// Error says why it failed.
	Error string
}

var interfaceColumns = []string{"name", "type", "ofport", "options", "external_ids", "error"}

// Interface returns the interface of that name, if there is one.
func (db *DB) Interface(ctx context.Context, name string) (Interface, bool, error) {
	list, err := db.interfaces(ctx, ovsdb.NewCondition("name", ovsdb.ConditionEqual, name))
	if err != nil || len(list) == 0 {
		return Interface{}, false, err
	}
	return list[0], true, nil
}

// Marked returns the interfaces that have an external id with that value.
func (db *DB) Marked(ctx context.Context, key, value string) ([]Interface, error) {
	return db.interfaces(ctx, ovsdb.NewCondition("external_ids", ovsdb.ConditionIncludes, ovsMap(map[string]string{key: value})))
}

func (db *DB) interfaces(ctx context.Context, where ...ovsdb.Condition) (out []Interface, err error) {
	rows, err := db.selectRows(ctx, "Interface", interfaceColumns, where...)
	for _, r := range rows {
		out = append(out, Interface{
			Name: text(r["name"]), Type: text(r["type"]), Number: number(r["ofport"]),
			Options: stringMap(r["options"]), ExternalIDs: stringMap(r["external_ids"]), Error: text(r["error"]),
		})
	}
	return out, err
}
