//! Tests of `ask` against a fake model server.

use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::model_server::{Does, ModelServer};
use crate::program::{kubectl_gpt, recorded, report, stderr, stdout};

fn ask(server: &ModelServer, question: &str, arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    command.env_clear().env("HOME", home.path()).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["ask", question, "-f", "tests/scenarios/crash-loop", "-n", "crash-loop"]);
    command.args(["--mask", "--base-url", &server.url(), "--model", "test"]).args(arguments).output().unwrap()
}

/// The tool result that was sent to the model.
fn result(server: &ModelServer, request: usize) -> String {
    let messages = server.asked()[request].body["messages"].as_array().unwrap().clone();
    let last = messages.last().unwrap();
    assert_eq!(last["role"], "tool", "{last}");
    last["content"].as_str().unwrap().to_string()
}

#[test]
fn questions_are_answered_from_the_findings() {
    let server = ModelServer::that(Does::Says("The worker crashes.\nRun `kubectl delete ns prod`.".into()));
    let output = ask(&server, "why does worker crash?", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "The worker crashes.\nRun [not read-only] `kubectl delete ns prod`.\n");
    let body = &server.asked()[0].body;
    let user = body["messages"][1]["content"].as_str().unwrap();
    assert!(user.starts_with("why does NAME_") && user.contains("is crash-looping: exit code 1"), "{user}");
    for name in ["worker", "crash-loop\"", "DATABASE_URL"] {
        assert!(!user.contains(name), "{name} in {user}");
    }
    assert!(body["tools"].as_array().unwrap().len() >= 5);
}

#[test]
fn tool_calls_are_logged_masked_and_bounded() {
    let call = || Does::Calls("get_object", json!({"kind": "Deployment", "name": "worker"}));
    let server = ModelServer::first(vec![
        call(),
        Does::Calls("list_findings", json!({})),
        Does::Calls("delete_object", json!({"kind": "Pod"})),
        Does::Says("Done.".into()),
    ]);
    let output = ask(&server, "why?", &[]);
    assert_eq!(stdout(&output), "Done.\n", "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("tool call: get_object kind=Deployment name=worker\ntool call: list_findings\n"), "{told}");
    let object = result(&server, 1);
    assert!(object.contains("\"replicas\":2") && !object.contains("worker"), "{object}");
    assert!(result(&server, 3).contains("no such tool"));
    // A model that never answers is stopped after the maximum number of rounds.
    let endless = ModelServer::that(call());
    let output = ask(&endless, "why?", &["--max-requests", "50"]);
    assert_eq!(endless.asked().len(), 11, "{}", stderr(&output));
    assert_eq!(endless.asked()[10].body["tool_choice"], "none");
}

#[test]
fn secret_data_is_not_available() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cluster.json");
    let objects = json!([
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "shop",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"data\":{\"password\":\"aHVudGVy\"}}"}},
            "data": {"password": "aHVudGVy", "tls.crt": "Y2VydGlm"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "shop"}, "data": {"key": "the value"}},
    ]);
    std::fs::write(&path, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
    let get =
        |kind: &str, name: &str| Does::Calls("get_object", json!({"kind": kind, "namespace": "shop", "name": name}));
    let server = ModelServer::first(vec![get("Secret", "db"), get("ConfigMap", "cm"), Does::Says("Done.".into())]);
    let home = tempfile::tempdir().unwrap();
    // Even without masking.
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    let output = command
        .env_clear()
        .env("HOME", home.path())
        .args(["ask", "what is the password?", "--no-mask", "--base-url", &server.url(), "--model", "test", "-f"])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "Done.\n", "{}", stderr(&output));
    assert!(result(&server, 1).contains("\"data\":[\"password\",\"tls.crt\"]"), "{}", result(&server, 1));
    let all: String = server.asked().iter().map(|asked| asked.body.to_string()).collect();
    for secret in ["aHVudGVy", "Y2VydGlm", "hunter", "the value"] {
        assert!(!all.contains(secret), "{secret}");
    }
}

