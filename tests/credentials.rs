//! Expired certificates and misbehaving credential plugins: the program names the cause, exits with code 4, and does so
//! quickly.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::api_server::tls::{Authority, Issued};
use crate::api_server::{ApiServer, Then, When};
use crate::program::{kubectl_gpt, text};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

/// Well before the default request timeout of 30 seconds.
const SOON: Duration = Duration::from_secs(20);

fn base64(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap()
}

/// One empty namespace.
fn objects() -> Vec<Value> {
    vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "1"}})]
}

fn kubeconfig(folder: &Path, cluster: Value, user: Value) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "jane", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "jane"}}],
    });
    let path = folder.join("config");
    std::fs::write(&path, config.to_string()).unwrap();
    path.to_str().unwrap().to_string()
}

/// Runs the program as this user against this cluster; it must exit quickly.
#[track_caller]
fn run(cluster: Value, user: Value, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let config = kubeconfig(folder.path(), cluster, user);
    let mut command = kubectl_gpt(&["analyze", "--kubeconfig", &config, "--rule", "service/*"]);
    command.args(arguments).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let start = Instant::now();
    let output = command.timeout(2 * SOON).output().unwrap();
    assert!(start.elapsed() < SOON, "{:?}: {}", start.elapsed(), text(&output));
    output
}

/// The one-line error message.
#[track_caller]
fn error(output: &Output) -> String {
    let text = text(output);
    assert_eq!((output.status.code(), text.lines().count()), (Some(4), 1), "{text}");
    text.trim().strip_prefix("error: ").unwrap().to_string()
}

// Certificates

/// A server with this certificate, and the kubeconfig cluster entry that trusts it.
fn server(authority: &Authority, shown: &Issued, of_clients: bool) -> (ApiServer, Value) {
    let server = ApiServer::start_tls(objects(), authority.acceptor(shown, of_clients));
    let cluster = json!({"server": server.url(), "certificate-authority-data": base64(&authority.pem())});
    (server, cluster)
}

fn client(issued: &Issued) -> Value {
    json!({"client-certificate-data": base64(&issued.certificate), "client-key-data": base64(&issued.key)})
}

/// Sanity check for the following tests.
#[test]
fn valid_certificates_are_accepted() {
    let authority = Authority::new("cluster");
    let (_server, cluster) = server(&authority, &authority.issue("127.0.0.1", 2020, 2120), true);
    let output = run(cluster.clone(), client(&authority.issue("jane", 2020, 2120)), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let stranger = error(&run(cluster, client(&Authority::new("stranger").issue("jane", 2020, 2120)), &[]));
    assert!(!stranger.contains("expired"), "{stranger}");
}

#[test]
fn the_servers_certificate_expired() {
    let authority = Authority::new("cluster");
    let (server, cluster) = server(&authority, &authority.issue("127.0.0.1", 2020, 2021), false);
    let said = error(&run(cluster, json!({}), &[]));
    let expected = format!(
        "cannot reach API server {}: its certificate expired on 2021-01-01, the local clock is at",
        server.url()
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(server.requests().is_empty());
}

/// This also happens if the local clock is years behind.
#[test]
fn the_servers_certificate_is_not_valid_yet() {
    let authority = Authority::new("cluster");
    let (server, cluster) = server(&authority, &authority.issue("127.0.0.1", 2119, 2120), false);
    let said = error(&run(cluster, json!({}), &[]));
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let expected = format!(
        "cannot reach API server {}: its certificate is not valid before 2119-01-01, the local clock is at {today}",
        server.url()
    );
    assert_eq!(said, expected);
}

/// kube-apiserver accepts any client certificate in the handshake, and responds with 401 if it has expired.
#[test]
fn an_expired_client_certificate_is_named_if_rejected() {
    let authority = Authority::new("cluster");
    let (server, cluster) = server(&authority, &authority.issue("127.0.0.1", 2020, 2120), false);
    server.fail(When::everything(), Then::Unauthorized);
    let refused = format!("API server {} rejected the credentials: unauthorized", server.url());
    let expired = authority.issue("jane", 2020, 2021);
    let over = format!("{refused}; the client certificate of user \"jane\" expired on 2021-01-01");
    assert_eq!(error(&run(cluster.clone(), client(&expired), &[])), over);

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("crt"), &expired.certificate).unwrap();
    std::fs::write(path("key"), &expired.key).unwrap();
    let files = json!({"client-certificate": path("crt"), "client-key": path("key")});
    assert_eq!(error(&run(cluster.clone(), files, &[])), over);

    let early = format!("{refused}; the client certificate of user \"jane\" is not valid before 2119-01-01");
    assert_eq!(error(&run(cluster.clone(), client(&authority.issue("jane", 2119, 2120)), &[])), early);
    assert_eq!(error(&run(cluster, client(&authority.issue("jane", 2020, 2120)), &[])), refused);
}

/// A proxy that verifies certificates itself. Whether its TLS alert or only the end of the connection arrives is
/// random; the cause is reported in both cases.
#[test]
fn an_expired_client_certificate_is_named_if_the_handshake_fails() {
    let authority = Authority::new("cluster");
    let (server, cluster) = server(&authority, &authority.issue("127.0.0.1", 2020, 2120), true);
    let said = error(&run(cluster, client(&authority.issue("jane", 2020, 2021)), &[]));
    assert!(said.contains(&server.url()), "{said}");
    assert!(said.ends_with("; the client certificate of user \"jane\" expired on 2021-01-01"), "{said}");
}

/// A certificate may expire between the first request and the lists.
#[test]
fn an_expired_client_certificate_is_named_if_lists_fail() {
    let authority = Authority::new("cluster");
    let (server, cluster) = server(&authority, &authority.issue("127.0.0.1", 2020, 2120), false);
    server.fail(When::everything().after(3), Then::Unauthorized);
    let said = error(&run(cluster, client(&authority.issue("jane", 2020, 2021)), &[]));
    assert!(said.ends_with("; the client certificate of user \"jane\" expired on 2021-01-01"), "{said}");
}

/// The parser's error would quote the invalid line, here part of the key.
#[test]
fn an_invalid_key_is_not_printed() {
    let authority = Authority::new("cluster");
    let (_server, cluster) = server(&authority, &authority.issue("127.0.0.1", 2020, 2120), false);
    let mut issued = authority.issue("jane", 2020, 2120);
    issued.key = issued.key.replacen("KEY-----\n", "KEY", 1);
    let output = run(cluster, client(&issued), &[]);
    let wrong = "error: invalid kubeconfig: the user's client certificate or key is not in PEM format\n";
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(2), wrong));
}

