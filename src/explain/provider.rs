//! Selects the language model, endpoint and API key. There are no implicit defaults: without configuration, the program
//! fails with instructions.

use crate::duration::duration;
use clap::Args;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use async_openai::config::Config;
use http::Uri;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{Explain, Provider};

/// Which language model to use, and its limits.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Language model")]
pub struct ModelArgs {
    /// Preset of base URL and API key variable, such as OPENAI_API_KEY.
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = false)]
    pub provider: Option<Provider>,
    /// Base URL of an OpenAI-compatible API, including the version [default: $OPENAI_BASE_URL].
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// Name of the model.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Language of the answers, such as German [default: English].
    #[arg(long, value_name = "LANGUAGE")]
    pub language: Option<String>,
    /// Maximum tokens per answer [default: 1500].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Maximum requests per run, including retries [default: 20].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_requests: Option<u32>,
    /// Timeout of a single answer [default: 2m].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub model_timeout: Option<Duration>,
    /// Send names, addresses and log lines unmasked. Use only with a model that you trust with them.
    #[arg(long, conflicts_with = "mask")]
    pub no_mask: bool,
    /// Mask names, addresses and log lines even for a local model.
    #[arg(long)]
    pub mask: bool,
    /// Do not read or write cached answers.
    #[arg(long)]
    pub no_cache: bool,
    /// Allow plain HTTP to a remote server.
    #[arg(long)]
    pub allow_http: bool,
    /// Directory with custom prompt templates.
    #[arg(long, value_name = "DIR")]
    pub prompts: Option<PathBuf>,
}

impl Provider {
    fn base_url(self) -> Option<&'static str> {
        match self {
            Provider::Openai => Some("https://api.openai.com/v1"),
            Provider::Azure => None,
            Provider::Ollama => Some("http://localhost:11434/v1"),
            Provider::Anthropic => Some("https://api.anthropic.com/v1"),
            Provider::Gemini => Some("https://generativelanguage.googleapis.com/v1beta/openai"),
            Provider::Groq => Some("https://api.groq.com/openai/v1"),
            Provider::Openrouter => Some("https://openrouter.ai/api/v1"),
            Provider::Vllm => Some("http://localhost:8000/v1"),
            Provider::Lmstudio => Some("http://localhost:1234/v1"),
            Provider::Llamacpp => Some("http://localhost:8080/v1"),
        }
    }

    /// The environment variable of the API key, if one is required.
    fn key_variable(self) -> Option<&'static str> {
        match self {
            Provider::Openai => Some("OPENAI_API_KEY"),
            Provider::Azure => Some("AZURE_OPENAI_API_KEY"),
            Provider::Anthropic => Some("ANTHROPIC_API_KEY"),
            Provider::Gemini => Some("GEMINI_API_KEY"),
            Provider::Groq => Some("GROQ_API_KEY"),
            Provider::Openrouter => Some("OPENROUTER_API_KEY"),
            Provider::Ollama | Provider::Vllm | Provider::Lmstudio | Provider::Llamacpp => None,
        }
    }
}

/// The language model settings in kubectl-gpt.yaml; flags and environment variables override them.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    pub explain: Explain,
    /// The directory of `explain.prompts`, relative to the working directory.
    pub prompts: Option<PathBuf>,
}

/// The settings, resolved before the cluster is read.
#[derive(Clone, Debug)]
pub struct Settings {
    pub endpoint: Endpoint,
    pub model: String,
    pub language: Option<String>,
    pub max_tokens: u32,
    pub max_requests: u32,
    /// Timeout of one request, including the complete answer.
    pub timeout: Duration,
    pub mask: bool,
    pub cache: bool,
    pub prompts: Option<PathBuf>,
}

/// An OpenAI-compatible server. Its key never appears in text produced by this type.
#[derive(Clone)]
pub struct Endpoint {
    base: String,
    key: SecretString,
    header: HeaderName,
    /// Azure's older API: the deployment in the path, the version in the query.
    deployment: Option<(String, String)>,
    /// The name of the token limit: OpenAI's current one, or the older one that others support.
    pub limit_field: &'static str,
}

