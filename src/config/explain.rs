//! `explain`: settings of the language model.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

/// Presets of base URL, authentication header and API key variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Openai,
    /// Azure OpenAI; requires --base-url https://RESOURCE.openai.azure.com, and the deployment name as --model.
    Azure,
    Ollama,
    Anthropic,
    Gemini,
    Groq,
    Openrouter,
    Vllm,
    Lmstudio,
    Llamacpp,
}

/// The language model that explains findings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Explain {
    /// Preset of base URL and API key variable.
    pub provider: Option<Provider>,
    /// Name of the model.
    pub model: Option<String>,
    /// Base URL of an OpenAI-compatible API, including the version: `http://localhost:11434/v1`.
    #[serde(deserialize_with = "base_url")]
    pub base_url: Option<String>,
    /// Name of the environment variable that contains the API key; never the key itself.
    #[serde(deserialize_with = "variable")]
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub api_key_env: Option<String>,
    /// Language of the answers: `de`, `Deutsch`.
    pub language: Option<String>,
    /// Maximum tokens per answer.
    pub max_tokens: Option<u32>,
    /// Maximum requests per run, including retries.
    pub max_requests: Option<u32>,
    /// Whether names, addresses, hosts and tokens are masked before anything is sent.
    pub mask: Option<bool>,
    /// Directory with custom prompt templates, relative to this file.
    pub prompts: Option<String>,
}

impl Explain {
    /// The first field that controls where the API key or cluster data is sent.
    pub(super) fn delicate(&self) -> Option<&'static str> {
        let keys = [
            ("baseUrl", self.base_url.is_some()),
            ("apiKeyEnv", self.api_key_env.is_some()),
            ("mask", self.mask == Some(false)),
        ];
        keys.into_iter().find(|(_, is_set)| *is_set).map(|(key, _)| key)
    }
}

/// The error does not repeat the value: it may be the key itself.
fn variable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    let is_name = |name: &String| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if name.as_ref().is_some_and(|name| !is_name(name)) {
        return Err(D::Error::custom(
            "expected the name of an environment variable that contains the key, not the key itself",
        ));
    }
    Ok(name)
}

fn base_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let url = Option::<String>::deserialize(deserializer)?;
    let Some(text) = &url else { return Ok(None) };
    let parsed: Option<http::Uri> = text.parse().ok();
    let authority = parsed.filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
    match authority.as_ref().and_then(http::Uri::authority) {
        None => Err(D::Error::custom("expected a URL such as https://api.openai.com/v1")),
        Some(authority) if authority.as_str().contains('@') => Err(D::Error::custom(
            "the URL contains a password; set apiKeyEnv to the environment variable of the key instead",
        )),
        Some(_) => Ok(url),
    }
}
