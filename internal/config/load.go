// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Source tells where the configuration comes from.
type Source struct {
	// Files are read in order, a later one wins. Each must exist.
	Files []string
	// Dirs are directories whose *.conf files are read after Files, sorted by
	// name. Each must exist.
	Dirs []string
	// Overrides win over all files, the last one over the others.
	Overrides []Override
	// Resolver looks up interfaces and hosts; the zero value asks the system.
	Resolver Resolver
}

// Override is one option set outside of files.
type Override struct {
	Section, Option, Value string
	// Origin names what set the option, for messages.
	Origin string
}

// Load reads, checks and completes the configuration. The error joins every
// Problem there is, or tells which files could not be read. Problems do not
// keep warnings from being returned.
func Load(src Source) (*Config, []Warning, error) {
	l, err := read(src)
	if err != nil {
		return nil, nil, err
	}
	l.choose()
	l.parseAll(func(*option) bool { return true })
	l.derive()
	l.warnIgnored()
	sortByOrigin(l.warnings, l.files, func(w Warning) Origin { return w.Origin })
	if len(l.problems) > 0 {
		return nil, l.warnings, join(l.problems, l.files)
	}
	return &l.cfg, l.warnings, nil
}

// LoadAPI reads only where the REST API listens, for programs that talk to the
// daemon. What is wrong elsewhere in the files does not matter to it.
func LoadAPI(src Source) (API, error) {
	l, err := read(src)
	if err != nil {
		return API{}, err
	}
	l.problems = nil
	l.choose()
	l.parseAll(func(o *option) bool { return o.section == sectionAPI })
	return l.cfg.API, join(l.problems, l.files)
}

// loader carries one configuration from text to Config.
type loader struct {
	cfg      Config
	resolver Resolver
	files    []string // in reading order
	headers  []header
	settings []setting
	// peers are the sections PEER in order; byKey finds one by the neighbour,
	// byName by what sectionName returns.
	peers         []*peerSection
	byKey, byName map[string]*peerSection
	// chosen is the setting that holds for each option that is set.
	chosen map[*option]setting
	// expanded is the text of options after substitution.
	expanded map[*option]string
	// failed are the options with a problem, so that what depends on them
	// raises no further one.
	failed   map[*option]bool
	warnings []Warning
	problems []*Problem
}

// read gathers the text of all sources.
func read(src Source) (*loader, error) {
	l := &loader{
		resolver: src.Resolver.withDefaults(),
		chosen:   map[*option]setting{},
		expanded: map[*option]string{},
		failed:   map[*option]bool{},
		byKey:    map[string]*peerSection{},
		byName:   map[string]*peerSection{},
	}
	files := slices.Clone(src.Files)
	var errs []error
	for _, dir := range src.Dirs {
		found, err := filesIn(dir)
		errs = append(errs, err)
		files = append(files, found...)
	}
	for i, name := range files {
		data, err := readFile(name)
		errs = append(errs, err)
		p := parseINI(name, i, data)
		l.headers = append(l.headers, p.headers...)
		l.settings = append(l.settings, p.settings...)
		l.problems = append(l.problems, p.problems...)
	}
	for i, o := range src.Overrides {
		l.settings = append(l.settings, setting{
			section: sectionName(o.Section), key: o.Option, value: o.Value,
			origin: Origin{File: o.Origin}, file: len(files) + i,
		})
	}
	l.files = files
	return l, errors.Join(errs...)
}

// filesIn lists the configuration files of a directory, sorted by name.
func filesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read configuration directory: %w", err)
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".conf") && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

// readFile returns the content of a file of sane size.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("read configuration: %s is larger than %d bytes", name, maxFileSize)
	}
	return data, nil
}

// choose finds for each option the setting that holds, and warns about
// settings and sections that are no option's.
func (l *loader) choose() {
	l.checkSections()
	for _, s := range l.settings {
		if !l.known(s.section, s.origin) {
			continue
		}
		o := l.find(s.section, s.key, s.origin)
		if o == nil {
			l.warn(Unknown, s.origin, optionName(s.section, s.key),
				"there is no such option"+options.suggest(s.section, s.key))
			continue
		}
		before, set := l.chosen[o]
		// Within one file the present name of an option wins over an old one.
		if set && before.file == s.file && before.key == o.name && s.key != o.name {
			before, s = s, before
		}
		if set && before.file == s.file {
			l.warn(Repeated, before.origin, o.String(), "given again, what holds is "+s.origin.String())
		}
		l.chosen[o] = s
	}
	l.warnOldNames()
}

// known tells whether there may be options of ours in a section.
func (l *loader) known(section string, at Origin) bool {
	return options[section] != nil || l.peerSection(section, at) != nil
}

// checkSections warns about sections without options of ours, once for each.
func (l *loader) checkSections() {
	seen := map[string]bool{}
	for _, h := range l.headers {
		if seen[h.section] || l.known(h.section, h.origin) {
			continue
		}
		seen[h.section] = true
		why, ignored := ignoredSections[h.section]
		switch {
		case ignored:
			l.warn(Ignored, h.origin, h.section, "ignored: "+why)
		case h.section == obsoleteSection:
			l.warn(Deprecated, h.origin, h.section,
				"obsolete and ignored; use "+sectionIPVPN+" and "+sectionEVPN)
		default:
			l.warn(Unknown, h.origin, h.section, "there is no such section"+options.suggestSection(h.section))
		}
	}
}

// warnOldNames warns where an option is set by a name it had.
func (l *loader) warnOldNames() {
	for o := range rows() {
		if s, set := l.chosen[o]; set && s.key != o.name && o.ignored == "" {
			l.warn(Deprecated, s.origin, o.section+"."+s.key, "old name of "+o.name)
		}
	}
}

// warnIgnored warns about options that are set but have no effect.
func (l *loader) warnIgnored() {
	for o := range rows() {
		s, set := l.chosen[o]
		switch {
		case !set:
		case l.unselected(o):
			if s.value == o.def {
				continue
			}
			l.warn(Ignored, s.origin, o.String(),
				"ignored: belongs to driver "+strings.Join(o.of, " or ")+", which is not selected")
		case o.ignored != "":
			l.warn(Ignored, s.origin, o.String(), "ignored: "+o.ignored)
		}
	}
}

// unselected tells whether o belongs to drivers that its section does not select.
func (l *loader) unselected(o *option) bool {
	return len(o.of) > 0 && !l.failed[o.choice()] && !o.selected(&l.cfg)
}

func (l *loader) warn(kind Kind, at Origin, option, text string) {
	l.warnings = append(l.warnings, Warning{Kind: kind, Origin: at, Option: option, Text: text})
}

// fail notes that the value of o is refused.
func (l *loader) fail(o *option, value, text string) {
	l.failed[o] = true
	if o.typ == typeSecret {
		value = Secret(value).String()
	}
	l.problems = append(l.problems, &Problem{
		Origin: l.chosen[o].origin, Option: o.String(), Value: value, Text: text,
	})
}
