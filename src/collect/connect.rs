//! From kubectl's flags and files to an API server that answers.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use jiff::Timestamp;
use kube::client::{ClientBuilder, RustlsTlsError};
use kube::config::{Context, KubeConfigOptions, Kubeconfig, NamedContext};
use kube::{Client, Config};
use kubectl_gpt_analyzers::Reason;
use tower::buffer::BufferLayer;
use tower::filter::AsyncFilterLayer;

use super::client_certificate::ClientCertificate;
use super::clock::Clock;
use super::discovery::Served;
use super::plugin::Plugin;
use super::recorder::Recorder;
use super::request::{Failure, JSON};
use crate::interrupt::Interrupt;

/// How long one request may take where `--request-timeout` does not say.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// More than there ever are.
const REQUESTS_AT_A_TIME: usize = 1024;

/// kubectl's flags about which cluster to talk to, and as whom.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub cluster: Option<String>,
    pub user: Option<String>,
    pub as_user: Option<String>,
    pub as_groups: Vec<String>,
    /// How long one request may take: `None` means the default of 30 s, zero as long as it likes, as for kubectl.
    pub request_timeout: Option<Duration>,
    /// When it comes, every request under way and every later one fails.
    pub interrupt: Interrupt,
}

/// Why no cluster could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Flags or kubeconfig are wrong; nothing was sent anywhere.
    #[error("{0}")]
    Config(String),
    /// There are no credentials to ask with: a plugin or a token refresh failed.
    #[error("no credentials for {server}: {cause}")]
    Credentials { server: String, cause: String },
    #[error("cannot reach the API server {server}: {cause}")]
    Unreachable { server: String, cause: String },
    /// Every request is answered with 401.
    #[error("the API server {server} does not accept the credentials: {cause}")]
    Unauthorized { server: String, cause: String },
    /// Something answers, but not as an API server does.
    #[error("{server} does not answer as a Kubernetes API server: {cause}")]
    NotKubernetes { server: String, cause: String },
}

/// An API server that answered.
pub struct Connection {
    pub(super) client: Client,
    /// Of one request; `None` for no limit.
    pub(super) timeout: Option<Duration>,
    pub(super) served: Served,
    pub(super) requests: AtomicUsize,
    /// How many requests in a row got no answer at all.
    pub(super) unanswered: AtomicU32,
    /// How many milliseconds requests may still wait between attempts, all of them together.
    pub(super) patience: AtomicU64,
    pub(super) interrupt: Interrupt,
    pub(super) clock: Clock,
    pub(super) certificate: ClientCertificate,
    /// Keeps what is read, if that is wanted.
    pub recorder: Option<Recorder>,
    server: String,
    context: Option<String>,
    namespace: String,
    server_version: Option<String>,
}

impl Connection {
    /// The API server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The context's name; `None` in a cluster and where only `--cluster` was given.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// The context's namespace, `default` if it names none; in a cluster the service account's.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// As the API server says it: `v1.36.3`. `None` if it does not tell us.
    pub fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    /// The time by the API server's clock, by which objects are dated.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How many requests were sent so far, repeated ones too.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Finds the cluster as kubectl would, and asks it for its version and for what it serves.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(options: &ConnectOptions) -> Result<Connection, ConnectError> {
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
        patience: AtomicU64::new(0),
        interrupt: options.interrupt.clone(),
        clock: Clock::default(),
        certificate,
        recorder: None,
        server,
        context,
        namespace,
        server_version: None,
    };
    connection.be_patient_again();
    connection.server_version = version(&connection).await?;
    connection.served = Served::discover(&connection).await.map_err(|failure| connect_error(&connection, failure))?;
    Ok(connection)
}

/// What sends the requests, with the credentials that a plugin gives; and who it is that asks.
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
        // The filter needs a service that can be cloned; kube's own client is such a buffer too.
        Some(tokens) => {
            let buffer = BufferLayer::new(REQUESTS_AT_A_TIME);
            builder.with_layer(&buffer).with_layer(&AsyncFilterLayer::new(tokens)).build()
        }
        None => builder.build(),
    };
    Ok((client, certificate))
}

/// How long one request may take; `None` for as long as it likes, which is what zero means to kubectl.
fn limit(asked: Option<Duration>) -> Option<Duration> {
    Some(asked.unwrap_or(REQUEST_TIMEOUT)).filter(|timeout| !timeout.is_zero())
}

/// The server's version. That also tells whether anybody answers; a server may keep its version to itself.
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
                cause: "the answer to GET /version is not its version".to_string(),
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
        // Servers that refuse a client certificate may just hang up.
        _ => ConnectError::Unreachable { server, cause: explained(cause) },
    }
}

struct Target {
    config: Config,
    context: Option<String>,
    /// As the kubeconfig calls them; empty without one.
    user: String,
}

