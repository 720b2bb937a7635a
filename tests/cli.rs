//! Tests of the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::program::{kubectl_gpt, recorded, report, stderr, stdout};

fn analyze(arguments: &[&str]) -> Output {
    kubectl_gpt(&["analyze"]).args(arguments).output().unwrap()
}

/// A file with these objects, in a temporary directory.
pub fn file(objects: &Value) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cluster.json");
    fs::write(&path, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
    (folder, path)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn exit_codes() {
    let broken = recorded("selector-mismatch");
    let healthy = recorded("healthy-shop");
    let cases: &[(&[&str], i32)] = &[
        (&["-f", &healthy], 0),
        (&["-f", &broken], 1),
        (&["-f", &broken, "--fail-on", "never"], 0),
        (&["-f", &broken, "--fail-on", "warning"], 1),
        (&["-f", &broken, "--no-such-flag"], 2),
        (&["-f", &broken, "--rule", "service/selector"], 2),
        (&["-f", &broken, "-l", "app in x"], 2),
        (&["-f", &broken, "-n", "nowhere"], 4),
        (&["-f", "no/such/file.json"], 4),
        (&["-f", "Cargo.toml"], 4),
        (&["--kubeconfig", "no/such/kubeconfig"], 2),
    ];
    for (arguments, code) in cases {
        let output = analyze(arguments);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn standard_output_contains_only_the_report() {
    let output = analyze(&["-f", "no/such/file.json", "-o", "json"]);
    assert_eq!(stdout(&output), "");
    assert_eq!(stderr(&output), "error: reading no/such/file.json: No such file or directory (os error 2)\n");
}

#[test]
fn json_follows_the_schema() {
    let schema = crate::schema::closed();
    let mut findings = 0;
    for folder in crate::expectations::folders("scenarios") {
        let output = analyze(&["-o", "json", "-f", path(&folder.join("cluster.json"))]);
        let report = report(&output);
        let errors: Vec<String> = schema.iter_errors(&report).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{folder:?}: {errors:?}");
        findings += report["findings"].as_array().unwrap().len();
    }
    assert!(findings > 0);
}

/// Services with arbitrary names and selectors, as a hostile file may contain.
pub fn hostile_cluster() -> (tempfile::TempDir, PathBuf) {
    let service = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})
    };
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop", "labels": {"app": "p"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    ];
    objects.extend(HOSTILE.map(service));
    file(&json!(objects))
}

pub const HOSTILE: [&str; 24] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=y>",
    "{{ 7 * 7 }}",
    "@everyone #1",
    "```\n</details>",
    "| a | b |",
    "yes",
    "null",
    "~",
    "1e3",
    "0x1f",
    "012",
    "- a",
    "a: b",
    "# c",
    "&a *b !c",
    "'\"\\",
    "---\n...",
    "%YAML 1.2",
    " lead and trail ",
    "\u{1b}[2J",
    "\u{202e}x\u{200b}",
    "\u{85}\u{2028}\u{feff}",
    "a\nb\n\n  c\t",
];

#[test]
fn yaml_equals_json_for_hostile_names() {
    let (_folder, cluster) = hostile_cluster();
    let run = |format| analyze(&["-o", format, "-f", path(&cluster)]);
    let yaml: Value = serde_saphyr::from_str(&stdout(&run("yaml"))).unwrap();
    let json = report(&run("json"));
    assert_eq!(yaml, json);
    assert!(json["findings"].as_array().unwrap().len() >= HOSTILE.len(), "{json}");
}

