// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseArgsOK(t *testing.T) {
	t.Parallel()
	set := func(option, value, flag string) Override {
		return Override{"DEFAULT", option, value, "command line option --" + flag}
	}
	files := []string{DefaultFile}
	tests := []struct {
		name string
		in   string
		want Flags
	}{
		{"OK nothing", "", Flags{Source: Source{Files: files}}},
		{"OK help", "-h", Flags{Help: true, Source: Source{Files: files}}},
		{"OK version", "--version", Flags{Version: true, Source: Source{Files: files}}},
		{"OK files and directories", "--config-file a,b --config-dir=d --config-file=c --config-dir e",
			Flags{Source: Source{Files: []string{"a,b", "c"}, Dirs: []string{"d", "e"}}}},
		{"OK directory alone keeps the default file", "--config-dir d",
			Flags{Source: Source{Files: files, Dirs: []string{"d"}}}},
		{"OK last of debug and nodebug is last", "-d --nodebug --debug",
			Flags{Source: Source{Files: files, Overrides: []Override{
				set("debug", "true", "debug"), set("debug", "false", "nodebug"), set("debug", "true", "debug"),
			}}}},
		{"OK log files by all names", "--log-file a --logfile b --log-dir c --logdir d",
			Flags{Source: Source{Files: files, Overrides: []Override{
				set("log_file", "a", "log-file"), set("log_file", "b", "logfile"),
				set("log_dir", "c", "log-dir"), set("log_dir", "d", "logdir"),
			}}}},
		{"OK without effect", "--log-config a --log_config b --log-config-append c --log-date-format %H --syslog-log-facility d",
			Flags{Source: Source{Files: files, Overrides: []Override{
				set("log_config_append", "a", "log-config"), set("log_config_append", "b", "log_config"),
				set("log_config_append", "c", "log-config-append"), set("log_date_format", "%H", "log-date-format"),
				set("syslog_log_facility", "d", "syslog-log-facility"),
			}}}},
		{"OK switches", "--use-syslog --nouse-syslog --use-journal --nouse-journal --use-json --nouse-json --watch-log-file --nowatch-log-file",
			Flags{Source: Source{Files: files, Overrides: []Override{
				set("use_syslog", "true", "use-syslog"), set("use_syslog", "false", "nouse-syslog"),
				set("use_journal", "true", "use-journal"), set("use_journal", "false", "nouse-journal"),
				set("use_json", "true", "use-json"), set("use_json", "false", "nouse-json"),
				set("watch_log_file", "true", "watch-log-file"), set("watch_log_file", "false", "nowatch-log-file"),
			}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseArgs(strings.Fields(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			// Resolver holds functions, which do not compare; it is not set here.
			got.Source.Resolver = Resolver{}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("unexpected flags (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseArgsBad(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want string
	}{
		{"bad flag", "--wibble", "read command line: unknown flag: --wibble"},
		{"bad letter", "-x", "read command line: unknown shorthand flag: 'x' in -x"},
		{"bad no value", "--config-file", "read command line: flag needs an argument: --config-file"},
		{"bad switch", "--debug=perhaps",
			`read command line: invalid argument "perhaps" for "-d, --debug" flag: want true or false`},
		{"bad argument", "start", `read command line: argument "start" is not expected, only options are`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseArgs(strings.Fields(tt.in))
			var usage *UsageError
			if !errors.As(err, &usage) {
				t.Fatalf("ParseArgs returned %v, want a *UsageError", err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("unexpected message (-want +got):\n%s", diff)
			}
		})
	}
}

// Every flag must set an option that the table knows.
func TestCommandLineBeatsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "bgp.conf")
	writeFile(t, name, minimal+"[DEFAULT]\ndebug=true\nlog_file=a.log\nuse_syslog=true")
	f, err := ParseArgs([]string{
		"--config-file", name, "--nodebug", "--log-file", "b.log", "--use-json", "--log-dir=/tmp",
		"--use-syslog", "--nouse-syslog", "--log-config=x", "--log-date-format=x", "--syslog-log-facility=x",
		"--use-journal", "--watch-log-file",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Log = Log{File: "b.log", Dir: "/tmp", JSON: true}
	load(f.Source, dir).check(t, want, []string{
		"ignored command line option --log-config: DEFAULT.log_config_append: ignored: it configures Python's logging",
		"ignored command line option --log-date-format: DEFAULT.log_date_format: ignored: the format of the log is fixed, text or JSON",
		"ignored command line option --nouse-syslog: DEFAULT.use_syslog: ignored: the log goes to standard error or `log_file`; systemd takes it from there",
		"ignored command line option --syslog-log-facility: DEFAULT.syslog_log_facility: ignored: the log goes to standard error or `log_file`; systemd takes it from there",
		"ignored command line option --use-journal: DEFAULT.use_journal: ignored: the log goes to standard error or `log_file`; systemd takes it from there",
		"ignored command line option --watch-log-file: DEFAULT.watch_log_file: ignored: the log is rotated from outside",
	}, nil)
}

func TestUsage(t *testing.T) {
	t.Parallel()
	got := Usage()
	for _, want := range []string{"usage: bagpipe-bgp", "-d, --debug ", "--nodebug", "--config-file file", "--log-dir directory", DefaultFile} {
		if !strings.Contains(got, want) {
			t.Errorf("usage lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "--logfile") {
		t.Errorf("usage shows the old name --logfile:\n%s", got)
	}
}
