//! The configuration file, `kubectl-gpt.yaml`: persistent settings of a team or a user.
//!
//! Exactly one file is read: the one given by `--config`, else the one in the working directory, else the one in the
//! user's configuration directory. Flags override it.

mod explain;
mod ignore;
mod list;
mod settings;

use clap::Args;
use kubectl_gpt_analyzers::{Profile, Severity};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use etcetera::BaseStrategy;
use kubectl_gpt_analyzers::Location;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

pub use crate::config::explain::{Explain, Provider};
pub use crate::config::ignore::{Expiry, Ignore};
pub use crate::config::list::{Globs, Strings};
pub use crate::config::settings::{FailOn, From, RuleArgs, Setting, Settings, ThresholdArgs};

use crate::exit::Failure;

/// The configuration file.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct ConfigArgs {
    /// Path to the configuration file [default: kubectl-gpt.yaml in the working directory, else in the user's
    /// configuration directory].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The file name, in any directory.
pub const FILE: &str = "kubectl-gpt.yaml";

/// The fields of the configuration file. All are optional.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "kubectl-gpt.yaml", rename = "kubectl-gpt.yaml")]
pub struct Fields {
    /// Accepted findings.
    #[schemars(with = "Vec<Ignore>")]
    pub ignore: Vec<Spanned<Ignore>>,
    /// Directories with custom rules, relative to this file.
    pub rules: Option<Strings>,
    /// Which rules run.
    pub profile: Option<Profile>,
    /// Only run these rules, as with --rule; `*` matches any characters.
    pub rule: Option<Strings>,
    /// Skip these rules, as with --skip-rule.
    pub skip_rule: Option<Strings>,
    /// Minimum severity to report.
    pub min_severity: Option<Severity>,
    /// Exit with code 1 if there are findings of at least this severity.
    pub fail_on: Option<FailOn>,
    /// Exit with code 0 instead of 3 if some rules could not be evaluated.
    pub allow_partial: Option<bool>,
    /// Custom resources to read from the cluster: `all`, `none`, or API groups such as `*.example.com`.
    pub crds: Option<Strings>,
    /// The language model that explains findings.
    pub explain: Explain,
}

/// The configuration file, if there is one.
#[derive(Debug, Default)]
pub struct Config {
    /// The path that it was read from.
    pub file: Option<PathBuf>,
    pub fields: Fields,
    /// Whether it was found in the working directory, whose author may not be the user.
    found_here: bool,
}

impl Config {
    /// Finds and reads the file.
    ///
    /// # Errors
    /// When the file of `--config` does not exist, or a file cannot be read or parsed; errors include file, line and
    /// column.
    pub fn load(arguments: &ConfigArgs) -> Result<Config, Failure> {
        if let Some(file) = &arguments.config {
            let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()));
            return Config::parse(file, &text.map_err(Failure::usage)?, false);
        }
        let users =
            etcetera::choose_base_strategy().ok().map(|folders| folders.config_dir().join("kubectl-gpt").join(FILE));
        let places = [Some((PathBuf::from(FILE), true)), users.map(|file| (file, false))];
        for (file, found_here) in places.into_iter().flatten() {
            match fs::read_to_string(&file) {
                Ok(text) => return Config::parse(&file, &text, found_here),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => {
                    return Err(Failure::usage(anyhow!(error).context(format!("reading {}", file.display()))));
                }
            }
        }
        Ok(Config::default())
    }

    fn parse(file: &Path, text: &str, found_here: bool) -> Result<Config, Failure> {
        // A file with only comments sets nothing.
        let fields: Option<Fields> = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
            let what = reason(&error);
            Failure::usage(anyhow!("{}{place}: {what}", file.display()))
        })?;
        let fields = fields.unwrap_or_default();
        for entry in &fields.ignore {
            let (line, column) = (entry.referenced.line(), entry.referenced.column());
            let wrong = |what| Failure::usage(anyhow!("{}:{line}:{column}: {what}", file.display()));
            entry.value.check().map_err(wrong)?;
        }
        Ok(Config { file: Some(file.to_path_buf()), fields, found_here })
    }

    /// The entries of `ignore`, each with its location.
    pub fn ignores(&self) -> Vec<(Ignore, Location)> {
        let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let place = |entry: &Spanned<Ignore>| Location {
            file: file.clone(),
            line: usize::try_from(entry.referenced.line()).unwrap_or_default(),
        };
        self.fields.ignore.iter().map(|entry| (entry.value.clone(), place(entry))).collect()
    }

    /// Resolves a path in the file relative to the file.
    pub fn resolve(&self, path: &str) -> PathBuf {
        let folder = self.file.as_deref().and_then(Path::parent);
        folder.map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// The directories with custom rules.
    pub fn rule_folders(&self) -> Vec<PathBuf> {
        self.fields.rules.iter().flat_map(|folders| folders.iter()).map(|folder| self.resolve(folder)).collect()
    }

    /// The directory with custom prompts.
    pub fn prompts(&self) -> Option<PathBuf> {
        self.fields.explain.prompts.as_ref().map(|folder| self.resolve(folder))
    }

    /// The settings of the language model.
    ///
    /// # Errors
    /// See [`Config::refused`].
    pub fn explain(&self) -> Result<Explain, Failure> {
        match self.refused() {
            None => Ok(self.fields.explain.clone()),
            Some(why) => Err(Failure::usage(anyhow!(why))),
        }
    }

    /// Why the settings of the language model are rejected: the file was found in the working directory and controls
    /// where keys and findings are sent. A cloned repository could use that to steal them. `--config FILE` confirms the
    /// file.
    pub fn refused(&self) -> Option<String> {
        let key = self.fields.explain.delicate().filter(|_| self.found_here)?;
        Some(format!(
            "{FILE} in the working directory sets explain.{key}, which controls where your API key and cluster data are \
             sent; to use it, pass --config {FILE} or move it to your user configuration directory"
        ))
    }
}

/// The parser's message, without location and source excerpt.
fn reason(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    match line.rsplit_once(" at line ") {
        Some((what, _)) => what.to_string(),
        None => line.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Config;
    use crate::exit::Exit;

    const THEIRS: &str = "explain: {baseUrl: https://models.example.com/v1, model: m}";

    #[test]
    fn endpoint_settings_in_the_working_directory_are_rejected() {
        let parse = |text: &str, found_here| Config::parse(Path::new("kubectl-gpt.yaml"), text, found_here).unwrap();
        for delicate in [THEIRS, "explain: {apiKeyEnv: CI_TOKEN}", "explain: {mask: false}"] {
            let failure = parse(delicate, true).explain().unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.to_string().contains("--config kubectl-gpt.yaml"), "{failure}");
        }
        assert_eq!(parse(THEIRS, false).explain().unwrap().model.as_deref(), Some("m"));
        let harmless = parse("explain: {model: m, mask: true, language: de}", true);
        assert_eq!(harmless.explain().unwrap().model.as_deref(), Some("m"));
    }

    #[test]
    fn directories_are_relative_to_the_file() {
        let config = Config::parse(Path::new("deploy/kubectl-gpt.yaml"), "rules: [ours, /etc/rules]", false).unwrap();
        assert_eq!(config.rule_folders(), [Path::new("deploy/ours"), Path::new("/etc/rules")]);
    }
}
