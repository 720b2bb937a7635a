//! Credential plugins: programs configured in a kubeconfig that print a token or a client certificate.
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins>
//!
//! kube runs them three times, without a timeout, and keeps all their output; here they run once, with limits on time
//! and output.

use std::io::{self, IsTerminal};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use kubectl_gpt_analyzers::kubernetes::certificate;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Mutex;
use tower::BoxError;
use tower::filter::AsyncPredicate;

/// Larger than any token or certificate chain.
const MAX_OUTPUT: usize = 1 << 20;
/// The timeout for interactive use, where the user may have to log in.
const LOGIN: Duration = Duration::from_secs(300);
/// Tokens are renewed this long before they expire.
const BEFORE_END: SignedDuration = SignedDuration::from_secs(60);
/// A plugin that fails, or whose tokens expire immediately, is not run for every request.
const BETWEEN_RUNS: Duration = Duration::from_secs(30);

/// Why there are no credentials: `credential plugin aws of user "dev" printed nothing`. Never contains the output of
/// the plugin, which may include a token.
#[derive(Debug, thiserror::Error)]
#[error("credential plugin {command} of user \"{user}\" {what}")]
pub(super) struct PluginError {
    command: String,
    user: String,
    what: String,
}

/// The plugin of a user.
pub(super) struct Plugin {
    exec: ExecConfig,
    user: String,
    /// The timeout for non-interactive use; `None` for no limit.
    timeout: Option<Duration>,
}

/// The credentials returned by a plugin.
pub(super) struct Credentials {
    token: Option<HeaderValue>,
    certificate: Option<(String, SecretString)>,
    ends: Option<Timestamp>,
}

impl Plugin {
    /// The plugin of a user, unless the user has other credentials; removed from the configuration so that kube does
    /// not run it.
    pub fn take(auth: &mut AuthInfo, user: &str, timeout: Option<Duration>) -> Option<Plugin> {
        let exec = auth.exec.take()?;
        let has_password = auth.username.is_some() && auth.password.is_some();
        let has_token = auth.token.is_some() || auth.token_file.is_some() || auth.auth_provider.is_some();
        (!has_password && !has_token).then(|| Plugin { exec, user: user.to_string(), timeout })
    }

    /// Runs the plugin and reads its output.
    pub async fn run(&self) -> Result<Credentials, PluginError> {
        let limit = if io::stderr().is_terminal() { self.timeout.map(|limit| limit.max(LOGIN)) } else { self.timeout };
        let printed = match limit {
            None => self.printed().await?,
            Some(limit) => match tokio::time::timeout(limit, self.printed()).await {
                Ok(printed) => printed?,
                Err(_) => return Err(self.error(format!("timed out after {limit:?}"))),
            },
        };
        credentials(&printed).map_err(|what| self.error(what))
    }

