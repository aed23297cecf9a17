// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"
)

func TestSubstitution(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		in    string // follows minimal
		want  func(*Config)
		warns []string
	}{
		{"OK own section", "listen_port = $bgp_port\nbgp_port = 1179",
			func(c *Config) { c.BGP.Port, c.BGP.ListenPort = 1179, 1179 }, nil},
		{"OK default of the other option", "listen_port = ${bgp_port}1",
			func(c *Config) { c.BGP.ListenPort = 1791 }, nil},
		{"OK empty value of the other option", "listen_port = ${bgp_port}1\nbgp_port =",
			func(c *Config) { c.BGP.ListenPort = 1791 }, nil},
		{"OK other section, any case", "[API]\ntoken_file = /${bgp.local_address}\nport = 1$BGP.bgp_port",
			func(c *Config) { c.API.TokenFile, c.API.Port = "/192.0.2.1", 1179 }, nil},
		{"OK section DEFAULT where the own has none", "[API]\nhost = $log_file\n[DEFAULT]\nlog_file = localhost",
			func(c *Config) { c.API.Host, c.Log.File = "localhost", "localhost" }, nil},
		{"OK chain", "listen_port = $hold_time\nhold_time = $connect_retry_time\nconnect_retry_time = 7",
			func(c *Config) {
				c.BGP.ListenPort, c.BGP.HoldTime, c.BGP.ConnectRetryTime = 7, 7e9, 7e9
			}, nil},
		{"OK option not set", "[DEFAULT]\nlog_file = a${log_dir}b",
			func(c *Config) { c.Log.File = "ab" }, nil},
		{"OK dollar signs", `[DEFAULT]` + "\n" + `log_file = $$debug\$debug$1$`,
			func(c *Config) { c.Log.File = "$debug$debug$1$" }, nil},
		{"OK unknown names stay", "[DEFAULT]\nlog_file = $wibble/${bgp.wibble}/$debug.log",
			func(c *Config) { c.Log.File = "$wibble/${bgp.wibble}/$debug.log" }, []string{
				"unknown 0.conf:5: DEFAULT.log_file: there is no option wibble to substitute; write $$ for a dollar sign",
				"unknown 0.conf:5: DEFAULT.log_file: there is no option bgp.wibble to substitute; write $$ for a dollar sign",
				"unknown 0.conf:5: DEFAULT.log_file: there is no option debug.log to substitute; write $$ for a dollar sign",
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := defaults()
			tt.want(want)
			loadText(t, minimal+tt.in).check(t, want, tt.warns, nil)
		})
	}
}

func TestSubstitutionBad(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 40000)
	tests := []struct {
		name string
		in   string
		want []string
	}{
		{"bad circle", "listen_port = $hold_time\nhold_time = $listen_port", []string{
			`0.conf:4: BGP.listen_port: value "$hold_time": substitution of BGP.listen_port runs in a circle`,
			`0.conf:5: BGP.hold_time: value "$listen_port": substitution of BGP.hold_time runs in a circle`}},
		{"bad itself", "bgp_port = $bgp_port", []string{
			`0.conf:4: BGP.bgp_port: value "$bgp_port": substitution of BGP.bgp_port runs in a circle`}},
		{"bad length", "[DEFAULT]\nlog_dir = " + long + "\nlog_file = $log_dir$log_dir", []string{
			`0.conf:6: DEFAULT.log_file: value "$log_dir$log_dir": substitution makes the value too long`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			loadText(t, minimal+tt.in).check(t, nil, nil, tt.want)
		})
	}
}
