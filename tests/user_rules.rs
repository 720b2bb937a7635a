//! Tests of custom rules: files, clusters, rule tests and errors.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::api_server::{ApiServer, Then, When};
use crate::program::{stderr, stdout};

const OWNERLESS: &str = r#"
rules:
- id: team/no-owner
  severity: warning
  summary: a workload that names no team
  kinds: [Deployment.apps, Shop.example.com]
  when: "!('team' in object.?metadata.?labels.orValue({}))"
  message: "{{ object.kind }} {{ object.metadata.name }} names no team"
  fix:
  - text: Say which
    command: kubectl -n {{ object.metadata.namespace }} label {{ object.kind }} {{ object.metadata.name }} team=TEAM
  tests:
  - object: {apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop}}
    expect: Deployment cart names no team
"#;

fn kubectl_gpt(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-gpt")).args(arguments).output().unwrap()
}

/// A temporary directory with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn path(folder: &tempfile::TempDir) -> &str {
    folder.path().to_str().unwrap()
}

fn analyze(rules: &str, objects: &Value, arguments: &[&str]) -> (Value, Option<i32>) {
    let input = folder(&[("objects.json", &objects.to_string())]);
    let file = input.path().join("objects.json");
    let given = ["analyze", "-o", "json", "--rules", rules, "-f", file.to_str().unwrap()];
    let output = kubectl_gpt(&[&given[..], arguments].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    (report, output.status.code())
}

fn deployment(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop", "labels": labels}})
}

fn shop(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Shop", "metadata": {"name": name, "namespace": "shop"}})
}

const ONLY: [&str; 2] = ["--rule", "team/*"];

#[test]
fn custom_rules_check_files() {
    let rules = folder(&[("team.yaml", OWNERLESS)]);
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        deployment("cart", json!({"app": "cart"})), deployment("web", json!({"team": "blue"})), shop("one"),
    ]});
    let (report, code) = analyze(path(&rules), &objects, &ONLY);
    let found: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|f| f["message"].as_str().unwrap()).collect();
    assert_eq!(found, ["Deployment cart names no team", "Shop one names no team"], "{report:#}");
    assert_eq!(report["findings"][0]["fix"][0]["command"], "kubectl -n shop label Deployment cart team=TEAM");
    assert_eq!(code, Some(0));
    let (_, code) = analyze(path(&rules), &objects, &["--rule", "team/*", "--fail-on", "warning"]);
    assert_eq!(code, Some(1));
}