/// The configuration as kubectl resolves it: `--kubeconfig`, else the files of `KUBECONFIG`, else `~/.kube/config`; if
/// there is nothing in them, the service account of the pod that this runs in.
async fn target(options: &ConnectOptions) -> Result<Target, ConnectError> {
    if options.as_user.is_none() && !options.as_groups.is_empty() {
        return Err(ConnectError::Config(
            "--as-group needs --as: a group cannot be impersonated without a user".into(),
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
    // Retries are ours: bounded, and without chance.
    config.default_retry = false;
    if is_loopback(&config.cluster_url) {
        // The API server compresses at 50 to 100 MB/s; no local connection is that slow.
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
            "no cluster is configured: there is no kubeconfig (--kubeconfig, KUBECONFIG, ~/.kube/config), and this \
             does not run in a pod"
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
        // `--cluster` and `--user` alone make a context.
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
                "no context is chosen: the kubeconfig has no current-context; use --context{}",
                choices(kubeconfig.contexts.iter().map(|c| c.name.as_str()))
            ));
        }
    };
    let Some(found) = kubeconfig.contexts.iter().find(|c| c.name == context).and_then(|c| c.context.clone()) else {
        let choices = choices(kubeconfig.contexts.iter().map(|c| c.name.as_str()));
        return config_error(format!("context \"{context}\" is not in the kubeconfig{choices}"));
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
        return config_error(format!("cluster \"{cluster}\" is not in the kubeconfig{choices}"));
    };
    if let Some(user) = &options.user
        && !kubeconfig.auth_infos.iter().any(|u| u.name == *user)
    {
        let choices = choices(kubeconfig.auth_infos.iter().map(|u| u.name.as_str()));
        return config_error(format!("user \"{user}\" is not in the kubeconfig{choices}"));
    }
    let chosen = KubeConfigOptions {
        context: Some(context.clone()),
        cluster: options.cluster.clone(),
        user: options.user.clone(),
    };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &chosen)
        .await
        .map_err(|error| ConnectError::Config(format!("the kubeconfig cannot be used: {error}")))?;
    if config.default_namespace.is_empty() {
        config.default_namespace = "default".to_string();
    }
    if config.cluster_url.scheme().is_none() {
        return config_error(format!(
            "the kubeconfig cannot be used: server \"{}\" of cluster \"{cluster}\" is not a URL",
            config.cluster_url
        ));
    }
    // kube takes HTTPS_PROXY for every cluster, and compares NO_PROXY with the proxy's own address.
    if proxy.is_none_or(|proxy| proxy.is_empty()) {
        config.proxy_url = environment_proxy(&config.cluster_url)?;
    }
    Ok(Target { config, context: wanted, user })
}

/// ` (there are a, b)`, to help with a name that is wrong.
fn choices<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.take(10).collect();
    if names.is_empty() { String::new() } else { format!(" (there is {})", names.join(", ")) }
}

fn read(path: &Path) -> Result<Kubeconfig, ConnectError> {
    Kubeconfig::read_from(path).map_err(|error| {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        // What follows is the place in the file, where a token may stand.
        let cause = cause.lines().next().unwrap_or_default();
        ConnectError::Config(format!("reading kubeconfig {}: {cause}", path.display()))
    })
}

/// The files of `KUBECONFIG`, merged, or `~/.kube/config`. A file that does not exist is none, as with kubectl.
fn default_kubeconfig() -> Result<Kubeconfig, ConnectError> {
    let listed: Vec<PathBuf> = env::var_os("KUBECONFIG")
        .map(|paths| env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    let paths = match listed.is_empty() {
        true => env::home_dir().map(|home| home.join(".kube").join("config")).into_iter().collect(),
        false => listed,
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

/// The proxy that the environment names for a URL, by the rules of Go's net/http, which kubectl follows: by scheme,
/// never for the local machine, and not for what `NO_PROXY` names.
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
        // What kube says of it quotes the line that is wrong, which may be one of the key.
        kube::Error::RustlsTls(RustlsTlsError::InvalidIdentityPem(_)) => ConnectError::Config(
            "the kubeconfig cannot be used: the user's client certificate or its key is no PEM file".to_string(),
        ),
        error => ConnectError::Config(format!("the kubeconfig cannot be used: {error}")),
    }
}

/// What kube has against the credentials of the kubeconfig. Of a command that failed (`cmd-path` of the old `gcp`
/// provider) its standard output is left out, in which there may be a token.
pub(super) fn credentials_cause(error: &kube::client::AuthError) -> String {
    use kube::client::AuthError;
    match error {
        AuthError::AuthExecRun { out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr);
            let said = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_string();
            format!("the command that gives the credentials failed ({}): {said}", out.status)
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{REQUEST_TIMEOUT, is_loopback, limit};

    #[test]
    fn no_timeout_is_the_usual_one_and_zero_is_none() {
        assert_eq!(limit(None), Some(REQUEST_TIMEOUT));
        assert_eq!(limit(Some(Duration::ZERO)), None);
        assert_eq!(limit(Some(Duration::from_secs(5))), Some(Duration::from_secs(5)));
    }

    #[test]
    fn knows_the_local_machine() {
        for local in ["http://127.0.0.1:8080", "https://localhost:6443", "https://[::1]:6443"] {
            assert!(is_loopback(&local.parse().unwrap()), "{local}");
        }
        for remote in ["https://10.0.0.1", "https://localhost.example.com", "https://[2001:db8::1]:6443"] {
            assert!(!is_loopback(&remote.parse().unwrap()), "{remote}");
        }
    }
}