#[test]
fn names_are_escaped_in_html_and_markdown() {
    let (_folder, cluster) = hostile_cluster();
    let html = stdout(&analyze(&["-o", "html", "-f", path(&cluster)]));
    for wrong in ["<script>alert", "<img", ">49<", "\u{1b}", "\u{202e}", "\u{85}"] {
        assert!(!html.contains(wrong), "{wrong:?}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)&lt;"), "{html}");
    assert!(html.contains("{{ 7 * 7 }}"), "{html}");
    assert_eq!(html.matches("</script>").count(), 1);
    let markdown = stdout(&analyze(&["-o", "markdown", "-f", path(&cluster)]));
    let outside_of_fences = |text: &str| {
        let mut inside = false;
        let lines = text.lines().filter(|line| {
            let fence = line.starts_with("```");
            inside ^= fence;
            !inside && !fence
        });
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let text = outside_of_fences(&markdown);
    for wrong in ["<script", "<img", "@everyone", "#1", "| a |", "\u{1b}", "\u{202e}"] {
        assert!(!text.contains(wrong), "{wrong:?} in {text}");
    }
    assert_eq!(text.matches("<details>").count(), text.matches("\n</details>\n").count());
}

/// The page loads no external resources.
#[test]
fn html_is_self_contained() {
    let html = stdout(&analyze(&["-o", "html", "-f", &recorded("selector-mismatch")]));
    for wrong in ["<link", "src=", "url(", "@import", "fetch("] {
        assert!(!html.contains(wrong), "{wrong}");
    }
    assert!(html.contains("<ul class=\"tree\">"), "{html}");
    assert!(html.contains("id=\"filter\"") && !html.contains("Not evaluated"), "{html}");
    let healthy = stdout(&analyze(&["-o", "html", "-f", &recorded("healthy-shop")]));
    assert!(healthy.contains("<h1>No problems found</h1>") && !healthy.contains("id=\"filter\""), "{healthy}");
    assert!(html.contains("Service cart selects no pod"), "{html}");
}

/// Rules that need the kind of an undecodable object are not evaluated, which affects the exit code.
#[test]
fn undecodable_items_are_reported() {
    let (_folder, cluster) = file(&json!([
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"containers": 5}},
    ]));
    let output = analyze(&["-o", "json", "-f", path(&cluster), "--rule", "service/selector-matches-nothing"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let gap = &report(&output)["notEvaluated"][0];
    assert_eq!(gap["name"], "Pod shop/p");
    assert_eq!(gap["reason"], "malformed");
    let html = stdout(&analyze(&["-o", "html", "-f", path(&cluster)]));
    assert!(
        html.contains("some checks could not be evaluated</h1>") && html.contains("<h2>Not evaluated</h2>"),
        "{html}"
    );
    let allowed = analyze(&["-f", path(&cluster), "--rule", "service/selector-matches-nothing", "--allow-partial"]);
    assert_eq!(allowed.status.code(), Some(0));
    let table = stdout(&allowed);
    assert!(table.contains("some checks could not be evaluated"), "{table}");
    assert!(table.contains("not evaluated: Pod shop/p"), "{table}");
}

#[test]
fn kinds_missing_in_partial_input_are_listed_and_do_not_fail() {
    let (_folder, objects) = file(
        &json!([{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop", "uid": "1"},
            "spec": {"selector": {"app": "s"}}}]),
    );
    let output = analyze(&["-f", path(&objects), "--rule", "service/selector-matches-nothing"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).contains("not in the input: Pod"), "{}", stdout(&output));
}

#[test]
fn names_are_escaped_in_tables() {
    let (_folder, objects) = file(&json!([
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a\u{1b}[2Jb", "namespace": "shop"},
            "spec": {"selector": {"app": "\u{202e}x"}}}]));
    let output = analyze(&["-f", path(&objects), "--color", "never"]);
    let table = stdout(&output);
    assert!(!table.contains('\u{1b}') && !table.contains('\u{202e}'), "{table:?}");
    assert!(table.contains("\\u{1b}[2Jb"), "{table}");
}

#[test]
fn colors_on_request_only() {
    let broken = recorded("selector-mismatch");
    let run = |variables: &[(&str, &str)], arguments: &[&str]| {
        let output = kubectl_gpt(&[])
            .args(["analyze", "-f", &broken])
            .args(arguments)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        stdout(&output).contains('\u{1b}')
    };
    assert!(!run(&[], &[]), "piped");
    assert!(run(&[("CLICOLOR_FORCE", "1")], &[]));
    assert!(run(&[], &["--color", "always"]));
    assert!(!run(&[("CLICOLOR_FORCE", "1")], &["--color", "never"]));
    assert!(!run(&[("NO_COLOR", "1")], &[]));
}

/// Shortened text ends in an ellipsis, or in three dots if the locale is not UTF-8.
#[test]
fn tables_honor_the_locale() {
    let ready = json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "no network ".repeat(90),
        "lastTransitionTime": "2026-11-20T10:00:00Z", "lastHeartbeatTime": "2026-11-20T12:00:00Z"});
    let (_folder, cluster) = file(&json!([
        {"apiVersion": "v1", "kind": "Node", "status": {"conditions": [ready]},
            "metadata": {"name": "n", "uid": "n", "creationTimestamp": "2026-11-19T10:00:00Z"}},
        {"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "uid": "s", "creationTimestamp": "2026-11-20T12:00:00Z"}}]));
    let run = |locale: &[(&str, &str)], format| {
        let mut command = kubectl_gpt(&[]);
        command.args(["analyze", "-o", format, "-f", path(&cluster)]).envs(locale.iter().copied());
        stdout(&command.output().unwrap())
    };
    assert!(run(&[("LANG", "en_US.UTF-8")], "table").contains('…'));
    for locale in [&[][..], &[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]] {
        let table = run(locale, "table");
        assert!(table.is_ascii() && table.contains("..."), "{table}");
    }
    assert_eq!(run(&[], "json"), run(&[("LANG", "en_US.UTF-8")], "json"), "JSON does not depend on the locale");
}

#[test]
fn selects_by_namespace_and_label() {
    let broken = recorded("selector-mismatch");
    let services = |arguments: &[&str]| {
        let output = analyze(&[&["-o", "json", "-f", &broken, "--rule", "service/*"], arguments].concat());
        report(&output)["findings"].as_array().unwrap().len()
    };
    assert_eq!(services(&["-n", "selector-mismatch"]), 1);
    assert_eq!(services(&["-n", "kube-system"]), 0);
    assert_eq!(services(&["-l", "no=such"]), 0);
    assert_eq!(services(&["-l", "!no"]), 1);
}

#[test]
fn reads_standard_input_gzip_yaml_and_directories() {
    use std::io::Write;

    let plain = fs::read(recorded("selector-mismatch")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let yaml = serde_saphyr::to_string(&serde_json::from_slice::<Value>(&plain).unwrap()).unwrap();
    let expected = kubectl_gpt(&[]).args(["analyze", "-f", &recorded("selector-mismatch")]).output().unwrap().stdout;
    for input in [plain.clone(), gzip.finish().unwrap(), yaml.into_bytes()] {
        let output = kubectl_gpt(&[]).args(["analyze", "-f", "-"]).write_stdin(input).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&expected), "{}", stderr(&output));
    }
    let folder = analyze(&["-f", "tests/scenarios/selector-mismatch"]);
    assert_eq!(folder.status.code(), Some(1), "{}", stderr(&folder));
    // Manifests next to a recording are skipped.
    let healthy = analyze(&["-f", "tests/scenarios/healthy-shop"]);
    assert_eq!(healthy.status.code(), Some(0), "{}", stdout(&healthy));
    let said = stdout(&healthy).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("in manifests next to the recording"), "{said}");
}

#[test]
fn rules_are_listed_and_documented() {
    let table = stdout(&kubectl_gpt(&[]).arg("rules").output().unwrap());
    assert!(table.contains("service/selector-matches-nothing"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let page = stdout(&kubectl_gpt(&[]).args(["rules", "service/selector-matches-nothing"]).output().unwrap());
    for heading in ["What it checks", "Why it matters", "How to confirm", "How to fix", "Exceptions"] {
        assert!(page.contains(&format!("\n## {heading}\n")), "{page}");
    }
    let unknown = kubectl_gpt(&[]).args(["rules", "service/selector"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("did you mean service/selector-matches-nothing"), "{}", stderr(&unknown));
}

#[test]
fn trace_reports_where_a_connection_is_blocked() {
    let trace = |scenario: &str, arguments: &[&str]| {
        let output = kubectl_gpt(&[])
            .args(["trace", "-n", scenario, "-f", &recorded(scenario)])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), stdout(&output) + &stderr(&output))
    };
    let (code, text) = trace("healthy-shop", &["deploy/web", "svc/api"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("web-to-api") && text.contains("api-in") && text.ends_with("open\n"), "{text}");
    let (code, text) = trace("healthy-shop", &["deploy/api", "svc/db"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = trace("healthy-shop", &["deploy/web", "svc/db"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("db-in") && text.contains("default-deny"), "{text}");
    let (code, text) = trace("netpol-gaps", &["deploy/front", "svc/back"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("NetworkPolicy netpol-gaps/back-in (ingress policy)"), "{text}");
    assert!(text.contains("opens port 80, not 9000"), "{text}");
    let (code, text) = trace("selector-mismatch", &["ingress/cart"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("closed at Service selector-mismatch/cart"), "{text}");
    let (code, text) = trace("healthy-shop", &["deploy/none", "svc/api"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("Deployment none not found in namespace healthy-shop"), "{text}");
    let (code, text) = trace("healthy-shop", &["-o", "json", "internet", "svc/web"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert!(code.is_some() && json["hops"].as_array().is_some_and(|hops| !hops.is_empty()), "{text}");
}

#[test]
fn wide_has_one_line_per_finding() {
    let output = analyze(&["-o", "wide", "-f", &recorded("not-ready")]);
    let text = stdout(&output);
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header[..4], ["SEVERITY", "NAMESPACE", "OBJECT", "RULE"], "{text}");
    let first: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(first[..5], ["error", "not-ready", "Deployment/search", "pod/not-ready", "2"], "{text}");
}

#[test]
fn min_severity_never_hides_failing_findings() {
    let workloads = recorded("workloads");
    let severities = |least: &str| {
        let output = analyze(&["-o", "json", "-f", &workloads, "--min-severity", least]);
        let findings = report(&output)["findings"].as_array().unwrap().clone();
        findings.iter().map(|f| f["severity"].as_str().unwrap().to_string()).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(severities("info").contains("warning"));
    assert_eq!(severities("error").into_iter().collect::<Vec<_>>(), ["error"]);
    let contradiction = analyze(&["-f", &workloads, "--min-severity", "error", "--fail-on", "warning"]);
    assert_eq!(contradiction.status.code(), Some(2), "{}", stderr(&contradiction));
}

/// `kubectl-gpt … | head -1`
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_not_an_error() {
    use std::process::{Command, Stdio};

    let mut child = Command::new(assert_cmd::cargo::cargo_bin("kubectl-gpt"))
        .args(["analyze", "-o", "json", "-f", &recorded("selector-mismatch")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(1));
}
