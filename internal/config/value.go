// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseAll reads the options that match into their fields. Options without
// field, and those of neighbours, are left to derive.
func (l *loader) parseAll(match func(*option) bool) {
	for o := range rows() {
		if o.ignored == "" && o.section != sectionPeer && match(o) {
			l.parse(o)
		}
	}
}

// parse reads one option, or its default when it is not set. An option of a driver
// that is not selected keeps its default.
func (l *loader) parse(o *option) {
	text, err := l.expand(o)
	if err != nil {
		l.fail(o, l.chosen[o].value, err.Error())
		return
	}
	if l.unselected(o) {
		text = o.def
	}
	switch {
	case text == "" && o.required:
		l.fail(o, "", "required but not set; want "+o.allowed())
	case text == "" || o.field == nil:
	default:
		if err := l.set(o, text); err != nil {
			l.fail(o, text, err.Error()+commentHint(text))
		}
	}
}

// commentHint explains the most common reason of a bad value.
func commentHint(text string) string {
	if strings.Contains(text, " #") || strings.Contains(text, " ;") {
		return " (a comment needs a line of its own)"
	}
	return ""
}

// set reads text into the field of o.
func (l *loader) set(o *option, text string) error {
	switch p := o.field(&l.cfg).(type) {
	case *bool:
		return assign(p, text, o, parseBool)
	case *uint8:
		return assign(p, text, o, parseNumber[uint8])
	case *uint16:
		return assign(p, text, o, parseNumber[uint16])
	case *uint32:
		return assign(p, text, o, parseNumber[uint32])
	case *uint64:
		return assign(p, text, o, parseNumber[uint64])
	case *time.Duration:
		return assign(p, text, o, parseDuration)
	case *string:
		return assign(p, text, o, parseText)
	case *netip.Addr:
		return assign(p, text, o, l.parseAddr)
	case *Secret:
		return assign(p, text, o, parseSecret)
	case *IrrelevantRoutes:
		return assign(p, text, o, parseChoice[IrrelevantRoutes])
	case *RestartMode:
		return assign(p, text, o, parseChoice[RestartMode])
	case *BFDMode:
		return assign(p, text, o, parseChoice[BFDMode])
	case *AutoBool:
		return assign(p, strings.ToLower(text), o, parseChoice[AutoBool])
	case *HashMethod:
		return assign(p, text, o, parseChoice[HashMethod])
	case *Encapsulation:
		return assign(p, text, o, parseChoice[Encapsulation])
	case *[]Encapsulation:
		return assign(p, text, o, parseOrdered[Encapsulation])
	case *[]string:
		return assign(p, text, o, func(text string, _ *option) ([]string, error) { return splitList(text), nil })
	case *[]Family:
		return assign(p, text, o, parseChoices[Family])
	case *[]Station:
		return assign(p, text, o, parseStations)
	default:
		panic(fmt.Sprintf("config: option %s has a field of type %T", o, p))
	}
}

// assign sets *p to what parse makes of text.
func assign[T any](p *T, text string, o *option, parse func(string, *option) (T, error)) error {
	v, err := parse(text, o)
	if err == nil {
		*p = v
	}
	return err
}

// errWant says what values o takes.
func errWant(o *option) error {
	return errors.New("want " + o.allowed())
}

func parseBool(text string, o *option) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, errWant(o)
}

func parseNumber[T uint8 | uint16 | uint32 | uint64 | time.Duration](text string, o *option) (T, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || (n < o.min || n > o.max) && (n != 0 || !o.zero) {
		return 0, errWant(o)
	}
	return T(n), nil
}

func parseDuration(text string, o *option) (time.Duration, error) {
	n, err := parseNumber[time.Duration](text, o)
	return n * o.unit(), err
}

func parseText(text string, o *option) (string, error) {
	switch o.typ {
	case typeHost:
		return parseHost(text, o)
	case typeDriver:
		return parseDriver(text, o)
	case typeDevice:
		return parseDevice(text, o)
	case typePath, typeSocket:
		return parsePath(text, o)
	default:
		return text, nil
	}
}

// parseDriver returns the canonical name of a driver in this build.
func parseDriver(text string, o *option) (string, error) {
	d, ok := o.driver(text)
	if !ok {
		return "", errWant(o)
	}
	if d.absent {
		return "", fmt.Errorf("this build lacks the driver; want %s", o.allowed())
	}
	return d.name, nil
}

// parsePath returns an absolute path without superfluous parts.
func parsePath(text string, o *option) (string, error) {
	path := filepath.Clean(text)
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) || o.typ == typeSocket && len(path) > maxSocketPath {
		return "", errWant(o)
	}
	return path, nil
}

// parseHost returns an address or host name without brackets.
func parseHost(text string, o *option) (string, error) {
	text = unbracket(text)
	if _, err := netip.ParseAddr(text); err != nil && !isHostName(text) {
		return "", errWant(o)
	}
	return text, nil
}

// unbracket takes the brackets off "[2001:db8::1]".
func unbracket(text string) string {
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") && strings.Contains(text, ":") {
		return text[1 : len(text)-1]
	}
	return text
}

var hostName = regexp.MustCompile(`^(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?$`)

// isHostName tells whether text may be a host name. One that ends in a number
// is a mistyped IPv4 address.
func isHostName(text string) bool {
	if len(text) > 253 || !hostName.MatchString(text) {
		return false
	}
	labels := strings.Split(strings.TrimSuffix(text, "."), ".")
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// parseAddr reads an address of our own.
func (l *loader) parseAddr(text string, o *option) (netip.Addr, error) {
	addr, err := netip.ParseAddr(unbracket(text))
	if err != nil {
		if o.typ == typeIPv4 {
			return addr, errWant(o)
		}
		return l.interfaceAddr(text, o)
	}
	addr = addr.Unmap()
	switch {
	case o.typ == typeIPv4 && !addr.Is4():
		return addr, errWant(o)
	case addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "":
		return addr, fmt.Errorf("the address is not one host's; %w", errWant(o))
	}
	return addr, nil
}

// interfaceAddr returns the first IPv4 address of an interface, else the first
// global IPv6 address.
func (l *loader) interfaceAddr(name string, o *option) (netip.Addr, error) {
	addrs, err := l.resolver.InterfaceAddrs(name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look up interface: %w; want %s", err, o.allowed())
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	i := slices.IndexFunc(addrs, netip.Addr.Is4)
	if i < 0 {
		i = slices.IndexFunc(addrs, netip.Addr.IsGlobalUnicast)
	}
	if i < 0 {
		return netip.Addr{}, fmt.Errorf("the interface has no usable address; want %s", o.allowed())
	}
	return addrs[i], nil
}

// parsePrefixes reads a list of prefixes; an address is a prefix of one host.
func parsePrefixes(text string, o *option) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, item := range splitList(text) {
		if addr, err := netip.ParseAddr(item); err == nil {
			item = addr.WithZone("").String() + "/" + strconv.Itoa(addr.BitLen())
		}
		prefix, err := parsePrefix(item, "want "+o.allowed())
		if err != nil {
			return nil, err
		}
		if !slices.Contains(prefixes, prefix) {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes, nil
}

// parsePrefix reads one prefix; want says what is allowed.
func parsePrefix(text, want string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s is no prefix; %s", quote(text), want)
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has bits set after its length; want %s", quote(text), prefix.Masked())
	}
	return prefix, nil
}

// splitList returns the items of a comma-separated list, without empty ones.
func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
