//! Tests against a real cluster with a real node: applying the manifests of the scenarios must give the same findings
//! as the recordings. Needs `KUBECONFIG`; `tests/cluster/run` starts such a cluster.

mod expectations;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use expectations::{folders, mistakes_among_others};
use serde_json::Value;

/// The maximum time until the problems of broken workloads are reported.
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

/// Repeats the analysis until the report matches the expectations.
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

/// All problems of the recordings are found live, nothing else is, and the findings are stable.
#[test]
#[ignore = "needs a real cluster: tests/cluster/run"]
fn scenarios_live() {
    // coredns-crash breaks cluster DNS, which would affect all other scenarios.
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
            .flat_map(|folder| {
                mistakes_among_others(folder, &report).into_iter().map(|m| format!("{}: {m}", folder.display()))
            })
            .collect()
    };
    until_right("scenarios live", look);
    for _ in 0..6 {
        sleep(Duration::from_secs(5));
        let mistakes: Vec<String> = look();
        assert!(mistakes.is_empty(), "the report changed:\n{}", mistakes.join("\n"));
    }
}

/// Applies manifests from a string.
fn apply_text(namespace: &str, manifests: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifests.yaml");
    std::fs::write(&file, manifests).unwrap();
    apply(namespace, &file);
}

/// Applies [`WEB`] and waits until it is rolled out.
fn apply_web(namespace: &str) {
    apply_text(namespace, WEB);
    kubectl(&["-n", namespace, "rollout", "status", "deployment/web", "--timeout=120s"]);
}

fn serious(report: &Value) -> Vec<&Value> {
    report["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] != "info").collect()
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: test.local/busybox:1
        command: [httpd, -f, -p, '8080', -h, /etc]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /passwd, port: 8080}, periodSeconds: 2}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// A healthy workload has no findings during startup, a rolling update, scaling up, and scaling to zero and back.
#[test]
#[ignore = "needs a real cluster: tests/cluster/run"]
fn rollouts_have_no_findings() {
    let namespace = "e2e-rollout";
    apply_text(namespace, WEB);
    let watch = |what: &str, seconds: u64| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            let (report, code) = analyze(&["-n", namespace]);
            assert!(serious(&report).is_empty() && code == Some(0), "{what}, after {:?}: {report:#}", start.elapsed());
            sleep(Duration::from_secs(1));
        }
    };
    watch("first start", 15);
    kubectl(&["-n", namespace, "rollout", "status", "deployment/web", "--timeout=120s"]);
    for (what, arguments) in [
        ("restart", ["rollout", "restart", "deployment/web"].as_slice()),
        ("new template", &["set", "env", "deployment/web", "COLOR=blue"]),
        ("scale up", &["scale", "deployment/web", "--replicas=5"]),
        ("scale to zero", &["scale", "deployment/web", "--replicas=0"]),
        ("and back", &["scale", "deployment/web", "--replicas=2"]),
    ] {
        kubectl(&[&["-n", namespace], arguments].concat());
        watch(what, 20);
    }
    kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}

/// A broken Deployment is reported, the suggested command fixes it, and the finding is resolved.
#[test]
#[ignore = "needs a real cluster: tests/cluster/run"]
fn the_suggested_command_fixes_the_problem() {
    let namespace = "e2e-fix";
    apply_text(namespace, &WEB.replace("    spec:\n", "    spec:\n      nodeSelector: {e2e-disk: fast}\n"));
    let mut command = String::new();
    until_right("no finding", || {
        // Analyzes the whole cluster: free capacity of a node depends on the pods of all namespaces.
        let (report, _) = analyze(&["--rule", "pod/unschedulable"]);
        match serious(&report).iter().find(|finding| finding["object"]["namespace"] == namespace) {
            Some(finding) => {
                let fixes = finding["fix"].as_array().unwrap();
                let of_fix = |fix: &Value| fix["command"].as_str().filter(|c| c.contains("label")).map(str::to_string);
                command = fixes.iter().find_map(of_fix).unwrap_or_else(|| panic!("{finding:#}"));
                Vec::new()
            }
            None => vec!["nothing is found".to_string()],
        }
    });
    let status = Command::new("sh").args(["-c", &command]).status().unwrap();
    assert!(status.success(), "{command}");
    until_right("not gone", || {
        let (report, _) = analyze(&["-n", namespace]);
        serious(&report).into_iter().map(|finding| finding.to_string()).collect()
    });
    kubectl(&["label", "node", "--all", "e2e-disk-"]);
    kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}

