// SPDX-License-Identifier: Apache-2.0

// Package ovs is the data plane of IP VPNs in a bridge of Open vSwitch. It
// speaks OpenFlow and OVSDB itself; no process is started for anything.
//
// # Tables
//
// Tables, priorities, names and the meaning of register 0 are those of
// networking-bagpipe, so that who knows one finds the way in the other:
//
//	incoming (input_table, 0)              mpls,in_port=TUNNEL        resubmit(,encap_in)
//	                                       ip,in_port=PORT,nw_src=P   reg0=INSTANCE, resubmit(,vrf)
//	encap_in (ovs_table_id_start, 1)       mpls,mpls_label=L          pop_mpls, MACs, output:PORT
//	vrf      (ovs_table_id_start+1, 2)     ip,reg0=INSTANCE,nw_dst=P  dec_ttl, push_mpls, output:TUNNEL, or group:G
//	                                       arp, icmp6, icmp of a gateway: answered
//	                                       reg0=INSTANCE              fallback
//
// Traffic to this node itself goes to encap_in with the label in register 1.
//
// # What is ours
//
// Flows by the upper half of their cookie (0xba61be00), whose lower half is the
// number of the instance in the switch; groups by the upper octet of their id
// (0x42); ports that we add by the external id "bagpipe". The bridge belongs to
// the administrator. Entries are kept in notes: of the flow of a prefix and of
// the fallback in it, of others in flows of table encap_in that no packet meets.
// So the state of a driver is read from the switch alone, in which Instance.ID
// stands, too.
package ovs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
	"github.com/bagpipe-vpn/bagpipe/internal/ovsdb"
)

// Names of ports and external ids.
const (
	userspace     = "netdev" // the bridge's datapath
	vxlanPort     = "vxlan"
	ownerKey      = "bagpipe"
	ownerValue    = "ipvpn-ovs"
	instanceKey   = "bagpipe-instance"
	greInterface  = "*gre*"
	defaultRunDir = "/var/run/openvswitch"
)

// bridge is the switch, as openflow.Conn speaks with it.
type bridge interface {
	Exec(ctx context.Context, messages []of.Message, errs []error) error
	Bundle(ctx context.Context, messages []of.Message) error
	Flows(ctx context.Context, f of.Filter) ([]of.FlowStats, error)
	CountFlows(ctx context.Context, f of.Filter) (uint64, error)
	Groups(ctx context.Context) ([]of.Group, error)
	Ports(ctx context.Context) ([]of.Port, error)
	Receive(ctx context.Context, handle func(of.PacketIn)) error
	Alive() bool
	Close() error
}

// database is OVSDB, as ovsdb.DB has it.
type database interface {
	Version(ctx context.Context) (string, error)
	Bridge(ctx context.Context, name string) (ovsdb.Bridge, bool, error)
	BridgeOf(ctx context.Context, port string) (string, error)
	Interface(ctx context.Context, name string) (ovsdb.Interface, bool, error)
	Marked(ctx context.Context, key, value string) ([]ovsdb.Interface, error)
	AddPort(ctx context.Context, bridge string, p ovsdb.NewPort) (ovsdb.Interface, error)
	DeletePort(ctx context.Context, bridge, name string) (bool, error)
	SetMTU(ctx context.Context, name string, mtu uint32) error
	Close() error
}

// Driver implements dataplane.Driver.
type Driver struct {
	cfg    Config
	log    *slog.Logger
	db     database
	dial   func(ctx context.Context) (bridge, error)
	device func(name string) (bool, error) // whether the host has that device
	hops   *neighbours                     // nil unless MPLS goes over Ethernet

	// opening is held for reading while an instance is opened, and for writing
	// while an orphan is removed. Taken before all others.
	opening sync.RWMutex

	// shared guards what belongs to all instances: the tunnel ports.
	shared sync.Mutex

	mu      sync.Mutex
	conn    bridge
	layout  layout
	open    map[string]*handle // by id; those just being opened have no vrf
	numbers map[string]uint32  // by id, of instances in the switch
	// lastNumber is the last one given.
	lastNumber uint32
	groups     groupIDs
	inputs     map[input]string           // by which port and VLAN packets enter, to the instance's id
	users      map[string]map[string]bool // port name to ids of instances that have it
	version    string
	counts     counts
}

// input is how packets of a port are told from others'.
type input struct {
	port uint32
	vlan uint16
}

