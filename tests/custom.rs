//! Tests of reading custom resources over HTTP: all discovered kinds, in bounded time and with a bounded number of
//! requests.

use std::time::{Duration, Instant};

use crate::api_server::{ApiServer, Discovery, Then, When};
use assert_cmd::Command;
use serde_json::{Value, json};

fn custom(group: &str, kind: &str, namespace: &str, name: &str, ready: &str) -> Value {
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": format!("{kind}-{name}"),
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"data": "x".repeat(50)},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "Because", "message": "no such gear",
                                   "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    })
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}})
}

fn run(server: &ApiServer, arguments: &[&str]) -> (Value, Option<i32>) {
    #[allow(deprecated)]
    let output = Command::cargo_bin("kubectl-gpt")
        .unwrap()
        .args(["analyze", "-o", "json", "--kubeconfig"])
        .arg(server.kubeconfig())
        .args(arguments)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.code())
}

const ONLY: [&str; 2] = ["--rule", "resource/not-ready"];

fn messages(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|f| f["message"].as_str().unwrap()).collect()
}

fn gaps(report: &Value) -> Vec<(&str, &str)> {
    let lines = report["notEvaluated"].as_array().unwrap().iter();
    lines.map(|line| (line["kind"].as_str().unwrap(), line["reason"].as_str().unwrap())).collect()
}

#[test]
fn three_hundred_kinds_with_ten_failing() {
    let objects = (0..300).map(|n| {
        let ready = if n % 30 == 0 { "False" } else { "True" };
        custom(&format!("g{}.example.com", n / 3), &format!("Kind{n:03}"), "shop", "one", ready)
    });
    let server = ApiServer::start(objects.collect());
    server.fail(When::everything(), Then::Slow(Duration::from_millis(5)));
    let start = Instant::now();
    let (report, code) = run(&server, &ONLY);
    assert_eq!(messages(&report).len(), 10, "{report:#}");
    assert_eq!(messages(&report)[0], "Kind000 one is not ready: no such gear");
    assert_eq!((gaps(&report), code), (vec![], Some(0)));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let lists = server.requests().iter().filter(|asked| asked.path.contains("example.com")).count();
    assert_eq!(lists, 300);
    assert!(server.most_at_a_time() <= 4, "{}", server.most_at_a_time());
}

#[test]
fn old_servers_are_discovered_group_by_group() {
    let server = ApiServer::start(vec![custom("a.example.com", "Gear", "shop", "one", "False")]);
    server.discovery(Discovery::Plain);
    let (report, _) = run(&server, &ONLY);
    assert_eq!(messages(&report), ["Gear one is not ready: no such gear"]);
}

#[test]
fn chooses_groups() {
    let objects = || {
        vec![
            custom("a.example.com", "Gear", "shop", "one", "False"),
            custom("b.example.org", "Wheel", "shop", "one", "False"),
        ]
    };
    let server = ApiServer::start(objects());
    let (report, _) = run(&server, &[&ONLY[..], &["--crds", "*.example.com"]].concat());
    assert_eq!(messages(&report), ["Gear one is not ready: no such gear"]);
    assert!(server.requests_for("wheels").is_empty());
    let (report, code) = run(&server, &[&ONLY[..], &["--crds", "none"]].concat());
    assert_eq!((messages(&report), code), (vec![], Some(0)));
    let (report, _) = run(&server, &[&ONLY[..], &["--crds", "exmaple.com"]].concat());
    assert_eq!(report["source"]["notes"], json!(["--crds exmaple.com: no matching custom resources in the cluster"]));
    server.forget_requests();
    run(&server, &["--rule", "service/selector-matches-nothing"]);
    assert!(server.requests_for("gears").is_empty(), "no selected rule reads it");
}

#[test]
fn a_forbidden_kind_is_not_evaluated_and_the_others_are() {
    let server = ApiServer::start(vec![
        custom("a.example.com", "Gear", "shop", "one", "False"),
        custom("a.example.com", "Wheel", "bank", "one", "False"),
        custom("a.example.com", "Wheel", "shop", "two", "False"),
    ]);
    server.fail(When::listing("gears"), Then::Forbidden);
    server.fail(When::listing("wheels").cluster_wide(), Then::Forbidden);
    let (report, code) = run(&server, &ONLY);
    assert_eq!(messages(&report), ["Wheel two is not ready: no such gear"]);
    assert_eq!(gaps(&report), [("Gear.a.example.com", "forbidden"), ("Wheel.a.example.com", "forbidden")]);
    assert_eq!(code, Some(3));
}

#[test]
fn removed_kinds_are_not_gaps_but_broken_servers_are() {
    let server = ApiServer::start(vec![
        custom("a.example.com", "Gear", "shop", "one", "True"),
        custom("b.example.com", "Wheel", "shop", "one", "True"),
        custom("metrics.k8s.io", "PodMetrics", "shop", "one", "False"),
    ]);
    server.fail(When::listing("gears"), Then::NotFound);
    server.stale("b.example.com");
    let (report, code) = run(&server, &ONLY);
    assert_eq!((gaps(&report), code), (vec![("b.example.com", "unavailable")], Some(3)));
    assert_eq!(
        report["notEvaluated"][0]["message"],
        "discovering b.example.com/v1: the aggregated API server does not respond"
    );
    assert_eq!(messages(&report), Vec::<&str>::new());
}

