// SPDX-License-Identifier: Apache-2.0

package config

// Reasons why a known option has no effect.
const (
	whyRootHelper = "the daemon itself runs with the capabilities it needs"
	whyFormat     = "the format of the log is fixed, text or JSON"
	whyTarget     = "the log goes to standard error or `log_file`; systemd takes it from there"
	whyPython     = "it configures Python's logging"
	whyAbsent     = "this build lacks the driver it belongs to"
	whyRotation   = "the log is rotated from outside"
)

// ignoredSections are sections that may stand in a real file and have no
// effect, with the reason.
var ignoredSections = map[string]string{
	"PRIVSEP": whyRootHelper,
	"AGENT":   "it configures the Neutron agent",
}

// obsoleteSection was once the place of what now has a section per VPN type.
const obsoleteSection = "DATAPLANE_DRIVER"

// ignoredLogOptions are those of oslo.log that have no sense here.
var ignoredLogOptions = []option{
	ignored("log_config_append", typeString, whyPython, "log_config", "log-config"),
	ignored("log_date_format", typeString, whyFormat),
	ignored("use_syslog", typeBool, whyTarget),
	ignored("syslog_log_facility", typeString, whyTarget),
	ignored("use_journal", typeBool, whyTarget),
	ignored("use_stderr", typeBool, whyTarget),
	ignored("use_eventlog", typeBool, whyTarget),
	ignored("watch_log_file", typeBool, whyRotation),
	ignored("log_rotation_type", typeString, whyRotation),
	ignored("log_rotate_interval", typeInteger, whyRotation),
	ignored("log_rotate_interval_type", typeString, whyRotation),
	ignored("max_logfile_count", typeInteger, whyRotation),
	ignored("max_logfile_size_mb", typeInteger, whyRotation),
	ignored("log_color", typeBool, whyFormat),
	ignored("logging_context_format_string", typeString, whyFormat),
	ignored("logging_default_format_string", typeString, whyFormat),
	ignored("logging_debug_format_suffix", typeString, whyFormat),
	ignored("logging_exception_prefix", typeString, whyFormat),
	ignored("logging_user_identity_format", typeString, whyFormat),
	ignored("instance_format", typeString, whyFormat),
	ignored("instance_uuid_format", typeString, whyFormat),
	ignored("default_log_levels", typeList, "its names are those of Python loggers"),
	ignored("verbose", typeBool, "level info is always on"),
	ignored("publish_errors", typeBool, whyPython),
	ignored("fatal_deprecations", typeBool, whyPython),
	ignored("rate_limit_interval", typeInteger, whyPython),
	ignored("rate_limit_burst", typeInteger, whyPython),
	ignored("rate_limit_except_level", typeString, whyPython),
}

func ignored(name string, typ optionType, why string, old ...string) option {
	return option{section: sectionDefault, name: name, old: old, typ: typ, ignored: why}
}
