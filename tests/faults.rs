//! Whatever the API server does, the program ends in bounded time, says what it could not see, and never calls a
//! cluster healthy that it did not see whole.

use std::time::{Duration, Instant};

use crate::api_server::{ApiServer, Discovery, Then, When};
use assert_cmd::Command;
use kubectl_gpt_analyzers::Kind;
use serde_json::{Value, json};

/// The program's own patience is thirty seconds a request; for servers that hang two are enough.
const IMPATIENT: &[&str] = &["--request-timeout", "2s"];
const BOUND: Duration = Duration::from_secs(60);

/// A healthy cluster with more than a page of ConfigMaps and a custom resource.
fn cluster() -> ApiServer {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/healthy-shop/cluster.json");
    let server = ApiServer::recorded(folder);
    for n in 0..600 {
        server.add(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c-{n}"), "namespace": "shop"}}));
    }
    server.add(
        json!({"apiVersion": "shop.example.com/v1", "kind": "Cart", "metadata": {"name": "c", "namespace": "shop"}}),
    );
    server
}

/// How it ended, and everything that it said.
fn run(server: &ApiServer, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    let command = command.env_clear().args(["analyze", "--skip-rule", "cronjob/not-running", "--kubeconfig"]);
    let command = command.arg(server.kubeconfig()).args(arguments);
    let start = Instant::now();
    let output = command.timeout(2 * BOUND).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(start.elapsed() < BOUND, "{:?}: {said}", start.elapsed());
    assert!(!said.contains("panicked") && !said.contains("a defect of kubectl-gpt"), "{said}");
    (output.status.code(), said)
}

struct Case {
    name: &'static str,
    when: When,
    then: Then,
    code: i32,
    says: &'static str,
}

/// Runs all cases side by side, each against a server of its own.
#[track_caller]
fn hold(cases: Vec<Case>) {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let judge = |case: Case| {
            let server = cluster();
            server.fail(case.when, case.then);
            let (code, said) = run(&server, IMPATIENT);
            let right = code == Some(case.code) && said.contains(case.says);
            (!right).then(|| format!("{}: code {code:?}, not {} with {:?}: {said}", case.name, case.code, case.says))
        };
        let running: Vec<_> = cases.into_iter().map(|case| scope.spawn(move || judge(case))).collect();
        running.into_iter().filter_map(|case| case.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_kind_cannot_be_read() {
    let case = |name, then, says| Case { name, when: When::listing("pods"), then, code: 3, says };
    hold(vec![
        case("hangs", Then::Hang, "timeout"),
        case("breaks off", Then::Cut, "listing pods in all namespaces"),
        case("half a JSON", Then::Half, "malformed answer"),
        case("no JSON", Then::Garbage, "malformed answer"),
        case("too many requests, for a minute", Then::TooManyRequests { retry_after: 60 }, "too many requests"),
        case("too many requests, again and again", Then::TooManyRequests { retry_after: 1 }, "too many requests"),
        case("gone, whatever is asked", Then::Gone, "listing pods in all namespaces"),
        case("an error of the server", Then::InternalError, "leader changed"),
        case("one object is broken", Then::BrokenItem, "not everything could be looked at"),
    ]);
}

#[test]
fn a_list_stops_in_the_middle() {
    let middle = || When::listing("configmaps").continued();
    let case = |name, then| Case { name, when: middle(), then, code: 3, says: "listing configmaps in all namespaces" };
    hold(vec![
        case("hangs", Then::Hang),
        case("breaks off", Then::Cut),
        case("half a JSON", Then::Half),
        case("too many requests", Then::TooManyRequests { retry_after: 60 }),
        case("the same page for ever", Then::SamePage),
    ]);
}

/// Then the list is asked for in one piece, and nothing is missing.
#[test]
fn every_continue_token_is_expired() {
    let server = cluster();
    server.fail(When::listing("configmaps").continued(), Then::Gone);
    let (code, said) = run(&server, &[]);
    assert_eq!(code, Some(0), "{said}");
    let lists: Vec<String> =
        server.requests_for("configmaps").into_iter().filter(|l| !l.contains("configmaps/")).collect();
    assert_eq!(lists.len(), 5, "{lists:?}");
}

#[test]
fn nothing_can_be_read() {
    let case = |name, then| Case { name, when: When::everything(), then, code: 4, says: "error: " };
    hold(vec![
        case("hangs", Then::Hang),
        case("breaks off", Then::Cut),
        case("half a JSON", Then::Half),
        case("too many requests, for a minute", Then::TooManyRequests { retry_after: 60 }),
        case("not who it says it is", Then::Unauthorized),
        case("an error of the server", Then::InternalError),
    ]);
}

#[test]
fn discovery_fails_for_one_group() {
    for discovery in [Discovery::Aggregated, Discovery::Plain] {
        let server = cluster();
        server.discovery(discovery);
        server.stale("shop.example.com");
        let (code, said) = run(&server, &[]);
        assert_eq!(code, Some(3), "{discovery:?}: {said}");
        assert!(said.contains("shop.example.com"), "{discovery:?}: {said}");
    }
}

#[test]
fn an_aggregated_api_hangs() {
    hold(vec![Case {
        name: "hangs",
        when: When::path("/apis/shop.example.com"),
        then: Then::Hang,
        code: 3,
        says: "listing carts.shop.example.com in all namespaces: timeout",
    }]);
}

/// Every kind alone is in `forbidden.rs`; here are some of all the sets.
#[test]
fn many_kinds_are_forbidden_together() {
    // A linear congruential generator: the sets are others each, and the same each time.
    let mut random = 7u64;
    for _ in 0..12 {
        let server = cluster();
        let mut forbidden = Vec::new();
        for kind in Kind::ALL {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if random >> 63 == 1 {
                server.fail(When::listing(kind.api().plural), Then::Forbidden);
                forbidden.push(*kind);
            }
        }
        let (code, said) = run(&server, &[]);
        assert_eq!(code, Some(3), "without {forbidden:?}: {said}");
        assert!(said.contains("0 errors, 0 warnings") || !said.contains(" error"), "without {forbidden:?}: {said}");
    }
}

/// What moves from one page to the next while a list is begun again comes twice, or not at all.
#[test]
fn objects_come_and_go_between_pages() {
    let server = cluster();
    for n in 0..600 {
        // The same name again, and everybody's uid.
        server.add(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c-{}", n / 2), "namespace": "shop", "uid": "same"}}));
    }
    server.fail(When::listing("configmaps").continued().times(1), Then::Gone);
    let (code, said) = run(&server, &[]);
    assert_eq!(code, Some(0), "{said}");
}

/// Pods of 40 KB each: the pages after the first are smaller.
#[test]
fn huge_objects() {
    let server = cluster();
    let long = "x".repeat(40_000);
    for n in 0..520 {
        server.add(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("huge-{n}"), "namespace": "shop", "annotations": {"note": long}},
            "status": {"phase": "Succeeded"}}));
    }
    let (code, said) = run(&server, &[]);
    assert_eq!(code, Some(0), "{said}");
    let limits: Vec<String> = server.requests_for("pods");
    assert!(limits.last().unwrap().contains("limit=166"), "{limits:?}");
}

/// A server that ignores what form was asked for sends whole ConfigMaps; their values are passed over.
#[test]
fn huge_config_maps() {
    let data: Value =
        (0..40).map(|n| (format!("key-{n}"), json!("x".repeat(1_000_000)))).collect::<serde_json::Map<_, _>>().into();
    let server = cluster();
    server.add(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"}, "data": data}));
    let (code, said) = run(&server, &[]);
    assert!(code == Some(0) || code == Some(1), "{code:?}: {said}");
}
