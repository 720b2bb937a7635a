//! Connects to the API server, with kubectl's flags and configuration files.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::time::Duration;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::client::{ClientBuilder, RustlsTlsError};
use kube::config::{Context, KubeConfigOptions, Kubeconfig, NamedContext};
use kube::{Client, Config};
use kubectl_gpt_analyzers::Reason;
use tower::buffer::BufferLayer;
use tower::filter::AsyncFilterLayer;

use super::client_certificate::ClientCertificate;
use super::clock::Clock;
use super::connection::Connection;
use super::discovery::discover;
use super::failure::{Failure, credentials_cause};
use super::plugin::Plugin;
use super::request::JSON;
use super::served::Served;
use crate::interrupt::Interrupt;

/// The default of `--request-timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// More than are ever concurrent.
const REQUESTS_AT_A_TIME: usize = 1024;

/// kubectl's flags for cluster and credentials.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub cluster: Option<String>,
    pub user: Option<String>,
    pub as_user: Option<String>,
    pub as_groups: Vec<String>,
    /// Timeout of a single request: `None` for the default of 30 s, zero for no timeout, as in kubectl.
    pub request_timeout: Option<Duration>,
    /// Once it fires, all current and later requests fail.
    pub interrupt: Interrupt,
}

/// Why the connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Invalid flags or kubeconfig; nothing was sent.
    #[error("{0}")]
    Config(String),
    /// No credentials: a credential plugin or a token refresh failed.
    #[error("no credentials for {server}: {cause}")]
    Credentials { server: String, cause: String },
    #[error("cannot reach API server {server}: {cause}")]
    Unreachable { server: String, cause: String },
    /// Every request fails with 401.
    #[error("API server {server} rejected the credentials: {cause}")]
    Unauthorized { server: String, cause: String },
    /// The server responds, but is not an API server.
    #[error("{server} is not a Kubernetes API server: {cause}")]
    NotKubernetes { server: String, cause: String },
}

/// Finds the cluster as kubectl does, and reads its version and served APIs.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(options: &ConnectOptions) -> Result<Connection, ConnectError> {
    crate::cryptography::install();
    let Target { mut config, context, user } = target(options).await?;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_string();
    let namespace = config.default_namespace.clone();
    let timeout = limit(options.request_timeout);
    let plugin = Plugin::take(&mut config.auth_info, &user, timeout);
    let (client, certificate) = tokio::select! {
        biased;
        () = options.interrupt.wait() => {
            return Err(ConnectError::Credentials { server, cause: "interrupted".to_string() });
        }
        client = client(config, plugin, &server, &user) => client?,
    };
    let mut connection = Connection {
        client,
        timeout,
        served: Served::default(),
        requests: AtomicUsize::new(0),
        unanswered: AtomicU32::new(0),
        retry_budget: AtomicU64::new(0),
        interrupt: options.interrupt.clone(),
        clock: Clock::default(),
        certificate,
        recorder: None,
        server,
        context,
        namespace,
        server_version: None,
    };
    connection.reset_retry_budget();
    connection.server_version = version(&connection).await?;
    connection.served = discover(&connection).await.map_err(|failure| connect_error(&connection, failure))?;
    Ok(connection)
}

/// Builds the HTTP client, with the credentials of a plugin, and reads the client certificate.
async fn client(
    mut config: Config,
    plugin: Option<Plugin>,
    server: &str,
    user: &str,
) -> Result<(Client, ClientCertificate), ConnectError> {
    let mut tokens = None;
    if let Some(plugin) = plugin {
        let credentials = plugin.run().await;
        let credentials = credentials
            .map_err(|error| ConnectError::Credentials { server: server.to_string(), cause: error.to_string() })?;
        credentials.identify(&mut config.auth_info);
        tokens = credentials.tokens(plugin);
    }
    let certificate = ClientCertificate::of(&config.auth_info, user);
    let builder = ClientBuilder::try_from(config).map_err(|error| client_error(server, error))?;
    let client = match tokens {
        // The filter needs a service that implements `Clone`; kube's own client uses such a buffer too.
        Some(tokens) => {
            let buffer = BufferLayer::new(REQUESTS_AT_A_TIME);
            builder.with_layer(&buffer).with_layer(&AsyncFilterLayer::new(tokens)).build()
        }
        None => builder.build(),
    };
    Ok((client, certificate))
}

/// The timeout of a single request; `None` for no limit, which is the meaning of zero in kubectl.
fn limit(asked: Option<Duration>) -> Option<Duration> {
    Some(asked.unwrap_or(REQUEST_TIMEOUT)).filter(|timeout| !timeout.is_zero())
}

/// Reads the server's version, which also checks that it is reachable; a server may deny access to its version.
async fn version(connection: &Connection) -> Result<Option<String>, ConnectError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    match connection.get_once_reached("/version", JSON).await {
        Ok(body) => match serde_json::from_slice::<Version>(&body) {
            Ok(version) => Ok(Some(version.git_version)),
            Err(_) => Err(ConnectError::NotKubernetes {
                server: connection.server.clone(),
                cause: "the response to GET /version is not a version".to_string(),
            }),
        },
        Err(failure) if matches!(failure.status, Some(401 | 403 | 404)) => Ok(None),
        Err(failure) => Err(connect_error(connection, failure)),
    }
}

