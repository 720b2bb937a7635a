//! The effective settings: flags override the file, the file overrides the defaults.

use clap::{Args, ValueEnum};
use kubectl_gpt_analyzers::{Profile, Severity};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::config::Config;

/// What is reported, and what fails a pipeline.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gate")]
pub struct ThresholdArgs {
    /// Minimum severity to report [default: info].
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub min_severity: Option<Severity>,
    /// Exit with code 1 if there are findings of at least this severity [default: error].
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
    /// Exit with code 0 instead of 3 if some rules could not be evaluated.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_partial: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailOn {
    Error,
    Warning,
    Info,
    Never,
}

impl FailOn {
    /// The minimum severity that fails, if any does.
    pub fn threshold(self) -> Option<Severity> {
        match self {
            FailOn::Error => Some(Severity::Error),
            FailOn::Warning => Some(Severity::Warning),
            FailOn::Info => Some(Severity::Info),
            FailOn::Never => None,
        }
    }
}

/// Which rules to run.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Rules")]
pub struct RuleArgs {
    /// Only run these rules; `*` matches any characters, as in `service/*` (repeatable).
    #[arg(long = "rule", value_name = "ID", value_delimiter = ',')]
    pub rules: Vec<String>,
    /// Skip these rules (repeatable).
    #[arg(long = "skip-rule", value_name = "ID", value_delimiter = ',')]
    pub skip_rules: Vec<String>,
    /// `strict` adds best-practice rules. A rule named in full by --rule runs in any profile [default: default].
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// Also run custom rules from a directory of YAML files, or from one file (repeatable).
    #[arg(long = "rules", value_name = "DIR")]
    pub folders: Vec<PathBuf>,
}

/// The source of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Flag(&'static str),
    File,
    Default,
}

/// A value and its source.
#[derive(Clone, Debug, Serialize)]
pub struct Setting<T> {
    pub value: T,
    pub from: From,
}

/// The settings that control what `analyze` reports and its exit code.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub rule: Setting<Vec<String>>,
    pub skip_rule: Setting<Vec<String>>,
    pub profile: Setting<Profile>,
    /// Directories with custom rules.
    pub rules: Setting<Vec<PathBuf>>,
    pub crds: Setting<Vec<String>>,
    pub min_severity: Setting<Severity>,
    pub fail_on: Setting<FailOn>,
    pub allow_partial: Setting<bool>,
}

impl<T> Setting<T> {
    pub fn choose(flag: Option<T>, name: &'static str, file: Option<T>, default: T) -> Setting<T> {
        match (flag, file) {
            (Some(value), _) => Setting { value, from: From::Flag(name) },
            (None, Some(value)) => Setting { value, from: From::File },
            (None, None) => Setting { value: default, from: From::Default },
        }
    }
}

impl Setting<Vec<String>> {
    /// A repeatable flag that is not given is an empty list.
    fn list(flag: &[String], name: &'static str, file: Option<&[String]>, default: &[&str]) -> Setting<Vec<String>> {
        let flag = (!flag.is_empty()).then(|| flag.to_vec());
        let default = default.iter().map(ToString::to_string).collect();
        Setting::choose(flag, name, file.map(<[String]>::to_vec), default)
    }
}

impl Settings {
    pub fn new(config: &Config, rules: &RuleArgs, crds: &[String], thresholds: &ThresholdArgs) -> Settings {
        let file = &config.fields;
        Settings {
            rule: Setting::list(&rules.rules, "--rule", file.rule.as_deref(), &[]),
            skip_rule: Setting::list(&rules.skip_rules, "--skip-rule", file.skip_rule.as_deref(), &[]),
            rules: Setting::choose(
                Some(rules.folders.clone()).filter(|folders| !folders.is_empty()),
                "--rules",
                file.rules.as_ref().map(|_| config.rule_folders()),
                Vec::new(),
            ),
            profile: Setting::choose(rules.profile, "--profile", file.profile, Profile::Default),
            crds: Setting::list(crds, "--crds", file.crds.as_deref(), &["all"]),
            min_severity: Setting::choose(thresholds.min_severity, "--min-severity", file.min_severity, Severity::Info),
            fail_on: Setting::choose(thresholds.fail_on, "--fail-on", file.fail_on, FailOn::Error),
            allow_partial: Setting::choose(thresholds.allow_partial, "--allow-partial", file.allow_partial, false),
        }
    }

    /// Which rules to run.
    pub fn rules(&self) -> RuleArgs {
        RuleArgs {
            rules: self.rule.value.clone(),
            skip_rules: self.skip_rule.value.clone(),
            profile: Some(self.profile.value),
            folders: self.rules.value.clone(),
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            From::Flag(name) => name,
            From::File => "file",
            From::Default => "default",
        })
    }
}

impl Serialize for From {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
