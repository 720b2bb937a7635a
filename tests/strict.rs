//! Tests of the profile `strict`: it runs only on request, and its severity is at most warning.

use std::path::Path;
use std::process::{Command, Output};

use crate::expectations::folders;
use kubectl_gpt::collect::files;
use kubectl_gpt_analyzers::{Now, Profile, Severity, analyze, rules};

const UNTAGGED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}}
    spec: {containers: [{name: web, image: cart}]}";

fn kubectl_gpt(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-gpt")).args(arguments).output().unwrap()
}

fn analyze_untagged(arguments: &[&str]) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cart.yaml");
    std::fs::write(&path, UNTAGGED).unwrap();
    let file = path.to_str().unwrap();
    let output = kubectl_gpt(&[&["analyze", "-f", file, "-o", "json", "--fail-on", "warning"], arguments].concat());
    (String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr), output.status.code())
}

#[test]
fn strict_rules_run_only_on_request() {
    let (report, code) = analyze_untagged(&[]);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains(r#""findings": []"#), "{report}");
    let (report, code) = analyze_untagged(&["--profile", "strict"]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("workload/image-tag") && report.contains("workload/resources"), "{report}");
}

#[test]
fn strict_rules_named_in_full_run_in_any_profile() {
    let (report, code) = analyze_untagged(&["--rule", "workload/image-tag"]);
    assert!(report.contains("workload/image-tag") && !report.contains("workload/resources"), "{report}");
    assert_eq!(code, Some(1));
    let (report, _) = analyze_untagged(&["--rule", "workload/*"]);
    assert!(!report.contains("workload/image-tag"), "{report}");
}

#[test]
fn patterns_for_strict_rules_only_give_a_hint() {
    let (report, code) = analyze_untagged(&["--rule", "workload/image*"]);
    assert_eq!(code, Some(2));
    assert!(report.contains("--profile strict"), "{report}");
}

#[test]
fn the_table_shows_the_profile() {
    let table = |arguments: &[&str]| String::from_utf8(kubectl_gpt(&[&["rules"], arguments].concat()).stdout).unwrap();
    let line = |table: &str, id: &str| table.lines().find(|line| line.starts_with(id)).map(str::to_string);
    assert!(line(&table(&[]), "workload/image-tag ").unwrap().contains(" strict "));
    assert!(line(&table(&["--profile", "strict"]), "pod/crash-loop ").unwrap().contains(" default "));
    assert_eq!(line(&table(&["--profile", "default"]), "workload/image-tag "), None);
    let page = table(&["workload/image-tag"]);
    assert!(page.contains("Runs only with `--profile strict`"), "{page}");
}

/// Best-practice findings are never errors, and the rules do not panic on manifests of real projects.
#[test]
fn strict_rules_never_report_errors() {
    for folder in folders("realworld") {
        let input = files::read(&[recording(&folder)]).unwrap();
        let cluster = input.builder.build(Now::NewestInData, input.origin);
        let strict = rules::all().into_iter().filter(|rule| rule.meta().profile == Profile::Strict).collect::<Vec<_>>();
        assert_eq!(strict.len(), 14);
        let analysis = analyze(&cluster, &strict);
        assert!(analysis.not_evaluated.is_empty(), "{folder:?}: {:?}", analysis.not_evaluated);
        assert!(analysis.findings.iter().all(|finding| finding.severity < Severity::Error), "{folder:?}");
        let platform = |finding: &&kubectl_gpt_analyzers::Finding| finding.object.namespace() == "kube-system";
        assert_eq!(analysis.findings.iter().find(platform), None, "{folder:?}");
    }
}

fn recording(folder: &Path) -> std::path::PathBuf {
    let names = ["cluster.json", "cluster.json.gz"];
    names.iter().map(|name| folder.join(name)).find(|path| path.exists()).unwrap()
}

#[test]
fn the_profile_can_be_configured() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, "profile: strict").unwrap();
    let config = config.to_str().unwrap();
    assert!(analyze_untagged(&["--config", config]).0.contains("workload/image-tag"));
    assert!(!analyze_untagged(&["--config", config, "--profile", "default"]).0.contains("workload/image-tag"));
}
