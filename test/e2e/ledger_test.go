// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bagpipe-vpn/bagpipe/client"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
)

// place is an endpoint as a test's ledger has it: the MAC in lower case, the
// address without length, "" for a MAC alone.
type place struct{ VPN, Instance, Port, MAC, IP string }

// placeOf returns what an attachment asks for.
func placeOf(r client.AttachRequest) place {
	return place{r.VPNType, r.VPNInstanceID, r.LocalPort.LinuxIF, r.MACAddress, bare(r.IPAddress)}
}

// bare takes the length away from a prefix.
func bare(prefix string) string {
	address, _, _ := strings.Cut(prefix, "/")
	return address
}

func sortPlaces(list []place) []place {
	slices.SortFunc(list, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.VPN, b.VPN), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Port, b.Port),
			cmp.Compare(a.MAC, b.MAC), cmp.Compare(a.IP, b.IP))
	})
	return list
}

// agrees waits until the looking glass and the kernel of the node have exactly the
// endpoints of the ledger, with nothing left to do. E-VPN is of the driver linux, IP
// VPN of ebpf. Only those of ports count as the kernel's.
func (n *node) agrees(within time.Duration, ledger []place, ports []string) {
	n.t.Helper()
	ledger = sortPlaces(slices.Clone(ledger))
	want := plugsOf(ledger)
	eventually(n.t, within, func() error {
		shown, err := n.shown()
		if err != nil {
			return err
		}
		if diff := gocmp.Diff(ledger, shown, cmpopts.EquateEmpty()); diff != "" {
			return fmt.Errorf("looking glass of %s, %d endpoints for %d (-want +got):\n%.5000s", n.label, len(shown), len(ledger), diff)
		}
		var problems []any
		if err := n.glass(&problems, "vpns", "dataplane", "problems"); err != nil || len(problems) > 0 {
			return fmt.Errorf("problems of %s: %v %w", n.label, problems, err)
		}
		got, err := n.plugs(ports)
		if err != nil {
			return err
		}
		if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			return fmt.Errorf("kernel of %s (-want +got):\n%.5000s", n.label, diff)
		}
		return nil
	})
}

// shown lists the endpoints that the looking glass has.
func (n *node) shown() (list []place, err error) {
	var instances []struct{ ID, Name string }
	if err := n.glass(&instances, "vpns", "instances"); err != nil {
		return nil, err
	}
	for _, i := range instances {
		kind := client.EVPN
		if strings.HasPrefix(i.Name, "VRF-") {
			kind = client.IPVPN
		}
		var ports map[string]struct {
			Endpoints []endpoint `json:"endpoints"`
		}
		if err := n.glass(&ports, "vpns", "instances", i.ID, "ports"); err != nil {
			return nil, err
		}
		for port, p := range ports {
			for _, e := range p.Endpoints {
				list = append(list, place{kind, i.ID, port, e.MAC, bare(e.IP)})
			}
		}
	}
	return sortPlaces(list), nil
}

// plugs is what a kernel has of a node's endpoints.
type plugs struct {
	// Devices has the kinds of our devices by alias, sorted.
	Devices map[string][]string
	// Masters has the alias of its bridge by port of an E-VPN, FDB the local MACs.
	Masters map[string]string
	FDB     map[string][]string
	// VRFs are the endpoints in the maps of driver ebpf, Programs the ports with its program.
	VRFs     []place
	Programs []string
}

func newPlugs() plugs {
	return plugs{Devices: map[string][]string{}, Masters: map[string]string{}, FDB: map[string][]string{}}
}

// plugsOf returns what the kernel must have for a sorted ledger.
func plugsOf(ledger []place) plugs {
	p := newPlugs()
	for _, e := range ledger {
		if e.VPN == client.IPVPN {
			p.VRFs = append(p.VRFs, e)
			p.Programs = append(p.Programs, e.Port)
			continue
		}
		alias := aliasPrefix + e.Instance
		p.Devices[alias] = []string{"bridge", "vxlan"}
		p.Masters[e.Port] = alias
		p.FDB[e.Port] = append(p.FDB[e.Port], e.MAC)
	}
	p.sort()
	return p
}

const aliasPrefix = "bagpipe evpn "

func (p *plugs) sort() {
	for _, kinds := range p.Devices {
		slices.Sort(kinds)
	}
	for port, macs := range p.FDB { // a MAC with two addresses has one entry
		slices.Sort(macs)
		p.FDB[port] = slices.Compact(macs)
	}
	slices.Sort(p.Programs)
	p.Programs = slices.Compact(p.Programs)
	sortPlaces(p.VRFs)
}

