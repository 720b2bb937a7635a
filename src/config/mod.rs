//! `kubectl-gpt.yaml`: what a team or a person settles once instead of giving it as flags every time.
//!
//! One file counts: the one of `--config`, else the one in the working directory, else the one in the user's
//! configuration folder. Flags win over it.

mod explain;
mod ignore;
mod list;
mod settings;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use etcetera::BaseStrategy;
use kubectl_gpt_analyzers::Location;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

pub use crate::config::explain::Explain;
pub use crate::config::ignore::{Expiry, Ignore};
pub use crate::config::list::{Globs, Strings};
pub use crate::config::settings::{From, Setting, Settings};

use crate::cli::{ConfigArgs, FailOn, Level, Profile};
use crate::exit::Failure;

/// The file's name, in whatever folder.
pub const FILE: &str = "kubectl-gpt.yaml";

/// The configuration file's fields, all of them optional.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "kubectl-gpt.yaml", rename = "kubectl-gpt.yaml")]
pub struct Fields {
    /// Findings that somebody decided to live with.
    #[schemars(with = "Vec<Ignore>")]
    pub ignore: Vec<Spanned<Ignore>>,
    /// Folders with rules of your own; relative to this file.
    pub rules: Option<Strings>,
    /// Which rules run.
    pub profile: Option<Profile>,
    /// Only these rules, as with --rule; `*` stands for any characters.
    pub rule: Option<Strings>,
    /// Not these rules, as with --skip-rule.
    pub skip_rule: Option<Strings>,
    /// Report nothing less severe.
    pub min_severity: Option<Level>,
    /// The severity from which on findings make the exit code 1.
    pub fail_on: Option<FailOn>,
    /// Exit with 0 instead of 3 if something could not be evaluated.
    pub allow_partial: Option<bool>,
    /// Which custom resources to read from a cluster: `all`, `none`, or API groups such as `*.example.com`.
    pub crds: Option<Strings>,
    /// The language model that explains findings.
    pub explain: Explain,
}

/// The configuration file that counts, if there is one.
#[derive(Debug, Default)]
pub struct Config {
    /// Where it was read from.
    pub file: Option<PathBuf>,
    pub fields: Fields,
    /// Whether it merely lay in the working directory: whoever wrote that folder need not be the user.
    found_here: bool,
}

impl Config {
    /// Finds and reads the file.
    ///
    /// # Errors
    /// When the file of `--config` does not exist, or a file cannot be read or understood; with file, line and column.
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
        // Comments alone are a file that settles nothing.
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

    /// The entries of `ignore`, each with its place.
    pub fn ignores(&self) -> Vec<(Ignore, Location)> {
        let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let place = |entry: &Spanned<Ignore>| Location {
            file: file.clone(),
            line: usize::try_from(entry.referenced.line()).unwrap_or_default(),
        };
        self.fields.ignore.iter().map(|entry| (entry.value.clone(), place(entry))).collect()
    }

    /// A path as the file gives it, relative to the file.
    pub fn resolve(&self, path: &str) -> PathBuf {
        let folder = self.file.as_deref().and_then(Path::parent);
        folder.map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// The folders with the user's own rules.
    pub fn rule_folders(&self) -> Vec<PathBuf> {
        self.fields.rules.iter().flat_map(|folders| folders.iter()).map(|folder| self.resolve(folder)).collect()
    }

    /// The folder with the user's own prompts.
    pub fn prompts(&self) -> Option<PathBuf> {
        self.fields.explain.prompts.as_ref().map(|folder| self.resolve(folder))
    }

    /// What the file says about the language model.
    ///
    /// # Errors
    /// As [`Config::refused`] says.
    pub fn explain(&self) -> Result<Explain, Failure> {
        match self.refused() {
            None => Ok(self.fields.explain.clone()),
            Some(why) => Err(Failure::usage(anyhow!(why))),
        }
    }

    /// Why what the file says about the language model is not taken: it merely lay in the working directory and says
    /// where keys and findings are to be sent. A repository that somebody cloned could take them. `--config FILE` says
    /// that it is meant.
    pub fn refused(&self) -> Option<String> {
        let key = self.fields.explain.delicate().filter(|_| self.found_here)?;
        Some(format!(
            "{FILE} of the working directory sets explain.{key}, which decides who gets your key and what is sent; if \
             that is meant, say --config {FILE}, or put it into your own configuration folder"
        ))
    }
}

/// The reader's message, without the place and without the excerpt that it draws.
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
    fn a_folder_that_somebody_else_wrote_does_not_say_who_gets_the_key() {
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
    fn folders_are_relative_to_the_file() {
        let config = Config::parse(Path::new("deploy/kubectl-gpt.yaml"), "rules: [ours, /etc/rules]", false).unwrap();
        assert_eq!(config.rule_folders(), [Path::new("deploy/ours"), Path::new("/etc/rules")]);
    }
}
