//! Tests of machine-readable formats: always valid, and never successful if checks could not be evaluated.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use regex::Regex;
use serde_json::{Value, json};

use crate::cli::{HOSTILE, hostile_cluster};
use crate::expectations::folders;
use crate::program::{kubectl_gpt, recorded, stderr, stdout};

fn analyze(arguments: &[&str]) -> Output {
    kubectl_gpt(&["analyze"]).args(arguments).output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// All recorded clusters, one with hostile names, and one with an undecodable pod.
fn clusters() -> (tempfile::TempDir, tempfile::TempDir, Vec<PathBuf>) {
    let (hostile_folder, hostile) = hostile_cluster();
    let (broken_folder, broken) = broken_cluster();
    let mut paths: Vec<PathBuf> = folders("scenarios").into_iter().map(|folder| folder.join("cluster.json")).collect();
    paths.extend([hostile, broken]);
    (hostile_folder, broken_folder, paths)
}

fn broken_cluster() -> (tempfile::TempDir, PathBuf) {
    crate::cli::file(&json!([
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"containers": 5}},
    ]))
}

// SARIF

fn sarif(input: &Path) -> Value {
    let output = analyze(&["-o", "sarif", "-f", path(input)]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)))
}

fn sarif_schema() -> jsonschema::Validator {
    let schema = fs::read_to_string("tests/sarif-schema-2.1.0.json").unwrap();
    let mut schema: Value = serde_json::from_str(&schema).unwrap();
    // The schema contains a regular expression that is invalid in Unicode mode: it has an extra `]`.
    for with_language in ["run", "toolComponent"] {
        let language = schema["definitions"][with_language]["properties"]["language"].as_object_mut().unwrap();
        assert_eq!(language.remove("pattern").unwrap(), "^[a-zA-Z]{2}|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$");
    }
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn sarif_follows_the_official_schema() {
    let schema = sarif_schema();
    let (_hostile, _broken, clusters) = clusters();
    let mut results = 0;
    for cluster in &clusters {
        let log = sarif(cluster);
        let errors: Vec<String> = schema.iter_errors(&log).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{cluster:?}: {errors:?}");
        let run = &log["runs"][0];
        for result in run["results"].as_array().unwrap() {
            let rule = &run["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
            assert_eq!(rule["id"], result["ruleId"]);
            assert!(rule["help"]["markdown"].as_str().unwrap().contains("## How to fix"), "{rule}");
            assert!(result["partialFingerprints"]["kubectlGptFinding/v1"].as_str().unwrap().len() == 12);
            results += 1;
        }
        assert_eq!(log.to_string().matches("](javascript").count(), 0);
    }
    assert!(results > 30);
}

/// Ignored findings are included only on request, as suppressed results: by the annotation (`inSource`), by the
/// configuration file or the baseline (`external`).
#[test]
fn sarif_includes_ignored_findings_as_suppressed_results() {
    let (folder, input) = crate::cli::file(&json!([
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "creationTimestamp": "2026-11-21T12:00:00Z"}},
        service("annotated", json!({"kubectl-gpt.io/ignore": "service/*=team X {0} until 2099-01-01"})),
        service("configured", json!({})),
        service("known", json!({})),
        service("new", json!({})),
    ]));
    let config = folder.path().join("kubectl-gpt.yaml");
    fs::write(&config, "ignore:\n- {names: configured, rules: service/*, reason: team Y}\n").unwrap();
    let baseline = folder.path().join("baseline.json");
    let written = analyze(&["-f", path(&input), "-o", "json", "--write-baseline", path(&baseline)]);
    let found: Value = serde_json::from_slice(&written.stdout).unwrap();
    let known = found["findings"].as_array().unwrap().iter().find(|f| f["object"]["name"] == "known").unwrap();
    let entry = json!({"id": known["id"], "rule": known["rule"], "object": "Service shop/known"});
    fs::write(&baseline, json!({"schemaVersion": "1", "findings": [entry]}).to_string()).unwrap();
    let log = |more: &[&str]| -> Value {
        let arguments = ["-o", "sarif", "-f", path(&input), "--config", path(&config), "--baseline", path(&baseline)];
        let output = analyze(&[&arguments, more].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)))
    };
    let names = |log: &Value| -> Vec<String> {
        let results = log["runs"][0]["results"].as_array().unwrap().iter();
        results.map(|r| r["locations"][0]["logicalLocations"][0]["name"].as_str().unwrap().to_string()).collect()
    };

    // They are omitted by default: GitHub code scanning ignores `suppressions`.
    let plain = log(&[]);
    assert_eq!(names(&plain), ["new"]);
    assert_eq!(plain["runs"][0]["results"][0].get("suppressions"), None);

    let all = log(&["--show-ignored"]);
    let errors: Vec<String> = sarif_schema().iter_errors(&all).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(names(&all), ["new", "annotated", "configured", "known"]);
    let results = all["runs"][0]["results"].as_array().unwrap();
    // Either all results have the property or none.
    assert_eq!(results[0]["suppressions"], json!([]));
    let suppression = |n: usize| &results[n]["suppressions"][0];
    assert_eq!(
        suppression(1),
        &json!({"kind": "inSource", "status": "accepted", "justification": "team X {0}", "properties": {"expires": "2099-01-01"}})
    );
    let place = |n: usize| &suppression(n)["location"]["physicalLocation"];
    let uri = |file: &Path| json!(format!("file://{}", path(file)));
    assert_eq!((&suppression(2)["kind"], &suppression(2)["justification"]), (&json!("external"), &json!("team Y")));
    assert_eq!(place(2), &json!({"artifactLocation": {"uri": uri(&config)}, "region": {"startLine": 2}}));
    assert_eq!((&suppression(3)["kind"], &suppression(3)["status"]), (&json!("external"), &json!("accepted")));
    assert_eq!(place(3), &json!({"artifactLocation": {"uri": uri(&baseline)}}));
    for result in results {
        let rule = &all["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
    }
}