#[test]
fn reads_the_given_namespaces() {
    let server = ApiServer::start(vec![
        namespace("shop"),
        custom("a.example.com", "Gear", "shop", "one", "False"),
        custom("a.example.com", "Gear", "bank", "two", "False"),
    ]);
    let (report, _) = run(&server, &[&ONLY[..], &["-n", "shop"]].concat());
    assert_eq!(messages(&report), ["Gear one is not ready: no such gear"]);
    assert_eq!(server.requests_for("gears"), ["/apis/a.example.com/v1/namespaces/shop/gears?limit=500"]);
}

#[test]
fn large_kinds_are_truncated_with_a_gap() {
    let many = |kind: &'static str, count: usize| {
        (0..count).map(move |n| custom("a.example.com", kind, "shop", &format!("n{n:05}"), "True"))
    };
    let without_conditions = many("Report", 3000).map(|mut object| {
        object["status"] = json!({"large": "x"});
        object
    });
    let server = ApiServer::start(many("Gear", 5600).chain(without_conditions).collect());
    let (report, code) = run(&server, &ONLY);
    assert_eq!((gaps(&report), code), (vec![("Gear.a.example.com", "too many")], Some(3)));
    assert_eq!(
        report["notEvaluated"][0]["message"],
        "listing gears.a.example.com in all namespaces: only the first 5000 were read"
    );
    assert_eq!((server.requests_for("gears").len(), server.requests_for("reports").len()), (10, 2));
}

#[test]
fn undecodable_objects_are_gaps_of_their_kind_only() {
    let mut broken = custom("a.example.com", "Gear", "shop", "one", "False");
    broken["metadata"]["labels"] = json!(7);
    let mut odd = custom("a.example.com", "Wheel", "shop", "one", "True");
    (odd["spec"], odd["status"]) = (json!("text"), json!([1]));
    let server = ApiServer::start(vec![broken, odd, custom("a.example.com", "Gear", "shop", "two", "False")]);
    let (report, _) = run(&server, &ONLY);
    assert_eq!(messages(&report), ["Gear two is not ready: no such gear"]);
    assert_eq!(gaps(&report), [("Gear.a.example.com", "malformed")]);
}

// Required permissions

fn role(arguments: &[&str]) -> String {
    #[allow(deprecated)]
    let output = Command::cargo_bin("kubectl-gpt").unwrap().args(["rules", "--rbac"]).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn cluster_with_a_bit_of_everything() -> ApiServer {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/healthy-shop/cluster.json");
    let server = ApiServer::recorded(path);
    server.add(custom("a.example.com", "Gear", "shop", "one", "True"));
    server.add(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls", "namespace": "shop"}}));
    server.add(json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                      "metadata": {"name": "edge", "namespace": "shop"}, "spec": {"tls": [{"secretName": "tls"}]}}));
    server
}

#[test]
fn the_printed_cluster_role_is_sufficient() {
    let cases: [&[&str]; 4] = [&[], &["--rule", "pod/*"], &["--rule", "ingress/*"], &["--skip-rule", "resource/*"]];
    for case in cases {
        let arguments = [case, &["--crds", "a.example.com"]].concat();
        let server = cluster_with_a_bit_of_everything();
        server.allow_only(&role(&arguments));
        let (report, _) = run(&server, &arguments);
        assert!(!report.to_string().contains("forbidden"), "{case:?}: {report:#}");
    }
}

#[test]
fn the_cluster_role_is_minimal() {
    let pods = role(&["--rule", "service/selector-matches-nothing"]);
    assert!(!pods.contains("secrets") && !pods.contains("a.example.com"), "{pods}");
    let custom = role(&["--rule", "resource/not-ready", "--crds", "a.example.com"]);
    assert!(custom.contains("- apiGroups: [\"a.example.com\"]\n  resources: [\"*\"]\n  verbs: [list]\n"), "{custom}");
    assert!(role(&["--rule", "resource/not-ready"]).contains("# Custom resources: RBAC needs explicit API groups"));
}

#[test]
fn missing_permissions_are_reported_with_a_hint() {
    let server = cluster_with_a_bit_of_everything();
    server.allow_only(
        "rules:
         - {apiGroups: [''], resources: [configmaps, endpoints, events, limitranges, namespaces,
            persistentvolumeclaims, pods, pods/log, replicationcontrollers, resourcequotas, serviceaccounts, services],
            verbs: [get, list, watch]}
         - {apiGroups: [apps], resources: ['*'], verbs: [get, list, watch]}
         - {apiGroups: [batch], resources: ['*'], verbs: [get, list, watch]}",
    );
    let (report, _) = run(&server, &[]);
    let kinds = gaps(&report);
    assert!(
        kinds.contains(&("Node", "forbidden")) && kinds.contains(&("Gear.a.example.com", "forbidden")),
        "{kinds:?}"
    );
    assert!(!kinds.iter().any(|(kind, _)| ["Pod", "Deployment", "ConfigMap"].contains(kind)), "{kinds:?}");
    let note = "access to some kinds is forbidden; `kubectl-gpt rules --rbac` prints the required ClusterRole";
    assert!(report["source"]["notes"].as_array().unwrap().contains(&json!(note)), "{:#}", report["source"]);
}
