// SPDX-License-Identifier: Apache-2.0

package ovs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	of "github.com/bagpipe-vpn/bagpipe/internal/openflow"
)

// Config is what the driver must know.
type Config struct {
	// LocalAddr is our tunnel end point; its family is that of all next hops.
	LocalAddr netip.Addr
	// Bridge is an existing bridge; "" takes "br-mpls".
	Bridge string
	// OVSDB is the address of the database; "" takes "tcp:127.0.0.1:6640".
	OVSDB string
	// RunDir is where the bridge's management socket is; "" takes $OVS_RUNDIR or
	// "/var/run/openvswitch".
	RunDir string
	// MPLSInterface is the port of the bridge for MPLS over Ethernet; "" or "*gre*" takes GRE.
	MPLSInterface string
	// MPLSOverGRE is "auto" or "", "true" or "false".
	MPLSOverGRE string
	// ProxyARP answers ARP for every address, ARPResponder for gateways.
	ProxyARP, ARPResponder bool
	// VXLANEncap allows VXLAN, too.
	VXLANEncap bool
	// InputTable is the table in which packets arrive, TableStart the first of two
	// that are ours alone. When both are 0, TableStart is 1.
	InputTable, TableStart uint8
	// GRETunnel is the name of the GRE port, "" takes "mpls_gre"; GRETunnelOptions are further options of it.
	GRETunnel        string
	GRETunnelOptions map[string]string
	// InterfacesMTU is requested for ports that are attached; 0 leaves it.
	InterfacesMTU uint32
	// HashMethod is "dp_hash" or "", or "hash"; with its parameter, and the fields of "hash".
	HashMethod      string
	HashMethodParam uint64
	HashFields      []string
}

// newDriver checks the configuration and fills in what it leaves open.
func newDriver(cfg Config, log *slog.Logger) (*Driver, error) {
	or := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	or(&cfg.Bridge, "br-mpls")
	or(&cfg.OVSDB, "tcp:127.0.0.1:6640")
	or(&cfg.RunDir, os.Getenv("OVS_RUNDIR"))
	or(&cfg.RunDir, defaultRunDir)
	or(&cfg.GRETunnel, "mpls_gre")
	or(&cfg.HashMethod, "dp_hash")
	or(&cfg.MPLSOverGRE, "auto")
	if cfg.InputTable == 0 && cfg.TableStart == 0 {
		cfg.TableStart = 1
	}
	if cfg.MPLSInterface == greInterface {
		cfg.MPLSInterface = ""
	}
	switch strings.ToLower(cfg.MPLSOverGRE) {
	case "auto":
	case "true":
		cfg.MPLSInterface = ""
	case "false":
		if cfg.MPLSInterface == "" {
			return nil, errors.New(`mpls_interface is not set: want a port of the bridge when mpls_over_gre is "false"`)
		}
	default:
		return nil, fmt.Errorf("mpls_over_gre %q is not valid: want auto, true or false", cfg.MPLSOverGRE)
	}
	l := layout{local: cfg.LocalAddr, input: cfg.InputTable, in: cfg.TableStart, table: cfg.TableStart + 1,
		arp: cfg.ARPResponder, proxy: cfg.ProxyARP, method: cfg.HashMethod, param: cfg.HashMethodParam}
	switch {
	case !cfg.LocalAddr.IsValid() || cfg.LocalAddr.IsUnspecified() || cfg.LocalAddr.Is4In6() || cfg.LocalAddr.Zone() != "":
		return nil, fmt.Errorf("local address %q is not valid: want an IPv4 or IPv6 address of this host", cfg.LocalAddr)
	case cfg.TableStart > 252 || cfg.InputTable > 253 || cfg.InputTable == l.in || cfg.InputTable == l.table:
		return nil, fmt.Errorf("ovs_table_id_start %d with input_table %d is not valid: want tables up to 253, and the input table not %d or %d",
			cfg.TableStart, cfg.InputTable, l.in, int(l.in)+1)
	case cfg.HashMethod != "dp_hash" && cfg.HashMethod != "hash":
		return nil, fmt.Errorf("hash_method %q is not valid: want dp_hash or hash", cfg.HashMethod)
	case cfg.GRETunnel == vxlanPort && cfg.VXLANEncap:
		return nil, fmt.Errorf("gre_tunnel %q is not valid: the VXLAN port has that name", cfg.GRETunnel)
	}
	if cfg.HashMethod == "hash" {
		for _, name := range cfg.HashFields {
			f, err := of.HashField(name)
			if err != nil {
				return nil, fmt.Errorf("hash_fields: %w", err)
			}
			l.fields = append(l.fields, f)
		}
	}
	d := &Driver{
		cfg: cfg, log: log, layout: l, device: hostDevice,
		open: map[string]*handle{}, numbers: map[string]uint32{}, inputs: map[input]string{}, users: map[string]map[string]bool{},
		groups: newGroupIDs(), counts: newCounts(),
	}
	d.layout.nextHopMAC = d.nextHopMAC
	return d, nil
}