// plugs reads the kernel of the node.
func (n *node) plugs(ports []string) (p plugs, err error) {
	p = newPlugs()
	err = netspace.With(n.Name, func(h *netlink.Handle) error { return p.readDevices(h, ports) })
	if err == nil {
		err = netspace.Do(n.Name, func() error { return p.readVRFs() })
	}
	p.sort()
	return p, err
}

// readDevices reads what devices show.
func (p *plugs) readDevices(h *netlink.Handle, ports []string) error {
	links, err := h.LinkList()
	if err != nil {
		return err
	}
	aliases, names := map[int]string{}, map[int]string{}
	for _, l := range links {
		if a := l.Attrs(); strings.HasPrefix(a.Alias, aliasPrefix) {
			p.Devices[a.Alias] = append(p.Devices[a.Alias], l.Type())
			aliases[a.Index] = a.Alias
		}
	}
	for _, l := range links {
		a := l.Attrs()
		if !slices.Contains(ports, a.Name) {
			continue
		}
		names[a.Index] = a.Name
		if a.MasterIndex != 0 {
			p.Masters[a.Name] = aliases[a.MasterIndex]
		}
		filters, err := h.FilterList(l, netlink.HANDLE_MIN_INGRESS)
		if err != nil && !errors.Is(err, unix.EINVAL) { // no clsact
			return fmt.Errorf("filters of %s: %w", a.Name, err)
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, portProgram) {
				p.Programs = append(p.Programs, a.Name)
			}
		}
	}
	fdb, err := h.NeighList(0, unix.AF_BRIDGE)
	for _, e := range fdb {
		if name := names[e.LinkIndex]; name != "" && e.Flags&unix.NTF_EXT_LEARNED != 0 {
			p.FDB[name] = append(p.FDB[name], e.HardwareAddr.String())
		}
	}
	return err
}

// Names and places of internal/dataplane/ebpf/bpf/layout.h.
const (
	portProgram   = "bagpipe_port"
	tunnelProgram = "bagpipe_tunnel"
)

type endpointKey struct {
	VRF, Label uint32
	Addr       [16]byte
}

// vrfID is where the id of a VRF is in its value: length and text.
const vrfID = 4 + 16 + 3

// readVRFs reads what the program of the underlay works with, in the namespace of the thread.
func (p *plugs) readVRFs() error {
	tunnel, err := programAt("eth0", tunnelProgram)
	if tunnel == nil || err != nil {
		return err // no VRF yet: no map
	}
	defer func() { _ = tunnel.Close() }()
	maps, err := mapsOf(tunnel)
	defer func() {
		for _, m := range maps {
			_ = m.Close()
		}
	}()
	if err != nil {
		return err
	}
	if maps["bp1_endpoints"] == nil || maps["bp1_vrfs"] == nil {
		return fmt.Errorf("%s has the maps %v", tunnelProgram, maps)
	}
	ids := map[uint32]string{}
	err = eachEntry(maps["bp1_vrfs"], func(k uint32, v []byte) {
		ids[k] = string(v[vrfID+1:][:v[vrfID]])
	})
	return errors.Join(err, eachEntry(maps["bp1_endpoints"], func(k endpointKey, v []byte) {
		port, _, _ := strings.Cut(string(v[:16]), "\x00")
		p.VRFs = append(p.VRFs, place{client.IPVPN, ids[k.VRF], port, net.HardwareAddr(v[20:26]).String(), netip.AddrFrom16(k.Addr).Unmap().String()})
	}))
}

// eachEntry calls f with all of a map.
func eachEntry[K any](m *ebpf.Map, f func(K, []byte)) error {
	var k K
	var v []byte
	it := m.Iterate()
	for it.Next(&k, &v) {
		f(k, v)
	}
	return it.Err()
}

// programAt returns a program of that name at tcx ingress of a device, nil when
// there is none.
func programAt(device, name string) (*ebpf.Program, error) {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return nil, err
	}
	res, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, fmt.Errorf("programs at %s: %w", device, err)
	}
	for _, at := range res.Programs {
		prog, err := ebpf.NewProgramFromID(at.ID)
		if errors.Is(err, os.ErrNotExist) {
			continue // replaced meanwhile
		}
		if err != nil {
			return nil, err
		}
		if info, err := prog.Info(); err == nil && info.Name == name {
			return prog, nil
		}
		_ = prog.Close()
	}
	return nil, nil
}

// mapsOf returns the maps of a program by name.
func mapsOf(prog *ebpf.Program) (map[string]*ebpf.Map, error) {
	info, err := prog.Info()
	if err != nil {
		return nil, err
	}
	ids, _ := info.MapIDs()
	maps := map[string]*ebpf.Map{}
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return maps, err
		}
		info, err := m.Info()
		if err != nil {
			_ = m.Close()
			return maps, err
		}
		maps[info.Name] = m
	}
	return maps, nil
}