/// A Service without endpoints.
fn service(name: &str, annotations: Value) -> Value {
    let created = "2026-11-10T10:00:00Z";
    let metadata = json!({"name": name, "namespace": "shop", "uid": name, "creationTimestamp": created, "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}})
}

#[test]
fn sarif_locations_of_live_objects_are_names() {
    let log = sarif(Path::new(&recorded("selector-mismatch")));
    let run = &log["runs"][0];
    let cart =
        run["results"].as_array().unwrap().iter().find(|r| r["ruleId"] == "service/selector-matches-nothing").unwrap();
    assert_eq!(cart["level"], "error");
    let place = &cart["locations"][0]["logicalLocations"][0];
    assert_eq!(place["fullyQualifiedName"], "selector-mismatch/Service/cart");
    assert_eq!(run["invocations"][0]["executionSuccessful"], true);
}

#[test]
fn sarif_of_incomplete_runs_is_unsuccessful() {
    let (_folder, broken) = broken_cluster();
    let log = sarif(&broken);
    let invocation = &log["runs"][0]["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    let told = invocation["toolExecutionNotifications"].as_array().unwrap();
    let pod = told.iter().find(|n| n["message"]["text"].as_str().unwrap().contains("Pod shop/p")).unwrap();
    assert_eq!((&pod["level"], &pod["descriptor"]["id"]), (&json!("error"), &json!("malformed")));
}

/// Findings about manifests have the right line, also in files with unusual names.
#[test]
fn manifests_have_a_file_and_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web, app.yaml");
    fs::write(&file, MANIFESTS).unwrap();
    let log = sarif(&file);
    let place = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    let uri = place["artifactLocation"]["uri"].as_str().unwrap();
    assert!(uri.starts_with("file:///") && uri.ends_with("/web%2C%20app.yaml"), "{uri}");
    let line = place["region"]["startLine"].as_u64().unwrap();
    assert!((1..=6).contains(&line), "{line}");
    let github = stdout(&analyze(&["-o", "github", "-f", path(&file)]));
    assert!(github.contains(&format!("/web%2C app.yaml,line={line},title=")), "{github}");
    let junit = stdout(&analyze(&["-o", "junit", "-f", path(&file)]));
    assert!(junit.contains(&format!("line=\"{line}\"")), "{junit}");
    for format in ["table", "markdown", "html"] {
        let said = stdout(&analyze(&["-o", format, "-f", path(&file)]));
        assert!(said.contains(&format!("app.yaml:{line}")), "{format}: {said}");
    }
}

const MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: 'web:1', ports: [{name: web, containerPort: 8080}]}]
";

// JUnit

