//! Ctrl-C while reading a cluster that does not respond.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::api_server::{ApiServer, Then, When};
use crate::program::report;

/// Runs the program against a recorded cluster whose server hangs for one resource.
fn hanging(name: &str, resource: &str, arguments: &[&str]) -> (ApiServer, Child) {
    let server = ApiServer::recorded(format!("{}/tests/scenarios/{name}/cluster.json", env!("CARGO_MANIFEST_DIR")));
    server.fail(When::listing(resource), Then::Hang);
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-gpt"))
        .env_clear()
        .args(["analyze", "--kubeconfig"])
        .arg(server.kubeconfig())
        .args(["--skip-rule", "cronjob/not-running", "--crds", "none"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut last = 0;
    // Waits until only the hanging request is left.
    while start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(700));
        let now = server.requests().len();
        if now == last && !server.requests_for(resource).is_empty() {
            return (server, child);
        }
        last = now;
    }
    child.kill().unwrap();
    panic!("the program did not ask for {resource}: {:?}", child.wait_with_output());
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn ctrl_c_reports_partial_results() {
    let (_server, child) = hanging("healthy-shop", "pods", &["-o", "json"]);
    interrupt(&child);
    let start = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(15), "it ends quickly");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let report = report(&output);
    assert_eq!(report["findings"], serde_json::json!([]));
    assert!(report["summary"]["objects"].as_u64().unwrap() > 50, "{}", report["summary"]);
    let gaps = report["notEvaluated"].as_array().unwrap();
    assert!(gaps.iter().any(|gap| gap["kind"] == "Pod" && gap["reason"] == "interrupted"), "{gaps:?}");
    assert!(!gaps.iter().any(|gap| gap["kind"] == "Node"), "{gaps:?}");
}

#[test]
fn findings_take_precedence_over_the_interruption() {
    let (_server, child) = hanging("selector-mismatch", "ingresses", &[]);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("Service cart selects no pod"), "{table}");
    assert!(table.contains("not evaluated: Ingress (interrupted)"), "{table}");
    assert_eq!(table.matches("(interrupted").count(), 1, "one line for all of it: {table}");
}

/// The reader of the report is slow, or does not read at all.
#[test]
fn a_second_ctrl_c_exits_immediately() {
    let (_server, mut child) = hanging("healthy-shop", "pods", &["-o", "sarif"]);
    interrupt(&child);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(child.try_wait().unwrap(), None, "the report does not fit into a pipe");
    interrupt(&child);
    let start = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn no_progress_without_a_terminal() {
    let server = ApiServer::recorded(format!("{}/tests/scenarios/oom/cluster.json", env!("CARGO_MANIFEST_DIR")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-gpt"));
    let output = command.env_clear().args(["analyze", "--kubeconfig"]).arg(server.kubeconfig()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