    /// Its output until it exits. It is killed if the future is dropped.
    async fn printed(&self) -> Result<Vec<u8>, PluginError> {
        let mut child = self.command()?.spawn().map_err(|error| {
            let hint = self.exec.install_hint.as_ref().map(|hint| format!("; {}", hint.trim())).unwrap_or_default();
            self.error(format!("cannot be run: {error}{hint}"))
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let all = tokio::try_join!(bounded(stdout), bounded(stderr));
        let (printed, errors) = all.map_err(|error| self.error(error.to_string()))?;
        let status = child.wait().await.map_err(|error| self.error(format!("could not be waited for: {error}")))?;
        if status.success() {
            return Ok(printed);
        }
        let errors = String::from_utf8_lossy(&errors);
        let last = errors.lines().map(str::trim).rfind(|line| !line.is_empty());
        Err(self.error(format!("failed ({status}){}", last.map(|line| format!(": {line}")).unwrap_or_default())))
    }

    fn command(&self) -> Result<Command, PluginError> {
        let Some(program) = &self.exec.command else { return Err(self.error("has no command".to_string())) };
        let interactive = self.is_interactive()?;
        let mut command = Command::new(program);
        command.args(self.exec.args.iter().flatten()).kill_on_drop(true);
        for variable in self.exec.env.iter().flatten() {
            if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
                command.env(name, value);
            }
        }
        let mut spec = json!({"interactive": interactive});
        if let (true, Some(cluster)) = (self.exec.provide_cluster_info, &self.exec.cluster) {
            spec["cluster"] = serde_json::to_value(cluster).unwrap_or(Value::Null);
        }
        let info = json!({"apiVersion": self.exec.api_version, "kind": "ExecCredential", "spec": spec});
        command.env("KUBERNETES_EXEC_INFO", info.to_string());
        command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
        // On a terminal, standard error is passed through: it may contain login instructions.
        command.stderr(if io::stderr().is_terminal() { Stdio::inherit() } else { Stdio::piped() });
        command.stdout(Stdio::piped());
        Ok(command)
    }

    /// Whether it may read from standard input, with kubectl's rules.
    fn is_interactive(&self) -> Result<bool, PluginError> {
        match (&self.exec.interactive_mode, io::stdin().is_terminal()) {
            (Some(ExecInteractiveMode::Never), _) => Ok(false),
            (Some(ExecInteractiveMode::Always), false) => {
                Err(self.error("has interactiveMode Always, but standard input is not a terminal".to_string()))
            }
            (_, is_terminal) => Ok(is_terminal),
        }
    }

    fn error(&self, what: String) -> PluginError {
        let command = self.exec.command.clone().unwrap_or_else(|| "(none)".to_string());
        PluginError { command, user: self.user.clone(), what }
    }
}

impl Credentials {
    /// Stores the client certificate where kube expects it.
    pub fn identify(&self, auth: &mut AuthInfo) {
        if let Some((certificate, key)) = &self.certificate {
            auth.client_certificate_data = Some(certificate::encode(certificate.as_bytes()));
            auth.client_key_data = Some(certificate::encode(key.expose_secret().as_bytes()).into());
        }
    }

    /// The source of tokens for all requests, if the plugin returned one.
    pub fn tokens(self, plugin: Plugin) -> Option<Tokens> {
        let held = Held { token: self.token?, ends: self.ends, asked: Instant::now() };
        Some(Tokens { plugin: Arc::new(plugin), held: Arc::new(Mutex::new(held)) })
    }
}

/// Adds a token to every request, and renews it before it expires.
#[derive(Clone)]
pub(super) struct Tokens {
    plugin: Arc<Plugin>,
    held: Arc<Mutex<Held>>,
}

struct Held {
    token: HeaderValue,
    ends: Option<Timestamp>,
    asked: Instant,
}

impl Tokens {
    async fn token(&self) -> Result<HeaderValue, PluginError> {
        let mut held = self.held.lock().await;
        let is_ending = held.ends.is_some_and(|ends| Timestamp::now() + BEFORE_END >= ends);
        if is_ending && held.asked.elapsed() >= BETWEEN_RUNS {
            let renewed = self.plugin.run().await;
            held.asked = Instant::now();
            let renewed = renewed?;
            if let Some(token) = renewed.token {
                (held.token, held.ends) = (token, renewed.ends);
            }
        }
        Ok(held.token.clone())
    }
}

impl AsyncPredicate<Request<Body>> for Tokens {
    type Future = BoxFuture<'static, Result<Request<Body>, BoxError>>;
    type Request = Request<Body>;

