// SPDX-License-Identifier: Apache-2.0

package config

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits that keep the work for a file that is not a configuration small.
const (
	maxFileSize     = 256 << 10
	maxValue        = 64 << 10
	maxLineProblems = 20
)

// setting is one assignment as it stands in a file.
type setting struct {
	section string // see sectionName
	key     string
	value   string
	origin  Origin
	file    int // position of the file in reading order
}

// header is one "[section]" line.
type header struct {
	section string // see sectionName
	origin  Origin
}

// parsed is the content of one file.
type parsed struct {
	headers  []header
	settings []setting
	problems []*Problem
}

// parser reads one file line by line.
type parser struct {
	parsed
	name    string
	file    int
	line    int
	section string
	// lost is set where the section is not known because its header is
	// missing or malformed: what follows belongs nowhere.
	lost bool
	// open is set while lines may continue the last setting.
	open bool
}

// parseINI reads the oslo.config dialect of INI. Malformed lines are reported
// and left out; the rest is returned.
func parseINI(name string, file int, data []byte) parsed {
	p := &parser{name: name, file: file}
	text := strings.TrimPrefix(string(data), "\ufeff")
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	for line := range strings.SplitSeq(text, "\n") {
		p.line++
		p.parseLine(strings.TrimRightFunc(line, unicode.IsSpace))
		if len(p.problems) >= maxLineProblems {
			p.problem("", "too many malformed lines, the rest is not read")
			break
		}
	}
	return p.parsed
}

// parseLine handles one line without its trailing space.
func (p *parser) parseLine(line string) {
	trimmed := strings.TrimSpace(line)
	comment := strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";")
	indented := trimmed != line
	switch {
	case !utf8.ValidString(line) || strings.ContainsRune(line, 0):
		p.open = false
		p.problem(line, "want UTF-8 text")
	case trimmed == "":
		p.open = false
	case comment && indented:
		// Between continuation lines, a comment does not end the value.
	case comment:
		p.open = false
	case indented:
		p.parseContinuation(trimmed)
	case line[0] == '[':
		p.parseHeader(line)
	default:
		p.parseSetting(line)
	}
}

func (p *parser) parseHeader(line string) {
	p.open, p.lost = false, true
	if !strings.HasSuffix(line, "]") {
		p.problem(line, "want a section like [BGP]: the closing bracket is missing")
		return
	}
	name := strings.TrimSpace(line[1 : len(line)-1])
	if name == "" {
		p.problem(line, "want a section like [BGP]: the name is missing")
		return
	}
	p.section, p.lost = sectionName(name), false
	p.headers = append(p.headers, header{p.section, p.origin()})
}

func (p *parser) parseSetting(line string) {
	p.open = false
	sep := strings.IndexAny(line, "=:")
	if sep < 0 {
		p.problem(line, "want \"name = value\", a [section] or a # comment")
		return
	}
	key := strings.TrimSpace(line[:sep])
	switch {
	case key == "":
		p.problem(line, "want \"name = value\": the name is missing")
		return
	case p.section == "" && !p.lost:
		p.lost = true
		p.problem(line, "want a [section] before the first option")
		return
	}
	p.open = true
	if p.lost {
		return
	}
	p.settings = append(p.settings, setting{
		section: p.section,
		key:     key,
		value:   unquote(strings.TrimSpace(line[sep+1:])),
		origin:  p.origin(),
		file:    p.file,
	})
}

func (p *parser) parseContinuation(text string) {
	switch {
	case !p.open:
		p.problem(text, "an indented line continues the value of an option, but none stands before it")
	case p.lost:
	case len(p.settings[len(p.settings)-1].value)+len(text) >= maxValue:
		p.problem(text, "the value that this line continues is too long")
	default:
		p.settings[len(p.settings)-1].value += "\n" + text
	}
}

func (p *parser) origin() Origin {
	return Origin{File: p.name, Line: p.line}
}

func (p *parser) problem(line, text string) {
	p.problems = append(p.problems, &Problem{Origin: p.origin(), Value: conceal(line), Text: text})
}

// secretName matches what a malformed line may try to set to a secret.
var secretName = regexp.MustCompile(`(?i)password`)

// conceal hides what follows the name of a secret.
func conceal(line string) string {
	if m := secretName.FindStringIndex(line); m != nil {
		return line[:m[1]] + " " + hidden
	}
	return line
}

// unquote takes away one pair of equal quotes around s.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[0] == s[len(s)-1] {
		return s[1 : len(s)-1]
	}
	return s
}
