//! Tests of the program against an API server: output and exit codes.

use std::collections::BTreeSet;
use std::process::Output;

use crate::api_server::{ApiServer, Then, When, kubeconfig_of};
use crate::program::{report, text};
use assert_cmd::Command;
use serde_json::{Value, json};

fn run(server: &ApiServer, arguments: &[&str]) -> Output {
    let kubeconfig = server.kubeconfig();
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    // Recordings age, so the one rule that compares a schedule with the current time is skipped.
    let command = command.env_clear().arg("analyze").arg("--kubeconfig").arg(kubeconfig);
    command.args(["--skip-rule", "cronjob/not-running"]).args(arguments).output().unwrap()
}

fn recorded(name: &str) -> ApiServer {
    ApiServer::recorded(format!("{}/tests/scenarios/{name}/cluster.json", env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn a_healthy_cluster_is_one_line() {
    let output = run(&recorded("healthy-shop"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let text = text(&output);
    assert!(text.starts_with("No problems found: ") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_broken_cluster_gives_the_same_findings_as_its_recording() {
    let output = run(&recorded("selector-mismatch"), &["-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let found: Vec<Value> = report(&output)["findings"].as_array().unwrap().iter().map(|f| f["rule"].clone()).collect();
    assert_eq!(found, ["ingress/backend-down", "service/selector-matches-nothing"]);
    assert_eq!(report(&output)["source"]["type"], "cluster");
    assert_eq!(report(&output)["source"]["context"], "test");
}

#[test]
fn forbidden_pods_are_reported_with_exit_code_3() {
    let server = recorded("healthy-shop");
    server.fail(When::listing("pods"), Then::Forbidden);
    let table = run(&server, &[]);
    assert_eq!(table.status.code(), Some(3), "{}", text(&table));
    assert!(text(&table).contains("some checks could not be evaluated"), "{}", text(&table));
    assert!(text(&table).contains("not evaluated: Pod (forbidden"), "{}", text(&table));
    let json = run(&server, &["-o", "json"]);
    assert_eq!(json.status.code(), Some(3));
    let gaps = report(&json)["notEvaluated"].as_array().unwrap().clone();
    let pod_rules: Vec<&Value> =
        gaps.iter().filter(|gap| gap["kind"] == "Pod" && gap["reason"] == "forbidden").collect();
    assert!(pod_rules.iter().any(|gap| gap["rule"] == "pod/crash-loop"), "{gaps:?}");
    let allowed = run(&server, &["--allow-partial"]);
    assert_eq!(allowed.status.code(), Some(0), "{}", text(&allowed));
}

#[test]
fn findings_take_precedence_over_gaps() {
    let server = recorded("ingress-backends");
    server.fail(When::listing("pods"), Then::Forbidden);
    let output = run(&server, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

/// If any single kind is forbidden, a healthy cluster has no findings, and is not reported as healthy.
#[test]
fn forbidden_kinds_are_neither_healthy_nor_broken() {
    let server = recorded("healthy-shop");
    assert_eq!(run(&server, &[]).status.code(), Some(0));
    let listed: BTreeSet<String> = server
        .requests()
        .iter()
        .filter(|asked| asked.query.contains_key("limit"))
        .filter_map(|asked| asked.path.rsplit('/').next().map(str::to_string))
        .collect();
    assert!(listed.len() > 20, "{listed:?}");
    for resource in listed {
        let server = recorded("healthy-shop");
        server.fail(When::listing(&resource), Then::Forbidden);
        let output = run(&server, &["-o", "json"]);
        let report = report(&output);
        let serious: Vec<&Value> =
            report["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] != "info").collect();
        assert!(serious.is_empty(), "{resource} refused: {serious:#?}");
        let told = report["notEvaluated"].as_array().unwrap().iter().any(|gap| gap["reason"] == "forbidden");
        assert!(told && output.status.code() == Some(3), "{resource}: {:?}", output.status.code());
    }
}

#[test]
fn everything_forbidden_is_never_green() {
    let server = recorded("healthy-shop");
    server.fail(When::everything(), Then::Forbidden);
    let output = run(&server, &[]);
    assert!(matches!(output.status.code(), Some(3 | 4)), "{}", text(&output));
    let output = run(&server, &["-o", "json"]);
    if output.status.code() == Some(3) {
        assert_eq!(report(&output)["summary"]["rulesRun"], 0, "{}", text(&output));
    }
}

#[test]
fn an_unreachable_server_gives_exit_code_4() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, kubeconfig_of(&url, "default")).unwrap();
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    let output = command.env_clear().args(["analyze", "--kubeconfig"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    let message = text(&output);
    assert!(message.starts_with(&format!("error: cannot reach API server {url}: ")), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_missing_namespace_gives_exit_code_4() {
    let output = run(&recorded("healthy-shop"), &["-n", "nowhere"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("nowhere"), "{}", text(&output));
}

#[test]
fn a_namespace_limits_the_report() {
    let server = recorded("selector-mismatch");
    let output = run(&server, &["-n", "selector-mismatch", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let output = run(&server, &["-n", "kube-system", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(report(&output)["findings"], json!([]));
}

#[test]
fn logs_of_crashed_containers_are_fetched_by_default() {
    let server = recorded("crash-loop");
    for pod in ["worker-dd98d9f8b-tp79f", "worker-dd98d9f8b-wdddr"] {
        for previous in [false, true] {
            server.log("crash-loop", pod, "worker", previous, "fatal: the moon is not set\n");
        }
    }
    let with = run(&server, &[]);
    assert!(text(&with).contains("the moon is not set"), "{}", text(&with));
    let asked: Vec<String> =
        server.requests().iter().map(|asked| asked.line()).filter(|line| line.contains("/log")).collect();
    assert_eq!(asked.len(), 1, "one pod per workload: {asked:?}");
    let without = run(&server, &["--no-logs"]);
    assert!(!text(&without).contains("the moon is not set"), "{}", text(&without));
}

/// The number of requests depends on the number of kinds, not of objects.
#[test]
fn the_number_of_requests_is_independent_of_the_number_of_services() {
    let cluster = |services: usize| {
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "shop"}})];
        objects.extend((0..services).map(|n| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{n}"), "namespace": "shop",
                "uid": format!("s{n}")}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}})
        }));
        let server = ApiServer::start(objects);
        let output = run(&server, &["--fail-on", "never", "--allow-partial"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        server.requests().len()
    };
    let few = cluster(10);
    // A thousand objects need a second page.
    assert!(cluster(1000) <= few + 1, "{few}");
}

/// Runs the program with custom kubeconfigs.
fn with_kubeconfigs(files: &[String], arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<std::path::PathBuf> = (0..files.len()).map(|n| folder.path().join(format!("config-{n}"))).collect();
    for (path, file) in paths.iter().zip(files) {
        std::fs::write(path, file).unwrap();
    }
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    let list = std::env::join_paths(&paths).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("KUBECONFIG", list).env("PATH", path).arg("analyze").args(arguments).output().unwrap()
}

/// KUBECONFIG may be a list: the cluster in one file, the context that uses it in another.
#[test]
fn kubeconfig_lists_are_merged() {
    let server = recorded("selector-mismatch");
    let clusters = format!(
        "{{apiVersion: v1, kind: Config, clusters: [{{name: here, cluster: {{server: '{}'}}}}, \
         {{name: nowhere, cluster: {{server: 'http://127.0.0.1:1'}}}}]}}",
        server.url()
    );
    let contexts = "{apiVersion: v1, kind: Config, current-context: wrong, users: [{name: me, user: {token: t}}], contexts: [\
                    {name: wrong, context: {cluster: nowhere, user: me}}, {name: right, context: {cluster: here, user: me}}]}";
    let files = [clusters, contexts.to_string()];
    let right = with_kubeconfigs(&files, &["--context", "right", "--rule", "service/*", "-o", "json"]);
    assert_eq!(right.status.code(), Some(1), "{}", text(&right));
    assert_eq!(report(&right)["source"]["context"], "right");
    let by_cluster = with_kubeconfigs(&files, &["--cluster", "here", "--user", "me", "--rule", "service/*"]);
    assert_eq!(by_cluster.status.code(), Some(1), "{}", text(&by_cluster));
    let wrong = with_kubeconfigs(&files, &[]);
    assert_eq!(wrong.status.code(), Some(4), "{}", text(&wrong));
    let unknown = with_kubeconfigs(&files, &["--context", "none"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
    assert!(text(&unknown).contains("none"), "{}", text(&unknown));
}

#[test]
fn impersonation_headers_are_sent() {
    let server = recorded("selector-mismatch");
    let output = run(&server, &["--as", "jane", "--as-group", "dev", "--as-group", "ops", "--rule", "service/*"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let asked = server.requests();
    assert!(
        asked.iter().all(|asked| ["jane", "dev", "ops"].iter().all(|who| asked.impersonate.iter().any(|i| i == who)))
    );
}

/// Cloud providers issue tokens through credential plugins.
#[cfg(unix)]
#[test]
fn exec_plugins_provide_credentials() {
    let server = recorded("selector-mismatch");
    let config = |script: &str| {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: '{}'}}}}], \
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{exec: {{apiVersion: \
             client.authentication.k8s.io/v1, command: sh, args: ['-c', '{script}'], interactiveMode: Never}}}}}}]}}",
            server.url()
        )
    };
    let good = r#"echo "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"t\"}}""#;
    let output = with_kubeconfigs(&[config(good)], &["--rule", "service/*"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    for bad in ["echo rubbish", "exit 3"] {
        let output = with_kubeconfigs(&[config(bad)], &["--rule", "service/*"]);
        assert_eq!(output.status.code(), Some(4), "{}", text(&output));
        assert!(text(&output).starts_with("error: no credentials for "), "{}", text(&output));
    }
}
