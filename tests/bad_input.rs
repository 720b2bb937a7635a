//! Invalid input of any kind ends with a clear error: no panic, no hang, bounded memory.

use std::io::Write;
use std::process::Output;
use std::time::{Duration, Instant};

use assert_cmd::Command;

fn analyze(input: impl Into<Vec<u8>>) -> Output {
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    let start = Instant::now();
    let output =
        command.args(["analyze", "-f", "-"]).write_stdin(input).timeout(Duration::from_secs(60)).output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(60), "it hangs");
    output
}

/// Asserts exit code 4 and a one-line error that contains `because`.
#[track_caller]
fn refused(input: impl Into<Vec<u8>>, because: &str) {
    let output = analyze(input);
    let message = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(4), "{message}");
    assert!(message.contains(because), "{message}");
    assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
}

/// Asserts that the broken part is reported and the rest is read.
#[track_caller]
fn incomplete(input: impl Into<Vec<u8>>, because: &str) {
    let output = analyze(input);
    let report = String::from_utf8_lossy(&output.stdout).to_string();
    assert_eq!(output.status.code(), Some(3), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains(because), "{report}");
}

const NODE: &str = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}"#;
const NAMESPACE: &str = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}"#;

/// A recording of a whole cluster with one additional item.
fn with_item(item: &str) -> String {
    format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{NODE}, {NAMESPACE}, {item}]}}"#)
}

#[test]
fn truncated_files() {
    let whole = with_item(NODE);
    refused(&whole[..whole.len() / 2], "unexpected end of JSON");
}

#[test]
fn empty_input() {
    refused("", "file is empty");
    refused(" \n\n", "file is empty");
    refused("# only a comment\n", "no Kubernetes objects found in");
}

#[test]
fn binary_noise() {
    refused(vec![0xff, 0xfe, 0x00, 0x01, 0x9c], "not a text file");
    refused(vec![0x1f, 0x8b, 0x00, 0x01, 0x9c], "decompressing");
    refused("\u{0}\u{1}\u{2}", "expected Kubernetes objects in JSON or YAML");
}

#[test]
fn unrelated_text() {
    refused("hello world", "expected Kubernetes objects in JSON or YAML");
    refused("[1, 2, 3]", "no Kubernetes objects could be read");
    refused(r#"{"hello": "world"}"#, "no apiVersion and kind");
    refused("key: [unclosed\n", "line 1");
}

#[test]
fn yaml_bombs() {
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (previous, next) in ('a'..='h').zip('b'..='i') {
        let references = vec![format!("*{previous}"); 9].join(",");
        bomb.push_str(&format!("{next}: &{next} [{references}]\n"));
    }
    refused(bomb, "expected Kubernetes objects in JSON or YAML");
}

#[test]
fn gzip_bombs() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..512 {
        gzip.write_all(&zeros).unwrap();
    }
    refused(gzip.finish().unwrap(), "file is larger than");
}

#[test]
fn deep_nesting() {
    let nested = |api_version: &str, kind: &str| {
        let spec = r#"{"affinity":"#.repeat(50_000) + "1" + &"}".repeat(50_000);
        format!(r#"{{"apiVersion": "{api_version}", "kind": "{kind}", "metadata": {{"name": "p"}}, "spec": {spec}}}"#)
    };
    // Only known fields are parsed; all others are skipped at any depth.
    assert_eq!(analyze(with_item(&nested("v1", "Pod"))).status.code(), Some(0));
    assert_eq!(analyze(with_item(&nested("example.com/v1", "Widget"))).status.code(), Some(0));
    refused("[".repeat(100_000), "unexpected end of JSON");
    refused(format!("a: {}", "[".repeat(100_000)), "expected Kubernetes objects in JSON or YAML");
}

#[test]
fn items_that_are_not_objects() {
    for item in ["null", "5", r#""text""#, "[]", "{}", r#"{"apiVersion": "v1"}"#] {
        incomplete(with_item(item), "item 3 of standard input");
    }
}

#[test]
fn missing_metadata() {
    incomplete(with_item(r#"{"apiVersion": "v1", "kind": "Pod", "metadata": null}"#), "no metadata.name");
    incomplete(with_item(r#"{"apiVersion": "v1", "kind": "Pod"}"#), "no metadata.name");
    incomplete(with_item(r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 5}}"#), "item 3");
}

#[test]
fn null_is_treated_as_absent() {
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop", "labels": null,
        "annotations": null, "ownerReferences": null}, "spec": {"containers": null, "volumes": null, "nodeSelector": null},
        "status": {"conditions": null, "containerStatuses": null}}"#;
    let output = analyze(with_item(pod));
    assert_ne!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stdout));
    assert_ne!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn one_broken_document_of_many() {
    let yaml = format!("{NODE}\n---\n{NAMESPACE}\n---\nkind: [\n---\n# nothing\n---\n{NODE}\n");
    // The stream starts with a brace and would be parsed as JSON; a comment makes it YAML.
    incomplete(format!("# a recording\n{yaml}"), "document at line 5 of standard input");
}

#[test]
fn extreme_numbers() {
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop",
        "creationTimestamp": "9998-12-31T23:59:59Z", "generation": -9223372036854775808},
        "spec": {"terminationGracePeriodSeconds": 9223372036854775807, "containers": [{"name": "c", "resources": {"requests":
        {"cpu": "9999999999999999999999999999999999999999E", "memory": "-1e400"}},
        "readinessProbe": {"periodSeconds": 2147483647, "failureThreshold": 2147483647, "initialDelaySeconds": -2147483648}}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": -2147483648}]}}"#;
    let output = analyze(with_item(pod));
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stdout));
}