// New connects to the database and the bridge, in the network namespace of the
// calling thread. Nothing is changed before the first instance is opened, but
// that remains of ours which belong to no instance are removed. A nil log
// discards messages.
func New(cfg Config, log *slog.Logger) (*Driver, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := newDriver(cfg, log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	db, err := ovsdb.Dial(ctx, d.cfg.OVSDB, log)
	if err != nil {
		return nil, fmt.Errorf("ovsdb_connection: %w", err)
	}
	d.db = db
	d.dial = func(ctx context.Context) (bridge, error) {
		return of.Dial(ctx, filepath.Join(d.cfg.RunDir, d.cfg.Bridge+".mgmt"))
	}
	if d.layout.gre == 0 && d.cfg.MPLSInterface != "" {
		if d.hops, err = watchNeighbours(log, d.hopChanged); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// start looks at the bridge and at what an earlier run left.
func (d *Driver) start(ctx context.Context) error {
	b, ok, err := d.db.Bridge(ctx, d.cfg.Bridge)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("ovs_bridge %q does not exist: want the name of an existing bridge of Open vSwitch", d.cfg.Bridge)
	}
	if d.cfg.MPLSInterface != "" {
		switch in, err := d.db.BridgeOf(ctx, d.cfg.MPLSInterface); {
		case err != nil:
			return err
		case in != d.cfg.Bridge:
			return fmt.Errorf("mpls_interface %q is not a port of ovs_bridge %q: want one of its ports, or *gre*", d.cfg.MPLSInterface, d.cfg.Bridge)
		}
	}
	d.layout.punt = b.Datapath != userspace
	version, err := d.db.Version(ctx)
	if err != nil {
		return err
	}
	d.version = version
	return d.scan(ctx)
}

// Name returns "ovs".
func (d *Driver) Name() string { return "ovs" }

// Capabilities returns what IP VPN in a bridge of Open vSwitch can do.
func (d *Driver) Capabilities() dataplane.Capabilities {
	mpls := encap.GRE
	if d.cfg.MPLSInterface != "" {
		mpls = encap.MPLS
	}
	c := dataplane.Capabilities{
		Encaps: []encap.Type{mpls}, AcceptDefault: true, DefaultEncap: mpls, ECMP: true,
		Directions:   []dataplane.Direction{dataplane.Both, dataplane.ToPort, dataplane.FromPort},
		IPv6Underlay: d.cfg.LocalAddr.Is6(), OVSPorts: true, Fallback: true, Redirect: true, LabelPerFamily: true,
	}
	if d.cfg.VXLANEncap {
		c.Encaps = []encap.Type{encap.VXLAN, mpls}
	}
	return c
}

// Describe returns members for the looking glass.
func (d *Driver) Describe() []dataplane.Member {
	d.mu.Lock()
	l := d.layout
	d.mu.Unlock()
	gre := []dataplane.Member{{Name: "enabled", Value: d.cfg.MPLSInterface == ""}}
	if l.gre != 0 {
		gre = append(gre, dataplane.Member{Name: "gre_tunnel_port", Value: l.gre})
	}
	vxlan := []dataplane.Member{{Name: "enabled", Value: d.cfg.VXLANEncap}}
	if l.vxlan != 0 {
		vxlan = append(vxlan, dataplane.Member{Name: "vxlan_tunnel_port", Value: l.vxlan})
	}
	mplsInterface := d.cfg.MPLSInterface
	if mplsInterface == "" {
		mplsInterface = greInterface
	}
	return []dataplane.Member{
		{Name: "ovs_bridge", Value: d.cfg.Bridge},
		{Name: "mpls_interface", Value: mplsInterface},
		{Name: "gre", Value: object(gre)},
		{Name: "vxlan", Value: object(vxlan)},
		{Name: "ovs_version", Value: d.version},
		{Name: "tables", Value: map[string]uint8{"incoming": l.input, "encap_in": l.in, "vrf": l.table}},
	}
}

func object(members []dataplane.Member) map[string]any {
	m := map[string]any{}
	for _, e := range members {
		m[e.Name] = e.Value
	}
	return m
}

// Close closes the connections. Forwarding goes on.
func (d *Driver) Close() error {
	var errs []error
	if d.hops != nil {
		d.hops.close()
	}
	d.mu.Lock()
	conn := d.conn
	d.conn = nil
	d.dial = func(context.Context) (bridge, error) { return nil, errors.New("the driver is closed") }
	d.mu.Unlock()
	if conn != nil {
		errs = append(errs, conn.Close())
	}
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	return errors.Join(errs...)
}
