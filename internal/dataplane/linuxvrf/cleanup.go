// SPDX-License-Identifier: Apache-2.0

package linuxvrf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/bagpipe-vpn/bagpipe/internal/netlinkx"
	"golang.org/x/sys/unix"
)

// original names the VRF devices of the Python networking-bagpipe.
var original = regexp.MustCompile(`^bvrf-[0-9]{1,9}$`)

// Cleanup removes all that this driver, or the original one, left in the network
// namespace of the calling thread, and returns what it removed. It goes on after an
// error. No daemon may be running.
func Cleanup(ctx context.Context, log *slog.Logger) ([]string, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k, err := openSystem()
	if err != nil {
		return nil, err
	}
	defer func() { _ = k.Close() }()
	c := &cleaner{k: k, log: log}
	for _, f := range []func() error{c.routes, c.labels, c.nexthops, c.neighbours, c.rules, c.devices} {
		if err := errors.Join(ctx.Err(), f()); err != nil {
			c.errs = append(c.errs, err)
		}
	}
	return c.removed, errors.Join(c.errs...)
}

type cleaner struct {
	k       kernel
	log     *slog.Logger
	removed []string
	errs    []error
}

// all carries out requests that remove things of one kind.
func (c *cleaner) all(what string, reqs []netlinkx.Request) {
	errs := make([]error, len(reqs))
	c.k.Do(reqs, errs)
	n := 0
	for i, err := range errs {
		if isDelete(reqs[i]) {
			err = goneIsFine(err)
		}
		if err != nil {
			c.errs = append(c.errs, fmt.Errorf("remove %s: %w", what, err))
			continue
		}
		n++
	}
	if n > 0 {
		c.note(fmt.Sprintf("%d %s", n, what))
	}
}

func (c *cleaner) note(what string) {
	c.log.Info("removed", "what", what)
	c.removed = append(c.removed, what)
}

func (c *cleaner) routes() error {
	var reqs []netlinkx.Request
	list, err := ourRoutes(c.k)
	for _, r := range list {
		reqs = append(reqs, netlinkx.RouteRequest{Delete: true, Route: r})
	}
	c.all("routes", reqs)
	return err
}

func (c *cleaner) labels() error {
	list, err := ourLabels(c.k)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil // no MPLS
	}
	var reqs []netlinkx.Request
	for _, m := range list {
		reqs = append(reqs, netlinkx.MPLSRequest{Delete: true, MPLSRoute: m})
	}
	c.all("MPLS routes", reqs)
	return err
}

func (c *cleaner) nexthops() error {
	list, err := c.k.Nexthops()
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	var reqs []netlinkx.Request
	for _, n := range list {
		if n.Protocol == ours {
			reqs = append(reqs, netlinkx.NexthopRequest{Delete: true, Nexthop: n})
		}
	}
	c.all("nexthop objects", reqs)
	return err
}

// neighbours removes neighbours and gateway addresses from the ports of VRFs.
func (c *cleaner) neighbours() error {
	links, err := c.k.Links(0)
	if err != nil {
		return err
	}
	var neighbours, addresses []netlinkx.Request
	for _, port := range links {
		vrf, ok := device(links, func(l netlinkx.Link) bool { return l.Index == port.Master })
		if _, ours := instanceOf(vrf); !ok || !ours {
			continue
		}
		for _, family := range families {
			list, err := c.k.Neighbours(family, port.Index)
			if err != nil {
				return err
			}
			for _, n := range list {
				if n.Protocol == ours {
					neighbours = append(neighbours, netlinkx.Message{Op: netlinkx.Delete, Neigh: n})
				}
			}
		}
		list, err := c.k.Addresses(port.Index)
		if err != nil {
			return err
		}
		for _, a := range list {
			if a.Protocol == ours {
				addresses = append(addresses, netlinkx.AddressRequest{Delete: true, Address: a})
			}
		}
	}
	c.all("neighbours", neighbours)
	c.all("addresses", addresses)
	return nil
}

// rules puts the rule for the table "local" back to its place.
func (c *cleaner) rules() error {
	for _, family := range families {
		have, err := c.k.Rules(family)
		if err != nil {
			return err
		}
		first := netlinkx.Rule{Family: family, Table: unix.RT_TABLE_LOCAL}
		var before, reqs []netlinkx.Request
		for _, r := range have {
			if r.Protocol == ours {
				reqs = append(reqs, netlinkx.RuleRequest{Delete: true, Rule: r})
			}
		}
		if len(reqs) > 0 && !hasRule(have, first) {
			before = append(before, netlinkx.RuleRequest{Rule: netlinkx.Rule{Family: family, Table: unix.RT_TABLE_LOCAL, Protocol: unix.RTPROT_KERNEL}})
		}
		c.all("rules", append(before, reqs...))
	}
	return nil
}

// devices deletes what is ours by alias, or the original's by name.
func (c *cleaner) devices() error {
	links, err := c.k.Links(0)
	if err != nil {
		return err
	}
	for _, l := range links {
		id, vrf := instanceOf(l)
		tunnel := isTunnel(l) && strings.HasPrefix(l.Alias, tunnelAlias)
		what := "device " + l.Name
		switch {
		case vrf:
			what += fmt.Sprintf(" of instance %q", id)
		case tunnel, isHalfMade(l), l.Kind == "vrf" && original.MatchString(l.Name):
		default:
			continue
		}
		if err := goneIsFine(c.k.DeleteLink(l.Index)); err != nil {
			c.errs = append(c.errs, fmt.Errorf("remove %s: %w", what, err))
			continue
		}
		c.note(what)
	}
	return nil
}