fn connect_error(connection: &Connection, failure: Failure) -> ConnectError {
    let (server, cause) = (connection.server.clone(), failure.message);
    let explained = |cause| connection.certificate.explain(cause, connection.now());
    match failure.status {
        Some(401) => ConnectError::Unauthorized { server, cause: explained(cause) },
        Some(404) => ConnectError::NotKubernetes { server, cause },
        _ if failure.reason == Reason::Malformed => ConnectError::NotKubernetes { server, cause },
        _ if failure.credentials => ConnectError::Credentials { server, cause },
        // A server that rejects a client certificate may just close the connection.
        _ => ConnectError::Unreachable { server, cause: explained(cause) },
    }
}

struct Target {
    config: Config,
    context: Option<String>,
    /// The user's name in the kubeconfig; empty without a kubeconfig.
    user: String,
}

/// Resolves the configuration as kubectl does: `--kubeconfig`, else the files of `KUBECONFIG`, else `~/.kube/config`;
/// if these are empty, the service account of the current pod.
async fn target(options: &ConnectOptions) -> Result<Target, ConnectError> {
    if options.as_user.is_none() && !options.as_groups.is_empty() {
        return Err(ConnectError::Config(
            "--as-group requires --as: a group cannot be impersonated without a user".into(),
        ));
    }
    let kubeconfig = match &options.kubeconfig {
        Some(path) => read(path)?,
        None => default_kubeconfig()?,
    };
    let mut target = if options.kubeconfig.is_none() && is_empty(&kubeconfig) && wants_default(options) {
        in_cluster()?
    } else {
        from_kubeconfig(kubeconfig, options).await?
    };
    let config = &mut target.config;
    // Retries are done by this program: bounded and deterministic.
    config.default_retry = false;
    if is_loopback(&config.cluster_url) {
        // The API server compresses at 50 to 100 MB/s, slower than any local connection.
        config.disable_compression = true;
    }
    if let Some(user) = &options.as_user {
        config.auth_info.impersonate = Some(user.clone());
        config.auth_info.impersonate_groups = Some(options.as_groups.clone()).filter(|groups| !groups.is_empty());
    }
    Ok(target)
}

fn wants_default(options: &ConnectOptions) -> bool {
    options.context.is_none() && options.cluster.is_none() && options.user.is_none()
}

fn in_cluster() -> Result<Target, ConnectError> {
    let mut config = Config::incluster().map_err(|_| {
        ConnectError::Config(
            "no cluster is configured: no kubeconfig found (--kubeconfig, KUBECONFIG, ~/.kube/config), and not running \
             in a pod"
                .to_string(),
        )
    })?;
    config.proxy_url = environment_proxy(&config.cluster_url)?;
    Ok(Target { config, context: None, user: String::new() })
}

async fn from_kubeconfig(mut kubeconfig: Kubeconfig, options: &ConnectOptions) -> Result<Target, ConnectError> {
    let config_error = |message: String| Err(ConnectError::Config(message));
    let wanted = options.context.clone().or_else(|| kubeconfig.current_context.clone()).filter(|name| !name.is_empty());
    let context = match (&wanted, &options.cluster) {
        (Some(name), _) => name.clone(),
        // `--cluster` and `--user` alone define a context.
        (None, Some(cluster)) => {
            let context = Context { cluster: cluster.clone(), ..Context::default() };
            kubeconfig.contexts.push(NamedContext {
                name: String::new(),
                context: Some(context),
                ..Default::default()
            });
            String::new()
        }
        (None, None) => {
            return config_error(format!(
                "no context selected: the kubeconfig has no current-context; use --context{}",
                choices(kubeconfig.contexts.iter().map(|c| c.name.as_str()))
            ));
        }
    };
    let Some(found) = kubeconfig.contexts.iter().find(|c| c.name == context).and_then(|c| c.context.clone()) else {
        let choices = choices(kubeconfig.contexts.iter().map(|c| c.name.as_str()));
        return config_error(format!("context \"{context}\" not found in kubeconfig{choices}"));
    };
    let cluster = options.cluster.as_ref().unwrap_or(&found.cluster);
    let user = options.user.clone().or(found.user).unwrap_or_default();
    let Some(proxy) = kubeconfig
        .clusters
        .iter()
        .find(|c| c.name == *cluster)
        .map(|c| c.cluster.as_ref().and_then(|c| c.proxy_url.clone()))
    else {
        let choices = choices(kubeconfig.clusters.iter().map(|c| c.name.as_str()));
        return config_error(format!("cluster \"{cluster}\" not found in kubeconfig{choices}"));
    };
    if let Some(user) = &options.user
        && !kubeconfig.auth_infos.iter().any(|u| u.name == *user)
    {
        let choices = choices(kubeconfig.auth_infos.iter().map(|u| u.name.as_str()));
        return config_error(format!("user \"{user}\" not found in kubeconfig{choices}"));
    }
    let chosen = KubeConfigOptions {
        context: Some(context.clone()),
        cluster: options.cluster.clone(),
        user: options.user.clone(),
    };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &chosen)
        .await
        .map_err(|error| ConnectError::Config(format!("invalid kubeconfig: {error}")))?;
    if config.default_namespace.is_empty() {
        config.default_namespace = "default".to_string();
    }
    if config.cluster_url.scheme().is_none() {
        return config_error(format!(
            "invalid kubeconfig: server \"{}\" of cluster \"{cluster}\" is not a URL",
            config.cluster_url
        ));
    }
    // kube applies HTTPS_PROXY to every cluster, and matches NO_PROXY against the proxy's own address.
    if proxy.is_none_or(|proxy| proxy.is_empty()) {
        config.proxy_url = environment_proxy(&config.cluster_url)?;
    }
    Ok(Target { config, context: wanted, user })
}

