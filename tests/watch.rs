//! Tests of `analyze --watch` against an API server whose objects change and whose connections break.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::api_server::{ApiServer, Then, When};
use serde_json::{Value, json};

/// A running program and its output so far.
struct Watching {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&said);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = from.read(&mut buffer) {
            if n == 0 {
                break;
            }
            kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    });
    said
}

impl Watching {
    fn start(server: &ApiServer, arguments: &[&str]) -> Watching {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-gpt"));
        command.env_clear().args(["analyze", "--watch", "--kubeconfig"]).arg(server.kubeconfig()).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
        Watching { child, stdout, stderr }
    }

    fn said(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    fn complained(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until a text has been printed.
    fn until(&self, said: &str) {
        self.until_any(&self.stdout, said);
    }

    fn until_complaint(&self, said: &str) {
        self.until_any(&self.stderr, said);
    }

    fn until_any(&self, stream: &Arc<Mutex<String>>, said: &str) {
        let start = Instant::now();
        while !stream.lock().unwrap().contains(said) {
            let (out, err) = (self.said(), self.complained());
            assert!(start.elapsed() < Duration::from_secs(90), "not printed: {said:?}\n{out}\n{err}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn interrupt(mut self) -> (Option<i32>, String, String) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                std::thread::sleep(Duration::from_millis(100));
                return (status.code(), self.said(), self.complained());
            }
            assert!(start.elapsed() < Duration::from_secs(30), "Ctrl-C ends it");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

const RULES: &[&str] = &["--rule", "service/selector-matches-nothing"];

/// A namespace with a Service whose selector finds its pod.
fn shop() -> Vec<Value> {
    let created = "2026-11-20T10:00:00Z";
    let meta = |name: &str| json!({"name": name, "namespace": "shop", "uid": name, "creationTimestamp": created});
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta("cart-1"),
        "spec": {"containers": [{"name": "cart", "image": "cart:1"}]}, "status": {"phase": "Running"}});
    pod["metadata"]["labels"] = json!({"app": "cart"});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "shop", "creationTimestamp": created}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system", "uid": "ks", "creationTimestamp": created}}),
        pod,
        service("cart", "cart"),
    ]
}

fn service(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": "2026-11-20T10:00:00Z"},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": app}, "ports": [{"port": 80}]}})
}

#[test]
fn new_and_resolved_findings_are_reported() {
    let server = ApiServer::start(shop());
    let watching = Watching::start(&server, RULES);
    watching.until("No problems found: ");
    server.change(service("cart", "carts"));
    watching.until("Service cart selects no pod");
    assert!(watching.said().contains("  new\nerror          Service shop/cart"), "{}", watching.said());
    server.change(service("cart", "cart"));
    watching.until("  resolved  Service shop/cart: Service cart selects no pod");
    let lists = |server: &ApiServer| server.requests_for("services").iter().filter(|r| !r.contains("watch")).count();
    assert_eq!(lists(&server), 1, "watched kinds are listed once");
    let (code, said, complained) = watching.interrupt();
    assert_eq!((code, complained.as_str()), (Some(0), ""), "{said}");
    assert_eq!(said.matches("No problems found").count(), 2, "{said}");
}

#[test]
fn custom_rules_are_evaluated_on_changes() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    let text = r#"
rules:
- {id: team/no-team, severity: error, summary: names no team, kinds: Service, when: "!has(object.metadata.labels)",
   message: "Service {{ object.metadata.name }} names no team"}
- {id: team/debug, severity: error, summary: debugs, kinds: ConfigMap, when: "object.?data[?'level'].orValue('') == 'debug'",
   message: "ConfigMap {{ object.metadata.name }} sets the level debug"}
"#;
    std::fs::write(&rules, text).unwrap();
    let config_map = |level: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"level": level},
            "metadata": {"name": "settings", "namespace": "shop", "uid": "s", "creationTimestamp": "2026-11-20T10:00:00Z"}})
    };
    let server = ApiServer::start(shop());
    server.add(config_map("info"));
    let watching = Watching::start(&server, &["--rules", rules.to_str().unwrap(), "--rule", "team/*"]);
    watching.until("Service cart names no team");
    assert!(!watching.said().contains("not evaluated"), "{}", watching.said());
    server.change(config_map("debug"));
    watching.until("ConfigMap settings sets the level debug");
    let mut named = service("cart", "cart");
    named["metadata"]["labels"] = json!({"team": "shop"});
    server.change(named);
    watching.until("  resolved  Service shop/cart: Service cart names no team");
    server.delete("v1", "ConfigMap", "shop", "settings");
    watching.until("  resolved  ConfigMap shop/settings: ConfigMap settings sets the level debug");
    assert_eq!(watching.interrupt().0, Some(0));
}

#[test]
fn the_exit_code_reflects_the_last_state() {
    let server = ApiServer::start(shop());
    let watching = Watching::start(&server, RULES);
    watching.until("No problems found: ");
    server.delete("v1", "Pod", "shop", "cart-1");
    watching.until("Service cart selects no pod");
    assert_eq!(watching.interrupt().0, Some(1));
}

#[test]
fn broken_watches_are_resumed() {
    let server = ApiServer::start(shop());
    let watching = Watching::start(&server, RULES);
    watching.until("No problems found: ");
    for name in ["a", "b"] {
        server.cut_watches();
        server.change(service(name, "nobody"));
        watching.until(&format!("Service {name} selects no pod"));
    }
    assert_eq!(watching.said().matches("Service a selects no pod").count(), 1, "{}", watching.said());
    assert_eq!(watching.interrupt().0, Some(1));
}