const SETUP: &str = "no language model is configured. Local: run `ollama serve` and pass --provider ollama --model llama3.1. \
    Hosted: `export OPENAI_API_KEY=...` and pass --provider openai --model gpt-4o-mini (or azure, anthropic, gemini, groq, \
    openrouter). Other OpenAI-compatible servers: pass --base-url https://llm.example.com/v1 --model NAME. These settings can \
    also be set in kubectl-gpt.yaml; --dry-run prints the requests without sending them";

const DEFAULT_TOKENS: u32 = 1500;
const DEFAULT_REQUESTS: u32 = 20;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
const AZURE_VERSION: &str = "2024-10-21";

impl Settings {
    /// Resolves settings from flags, then environment variables (read with `variable`), then the file.
    ///
    /// # Errors
    /// When no model is configured, or the configuration is invalid. A dry run needs no endpoint.
    pub fn new(
        arguments: &ModelArgs,
        file: &Configured,
        dry_run: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let model = arguments.model.clone().or_else(|| variable("OPENAI_MODEL")).or_else(|| file.explain.model.clone());
        let endpoint = Endpoint::new(arguments, file, model.as_deref().unwrap_or_default(), dry_run, &variable)?;
        let model = match model {
            Some(model) => model,
            None if dry_run => "MODEL".to_string(),
            None => bail!("no model selected: pass --model NAME with a model of {}", endpoint.base),
        };
        let is_local = endpoint.is_loopback() && !is_forwarded(&model);
        Ok(Settings {
            language: arguments.language.clone().or_else(|| file.explain.language.clone()),
            max_tokens: arguments.max_tokens.or(file.explain.max_tokens).unwrap_or(DEFAULT_TOKENS),
            max_requests: arguments.max_requests.or(file.explain.max_requests).unwrap_or(DEFAULT_REQUESTS),
            timeout: arguments.model_timeout.unwrap_or(DEFAULT_TIMEOUT),
            mask: arguments.mask || (!arguments.no_mask && file.explain.mask.unwrap_or(!is_local)),
            cache: !arguments.no_cache,
            prompts: arguments.prompts.clone().or_else(|| file.prompts.clone()),
            endpoint,
            model,
        })
    }

    /// A warning to print before anything is sent.
    pub fn warning(&self) -> Option<String> {
        let is_local = self.endpoint.is_loopback() && !is_forwarded(&self.model);
        (!self.mask && !is_local).then(|| {
            format!(
                "warning: masking is off: names, addresses and log lines, including any secrets in them, are sent to {}",
                self.endpoint.host()
            )
        })
    }
}

/// Whether Ollama forwards requests for the model to its cloud.
fn is_forwarded(model: &str) -> bool {
    model.ends_with("-cloud") || model.ends_with(":cloud")
}

