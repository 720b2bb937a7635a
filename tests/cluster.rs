//! Against a real Kubernetes with a real node: the scenarios' manifests applied for real must give the same findings live
//! as in their recordings. Needs `KUBECONFIG`; `tests/cluster/run` starts such a cluster.

mod expectations;

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use expectations::{folders, mistakes};
use serde_json::Value;

/// How long broken workloads take until what is wrong with them is a finding.
const SETTLED: Duration = Duration::from_secs(360);

fn kubectl(arguments: &[&str]) -> String {
    let output = Command::new("kubectl").args(arguments).output().expect("kubectl is installed");
    assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The report and the exit code.
fn analyze(arguments: &[&str]) -> (Value, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-gpt"))
        .args(["analyze", "-o", "json"])
        .args(arguments)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.code())
}

/// Looks again and again until there is nothing left to say against the report.
fn until_right(what: &str, mut mistakes: impl FnMut() -> Vec<String>) {
    let start = Instant::now();
    loop {
        let found = mistakes();
        if found.is_empty() {
            return;
        }
        assert!(start.elapsed() < SETTLED, "{what}, after {:?}:\n{}", start.elapsed(), found.join("\n"));
        sleep(Duration::from_secs(5));
    }
}

fn apply(namespace: &str, file: &Path) {
    kubectl(&["create", "namespace", namespace]);
    kubectl(&["-n", namespace, "apply", "-f", file.to_str().unwrap()]);
}

/// Everything that is wrong in each recording is found live too, and nothing else; once found it stays found.
#[test]
#[ignore = "needs a real cluster: tests/cluster/run"]
fn scenarios_live() {
    // In coredns-crash the cluster's own DNS is broken, which would show in all others.
    let scenarios: Vec<_> =
        folders("scenarios").into_iter().filter(|folder| !folder.ends_with("coredns-crash")).collect();
    for folder in &scenarios {
        apply(folder.file_name().unwrap().to_str().unwrap(), &folder.join("manifests.yaml"));
    }
    let look = || {
        let (report, code) = analyze(&[]);
        assert_eq!(code, Some(1), "{report:#}");
        assert_eq!(report["notEvaluated"], Value::Array(Vec::new()));
        scenarios
            .iter()
            .flat_map(|folder| mistakes(folder, &report).into_iter().map(|m| format!("{}: {m}", folder.display())))
            .collect()
    };
    until_right("scenarios live", look);
    for _ in 0..6 {
        sleep(Duration::from_secs(5));
        let mistakes: Vec<String> = look();
        assert!(mistakes.is_empty(), "it changed its mind:\n{}", mistakes.join("\n"));
    }
}