#[test]
fn junit_fails_where_the_gate_fails() {
    let junit = |arguments: &[&str]| {
        let output = analyze(&[&["-o", "junit", "-f", &recorded("selector-mismatch")], arguments].concat());
        quick_junit::Report::deserialize_from_str(&stdout(&output)).unwrap()
    };
    let report = junit(&[]);
    let suite = |report: &quick_junit::Report, name: &str| {
        let found = report.test_suites.iter().find(|suite| suite.name.as_str() == name).unwrap();
        (found.tests, found.failures, found.errors)
    };
    assert_eq!(suite(&report, "service/selector-matches-nothing"), (1, 1, 0));
    assert_eq!(suite(&report, "pod/crash-loop"), (1, 0, 0), "a rule without findings is a passing test");
    assert_eq!((report.failures, report.errors), (2, 0));
    let lenient = junit(&["--fail-on", "never"]);
    assert_eq!(lenient.failures, 0);
    let text = stdout(&analyze(&["-o", "junit", "--fail-on", "never", "-f", &recorded("selector-mismatch")]));
    assert!(text.contains("<system-out>error: Service cart selects no pod"), "{text}");
}

#[test]
fn junit_of_incomplete_runs_has_errors() {
    let (_folder, broken) = broken_cluster();
    let junit = |arguments: &[&str]| {
        let output = analyze(&[&["-o", "junit", "-f", path(&broken)], arguments].concat());
        quick_junit::Report::deserialize_from_str(&stdout(&output)).unwrap()
    };
    assert!(junit(&[]).errors > 0);
    let allowed = junit(&["--allow-partial"]);
    assert_eq!(allowed.errors, 0);
    assert!(allowed.skipped > 0);
}

#[test]
fn junit_is_valid_xml_for_hostile_names() {
    let (_folder, hostile) = hostile_cluster();
    let output = analyze(&["-o", "junit", "-f", path(&hostile)]);
    let report = quick_junit::Report::deserialize_from_str(&stdout(&output)).unwrap();
    assert!(report.tests >= HOSTILE.len());
    assert!(!stdout(&output).contains('\u{1b}') && !stdout(&output).contains('\u{202e}'));
}

// GitHub

#[test]
fn github_output_has_only_valid_commands() {
    let (_hostile, _broken, clusters) = clusters();
    let command = Regex::new(r"^::(error|warning|notice) (file=[^,:]+,line=\d+,)?title=[^,:\r\n]+::[^\r\n]*$").unwrap();
    let mut annotations = 0;
    for cluster in &clusters {
        let text = stdout(&analyze(&["-o", "github", "-f", path(cluster)]));
        for line in text.lines() {
            assert_eq!(line.starts_with("::"), command.is_match(line), "{cluster:?}: {line}");
            assert!(line.starts_with("::") || !line.contains("##["), "{line}");
            annotations += usize::from(line.starts_with("::"));
        }
        for level in ["error", "warning", "notice"] {
            assert!(text.matches(&format!("::{level} ")).count() <= 10, "{text}");
        }
    }
    assert!(annotations > 20);
    let (_folder, hostile) = hostile_cluster();
    let text = stdout(&analyze(&["-o", "github", "-f", path(&hostile)]));
    assert!(
        text.contains("selects no pod") && text.contains("error: Service shop/"),
        "findings beyond the limit are logged: {text}"
    );
}

#[test]
fn github_reports_incomplete_runs() {
    let (_folder, broken) = broken_cluster();
    let text = stdout(&analyze(&["-o", "github", "-f", path(&broken)]));
    assert!(text.starts_with("::error title=kubectl-gpt%3A not evaluated::Pod shop/p (malformed"), "{text}");
}

// Prometheus

/// A strict parser of the text exposition format: `(name with labels, value)`.
fn metrics(text: &str) -> Vec<(String, f64)> {
    let sample = Regex::new(r#"^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? ([0-9.]+)$"#).unwrap();
    let (mut typed, mut samples) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ") {
            typed.push(name.strip_suffix(" gauge").unwrap().to_string());
        } else if !line.starts_with("# HELP ") {
            let found = sample.captures(line).unwrap_or_else(|| panic!("no sample: {line:?}"));
            assert_eq!(typed.last().map(String::as_str), Some(&found[1]), "samples follow their type");
            let labels = found.get(2).map(|labels| labels.as_str()).unwrap_or_default();
            samples.push((format!("{}{labels}", &found[1]), found[3].parse().unwrap()));
        }
    }
    let mut names: Vec<&String> = samples.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), samples.len(), "no series comes twice");
    samples
}