impl Endpoint {
    fn new(
        arguments: &ModelArgs,
        file: &Configured,
        model: &str,
        dry_run: bool,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Endpoint> {
        let provider = arguments.provider.or(file.explain.provider.filter(|_| arguments.base_url.is_none()));
        // An explicit provider is not overridden by an environment variable for another one.
        let of_openai = matches!(provider, None | Some(Provider::Openai));
        let base = arguments
            .base_url
            .clone()
            .or_else(|| variable("OPENAI_BASE_URL").filter(|_| of_openai))
            .or_else(|| file.explain.base_url.clone().filter(|_| arguments.provider.is_none()))
            .or_else(|| provider.and_then(Provider::base_url).map(str::to_string))
            .or_else(|| {
                (provider.is_none() && variable("OPENAI_API_KEY").is_some())
                    .then(|| "https://api.openai.com/v1".to_string())
            });
        let base = match (base, provider) {
            (Some(base), _) => base,
            (None, Some(Provider::Azure)) => {
                bail!("--provider azure requires --base-url https://RESOURCE.openai.azure.com")
            }
            (None, _) if dry_run => "https://no-endpoint-is-configured.invalid/v1".to_string(),
            (None, _) => bail!(SETUP),
        };
        let base = checked(&base, arguments.allow_http)?;
        let name = key_variable(arguments, file, provider, &base);
        let key = name.as_deref().and_then(variable).unwrap_or_default();
        let needed = provider.and_then(Provider::key_variable).is_some() || base == "https://api.openai.com/v1";
        if key.is_empty() && needed && !dry_run {
            bail!("{base} requires an API key: export {}=…", name.unwrap_or_default());
        }
        // The error must not contain the value.
        HeaderValue::from_str(&key)
            .map_err(|_| anyhow!("{} contains invalid characters", name.as_deref().unwrap_or("the API key")))?;
        let is_azure = provider == Some(Provider::Azure);
        let version = || variable("OPENAI_API_VERSION").unwrap_or_else(|| AZURE_VERSION.to_string());
        let newer = base.ends_with("/v1");
        Ok(Endpoint {
            key: key.into(),
            header: if is_azure { HeaderName::from_static("api-key") } else { AUTHORIZATION },
            deployment: (is_azure && !newer).then(|| (model.to_string(), version())),
            limit_field: if is_azure || base == "https://api.openai.com/v1" {
                "max_completion_tokens"
            } else {
                "max_tokens"
            },
            base,
        })
    }

    /// Whether the endpoint is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.base.parse::<Uri>().is_ok_and(|uri| is_loopback(uri.host().unwrap_or_default()))
    }