/// The error does not quote the lines around a syntax error either.
#[test]
fn an_invalid_kubeconfig_is_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    for wrong in ["{name: me", "[7", "\"", "@"] {
        let file = format!(
            "apiVersion: v1\nkind: Config\nusers:\n- name: me\n  user: {{token: s3cret}}\n- {wrong}\nclusters: []\n"
        );
        std::fs::write(&path, file).unwrap();
        let output = kubectl_gpt(&["analyze", "--kubeconfig", path.to_str().unwrap()]).output().unwrap();
        let said = text(&output);
        assert!(output.status.code() == Some(2) && said.contains("line "), "{said}");
        assert!(said.lines().count() == 1 && !said.contains("s3cret"), "{said}");
    }
}

// Credential plugins

/// A user whose plugin is this shell script.
fn plugin(script: &str) -> Value {
    json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
        "interactiveMode": "Never"}})
}

/// A plugin that prints this status.
fn printing(status: Value) -> Value {
    let credential =
        json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status});
    plugin(&format!("printf %s '{credential}'"))
}

fn plain(server: &ApiServer) -> Value {
    json!({"server": server.url()})
}

#[cfg(unix)]
#[test]
fn the_token_of_a_plugin_is_sent_and_the_plugin_runs_once() {
    let server = ApiServer::start(objects());
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let mut user = printing(json!({"token": "s3cret"}));
    let script = user["exec"]["args"][1].as_str().unwrap().to_string();
    user["exec"]["args"][1] = format!("echo \"$MARK $KUBERNETES_EXEC_INFO\" >> {}; {script}", runs.display()).into();
    user["exec"]["env"] = json!([{"name": "MARK", "value": "run"}]);
    let output = run(plain(&server), user, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let asked = server.requests();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.authorization == "Bearer s3cret"));
    let info = "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\
                \"spec\":{\"interactive\":false}}";
    assert_eq!(std::fs::read_to_string(runs).unwrap(), format!("run {info}\n"));
}

