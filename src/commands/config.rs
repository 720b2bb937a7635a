//! `kubectl-gpt config`: shows the effective settings and their sources.

use crate::config::{ConfigArgs, RuleArgs, ThresholdArgs};
use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::config::Provider;
use crate::config::{Config, Ignore, Setting, Settings};
use crate::exit::{Exit, Failure};
use crate::terminal;
use crate::terminal::Color;

/// Show the effective settings and the source of each: a flag, the configuration file, or the default.
#[derive(Debug, Args)]
pub struct ConfigCommandArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub rules: RuleArgs,
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    /// As with analyze.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub crds: Vec<String>,
}

/// All effective settings, each with its source.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InForce<'a> {
    /// The configuration file that was read; null if there is none.
    file: Option<String>,
    #[serde(flatten)]
    settings: Settings,
    explain: ExplainInForce,
    ignore: Vec<&'a Ignore>,
}

/// Settings of the language model from the file; null if the program chooses.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplainInForce {
    provider: Setting<Option<Provider>>,
    model: Setting<Option<String>>,
    base_url: Setting<Option<String>>,
    api_key_env: Setting<Option<String>>,
    language: Setting<Option<String>>,
    max_tokens: Setting<Option<u32>>,
    max_requests: Setting<Option<u32>>,
    mask: Setting<bool>,
    prompts: Setting<Option<String>>,
    /// Why a run that uses the model would fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

pub fn run(arguments: &ConfigCommandArgs) -> Result<Exit, Failure> {
    let config = Config::load(&arguments.config)?;
    let in_force = InForce {
        file: config.file.as_ref().map(|file| file.display().to_string()),
        settings: Settings::new(&config, &arguments.rules, &arguments.crds, &arguments.thresholds),
        explain: explain(&config),
        ignore: config.fields.ignore.iter().map(|entry| &entry.value).collect(),
    };
    let text = serde_saphyr::to_string(&in_force).context("printing the settings").map_err(Failure::usage)?;
    terminal::write(&terminal::plain_lines(&text), Color::Never).map_err(Failure::unreadable)?;
    Ok(Exit::Clean)
}

fn explain(config: &Config) -> ExplainInForce {
    let file = &config.fields.explain;
    let prompts = config.prompts().map(|folder| folder.display().to_string());
    ExplainInForce {
        provider: optional(file.provider),
        model: optional(file.model.clone()),
        base_url: optional(file.base_url.clone()),
        api_key_env: optional(file.api_key_env.clone()),
        language: optional(file.language.clone()),
        max_tokens: optional(file.max_tokens),
        max_requests: optional(file.max_requests),
        mask: from_file(file.mask, true),
        prompts: optional(prompts),
        refused: config.refused(),
    }
}

fn from_file<T>(value: Option<T>, default: T) -> Setting<T> {
    Setting::choose(None, "", value, default)
}

fn optional<T>(value: Option<T>) -> Setting<Option<T>> {
    from_file(value.map(Some), None)
}
