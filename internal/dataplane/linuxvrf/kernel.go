// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bagpipe-vpn/bagpipe/internal/dataplane/devname"
	"github.com/bagpipe-vpn/bagpipe/internal/encap"
	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"github.com/bagpipe-vpn/bagpipe/internal/netspace"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernel is what the driver asks of the kernel of one network namespace.
type kernel interface {
	Do(reqs []netlinkx.Request, errs []error)

	Link(*netlinkx.LinkRequest) error
	DeleteLink(index int) error
	LinkByName(name string) (netlinkx.Link, bool, error)
	LinkByIndex(index int) (netlinkx.Link, bool, error)
	Links(master int) ([]netlinkx.Link, error)

	Nexthops() ([]netlinkx.Nexthop, error)
	Nexthop(id uint32) (netlinkx.Nexthop, bool, error)
	Routes(family uint8, table uint32, protocol uint8) ([]netlinkx.Route, error)
	MPLSRoutes() ([]netlinkx.MPLSRoute, error)
	Neighbours(family uint8, index int) ([]netlinkx.Neigh, error)
	Addresses(index int) ([]netlinkx.Address, error)
	Rules(family uint8) ([]netlinkx.Rule, error)

	// AddTunnel makes a tunnel device, half made, and opens the UDP port of tunnels.
	// Without remote it takes what no other device does.
	AddTunnel(name string, e encap.Type, local, remote netip.Addr) error
	OpenUDP() error
	// Sysctl reads a setting, named as below /proc/sys; os.ErrNotExist if there is none.
	Sysctl(name string) (string, error)
	SetSysctl(name, value string) error
	// LoadModules has the kernel load what it can.
	LoadModules(names ...string)
	Close() error
}

// mplsUDPPort is that of MPLS in UDP (RFC 7510 §3).
const mplsUDPPort = 6635

// tunnelTTL is that of outer headers.
const tunnelTTL = 64

// system is the kernel of the network namespace in which it was opened.
type system struct {
	*netlinkx.Conn
	links *netlink.Handle
	ns    *os.File
}

func openSystem() (s *system, err error) {
	s = &system{}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return s, fmt.Errorf("open own network namespace: %w", err)
	}
	if s.Conn, err = netlinkx.Dial(); err != nil {
		return s, err
	}
	if s.links, err = netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_GENERIC); err != nil {
		return s, fmt.Errorf("open netlink socket: %w", err)
	}
	return s, nil
}

// Close closes the sockets.
func (s *system) Close() error {
	var errs []error
	if s.Conn != nil {
		errs = append(errs, s.Conn.Close())
	}
	if s.links != nil {
		s.links.Close()
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	return errors.Join(errs...)
}

func (s *system) AddTunnel(name string, e encap.Type, local, remote netip.Addr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = name, devname.HalfMade
	var far []byte
	if remote.IsValid() {
		far = remote.AsSlice()
	}
	var l netlink.Link
	if e == encap.GRE {
		l = &netlink.Gretun{LinkAttrs: attrs, Local: local.AsSlice(), Remote: far, Ttl: tunnelTTL, PMtuDisc: 1}
		if far == nil {
			unspecified := netip.IPv4Unspecified()
			if local.Is6() {
				unspecified = netip.IPv6Unspecified()
			}
			l.(*netlink.Gretun).Remote = unspecified.AsSlice()
		}
	} else {
		l = &netlink.Iptun{
			LinkAttrs: attrs, Local: local.AsSlice(), Remote: far, Ttl: tunnelTTL, PMtuDisc: 1, Proto: unix.IPPROTO_MPLS,
			EncapType: netlink.FOU_ENCAP_DIRECT, EncapDport: mplsUDPPort,
		}
	}
	if err := s.links.LinkAdd(l); err != nil {
		return fmt.Errorf("add %s device %s: %w", l.Type(), name, err)
	}
	return nil
}

func (s *system) OpenUDP() error {
	return s.inNamespace(func() error {
		err := netlink.FouAdd(netlink.Fou{
			Family: unix.AF_INET, Port: mplsUDPPort, Protocol: unix.IPPROTO_MPLS, EncapType: netlink.FOU_ENCAP_DIRECT,
		})
		if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EALREADY) {
			return nil // it is open; or another program has it, and sees what comes
		}
		if err != nil {
			return fmt.Errorf("open UDP port %d for MPLS: %w", mplsUDPPort, err)
		}
		return nil
	})
}

func (s *system) Sysctl(name string) (value string, err error) {
	err = s.inNamespace(func() error {
		b, err := os.ReadFile(filepath.Join("/proc/sys", name))
		value = string(bytes.TrimSpace(b))
		return err
	})
	return value, err
}

func (s *system) SetSysctl(name, value string) error {
	return s.inNamespace(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
	})
}

// LoadModules starts modprobe. Whether it could is told by what then works.
func (s *system) LoadModules(names ...string) {
	_ = exec.Command("modprobe", append([]string{"-q", "-a"}, names...)...).Run()
}

// inNamespace calls f on a thread inside the network namespace. /proc/sys/net is that
// of the thread that opens it.
func (s *system) inNamespace(f func() error) error { return netspace.In(s.ns, f) }
