// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// DefaultFile is read when the command line names no file.
const DefaultFile = "/etc/bagpipe-bgp/bgp.conf"

// Flags is what the command line of the daemon asks for.
type Flags struct {
	// Source is ready for Load.
	Source Source
	// Help and Version ask to print Usage or the version, and nothing else.
	Help, Version bool
}

// UsageError is a command line that cannot be understood; the daemon exits
// with status 2 on it, and with 1 on all others.
type UsageError struct {
	err error
}

// Error says what is wrong with the command line.
func (e *UsageError) Error() string { return "read command line: " + e.err.Error() }

// Unwrap returns the reason.
func (e *UsageError) Unwrap() error { return e.err }

// ParseArgs reads the command line of the daemon, without the program's name.
// Its error is a *UsageError. Options of the original that have no effect here
// are accepted; Load then warns about them.
func ParseArgs(args []string) (Flags, error) {
	var f Flags
	fs := flagSet(&f)
	if err := fs.Parse(args); err != nil {
		return Flags{}, &UsageError{err}
	}
	if fs.NArg() > 0 {
		return Flags{}, &UsageError{fmt.Errorf("argument %s is not expected, only options are", quote(fs.Arg(0)))}
	}
	if len(f.Source.Files) == 0 {
		f.Source.Files = []string{DefaultFile}
	}
	return f, nil
}

// Usage returns the description of the command line.
func Usage() string {
	return "usage: bagpipe-bgp [option]...\n\n" + flagSet(&Flags{}).FlagUsages()
}

// commandLine lists the flags that set an option in [DEFAULT].
var commandLine = []struct {
	name    string // with dashes; the option's has underscores
	letter  string
	aliases []string
	boolean bool
	help    string
}{
	{name: "debug", letter: "d", boolean: true, help: "log at level debug"},
	{name: "log-file", aliases: []string{"logfile"}, help: "log to `path`"},
	{name: "log-dir", aliases: []string{"logdir"}, help: "`directory` of the log file"},
	{name: "use-json", boolean: true, help: "log one JSON object per line"},
	{name: "log-config-append", aliases: []string{"log-config", "log_config"}, help: "accepted, no effect"},
	{name: "log-date-format", help: "accepted, no effect"},
	{name: "use-syslog", boolean: true, help: "accepted, no effect"},
	{name: "syslog-log-facility", help: "accepted, no effect"},
	{name: "use-journal", boolean: true, help: "accepted, no effect"},
	{name: "watch-log-file", boolean: true, help: "accepted, no effect"},
}

// flagSet returns the flags of the daemon, which write to f.
func flagSet(f *Flags) *pflag.FlagSet {
	fs := pflag.NewFlagSet("bagpipe-bgp", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.SortFlags = false
	fs.BoolVarP(&f.Help, "help", "h", false, "print this and exit")
	fs.BoolVar(&f.Version, "version", false, "print the version and exit")
	fs.StringArrayVar(&f.Source.Files, "config-file", nil,
		"configuration `file`, may be repeated, later ones win (default "+DefaultFile+")")
	fs.StringArrayVar(&f.Source.Dirs, "config-dir", nil,
		"`directory` whose *.conf files are read after the files, may be repeated")
	for _, c := range commandLine {
		for _, name := range append([]string{c.name}, c.aliases...) {
			o := &optionFlag{flags: f, name: name, option: c.name, boolean: c.boolean}
			o.addTo(fs, c.letter, c.help).Hidden = name != c.name
			c.letter = ""
		}
		if c.boolean {
			o := &optionFlag{flags: f, name: "no" + c.name, option: c.name, boolean: true, negate: true}
			o.addTo(fs, "", "the opposite of --"+c.name)
		}
	}
	return fs
}

// optionFlag is a flag that adds an Override each time it is given, so that
// the last one of several for one option holds.
type optionFlag struct {
	flags           *Flags
	name, option    string
	boolean, negate bool
}

// addTo adds the flag to a set.
func (o *optionFlag) addTo(fs *pflag.FlagSet, letter, help string) *pflag.Flag {
	flag := fs.VarPF(o, o.name, letter, help)
	if o.boolean {
		flag.NoOptDefVal = "true"
	}
	return flag
}

// Set implements pflag.Value.
func (o *optionFlag) Set(text string) error {
	if o.boolean {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("want true or false")
		}
		text = strconv.FormatBool(on != o.negate)
	}
	o.flags.Source.Overrides = append(o.flags.Source.Overrides, Override{
		Section: sectionDefault, Option: strings.ReplaceAll(o.option, "-", "_"), Value: text,
		Origin: "command line option --" + o.name,
	})
	return nil
}

// String implements pflag.Value.
func (o *optionFlag) String() string { return "" }

// Type implements pflag.Value.
func (o *optionFlag) Type() string {
	if o.boolean {
		return "bool"
	}
	return "string"
}
