//! `explain`: the language model.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::explain::provider::Provider;

/// The language model that explains findings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Explain {
    /// Whose dialect the model's server speaks.
    pub provider: Option<Provider>,
    /// The model's name, as its server calls it.
    pub model: Option<String>,
    /// Where the chat protocol is served, up to and with the version: `http://localhost:11434/v1`.
    #[serde(deserialize_with = "base_url")]
    pub base_url: Option<String>,
    /// The name of the environment variable that holds the key; never the key.
    #[serde(deserialize_with = "variable")]
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub api_key_env: Option<String>,
    /// The language of the answers: `de`, `Deutsch`.
    pub language: Option<String>,
    /// How long one answer may be.
    pub max_tokens: Option<u32>,
    /// How many requests one run may make.
    pub max_requests: Option<u32>,
    /// Whether names, addresses, hosts and tokens are replaced before anything is sent.
    pub mask: Option<bool>,
    /// A folder with templates of your own; relative to this file.
    pub prompts: Option<String>,
}

impl Explain {
    /// The first key that decides who gets a key or what leaves the machine.
    pub(super) fn delicate(&self) -> Option<&'static str> {
        let keys = [
            ("baseUrl", self.base_url.is_some()),
            ("apiKeyEnv", self.api_key_env.is_some()),
            ("mask", self.mask == Some(false)),
        ];
        keys.into_iter().find(|(_, is_set)| *is_set).map(|(key, _)| key)
    }
}

/// The text is not repeated: it may be the key itself.
fn variable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    let is_name = |name: &String| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if name.as_ref().is_some_and(|name| !is_name(name)) {
        return Err(D::Error::custom("expected the name of an environment variable that holds the key, not the key"));
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
        Some(authority) if authority.as_str().contains('@') => {
            Err(D::Error::custom("a URL with a password in it; name the key's environment variable in apiKeyEnv"))
        }
        Some(_) => Ok(url),
    }
}