/// ` (available: a, b)`, a hint for a misspelled name.
fn choices<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.take(10).collect();
    if names.is_empty() { String::new() } else { format!(" (available: {})", names.join(", ")) }
}

fn read(path: &Path) -> Result<Kubeconfig, ConnectError> {
    Kubeconfig::read_from(path).map_err(|error| {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        // The following lines quote the file, which may contain a token.
        let cause = cause.lines().next().unwrap_or_default();
        ConnectError::Config(format!("reading kubeconfig {}: {cause}", path.display()))
    })
}

/// The files of `KUBECONFIG`, merged, or `~/.kube/config`. Missing files are skipped, as in kubectl.
fn default_kubeconfig() -> Result<Kubeconfig, ConnectError> {
    let listed: Vec<PathBuf> = env::var_os("KUBECONFIG")
        .map(|paths| env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    let paths = if listed.is_empty() {
        env::home_dir().map(|home| home.join(".kube").join("config")).into_iter().collect()
    } else {
        listed
    };
    let mut merged = Kubeconfig::default();
    for path in paths.iter().filter(|path| path.exists()) {
        merged = merged
            .merge(read(path)?)
            .map_err(|error| ConnectError::Config(format!("reading kubeconfig {}: {error}", path.display())))?;
    }
    Ok(merged)
}

fn is_empty(kubeconfig: &Kubeconfig) -> bool {
    kubeconfig.contexts.is_empty() && kubeconfig.clusters.is_empty() && kubeconfig.current_context.is_none()
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The proxy for a URL from the environment, with the rules of Go's net/http, which kubectl follows: by scheme, never
/// for the local machine, and not for hosts in `NO_PROXY`.
fn environment_proxy(url: &Uri) -> Result<Option<Uri>, ConnectError> {
    let variable = if url.scheme_str() == Some("https") { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let of = |name: &str| {
        [name.to_string(), name.to_lowercase()].iter().find_map(|name| env::var(name).ok().filter(|v| !v.is_empty()))
    };
    let Some(proxy) = of(variable) else { return Ok(None) };
    let no_proxy = of("NO_PROXY").unwrap_or_default();
    if is_loopback(url) || Matcher::builder().all("http://proxy.invalid").no(no_proxy).build().intercept(url).is_none()
    {
        return Ok(None);
    }
    let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    match proxy.parse() {
        Ok(proxy) => Ok(Some(proxy)),
        Err(error) => Err(ConnectError::Config(format!("{variable} is not a URL: {error}"))),
    }
}

fn client_error(server: &str, error: kube::Error) -> ConnectError {
    match error {
        kube::Error::Auth(error) => {
            ConnectError::Credentials { server: server.to_string(), cause: credentials_cause(&error) }
        }
        // kube's message quotes the invalid line, which may be part of the key.
        kube::Error::RustlsTls(RustlsTlsError::InvalidIdentityPem(_)) => ConnectError::Config(
            "invalid kubeconfig: the user's client certificate or key is not in PEM format".to_string(),
        ),
        error => ConnectError::Config(format!("invalid kubeconfig: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{REQUEST_TIMEOUT, is_loopback, limit};

    #[test]
    fn timeout_defaults_and_zero_disables_it() {
        assert_eq!(limit(None), Some(REQUEST_TIMEOUT));
        assert_eq!(limit(Some(Duration::ZERO)), None);
        assert_eq!(limit(Some(Duration::from_secs(5))), Some(Duration::from_secs(5)));
    }

    #[test]
    fn detects_loopback_addresses() {
        for local in ["http://127.0.0.1:8080", "https://localhost:6443", "https://[::1]:6443"] {
            assert!(is_loopback(&local.parse().unwrap()), "{local}");
        }
        for remote in ["https://10.0.0.1", "https://localhost.example.com", "https://[2001:db8::1]:6443"] {
            assert!(!is_loopback(&remote.parse().unwrap()), "{remote}");
        }
    }
}