/// 410 Gone: changes during a disconnect are found by a new list, including deletions.
#[test]
fn expired_resource_versions_cause_a_new_list() {
    let mut objects = shop();
    objects.push(service("old", "nobody"));
    let server = ApiServer::start(objects);
    let watching = Watching::start(&server, RULES);
    watching.until("Service old selects no pod");
    server.fail(When::watching("services"), Then::Unavailable);
    server.cut_watches();
    watching.until_complaint("connection lost");
    server.delete("v1", "Service", "shop", "old");
    server.change(service("new", "nobody"));
    server.forget_history();
    server.heal();
    watching.until("Service new selects no pod");
    watching.until("resolved  Service shop/old");
    assert!(server.requests_for("services").iter().filter(|r| !r.contains("watch")).count() >= 2);
    assert_eq!(watching.interrupt().0, Some(1));
}

/// Findings are not resolved while the connection is lost.
#[test]
fn an_unreachable_server_resolves_nothing() {
    let mut objects = shop();
    objects.push(service("old", "nobody"));
    let server = ApiServer::start(objects);
    let watching = Watching::start(&server, RULES);
    watching.until("Service old selects no pod");
    server.fail(When::everything(), Then::Unavailable);
    server.cut_watches();
    watching.until_complaint("connection lost, results may be stale: ");
    std::thread::sleep(Duration::from_secs(6));
    assert!(!watching.said().contains("resolved"), "{}", watching.said());
    server.heal();
    server.change(service("next", "nobody"));
    watching.until_complaint("reconnected after ");
    watching.until("Service next selects no pod");
    assert_eq!(watching.complained().matches("connection lost").count(), 1, "{}", watching.complained());
    server.fail(When::everything(), Then::Unavailable);
    server.cut_watches();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(watching.interrupt().0, Some(1), "the last state that is known");
}

#[test]
fn forbidden_watches_are_not_evaluated() {
    let server = ApiServer::start(shop());
    server.fail(When::listing("pods"), Then::Forbidden);
    let watching = Watching::start(&server, &["--rule", "service/selector-matches-nothing", "-A"]);
    watching.until("some checks could not be evaluated");
    watching.until("not evaluated: Pod (forbidden");
    assert_eq!(watching.interrupt().0, Some(3));
}

/// The ClusterRole of `rules --rbac --watch` is sufficient; without the verb `watch`, the missing permission is
/// reported.
#[test]
fn the_printed_role_is_sufficient_for_watch() {
    let role = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-gpt"));
        let output = command.env_clear().args(["rules", "--rbac"]).args(RULES).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let server = ApiServer::start(shop());
    server.allow_only(&role(&["--watch"]));
    let watching = Watching::start(&server, RULES);
    watching.until("No problems found: ");
    assert_eq!(watching.interrupt().0, Some(0));
    server.allow_only(&role(&[]));
    let watching = Watching::start(&server, RULES);
    watching.until("not evaluated: Service (forbidden: watching services in all namespaces: forbidden");
    assert_eq!(watching.interrupt().0, Some(3), "kinds that cannot be watched are not evaluated");
}

#[test]
fn falls_back_to_watching_the_namespace() {
    let server = ApiServer::start(shop());
    for resource in ["pods", "services"] {
        server.fail(When::listing(resource).cluster_wide(), Then::Forbidden);
    }
    let watching = Watching::start(&server, RULES);
    watching.until("only namespace shop is watched");
    server.change(service("cart", "carts"));
    watching.until("Service cart selects no pod");
    assert_eq!(watching.interrupt().0, Some(1));
}

/// Values of Secrets are not transferred, and files are rewritten after each run.
#[test]
fn secrets_are_watched_as_metadata_and_files_are_updated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("findings.json");
    let server = ApiServer::start(shop());
    let output = format!("json={}", file.display());
    let watching = Watching::start(&server, &["--output-file", &output, "--skip-rule", "cronjob/*"]);
    watching.until("objects checked by");
    let ids = || {
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        report["findings"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let before = ids();
    server.change(service("cart", "carts"));
    watching.until("Service cart selects no pod");
    assert_ne!(ids(), before);
    let secrets: Vec<_> = server.requests().into_iter().filter(|asked| asked.path.ends_with("/secrets")).collect();
    assert!(secrets.iter().any(|asked| asked.is_watch()));
    assert!(secrets.iter().all(|asked| asked.accept.contains("PartialObjectMetadata")), "{secrets:?}");
    watching.interrupt();
}

/// Between two runs only the newest state of an object is kept, and the number of runs is bounded.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_flat_under_churn() {
    let mut objects = shop();
    let big = "x".repeat(20_000);
    objects.extend((0..100).map(|n| {
        let mut service = service(&format!("s{n}"), "cart");
        service["metadata"]["annotations"] = json!({"note": big});
        service
    }));
    let server = ApiServer::start(objects.clone());
    let watching = Watching::start(&server, RULES);
    watching.until("No problems found: ");
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", watching.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let churn = |rounds: usize| {
        for _ in 0..rounds {
            for object in objects.iter().skip(4) {
                server.change(object.clone());
            }
            std::thread::sleep(Duration::from_millis(150));
            server.forget_delivered_history(1000);
        }
    };
    churn(5);
    let before = memory();
    churn(20);
    let after = memory();
    // 2,000 changes of 20 kB each are 40 MB.
    assert!(after < before + 20_000, "{before} kB before, {after} kB after");
    server.change(service("s7", "nobody"));
    watching.until("Service s7 selects no pod");
}

#[test]
fn watching_files_or_printing_json_is_a_usage_error() {
    let server = ApiServer::start(shop());
    for (arguments, said) in
        [(&["-o", "json"][..], "--watch supports only -o table"), (&["-f", "x.json"], "cannot be used with")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-gpt"));
        command.env_clear().args(["analyze", "--watch", "--kubeconfig"]).arg(server.kubeconfig()).args(arguments);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}