#[test]
fn prometheus_counts_findings_and_gaps() {
    let (_hostile, _broken, clusters) = clusters();
    for cluster in &clusters {
        metrics(&stdout(&analyze(&["-o", "prometheus", "-f", path(cluster)])));
    }
    let value = |input: &Path, name: &str| {
        let all = metrics(&stdout(&analyze(&["-o", "prometheus", "-f", path(input)])));
        all.into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
    };
    let broken = PathBuf::from(recorded("selector-mismatch"));
    let found = |rule: &str| format!("kubectl_gpt_findings{{rule=\"{rule}\",severity=\"error\"}}");
    assert_eq!(value(&broken, &found("service/selector-matches-nothing")), Some(1.0));
    assert_eq!(value(&broken, &found("pod/crash-loop")), Some(0.0));
    assert!(value(&broken, "kubectl_gpt_time_seconds").unwrap() > 1.7e9);
    assert!(value(&broken, "kubectl_gpt_objects").unwrap() > 100.0);
    let (_folder, unread) = broken_cluster();
    assert_eq!(value(&unread, &found("pod/crash-loop")), None, "what was not evaluated is not zero");
    assert!(value(&unread, "kubectl_gpt_not_evaluated{kind=\"Pod\",reason=\"malformed\"}").unwrap() > 0.0);
}

#[test]
fn the_same_input_gives_the_same_output_in_every_format() {
    for format in ["table", "wide", "json", "yaml", "markdown", "html", "sarif", "junit", "github", "prometheus"] {
        let run = || analyze(&["-o", format, "-f", &recorded("workloads")]).stdout;
        let first = run();
        assert!(!first.is_empty(), "{format}");
        assert_eq!(first, run(), "{format}");
    }
}

// --output-file

#[test]
fn several_report_files_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::write(place("old.json"), "old").unwrap();
    let arguments = [
        format!("--output-file=json={}", place("old.json").display()),
        format!("--output-file=sarif={}", place("a.sarif").display()),
        format!("--output-file=table={}", place("a b.txt").display()),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let input = recorded("selector-mismatch");
    let output = analyze(&[&["-f", &input, "--color", "always"], arguments.as_slice()].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let json = fs::read_to_string(place("old.json")).unwrap();
    assert_eq!(json, stdout(&analyze(&["-f", &input, "-o", "json"])));
    assert_eq!(fs::read_to_string(place("a b.txt")).unwrap(), stdout(&analyze(&["-f", &input])));
    assert!(fs::read_to_string(place("a.sarif")).unwrap().contains("2.1.0"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing else is left behind");
}

#[test]
fn report_files_are_written_atomically() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.json");
    fs::write(&good, "old").unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    let json = format!("json={}", good.display());
    let input = recorded("selector-mismatch");
    for (bad, said) in [("folder", "is a directory"), ("no/such/folder/x.html", "cannot create a file in directory")] {
        let html = format!("html={}", folder.path().join(bad).display());
        let output = analyze(&["-f", &input, "--output-file", &json, "--output-file", &html]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(said) && stderr(&output).contains(bad), "{}", stderr(&output));
        assert_eq!(stdout(&output), "", "nothing was analyzed");
        assert_eq!(fs::read_to_string(&good).unwrap(), "old");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn invalid_output_files_are_usage_errors() {
    let input = recorded("selector-mismatch");
    for (argument, said) in [
        ("findings.json", "expected FORMAT=PATH"),
        ("xml=a.xml", "unknown format \"xml\", expected one of table, wide, json"),
        ("json=", "missing path"),
        ("json=-", "--output"),
    ] {
        let output = analyze(&["-f", &input, "--output-file", argument]);
        assert_eq!(output.status.code(), Some(2), "{argument}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    let twice = analyze(&["-f", &input, "--output-file", "json=x.json", "--output-file", "yaml=x.json"]);
    assert_eq!(twice.status.code(), Some(2));
    assert!(stderr(&twice).contains("x.json is given twice"), "{}", stderr(&twice));
}

/// Files that are not regular (`/dev/stderr`, `>(gzip)`) are written to, not replaced; symbolic links are followed.
#[cfg(unix)]
#[test]
fn pipes_are_written_to_and_symlinks_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target.json"), folder.path().join("link.json"));
    fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let json = format!("json={}", link.display());
    let input = recorded("selector-mismatch");
    let output = analyze(&["-f", &input, "--output-file", &json, "--output-file", "github=/dev/stderr"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("::error "), "{}", stderr(&output));
    assert!(link.is_symlink());
    assert!(fs::read_to_string(&target).unwrap().starts_with('{'));
}
