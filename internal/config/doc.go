// SPDX-License-Identifier: Apache-2.0

// Package config turns the daemon's command line and configuration files into
// a Config of real types.
//
// There are two layers. The lower one reads files in the INI dialect of
// oslo.config and keeps text: each setting remembers its file and line. The
// upper one is Config. Between them stands one table of options, with section,
// name, old names, type, range, default and help text of each; validation, the
// looking glass (Config.Sections), docs/configuration.md (Reference) and
// packaging/bgp.conf.sample (Sample) all come from that table. To add an option
// is to add a row and, when it has an effect, a field of Config.
//
// Load reports everything that is wrong at once: its error joins one Problem
// for each bad line, bad value and missing option. What is odd but harmless is
// a Warning, with a Kind that tells how loud to log it. The package itself logs
// nothing and touches the system only through Resolver and the files named.
//
// A section PEER is about one neighbour. Its rows are copies of those of the
// table, one for each line of the section, that write over a copy of what BGP
// says about all neighbours.
//
// Precedence, lowest first: default, files in the order given, files of the
// configuration directories in order of their names, command line.
package config