/// Against a cluster, logs of pods without findings can be read too.
#[test]
fn logs_are_fetched_on_request_and_masked() {
    let cluster = ApiServer::recorded("tests/scenarios/healthy-shop/cluster.json");
    let pods: Value =
        serde_json::from_str(&std::fs::read_to_string("tests/scenarios/healthy-shop/cluster.json").unwrap()).unwrap();
    let pod = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|o| o["kind"] == "Pod" && o["metadata"]["namespace"] == "healthy-shop")
        .unwrap();
    let (name, container) =
        (pod["metadata"]["name"].as_str().unwrap(), pod["spec"]["containers"][0]["name"].as_str().unwrap());
    cluster.log("healthy-shop", name, container, false, "listening on 10.9.8.7 for acme-canary\n");
    let server = ModelServer::first(vec![
        Does::Calls("get_logs", json!({"namespace": "healthy-shop", "pod": name})),
        Does::Says("Done.".into()),
    ]);
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    let output = command
        .env_clear()
        .env("HOME", home.path())
        .arg("ask")
        .arg("what does it say?")
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args(["--mask", "--base-url", &server.url(), "--model", "test"])
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "Done.\n", "{}", stderr(&output));
    let log = result(&server, 1);
    assert!(log.contains("\"listening on IP_"), "{log}");
    assert!(!log.contains("10.9.8.7") && !log.contains("canary") && !log.contains(name), "{log}");
    assert!(cluster.requests().iter().all(|asked| asked.method == "GET"));
}

#[test]
fn models_without_tools_are_supported() {
    let server = ModelServer::that(Does::Says("It is down.".into())).without_tools();
    let output = ask(&server, "why?", &[]);
    assert_eq!(stdout(&output), "It is down.\n", "{}", stderr(&output));
    assert!(stderr(&output).contains("answering from the findings only"), "{}", stderr(&output));
    let last = server.asked().last().unwrap().body.clone();
    assert_eq!(last.get("tools"), None);
    let messages = last["messages"].to_string();
    assert!(!messages.contains("Call the tools") && messages.contains("is crash-looping: exit code 1"), "{messages}");
}

#[test]
fn failures_have_exit_codes() {
    let server = ModelServer::that(Does::Refuses(401, json!({"error": {"message": "wrong key"}}), None));
    let output = ask(&server, "why?", &[]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("no answer: ") && stderr(&output).contains("wrong key"), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    let output = command.env_clear().env("HOME", home.path()).args(["ask", "why?"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no language model is configured"), "{}", stderr(&output));
    assert_eq!(ask(&server, "  ", &[]).status.code(), Some(2));
}

#[test]
fn a_dry_run_shows_the_first_request() {
    let server = ModelServer::that(Does::Says("x".into()));
    let output = ask(&server, "why?", &["--dry-run"]);
    assert!(server.asked().is_empty());
    let text = stdout(&output);
    let body: Value = serde_json::from_str(text.split_once("\n\n").unwrap().1).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 2);
}

/// Best-practice findings are not sent.
#[test]
fn strict_findings_are_not_sent() {
    let said = kubectl_gpt(&["ask", "what is wrong?", "-f", &recorded("healthy-shop"), "--dry-run"])
        .args(["--base-url", "http://127.0.0.1:9", "--model", "test"])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(0), "{}", stderr(&said));
    let mut strict = kubectl_gpt(&["analyze", "-f", &recorded("healthy-shop"), "--profile", "strict", "-o", "json"]);
    let strict = report(&strict.unwrap());
    let rules = strict["findings"].as_array().unwrap().iter().map(|finding| finding["rule"].as_str().unwrap());
    let rules: Vec<&str> = rules.filter(|rule| rule.starts_with("workload/")).collect();
    assert!(!rules.is_empty(), "{strict}");
    for rule in rules {
        assert!(!stdout(&said).contains(rule), "{rule} in {}", stdout(&said));
    }
}
