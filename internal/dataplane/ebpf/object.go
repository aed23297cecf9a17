// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"bytes"
	_ "embed" // for the programs
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

//go:generate bpf/build.sh

// object holds the compiled programs.
//
//go:embed bpf/vrf.o
var object []byte

// Names of the programs in the kernel, which has room for 15 characters.
const (
	portProgram     = "bagpipe_port"
	underlayProgram = "bagpipe_tunnel"
	wholeProgram    = "bagpipe_whole"
)

// maps are all maps of the driver. The underlay program holds on to all of them.
type maps struct {
	Config    *ebpf.Map `ebpf:"bp1_config"`
	Ports     *ebpf.Map `ebpf:"bp1_ports"`
	Labels    *ebpf.Map `ebpf:"bp1_labels"`
	Routes4   *ebpf.Map `ebpf:"bp1_routes4"`
	Routes6   *ebpf.Map `ebpf:"bp1_routes6"`
	Groups    *ebpf.Map `ebpf:"bp1_groups"`
	Gateways  *ebpf.Map `ebpf:"bp1_gateways"`
	Sources   *ebpf.Map `ebpf:"bp1_sources"`
	Lists     *ebpf.Map `ebpf:"bp1_lists"`
	Classes   *ebpf.Map `ebpf:"bp1_classes"`
	Fallbacks *ebpf.Map `ebpf:"bp1_fallbacks"`
	PortStats *ebpf.Map `ebpf:"bp1_pstats"`
	Drops     *ebpf.Map `ebpf:"bp1_drops"`
	VRFs      *ebpf.Map `ebpf:"bp1_vrfs"`
	Plugs     *ebpf.Map `ebpf:"bp1_plugs"`
	Endpoints *ebpf.Map `ebpf:"bp1_endpoints"`
}

// each calls f with the address and the name of every map.
func (m *maps) each(f func(name string, at **ebpf.Map)) {
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		f(v.Type().Field(i).Tag.Get("ebpf"), v.Field(i).Addr().Interface().(**ebpf.Map))
	}
}

func (m *maps) close() error {
	var errs []error
	m.each(func(_ string, at **ebpf.Map) { errs = append(errs, closeIt(*at)) })
	return errors.Join(errs...)
}

// closeIt closes what is there.
func closeIt[T interface {
	io.Closer
	comparable
}](c T) error {
	var none T
	if c == none {
		return nil
	}
	return c.Close()
}

// programs are those of the driver.
type programs struct {
	port, underlay *ebpf.Program
	// whole is a socket filter.
	whole *ebpf.Program
}

func (p *programs) close() error {
	return errors.Join(closeIt(p.port), closeIt(p.underlay), closeIt(p.whole))
}

// specification reads the object. sizes are other sizes of maps, for tests.
func specification(sizes map[string]uint32) (*ebpf.CollectionSpec, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read programs: %w", err)
	}
	delete(spec.Maps, ".rodata") // constants that the compiler has put into the code
	for name, n := range sizes {
		spec.Maps[name].MaxEntries = n
	}
	return spec, nil
}

// load makes the programs, and those maps that m has not.
func load(spec *ebpf.CollectionSpec, m *maps) (p programs, err error) {
	had := map[string]*ebpf.Map{}
	m.each(func(name string, at **ebpf.Map) {
		if *at != nil {
			had[name] = *at
		}
	})
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: had})
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return p, fmt.Errorf("load programs: %w: want root, or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN", err)
		}
		return p, fmt.Errorf("load programs: %w", err)
	}
	defer c.Close()
	m.each(func(name string, at **ebpf.Map) {
		if *at == nil {
			*at = c.DetachMap(name)
		}
	})
	p = programs{
		port: c.DetachProgram(portProgram), underlay: c.DetachProgram(underlayProgram), whole: c.DetachProgram(wholeProgram),
	}
	m.each(func(name string, at **ebpf.Map) {
		if e := p.underlay.BindMap(*at); e != nil {
			err = errors.Join(err, fmt.Errorf("bind map %s to program: %w", name, e))
		}
	})
	if err = errors.Join(err, named(&p, m)); err != nil {
		return p, errors.Join(err, p.close())
	}
	return p, nil
}

// named checks that the kernel has the names by which a later run finds programs and
// maps. The library leaves them out when the kernel refuses its first try of one, for want
// of memory for instance.
func named(p *programs, m *maps) (err error) {
	check := func(want, got string, e error) {
		if e == nil && got != want {
			e = errors.New("the kernel has not taken its name")
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("load %s: %w", want, e))
		}
	}
	for want, prog := range map[string]*ebpf.Program{portProgram: p.port, underlayProgram: p.underlay} {
		info, e := prog.Info()
		if e != nil {
			info = &ebpf.ProgramInfo{}
		}
		check(want, info.Name, e)
	}
	m.each(func(want string, at **ebpf.Map) {
		info, e := (*at).Info()
		if e != nil {
			info = &ebpf.MapInfo{}
		}
		check(want, info.Name, e)
	})
	return err
}

// later are maps that earlier versions have not, which are made when they are missing.
var later = []string{"bp1_lists", "bp1_classes", "bp1_fallbacks"}

// reopen opens the maps that a program of an earlier run holds. It returns none unless
// all are there, but for later ones, and are what this version makes.
func reopen(spec *ebpf.CollectionSpec, id ebpf.ProgramID) (m maps, ok bool, err error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return m, false, fmt.Errorf("open program of an earlier run: %w", err)
	}
	defer func() { _ = p.Close() }()
	info, err := p.Info()
	if err != nil {
		return m, false, fmt.Errorf("read program of an earlier run: %w", err)
	}
	byName := map[string]*ebpf.Map{}
	defer func() {
		for _, left := range byName {
			_ = left.Close()
		}
	}()
	ids, _ := info.MapIDs()
	for _, id := range ids {
		found, err := ebpf.NewMapFromID(id)
		if err != nil {
			return m, false, fmt.Errorf("open map of an earlier run: %w", err)
		}
		mi, err := found.Info()
		if err != nil {
			return m, false, errors.Join(fmt.Errorf("read map of an earlier run: %w", err), found.Close())
		}
		byName[mi.Name] = found
	}
	ok = true
	m.each(func(name string, _ **ebpf.Map) {
		if byName[name] == nil && slices.Contains(later, name) {
			return
		}
		ok = ok && byName[name] != nil && spec.Maps[name].Compatible(byName[name]) == nil
	})
	if !ok {
		return m, false, nil
	}
	m.each(func(name string, at **ebpf.Map) {
		*at = byName[name]
		delete(byName, name)
	})
	return m, true, nil
}