#[test]
fn every_format_has_the_findings() {
    let rules = folder(&[("team.yaml", OWNERLESS)]);
    let input = folder(&[("cart.json", &deployment("cart", json!({})).to_string())]);
    let file = input.path().join("cart.json");
    for format in ["table", "wide", "json", "yaml", "markdown", "html", "sarif", "junit", "github", "prometheus"] {
        let arguments = ["analyze", "--rules", path(&rules), "-f", file.to_str().unwrap(), "-o", format];
        let output = kubectl_gpt(&[&arguments[..], &ONLY].concat());
        // HTML and Markdown escape some characters.
        assert!(stdout(&output).contains("no-owner"), "{format}: {}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn custom_rules_read_only_the_required_kinds() {
    let rules = folder(&[("team.yaml", OWNERLESS)]);
    let server = ApiServer::start(vec![deployment("cart", json!({})), shop("one")]);
    let kubeconfig = server.kubeconfig();
    let arguments = ["analyze", "-o", "json", "--crds", "none", "--rules", path(&rules), "--kubeconfig"];
    let run = || {
        let output = kubectl_gpt(&[&arguments[..], &[kubeconfig.to_str().unwrap()], &ONLY].concat());
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
        (report, output.status.code())
    };
    let (report, code) = run();
    assert_eq!(report["findings"].as_array().unwrap().len(), 2, "{report:#}");
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(server.requests_for("deployments").len(), 1);
    assert_eq!(server.requests_for("shops").len(), 1);

    // If one kind is forbidden, the other is still checked.
    server.fail(When::listing("shops"), Then::Forbidden);
    let (report, code) = run();
    assert_eq!(report["findings"].as_array().unwrap().len(), 1, "{report:#}");
    assert_eq!((report["notEvaluated"][0]["kind"].as_str(), code), (Some("Shop.example.com"), Some(3)));
}

#[test]
fn unserved_kinds_are_not_gaps() {
    let rules = folder(&[("team.yaml", OWNERLESS)]);
    let server = ApiServer::start(vec![deployment("cart", json!({"team": "blue"}))]);
    let kubeconfig = server.kubeconfig();
    let arguments = ["analyze", "--rules", path(&rules), "--rule", "team/no-owner", "--kubeconfig"];
    let output = kubectl_gpt(&[&arguments[..], &[kubeconfig.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
}

/// Only metadata of Secrets is listed, even for custom rules.
#[test]
fn secret_values_are_not_read() {
    let rules = folder(&[(
        "secrets.yaml",
        "rules: [{id: team/secret, severity: info, kinds: Secret, when: has(object.data), message: it has data}]",
    )]);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"},
                        "data": {"key": "c2VjcmV0"}});
    let server = ApiServer::start(vec![secret.clone()]);
    let kubeconfig = server.kubeconfig();
    let arguments = ["analyze", "-o", "json", "--rules", path(&rules), "--rule", "team/*", "--kubeconfig"];
    let output = kubectl_gpt(&[&arguments[..], &[kubeconfig.to_str().unwrap()]].concat());
    assert!(stdout(&output).contains(r#""findings": []"#), "{}", stdout(&output));
    let (report, _) = analyze(path(&rules), &secret, &ONLY);
    assert_eq!(report["findings"], json!([]), "{report:#}");
}

/// Values of ConfigMaps are listed only if a custom rule reads them.
#[test]
fn config_map_values_are_read_if_a_rule_needs_them() {
    let rules = folder(&[(
        "maps.yaml",
        "rules: [{id: team/map, severity: info, kinds: ConfigMap, when: \"object.data.level == 'debug'\", message: debug}]",
    )]);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "shop"},
                     "data": {"level": "debug"}});
    let server = ApiServer::start(vec![map]);
    let kubeconfig = server.kubeconfig();
    let arguments = ["analyze", "-o", "json", "--rules", path(&rules), "--rule", "team/*", "--kubeconfig"];
    let output = kubectl_gpt(&[&arguments[..], &[kubeconfig.to_str().unwrap()]].concat());
    assert!(stdout(&output).contains("team/map"), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn failing_expressions_are_reported_as_not_evaluated() {
    let rules = folder(&[(
        "replicas.yaml",
        "rules: [{id: team/replicas, severity: info, kinds: Deployment.apps, when: object.spec.replicas < 2, message: few}]",
    )]);
    let (report, code) = analyze(path(&rules), &deployment("cart", json!({})), &ONLY);
    let gap = &report["notEvaluated"][0];
    assert_eq!(
        (gap["rule"].as_str(), gap["reason"].as_str()),
        (Some("team/replicas"), Some("rule error")),
        "{report:#}"
    );
    assert!(gap["message"].as_str().unwrap().contains("spec"));
    assert_eq!(code, Some(3));
}

#[test]
fn errors_in_files_include_their_location() {
    let wrong = |text: &str| {
        let rules = folder(&[("a.yaml", text)]);
        let output = kubectl_gpt(&["analyze", "--rules", path(&rules), "-f", "/dev/null"]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    let said = wrong(&OWNERLESS.replace("object.?metadata.?labels", "obj.?metadata"));
    assert!(said.contains("a.yaml:7: rule team/no-owner: when: `") && said.contains("unknown variable obj"), "{said}");
    let said = wrong(&OWNERLESS.replace("object.kind }} {{", "object.kind + }} {{"));
    assert!(said.contains("a.yaml:8: rule team/no-owner: message: `object.kind +`"), "{said}");
    assert!(
        wrong(&OWNERLESS.replace("team/no-owner", "pod/crash-loop")).contains("already defined as a built-in rule")
    );
    assert!(wrong(&OWNERLESS.replace("severity: warning", "severity: bad")).contains("a.yaml"));
    assert!(wrong(&OWNERLESS.replace("when:", "if:")).contains("if"));
    assert!(wrong("rules: []").contains("file contains no rules"));
    assert!(wrong(&OWNERLESS.replace("kind: Deployment, m", "kind: Pod, m")).contains("kinds does not include Pod"));
    let empty = folder(&[]);
    let output = kubectl_gpt(&["rules", "--rules", path(&empty)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no .yaml files found"), "{}", stderr(&output));
}

#[test]
fn custom_rules_are_listed_and_documented() {
    let rules = folder(&[("team.yaml", OWNERLESS)]);
    let table = stdout(&kubectl_gpt(&["rules", "--rules", path(&rules)]));
    assert!(table.lines().any(|line| line.starts_with("team/no-owner")) && table.contains("pod/crash-loop"), "{table}");
    let page = stdout(&kubectl_gpt(&["rules", "team/no-owner", "--rules", path(&rules)]));
    assert!(page.contains("Deployment.apps, Shop.example.com") && page.contains("'team' in"), "{page}");
    assert_eq!(kubectl_gpt(&["rules", "team/no-owner"]).status.code(), Some(2));
}

#[test]
fn rule_tests_pass_or_show_the_difference() {
    let rules = folder(&[("team.yaml", OWNERLESS)]);
    let passed = kubectl_gpt(&["rules", "test", path(&rules)]);
    assert_eq!(passed.status.code(), Some(0), "{}", stderr(&passed));
    assert!(stdout(&passed).contains("1 test of 1 rule passed"), "{}", stdout(&passed));
    let rules = folder(&[("team.yaml", &OWNERLESS.replace("expect: Deployment cart", "expect: Deployment web"))]);
    let failed = kubectl_gpt(&["rules", "test", path(&rules)]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stdout(&failed).contains("got: Deployment cart names no team"), "{}", stdout(&failed));
}

#[test]
fn rule_directories_can_be_configured() {
    let place = folder(&[("kubectl-gpt.yaml", "rules: mine")]);
    fs::create_dir(place.path().join("mine")).unwrap();
    fs::write(place.path().join("mine/team.yaml"), OWNERLESS).unwrap();
    fs::write(place.path().join("cart.json"), deployment("cart", json!({})).to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-gpt"))
        .current_dir(place.path())
        .args(["analyze", "-f", "cart.json", "-o", "json", "--rule", "team/no-owner"])
        .output()
        .unwrap();
    assert!(stdout(&output).contains("Deployment cart names no team"), "{}{}", stdout(&output), stderr(&output));
}

/// The examples that the documentation refers to.
#[test]
fn the_examples_pass_their_own_tests() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("analyzers/custom");
    let output = kubectl_gpt(&["rules", "test", examples.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
}