    fn check(&mut self, mut request: Request<Body>) -> Self::Future {
        let tokens = self.clone();
        Box::pin(async move {
            request.headers_mut().insert(AUTHORIZATION, tokens.token().await?);
            Ok(request)
        })
    }
}

/// Reads the output of a program, up to the limit.
async fn bounded(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() > MAX_OUTPUT {
        return Err(io::Error::other(format!("printed more than {} MiB", MAX_OUTPUT >> 20)));
    }
    Ok(bytes)
}

/// The relevant fields of `client.authentication.k8s.io` `ExecCredential`.
#[derive(Deserialize)]
struct ExecCredential {
    kind: String,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

/// Reads an `ExecCredential`, in JSON or (like client-go) in YAML; `Err` describes the invalid output.
fn credentials(printed: &[u8]) -> Result<Credentials, String> {
    if printed.trim_ascii().is_empty() {
        return Err("printed nothing".to_string());
    }
    let read = serde_saphyr::from_slice::<ExecCredential>(printed);
    let ExecCredential { kind, status } =
        read.map_err(|_| "printed something other than an ExecCredential".to_string())?;
    if kind != "ExecCredential" {
        let kind: String = kind.chars().take(60).collect();
        return Err(format!("printed an object of kind \"{kind}\", not an ExecCredential"));
    }
    let status = status.ok_or("printed an ExecCredential without status")?;
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let certificate = given(status.client_certificate_data).zip(given(status.client_key_data));
    let token = given(status.token).map(|token| bearer(&token)).transpose()?;
    if token.is_none() && certificate.is_none() {
        return Err("printed an ExecCredential with neither a token nor a client certificate and key".to_string());
    }
    let is_sound = |(chain, key): &(String, String)| {
        certificate::from_pem(chain.as_bytes()).is_ok() && PrivateKeyDer::from_pem_slice(key.as_bytes()).is_ok()
    };
    if !certificate.as_ref().is_none_or(is_sound) {
        return Err("printed an ExecCredential whose certificate or key is not in PEM format".to_string());
    }
    let ends = given(status.expiration_timestamp).map(|text| text.parse()).transpose();
    let ends = ends.map_err(|_| "printed an ExecCredential with an invalid expirationTimestamp")?;
    Ok(Credentials { token, certificate: certificate.map(|(chain, key)| (chain, key.into())), ends })
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    let header = HeaderValue::try_from(format!("Bearer {}", token.trim()));
    let mut header =
        header.map_err(|_| "printed an ExecCredential with a token that is not a valid HTTP header value")?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A plugin that returns numbered tokens that expire immediately.
    fn counting(folder: &std::path::Path) -> Plugin {
        let file = folder.join("count").display().to_string();
        let script = format!(
            "echo x >> {file}; printf '{{\"kind\": \"ExecCredential\", \"status\": {{\"token\": \"%s\", \
             \"expirationTimestamp\": \"2020-01-01T00:00:00Z\"}}}}' $(wc -l < {file})"
        );
        let args = Some(vec!["-c".to_string(), script]);
        let exec = ExecConfig { command: Some("sh".to_string()), args, ..serde_json::from_value(json!({})).unwrap() };
        Plugin { exec, user: "jane".to_string(), timeout: Some(Duration::from_secs(10)) }
    }

    #[tokio::test]
    async fn expired_tokens_are_renewed_but_not_for_every_request() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = counting(folder.path());
        let tokens = plugin.run().await.unwrap().tokens(plugin).unwrap();
        let sent = async || tokens.token().await.unwrap().to_str().unwrap().to_string();
        assert_eq!([sent().await, sent().await], ["Bearer 1", "Bearer 1"]);
        tokens.held.lock().await.asked -= BETWEEN_RUNS;
        assert_eq!([sent().await, sent().await], ["Bearer 2", "Bearer 2"]);
        let soon = Timestamp::now() + SignedDuration::from_secs(70);
        *tokens.held.lock().await =
            Held { token: bearer("3").unwrap(), ends: Some(soon), asked: Instant::now() - BETWEEN_RUNS };
        assert_eq!(sent().await, "Bearer 3", "it is valid for more than a minute");
    }

    #[tokio::test]
    async fn a_plugin_that_fails_later_is_not_run_for_every_request() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = counting(folder.path());
        let tokens = plugin.run().await.unwrap().tokens(plugin).unwrap();
        drop(folder);
        tokens.held.lock().await.asked -= BETWEEN_RUNS;
        assert!(tokens.token().await.unwrap_err().to_string().starts_with("credential plugin sh of user \"jane\" "));
        assert_eq!(tokens.token().await.unwrap(), "Bearer 1");
    }
}
