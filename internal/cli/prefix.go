// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"

	"github.com/spf13/pflag"
)

// completeOptions replaces each long option that is a prefix of just one known
// option by the full name, as the option parsers of Python do and scripts rely
// on ("--import" for "--import-rt").
func completeOptions(fs *pflag.FlagSet, args []string) ([]string, error) {
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...), nil
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !strings.HasPrefix(arg, "--") {
			out = append(out, arg)
			continue
		}
		flag, err := findOption(fs, name)
		if err != nil {
			return nil, err
		}
		if hasValue {
			out = append(out, "--"+flag.Name+"="+value)
			continue
		}
		out = append(out, "--"+flag.Name)
		// The value of an option is no option itself, whatever it looks like.
		if flag.NoOptDefVal == "" && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out, nil
}

func findOption(fs *pflag.FlagSet, name string) (*pflag.Flag, error) {
	if f := fs.Lookup(name); f != nil {
		return f, nil
	}
	var found []*pflag.Flag
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, name) {
			found = append(found, f)
			names = append(names, "--"+f.Name)
		}
	})
	switch {
	case len(found) == 0:
		return nil, usagef("unknown option --%s", name)
	case len(found) > 1:
		return nil, usagef("ambiguous option --%s: could be %s", name, strings.Join(names, ", "))
	}
	return found[0], nil
}

// parseOld parses the command line of an old command: prefixes of long options
// are completed, and --help is there. It returns true when it printed help.
func parseOld(fs *pflag.FlagSet, env Env, synopsis string, args []string) (help bool, err error) {
	fs.SortFlags = false
	fs.SetOutput(env.Stderr)
	fs.Usage = func() {}
	fs.BoolVarP(&help, "help", "h", false, "show this help and exit")
	args, err = completeOptions(fs, args)
	if err != nil {
		return false, err
	}
	if err := fs.Parse(args); err != nil {
		return false, &usageError{err: err}
	}
	if help {
		_, err = env.Stdout.Write([]byte("usage: " + synopsis + "\n\n" + fs.FlagUsages()))
	}
	return help, err
}
