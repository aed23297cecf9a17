// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Origin is the place a setting comes from.
type Origin struct {
	// File is a path, or the option of the command line that set the value.
	File string
	// Line counts from 1; it is 0 where there are no lines.
	Line int
}

// String returns "file:line", or only the file when there is no line.
func (o Origin) String() string {
	if o.Line == 0 {
		return o.File
	}
	return o.File + ":" + strconv.Itoa(o.Line)
}

// Problem is one reason why a configuration is refused. The error of Load
// joins all of them; errors.As finds the first.
type Problem struct {
	// Origin tells where the value stands; it is zero for a missing option.
	Origin Origin
	// Option is "SECTION.name" or "[PEER neighbour].name", "[PEER neighbour]" for
	// a neighbour that is refused, or empty for a malformed line.
	Option string
	// Value is the text given: a value, or the whole line if it is malformed;
	// "***" stands for a secret.
	Value string
	// Text says what is wrong and what is allowed.
	Text string
}

// Error returns "file:line: SECTION.name: value "x": text" with the parts that
// are known.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Origin.File != "" {
		b.WriteString(p.Origin.String() + ": ")
	}
	what := "line"
	if p.Option != "" {
		what = "value"
		b.WriteString(p.Option + ": ")
	}
	if p.Value != "" {
		b.WriteString(what + " " + quote(p.Value) + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Kind sorts warnings by what the reader should do about them.
type Kind int

// Kinds of warnings.
const (
	// Unknown is a section, option or substituted name that does not exist:
	// most likely a typing error.
	Unknown Kind = iota
	// Deprecated is something that works but has a newer form.
	Deprecated
	// Repeated is an option given twice in one file: the last one holds.
	Repeated
	// Ignored is a known option that has no effect here, now.
	Ignored
	// Insecure is something that lets others in.
	Insecure
)

// String returns the kind as one lower-case word.
func (k Kind) String() string {
	switch k {
	case Unknown:
		return "unknown"
	case Deprecated:
		return "deprecated"
	case Repeated:
		return "repeated"
	case Ignored:
		return "ignored"
	case Insecure:
		return "insecure"
	}
	return fmt.Sprintf("kind-%d", int(k))
}

// Warning is a remark on a configuration that is accepted.
type Warning struct {
	Kind   Kind
	Origin Origin
	// Option is "SECTION.name" or "[PEER neighbour].name", or "SECTION" for a remark on a section.
	Option string
	// Text is a remark to follow the option's name.
	Text string
}

// Level returns the level to log the warning at: info for what is ignored by
// design, warn for the rest.
func (w Warning) Level() slog.Level {
	if w.Kind == Ignored {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// String returns "file:line: SECTION.name: text".
func (w Warning) String() string {
	return w.Origin.String() + ": " + w.Option + ": " + w.Text
}

// sortByOrigin sorts messages by file, in the order of files, and line, those
// from elsewhere last.
func sortByOrigin[T any](messages []T, files []string, origin func(T) Origin) {
	rank := func(o Origin) int {
		if i := slices.Index(files, o.File); i >= 0 {
			return i
		}
		return len(files)
	}
	slices.SortStableFunc(messages, func(a, b T) int {
		x, y := origin(a), origin(b)
		return cmp.Or(rank(x)-rank(y), x.Line-y.Line)
	})
}

// join makes one error of all problems, sorted by origin, or nil of none.
func join(problems []*Problem, files []string) error {
	sortByOrigin(problems, files, func(p *Problem) Origin { return p.Origin })
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// quote returns s quoted and cut to a length fit for a message.
func quote(s string) string {
	const most = 80
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "..."
}
