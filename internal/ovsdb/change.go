// SPDX-License-Identifier: Apache-2.0

package ovsdb

import (
	"context"
	"fmt"
	"time"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// NewPort is a port to be added, with one interface of the same name.
type NewPort struct {
	Name string
	// Type is that of the interface: "" for a device of the system, "gre", "vxlan".
	Type        string
	Options     map[string]string
	ExternalIDs map[string]string
	// MTU is requested when it is not 0.
	MTU uint32
}

// AddPort adds a port to a bridge and waits until ovs-vswitchd has made it. A
// port that it cannot make is taken out again.
func (db *DB) AddPort(ctx context.Context, bridge string, p NewPort) (Interface, error) {
	b, ok, err := db.Bridge(ctx, bridge)
	if err != nil {
		return Interface{}, err
	}
	if !ok {
		return Interface{}, fmt.Errorf("OVS bridge %s does not exist", bridge)
	}
	iface := ovsdb.Row{"name": p.Name, "type": p.Type, "options": ovsMap(p.Options), "external_ids": ovsMap(p.ExternalIDs)}
	if p.MTU != 0 {
		iface["mtu_request"] = int(p.MTU)
	}
	set, err := ovsdb.NewOvsSet([]ovsdb.UUID{{GoUUID: "newport"}})
	if err != nil {
		return Interface{}, err
	}
	_, err = db.transact(ctx,
		ovsdb.Operation{Op: ovsdb.OperationInsert, Table: "Interface", UUIDName: "newiface", Row: iface},
		ovsdb.Operation{Op: ovsdb.OperationInsert, Table: "Port", UUIDName: "newport", Row: ovsdb.Row{
			"name": p.Name, "interfaces": ovsdb.UUID{GoUUID: "newiface"}, "external_ids": ovsMap(p.ExternalIDs)}},
		ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Bridge", Where: byUUID(b.uuid),
			Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("ports", ovsdb.MutateOperationInsert, set)}},
		touch())
	if err != nil {
		return Interface{}, fmt.Errorf("add port %s to OVS bridge %s: %w", p.Name, bridge, err)
	}
	made, err := db.waitPort(ctx, p.Name)
	if err != nil {
		err = fmt.Errorf("add port %s to OVS bridge %s: %w", p.Name, bridge, err)
		if _, gone := db.DeletePort(context.WithoutCancel(ctx), bridge, p.Name); gone != nil {
			err = fmt.Errorf("%w; and it is still in the database: %w", err, gone)
		}
		return Interface{}, err
	}
	return made, nil
}

// touch asks ovs-vswitchd to look at the configuration, as ovs-vsctl does.
func touch() ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Open_vSwitch", Where: everyRow(),
		Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("next_cfg", ovsdb.MutateOperationAdd, 1)}}
}

// waitPort waits until an interface has a port number, or an error.
func (db *DB) waitPort(ctx context.Context, name string) (Interface, error) {
	ctx, cancel := context.WithTimeout(ctx, portTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		i, ok, err := db.Interface(ctx, name)
		switch {
		case err != nil:
			return i, err
		case !ok:
			return i, fmt.Errorf("it was taken out by others")
		case i.Error != "":
			return i, fmt.Errorf("ovs-vswitchd cannot make it: %s", i.Error)
		case i.Number != 0:
			return i, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return i, fmt.Errorf("ovs-vswitchd has not made it within %v: %w", portTimeout, ctx.Err())
		}
	}
}

// DeletePort takes a port out of a bridge, and tells whether it was there.
func (db *DB) DeletePort(ctx context.Context, bridge, name string) (bool, error) {
	b, ok, err := db.Bridge(ctx, bridge)
	if err != nil || !ok {
		return false, err
	}
	rows, err := db.selectRows(ctx, "Port", []string{"_uuid"}, ovsdb.NewCondition("name", ovsdb.ConditionEqual, name))
	if err != nil || len(rows) == 0 {
		return false, err
	}
	set, err := ovsdb.NewOvsSet([]ovsdb.UUID{{GoUUID: text(rows[0]["_uuid"])}})
	if err != nil {
		return false, err
	}
	_, err = db.transact(ctx,
		ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Bridge", Where: byUUID(b.uuid),
			Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("ports", ovsdb.MutateOperationDelete, set)}},
		touch())
	if err != nil {
		return false, fmt.Errorf("take port %s out of OVS bridge %s: %w", name, bridge, err)
	}
	return true, nil
}

// SetMTU requests an MTU for an interface.
func (db *DB) SetMTU(ctx context.Context, name string, mtu uint32) error {
	_, err := db.transact(ctx, ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: "Interface",
		Where: []ovsdb.Condition{ovsdb.NewCondition("name", ovsdb.ConditionEqual, name)}, Row: ovsdb.Row{"mtu_request": int(mtu)}})
	if err != nil {
		return fmt.Errorf("set the MTU of %s: %w", name, err)
	}
	return nil
}
