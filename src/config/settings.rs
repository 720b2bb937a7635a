//! The effective settings: flags override the file, the file overrides the defaults.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::cli::{FailOn, Level, Profile, RuleArgs, ThresholdArgs};
use crate::config::Config;

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
    pub min_severity: Setting<Level>,
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
            min_severity: Setting::choose(thresholds.min_severity, "--min-severity", file.min_severity, Level::Info),
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