/// Real RBAC: a user with view access to one namespace, and a user without any permissions.
#[test]
#[ignore = "needs a real cluster: tests/cluster/run"]
fn restricted_users_get_incomplete_results() {
    let namespace = "e2e-restricted";
    apply_web(namespace);
    kubectl(&["-n", namespace, "create", "rolebinding", "viewer", "--clusterrole=view", "--user=viewer"]);
    let (report, code) = analyze(&["--as", "viewer", "-n", namespace]);
    assert_eq!(code, Some(3), "{report:#}");
    assert!(serious(&report).is_empty(), "{report:#}");
    let told = |report: &Value, kind: &str| {
        report["notEvaluated"].as_array().unwrap().iter().any(|gap| gap["kind"] == kind && gap["reason"] == "forbidden")
    };
    assert!(told(&report, "Node") && told(&report, "Secret"), "{report:#}");
    assert!(report["summary"]["rulesRun"].as_u64() > Some(20), "{report:#}");
    let (report, code) = analyze(&["--as", "nobody"]);
    assert_eq!(code, Some(3), "{report:#}");
    // The remaining rules are about APIs that this cluster does not serve.
    assert!(report["summary"]["rulesRun"].as_u64() < Some(10), "{report:#}");
    assert!(told(&report, "Pod") && told(&report, "Service") && told(&report, "Node"), "{report:#}");
    assert_eq!(report["findings"], Value::Array(Vec::new()));
    kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}

