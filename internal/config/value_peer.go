// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxDevice is the longest name of an interface, in octets (IFNAMSIZ - 1).
const maxDevice = 15

// bmpPort is the port of BMP stations that have none.
const bmpPort = 11019

func parseSecret(text string, o *option) (Secret, error) {
	if n := int64(len(text)); n < o.min || n > o.max {
		return "", fmt.Errorf("has %d octets; %w", n, errWant(o))
	}
	return Secret(text), nil
}

// parseDevice reads a name that the kernel may take for an interface.
func parseDevice(text string, o *option) (string, error) {
	strange := strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || r == '/' || r == ':'
	})
	if strange || len(text) > maxDevice || text == "." || text == ".." {
		return "", errWant(o)
	}
	return text, nil
}

// parseChoice returns the position of text among the choices of o.
func parseChoice[T ~uint8](text string, o *option) (T, error) {
	i := slices.Index(o.choices, text)
	if i < 0 {
		return 0, errWant(o)
	}
	return T(i), nil
}

// parseChoices reads a list of choices, each once, and sorts it.
func parseChoices[T ~uint8](text string, o *option) ([]T, error) {
	list, err := parseOrdered[T](text, o)
	slices.Sort(list)
	return list, err
}

// parseOrdered reads a list of choices, each once.
func parseOrdered[T ~uint8](text string, o *option) ([]T, error) {
	var list []T
	for _, item := range splitList(text) {
		v, err := parseChoice[T](item, o)
		if err != nil {
			return nil, fmt.Errorf("%s is unknown; %w", quote(item), err)
		}
		if slices.Contains(list, v) {
			return nil, fmt.Errorf("%s stands there twice; %w", quote(item), errWant(o))
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		return nil, errWant(o)
	}
	return list, nil
}

// parseStations reads a list of BMP stations, each once.
func parseStations(text string, o *option) ([]Station, error) {
	var list []Station
	for _, item := range splitList(text) {
		s, err := parseStation(item, o)
		if err != nil {
			return nil, fmt.Errorf("%s is no station; %w", quote(item), err)
		}
		if slices.Contains(list, s) {
			return nil, fmt.Errorf("%s stands there twice; %w", quote(item), errWant(o))
		}
		list = append(list, s)
	}
	return list, nil
}

// parseStation reads host:port, or a host alone.
func parseStation(text string, o *option) (Station, error) {
	host, port := text, strconv.Itoa(bmpPort)
	if strings.Contains(unbracket(text), ":") && unbracket(text) == text {
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			return Station{}, errWant(o)
		}
	}
	host, err := parseHost(host, o)
	if err != nil {
		return Station{}, err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.String()
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Station{}, errWant(o)
	}
	return Station{Host: host, Port: uint16(n)}, nil
}