#[cfg(unix)]
#[test]
fn the_certificate_of_a_plugin_is_used() {
    let authority = Authority::new("cluster");
    let (_server, cluster) = server(&authority, &authority.issue("127.0.0.1", 2020, 2120), true);
    let status = |issued: &Issued| json!({"clientCertificateData": issued.certificate, "clientKeyData": issued.key});
    let output = run(cluster.clone(), printing(status(&authority.issue("jane", 2020, 2120))), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = error(&run(cluster, printing(status(&authority.issue("jane", 2020, 2021))), &[]));
    assert!(said.ends_with("; the client certificate of user \"jane\" expired on 2021-01-01"), "{said}");
}

#[cfg(unix)]
#[test]
fn plugins_without_credentials_are_named() {
    let server = ApiServer::start(objects());
    let credential = |status: &str| plugin(&format!("printf %s '{{\"kind\": \"ExecCredential\"{status}}}'"));
    let cases = [
        (plugin("echo rubbish s3cret"), "printed something other than an ExecCredential"),
        (plugin("echo '{\"status\": {\"token\": \"s3cret\"'"), "printed something other than an ExecCredential"),
        (plugin("printf '\\377\\376 s3cret'"), "printed something other than an ExecCredential"),
        (plugin("echo '[]'"), "printed something other than an ExecCredential"),
        (
            plugin("echo '{\"kind\": \"Config\", \"status\": {\"token\": \"s3cret\"}}'"),
            "printed an object of kind \"Config\", not an ExecCredential",
        ),
        (plugin("true"), "printed nothing"),
        (plugin("echo; echo"), "printed nothing"),
        (credential(""), "printed an ExecCredential without status"),
        (
            credential(", \"status\": {}"),
            "printed an ExecCredential with neither a token nor a client certificate and key",
        ),
        (
            printing(json!({"token": "", "clientCertificateData": "s3cret"})),
            "printed an ExecCredential with neither a token nor a client certificate and key",
        ),
        (
            printing(json!({"token": "s3cret", "expirationTimestamp": "soon"})),
            "printed an ExecCredential with an invalid expirationTimestamp",
        ),
        (
            printing(
                json!({"clientCertificateData": "s3cret", "clientKeyData": "-----BEGIN PRIVATE KEY-----\ns3cret"}),
            ),
            "printed an ExecCredential whose certificate or key is not in PEM format",
        ),
        (
            credential(", \"status\": {\"token\": \"s3\\u0001cret\"}"),
            "printed an ExecCredential with a token that is not a valid HTTP header value",
        ),
        (plugin("echo s3cret; echo who are you? >&2; echo >&2; exit 3"), "failed (exit status: 3): who are you?"),
        (plugin("exit 3"), "failed (exit status: 3)"),
        (plugin("kill -9 $$"), "failed (signal: 9 (SIGKILL))"),
        (plugin("while :; do echo s3cret; done"), "printed more than 1 MiB"),
        (plugin("while :; do echo s3cret >&2; done"), "printed more than 1 MiB"),
    ];
    let url = server.url();
    for (user, what) in cases {
        let said = error(&run(plain(&server), user.clone(), &[]));
        assert_eq!(said, format!("no credentials for {url}: credential plugin sh of user \"jane\" {what}"), "{user}");
    }
    assert!(server.requests().is_empty());
}

#[cfg(unix)]
#[test]
fn hanging_plugins_are_killed() {
    let server = ApiServer::start(objects());
    let folder = tempfile::tempdir().unwrap();
    let id = folder.path().join("id");
    let hanging = plugin(&format!("echo $$ > {}; exec sleep 600", id.display()));
    let said = error(&run(plain(&server), hanging, &["--request-timeout", "2s"]));
    assert!(said.ends_with(": credential plugin sh of user \"jane\" timed out after 2s"), "{said}");
    let process = format!("/proc/{}", std::fs::read_to_string(id).unwrap().trim());
    if Path::new("/proc/self").exists() {
        let state = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }
}

#[test]
fn missing_plugins_are_named_with_the_install_hint() {
    let server = ApiServer::start(objects());
    let user = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin",
        "installHint": "get it from the store\n", "interactiveMode": "IfAvailable"}});
    let said = error(&run(plain(&server), user, &[]));
    let wrong = "credential plugin no-such-plugin of user \"jane\" cannot be run: ";
    assert!(said.contains(wrong) && said.ends_with("; get it from the store"), "{said}");
    let always = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh",
        "interactiveMode": "Always"}});
    let said = error(&run(plain(&server), always, &[]));
    let wrong =
        "credential plugin sh of user \"jane\" has interactiveMode Always, but standard input is not a terminal";
    assert!(said.ends_with(wrong), "{said}");
}

/// Credentials take precedence over a plugin as in kubectl.
#[test]
fn tokens_take_precedence_over_plugins() {
    let server = ApiServer::start(objects());
    let mut user = plugin("exit 3");
    user["token"] = "mine".into();
    let output = run(plain(&server), user, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(server.requests().iter().all(|asked| asked.authorization == "Bearer mine"));
}