/// `--watch` against a real cluster: a Service loses its pods and gets them back.
#[test]
#[ignore = "needs a real cluster: tests/cluster/run"]
fn watch_reports_new_and_resolved_findings() {
    let namespace = "e2e-watch";
    apply_web(namespace);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("said");
    let mut watching = Command::new(env!("CARGO_BIN_EXE_kubectl-gpt"))
        .args(["analyze", "--watch", "-n", namespace])
        .stdout(std::fs::File::create(&path).unwrap())
        .spawn()
        .unwrap();
    let until_said = |words: &str| {
        until_right("the watch", || {
            let said = std::fs::read_to_string(&path).unwrap();
            if said.contains(words) { Vec::new() } else { vec![format!("not printed: {words:?}: {said}")] }
        });
    };
    until_said("No problems found: ");
    kubectl(&["-n", namespace, "set", "selector", "service", "web", "app=wep"]);
    until_said("Service web selects no pod");
    kubectl(&["-n", namespace, "set", "selector", "service", "web", "app=web"]);
    until_said("  resolved  Service e2e-watch/web: Service web selects no pod");
    let sent = Command::new("kill").args(["-INT", &watching.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(watching.wait().unwrap().code(), Some(0), "{}", std::fs::read_to_string(&path).unwrap());
    kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}

/// Suspends the kubelet of the test cluster's node, as if the machine were disconnected. Dropping the value resumes it,
/// also after a failed test.
struct StoppedKubelet(String);

impl StoppedKubelet {
    fn new() -> StoppedKubelet {
        let folder = std::fs::canonicalize(std::env::var("KUBECONFIG").unwrap()).unwrap();
        let own = format!("--kubeconfig={}", folder.with_file_name("kubelet.kubeconfig").display());
        let is_its_kubelet = |process: &Path| {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.get(1) == Some(&b"kubelet".as_slice()) && words.contains(&own.as_bytes())
        };
        let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let found: Vec<_> = processes.filter(|process| is_its_kubelet(process)).collect();
        let [process] = found.as_slice() else { panic!("not one kubelet with {own}: {found:?}") };
        let stopped = StoppedKubelet(process.file_name().unwrap().to_str().unwrap().to_string());
        assert!(stopped.signal("-STOP"));
        stopped
    }

    fn signal(&self, signal: &str) -> bool {
        Command::new("kill").args([signal, &self.0]).status().is_ok_and(|status| status.success())
    }
}

impl Drop for StoppedKubelet {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

fn find<'a>(report: &'a Value, rule: &str, kind: &str, name: &str) -> Option<&'a Value> {
    report["findings"].as_array().unwrap().iter().find(|finding| {
        finding["rule"] == rule && finding["object"]["kind"] == kind && finding["object"]["name"] == name
    })
}

/// The ids of all direct and indirect causes of a finding.
fn roots<'a>(report: &'a Value, finding: &'a Value) -> BTreeSet<&'a str> {
    let causes = finding["causedBy"].as_array().unwrap();
    if causes.is_empty() {
        return BTreeSet::from([finding["id"].as_str().unwrap()]);
    }
    let findings = report["findings"].as_array().unwrap();
    let causes = findings.iter().filter(|cause| causes.contains(&cause["id"]));
    causes.flat_map(|cause| roots(report, cause)).collect()
}

/// A node with a suspended kubelet is the single root cause of all consequences, and all findings are resolved after it
/// resumes. This test needs the node exclusively: `tests/cluster/run` runs it last.
#[test]
#[ignore = "needs a real cluster of its own: tests/cluster/run"]
fn a_lost_node_is_the_root_cause_of_its_consequences() {
    let namespace = "e2e-lost-node";
    apply_web(namespace);
    let node = kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    let (report, _) = analyze(&["--rule", "node/not-ready"]);
    assert!(serious(&report).is_empty(), "{report:#}");

    let kubelet = StoppedKubelet::new();
    kubectl(&["wait", "--for=condition=Ready=Unknown", "node", &node, "--timeout=120s"]);
    kubectl(&["-n", namespace, "wait", "--for=condition=Ready=False", "pod", "--all", "--timeout=30s"]);
    let lost = Instant::now();
    let consequences = [
        ("pod/not-ready", "Deployment", "web"),
        ("workload/unavailable", "Deployment", "web"),
        ("service/no-ready-endpoints", "Service", "web"),
        ("dns/down", "Service", "kube-dns"),
    ];
    until_right("the node is lost", || {
        let (report, code) = analyze(&["-n", namespace, "-n", "kube-system"]);
        let Some(cause) = find(&report, "node/not-ready", "Node", &node) else {
            return vec![format!("nothing is said of the node: {report:#}")];
        };
        assert_eq!((code, &cause["severity"]), (Some(1), &Value::from("error")), "{report:#}");
        assert_eq!(cause["causedBy"], Value::Array(Vec::new()), "{cause:#}");
        let missing = consequences.iter().filter(|(rule, kind, name)| find(&report, rule, kind, name).is_none());
        let missing = missing.map(|consequence| format!("not found: {consequence:?}"));
        let only = BTreeSet::from([cause["id"].as_str().unwrap()]);
        let unlinked = serious(&report).into_iter().filter(|finding| roots(&report, finding) != only);
        missing.chain(unlinked.map(|finding| format!("not because of the node: {finding:#}"))).collect()
    });
    assert!(lost.elapsed() < Duration::from_secs(30), "it took {:?}", lost.elapsed());

    drop(kubelet);
    kubectl(&["wait", "--for=condition=Ready", "node", &node, "--timeout=120s"]);
    let back = Instant::now();
    until_right("the node is back", || {
        let (report, _) = analyze(&["-n", namespace, "-n", "kube-system"]);
        let left = serious(&report).into_iter().map(|finding| finding.to_string());
        left.chain(find(&report, "node/not-ready", "Node", &node).map(Value::to_string)).collect()
    });
    assert!(back.elapsed() < Duration::from_secs(60), "it took {:?}", back.elapsed());
    kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}