    /// Host and port, for messages.
    pub fn host(&self) -> String {
        self.base.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_default()
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// The URL of chat completions, including the query.
    pub fn chat_url(&self) -> String {
        let url = self.url("/chat/completions");
        match &self.deployment {
            Some((_, version)) => format!("{url}?api-version={version}"),
            None => url,
        }
    }

    /// The name of the API key header, if there is a key.
    pub fn key_header(&self) -> Option<&HeaderName> {
        (!self.key.expose_secret().is_empty()).then_some(&self.header)
    }

    /// Removes the API key from a text.
    pub fn without_key(&self, text: &str) -> String {
        let key = self.key.expose_secret();
        if key.is_empty() { text.to_string() } else { text.replace(key, "***") }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The configuration that async-openai uses for each request.
impl Config for Endpoint {
    fn headers(&self) -> HeaderMap {
        let key = self.key.expose_secret();
        let value = if self.header == AUTHORIZATION { format!("Bearer {key}") } else { key.to_string() };
        let mut headers = HeaderMap::new();
        if let (false, Ok(mut value)) = (key.is_empty(), HeaderValue::from_str(&value)) {
            value.set_sensitive(true);
            headers.insert(self.header.clone(), value);
        }
        headers
    }

    fn url(&self, path: &str) -> String {
        match &self.deployment {
            Some((deployment, _)) => format!("{}/openai/deployments/{deployment}{path}", self.base),
            None => format!("{}{path}", self.base),
        }
    }

    fn query(&self) -> Vec<(&str, &str)> {
        self.deployment.iter().map(|(_, version)| ("api-version", version.as_str())).collect()
    }

    fn api_base(&self) -> &str {
        &self.base
    }

    fn api_key(&self) -> &SecretString {
        &self.key
    }
}

/// The environment variable of the API key: the one named in the file, the provider's, or OpenAI's for any other URL.
/// The key of the file is not used for a different server.
fn key_variable(arguments: &ModelArgs, file: &Configured, provider: Option<Provider>, base: &str) -> Option<String> {
    let is_files = match (&arguments.base_url, arguments.provider, &file.explain.base_url) {
        (None, None, Some(of_file)) => of_file.trim_end_matches('/') == base,
        (None, None, None) => true,
        _ => false,
    };
    if let Some(name) = file.explain.api_key_env.clone().filter(|_| is_files) {
        return Some(name);
    }
    match provider {
        Some(provider) => provider.key_variable().map(str::to_string),
        None => Some("OPENAI_API_KEY".to_string()),
    }
}

/// Validates the URL and removes the trailing slash.
fn checked(base: &str, allow_http: bool) -> Result<String> {
    let base = base.trim().trim_end_matches('/');
    // The error does not contain the URL if it may include a password.
    let Ok(uri) = base.parse::<Uri>() else {
        bail!("invalid --base-url; expected a URL such as https://llm.example.com/v1")
    };
    let Some(authority) = uri.authority() else {
        bail!("--base-url {base}: expected a URL such as https://llm.example.com/v1")
    };
    if authority.as_str().contains('@') {
        bail!("--base-url contains a password; set OPENAI_API_KEY instead");
    }
    if uri.query().is_some() {
        bail!("--base-url must not contain a query");
    }
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if allow_http || is_loopback(authority.host()) => {}
        Some("http") => bail!(
            "--base-url {base}: plain HTTP exposes the API key and the answers on the network; use https, or pass --allow-http"
        ),
        _ => bail!("--base-url {base}: expected https or http"),
    }
    Ok(base.to_string())
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let named = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    named || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use async_openai::config::Config;

    use super::{Configured, Explain, ModelArgs, Provider, Settings};

    fn settings(arguments: &ModelArgs, variables: &[(&str, &str)]) -> Result<Settings, String> {
        with_file(arguments, &Configured::default(), variables)
    }

    fn with_file(arguments: &ModelArgs, file: &Configured, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        Settings::new(arguments, file, false, variable).map_err(|error| error.to_string())
    }

    fn configured(explain: Explain) -> Configured {
        Configured { explain, ..Configured::default() }
    }

    fn model() -> ModelArgs {
        ModelArgs { model: Some("m".to_string()), ..ModelArgs::default() }
    }

    fn at(url: &str) -> ModelArgs {
        ModelArgs { base_url: Some(url.to_string()), ..model() }
    }

    fn of(provider: Provider) -> ModelArgs {
        ModelArgs { provider: Some(provider), ..model() }
    }

    #[test]
    fn missing_configuration_gives_instructions() {
        let error = settings(&ModelArgs::default(), &[]).unwrap_err();
        for way in ["--provider ollama", "OPENAI_API_KEY", "--base-url"] {
            assert!(error.contains(way), "{error}");
        }
        let error = settings(&ModelArgs::default(), &[("OPENAI_API_KEY", "k")]).unwrap_err();
        assert!(error.contains("--model NAME"), "a model is never guessed: {error}");
    }

    #[test]
    fn flags_override_variables_which_override_the_file() {
        let variables = [("OPENAI_BASE_URL", "https://v.example/v1/"), ("OPENAI_API_KEY", "k")];
        let file = configured(Explain { base_url: Some("https://f.example/v1".into()), ..Explain::default() });
        let base = |arguments: &ModelArgs, variables: &[(&str, &str)]| {
            with_file(arguments, &file, variables).unwrap().endpoint.base
        };
        assert_eq!(base(&at("https://a.example/v1"), &variables), "https://a.example/v1");
        assert_eq!(base(&model(), &variables), "https://v.example/v1");
        assert_eq!(base(&model(), &[]), "https://f.example/v1");
        assert_eq!(base(&of(Provider::Ollama), &variables), "http://localhost:11434/v1");
    }

    #[test]
    fn keys_are_sent_only_to_their_provider() {
        let header = |arguments: &ModelArgs, file: &Configured, variables: &[(&str, &str)]| {
            let headers = with_file(arguments, file, variables).unwrap().endpoint.headers();
            headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let none = Configured::default();
        let keys = [("OPENAI_API_KEY", "o"), ("GROQ_API_KEY", "g"), ("AZURE_OPENAI_API_KEY", "z"), ("MINE", "m")];
        assert_eq!(header(&of(Provider::Groq), &none, &keys), "authorization: Bearer g");
        assert_eq!(header(&of(Provider::Ollama), &none, &keys), "");
        assert_eq!(header(&at("https://a.example/v1"), &none, &keys), "authorization: Bearer o");
        let azure = ModelArgs { base_url: Some("https://r.openai.azure.com".into()), ..of(Provider::Azure) };
        assert_eq!(header(&azure, &none, &keys), "api-key: z");
        let file = configured(Explain {
            base_url: Some("https://f.example/v1".into()),
            api_key_env: Some("MINE".into()),
            ..Explain::default()
        });
        assert_eq!(header(&model(), &file, &keys), "authorization: Bearer m");
        assert_eq!(header(&at("https://a.example/v1"), &file, &keys), "authorization: Bearer o");
        assert!(settings(&of(Provider::Anthropic), &keys).unwrap_err().contains("export ANTHROPIC_API_KEY"));
        let odd = settings(&model(), &[("OPENAI_API_KEY", "top\nsecret")]).unwrap_err();
        assert!(odd.contains("OPENAI_API_KEY") && !odd.contains("secret"), "{odd}");
    }

    #[test]
    fn azure_urls_contain_the_deployment() {
        let azure = ModelArgs { base_url: Some("https://r.openai.azure.com/".into()), ..of(Provider::Azure) };
        let url =
            |arguments: &ModelArgs| settings(arguments, &[("AZURE_OPENAI_API_KEY", "z")]).unwrap().endpoint.chat_url();
        assert_eq!(
            url(&azure),
            "https://r.openai.azure.com/openai/deployments/m/chat/completions?api-version=2024-10-21"
        );
        let newer = ModelArgs { base_url: Some("https://r.openai.azure.com/openai/v1".into()), ..of(Provider::Azure) };
        assert_eq!(url(&newer), "https://r.openai.azure.com/openai/v1/chat/completions");
    }

    #[test]
    fn plain_http_is_limited_to_localhost_by_default() {
        for local in ["http://localhost:1/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1", "http://127.8.8.8/v1"] {
            assert!(settings(&at(local), &[]).is_ok(), "{local}");
        }
        for other in ["http://llm.example.com/v1", "http://10.0.0.1/v1", "http://localhost.example.com/v1"] {
            assert!(settings(&at(other), &[]).unwrap_err().contains("--allow-http"), "{other}");
            assert!(settings(&ModelArgs { allow_http: true, ..at(other) }, &[]).is_ok());
        }
        for wrong in ["llm.example.com/v1", "ftp://x/v1", "", "https://u:p@x/v1", "https://x/v1?key=abc", "https://"] {
            let error = settings(&at(wrong), &[]).unwrap_err();
            assert!(!error.contains("u:p") && !error.contains("abc"), "{error}");
        }
    }

    #[test]
    fn masking_is_on_for_remote_models() {
        let mask = |arguments: &ModelArgs| settings(arguments, &[("OPENAI_API_KEY", "k")]).unwrap().mask;
        assert!(mask(&at("https://a.example/v1")));
        assert!(!mask(&at("http://localhost:1/v1")));
        assert!(mask(&ModelArgs { mask: true, ..at("http://localhost:1/v1") }));
        let cloud = ModelArgs { model: Some("gpt-oss:120b-cloud".into()), ..at("http://localhost:11434/v1") };
        assert!(mask(&cloud), "Ollama forwards it");
        let off = ModelArgs { no_mask: true, ..at("https://a.example/v1") };
        assert!(!mask(&off));
        assert!(settings(&off, &[]).unwrap().warning().unwrap().contains("masking is off"));
        assert!(settings(&at("https://a.example/v1"), &[]).unwrap().warning().is_none());
    }

    #[test]
    fn keys_are_not_printed() {
        let settings = settings(&at("https://a.example/v1"), &[("OPENAI_API_KEY", "sk-very-secret")]).unwrap();
        assert!(!format!("{settings:?} {:?}", settings.endpoint.headers()).contains("very-secret"));
        assert_eq!(settings.endpoint.without_key("bad key sk-very-secret!"), "bad key ***!");
    }
}
