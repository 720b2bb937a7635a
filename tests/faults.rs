//! Faults of the API server: the program ends in bounded time, reports what it could not read, and never reports an
//! incomplete cluster as healthy.

use std::time::{Duration, Instant};

use crate::api_server::{ApiServer, Discovery, Then, When};
use assert_cmd::Command;
use jiff::{SignedDuration, Timestamp};
use kubectl_gpt_analyzers::Kind;
use serde_json::{Value, json};

/// The default request timeout is 30 seconds; two are enough for a server that hangs.
const IMPATIENT: &[&str] = &["--request-timeout", "2s"];
const BOUND: Duration = Duration::from_secs(60);

/// A healthy cluster with more than one page of ConfigMaps, and a custom resource.
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

/// The exit code, standard output and standard error.
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

/// Runs all cases concurrently, each against its own server.
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
        case("half a JSON", Then::Half, "malformed response"),
        case("no JSON", Then::Garbage, "malformed response"),
        case("too many requests, for a minute", Then::TooManyRequests { retry_after: 60 }, "too many requests"),
        case("too many requests, repeatedly", Then::TooManyRequests { retry_after: 1 }, "too many requests"),
        case("gone", Then::Gone, "listing pods in all namespaces"),
        case("an error of the server", Then::InternalError, "leader changed"),
        case("one object is broken", Then::BrokenItem, "some checks could not be evaluated"),
    ]);
}

#[test]
fn a_list_fails_midway() {
    let middle = || When::listing("configmaps").continued();
    let case = |name, then| Case { name, when: middle(), then, code: 3, says: "listing configmaps in all namespaces" };
    hold(vec![
        case("hangs", Then::Hang),
        case("breaks off", Then::Cut),
        case("half a JSON", Then::Half),
        case("too many requests", Then::TooManyRequests { retry_after: 60 }),
        case("the same page repeatedly", Then::SamePage),
    ]);
}

/// The list is finally requested without a limit, and nothing is missing.
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
        case("unauthorized", Then::Unauthorized),
        case("an error of the server", Then::InternalError),
    ]);
}

/// All requests after the first ones are throttled for a minute or longer: the retry budget is shared by all kinds.
#[test]
fn all_requests_are_throttled() {
    let server = cluster();
    // The version and discovery.
    server.fail(When::everything().after(3), Then::TooManyRequests { retry_after: 7 });
    let (code, said) = run(&server, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("listing pods in all namespaces: too many requests"), "{said}");
    assert!(!said.contains("No problems found: "), "{said}");
    let pods = server.requests_for("pods").len();
    assert!((4..=6).contains(&pods), "the first kinds are retried: {pods}");
    assert_eq!(server.requests_for("ingresses").len(), 1, "the last ones are not");
}

/// Throttling for a few seconds only: nothing is lost.
#[test]
fn all_requests_are_throttled_temporarily() {
    let server = cluster();
    server.fail(When::everything().after(3).times(30), Then::TooManyRequests { retry_after: 1 });
    let (code, said) = run(&server, &[]);
    assert_eq!(code, Some(0), "{said}");
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
        says: "listing carts.shop.example.com in all namespaces: timed out",
    }]);
}

/// Servers before Kubernetes 1.26 discover groups one by one, and may hang for each.
#[test]
fn an_aggregated_api_hangs_in_discovery() {
    for (path, says) in [("/apis/shop.example.com/v1", "shop.example.com"), ("/apis/policy/v1", "poddisruptionbudgets")]
    {
        let server = cluster();
        server.discovery(Discovery::Plain);
        server.fail(When::path(path), Then::Hang);
        let (code, said) = run(&server, IMPATIENT);
        assert!(code == Some(3) && said.contains(says) && said.contains("timeout"), "{path}: {code:?} {said}");
    }
}

/// Random sets of forbidden kinds; single kinds are tested in `forbidden.rs`.
#[test]
fn many_kinds_are_forbidden_together() {
    // A linear congruential generator: the sets differ from each other but are reproducible.
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

/// Objects may be duplicated or missing if they move between pages while a list is restarted.
#[test]
fn objects_are_duplicated() {
    let server = cluster();
    for n in 0..600 {
        // Duplicate names, and the same uid for all.
        server.add(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c-{}", n / 2), "namespace": "shop", "uid": "same"}}));
    }
    server.fail(When::listing("configmaps").continued().times(1), Then::Gone);
    let (code, said) = run(&server, &[]);
    assert_eq!(code, Some(0), "{said}");
}

/// Finished pods are created and deleted while their list is read, so that some pods are on two pages or on none.
#[test]
fn objects_change_between_pages() {
    let finished = |n: usize| {
        json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Succeeded"},
            "metadata": {"name": format!("finished-{n:03}"), "namespace": "shop", "uid": format!("finished-{n}")}})
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/healthy-shop/cluster.json");
    let list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let recorded = list["items"].as_array().unwrap();
    let pods = recorded.iter().filter(|item| item["kind"] == "Pod").count();
    // The first page ends within the pods of the shop.
    let world: Vec<Value> = (0..500 - pods / 2).map(finished).chain(recorded.iter().cloned()).collect();
    let checked = |come: usize, go: usize| {
        let server = ApiServer::start(world.clone());
        server.fail(
            When::listing("pods").continued().times(1),
            Then::Meanwhile { come: (600..600 + come).map(finished).collect(), go },
        );
        let (code, said) = run(&server, &[]);
        assert_eq!(code, Some(0), "{come}, {go}: {said}");
        assert_eq!(server.requests_for("pods").len(), 2);
        let words: Vec<&str> = said.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "objects").unwrap();
        words[at - 1].parse::<usize>().unwrap()
    };
    let all = checked(0, 0);
    assert_eq!(checked(2, 0), all, "two pods are duplicated and count once");
    assert_eq!(checked(0, 2), all - 2, "two pods are missing");
}

/// Duplicate objects, and all with the same uid, as in recordings that were assembled by hand.
#[test]
fn uids_that_are_not_unique() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/crash-loop/cluster.json");
    let found = |server: &ApiServer| {
        let (code, said) = run(server, &["-o", "json", "--no-logs"]);
        assert_eq!(code, Some(1), "{said}");
        let report: Value = serde_json::from_str(&said).unwrap();
        let findings = report["findings"].as_array().unwrap().clone();
        findings.iter().map(|f| format!("{} {} {}", f["rule"], f["object"], f["message"])).collect::<Vec<_>>()
    };
    let list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let items = list["items"].as_array().unwrap();
    let expected = found(&ApiServer::start(items.clone()));
    assert_eq!(found(&ApiServer::start([items.clone(), items.clone()].concat())), expected, "everything twice");
    let mut same = items.clone();
    for item in &mut same {
        item["metadata"]["uid"] = "same".into();
        for owner in item["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
            owner["uid"] = "same".into();
        }
    }
    assert_eq!(found(&ApiServer::start(same)), expected, "one uid for all");
}

/// A healthy cluster with a number of finished pods of the given size.
fn with_large_pods(count: usize, bytes: usize) -> ApiServer {
    let server = cluster();
    let long = "x".repeat(bytes);
    for n in 0..count {
        server.add(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("huge-{n}"), "namespace": "shop", "annotations": {"note": long}},
            "status": {"phase": "Succeeded"}}));
    }
    server
}

/// Pods of 40 KB each: the pages after the first are smaller.
#[test]
fn large_objects() {
    let server = with_large_pods(520, 40_000);
    let (code, said) = run(&server, &[]);
    assert_eq!(code, Some(0), "{said}");
    let limits: Vec<String> = server.requests_for("pods");
    assert!(limits.last().unwrap().contains("limit=166"), "{limits:?}");
}

/// Pods of 1 MB each, the maximum size in etcd.
#[test]
fn huge_objects() {
    let (code, said) = run(&with_large_pods(60, 1_000_000), &[]);
    assert_eq!(code, Some(0), "{said}");
}

/// A server that ignores the requested media type sends whole ConfigMaps; their values are discarded.
#[test]
fn huge_config_maps() {
    let data: Value =
        (0..100).map(|n| (format!("key-{n}"), json!("x".repeat(1_000_000)))).collect::<serde_json::Map<_, _>>().into();
    let server = cluster();
    server.add(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"}, "data": data}));
    let (code, said) = run(&server, &[]);
    assert!(code == Some(0) || code == Some(1), "{code:?}: {said}");
}

/// Timestamps come from the cluster's clocks. With a local clock that is hours behind, the pod would be in the future
/// and never overdue.
#[test]
fn ages_use_the_clock_of_the_cluster() {
    for hours in [-5, 5] {
        let skew = SignedDuration::from_hours(hours);
        let waiting = |since: SignedDuration| {
            let since = (Timestamp::now() + skew - since).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let server = cluster();
            server.clock(skew);
            server.add(json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "waiting", "namespace": "shop", "uid": "waiting", "creationTimestamp": since},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
                "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": "0/3 nodes are available", "lastTransitionTime": since}]}}));
            run(&server, &[])
        };
        let direction = if hours > 0 { "behind" } else { "ahead of" };
        let note =
            format!("the local clock is 5h {direction} the API server's clock; ages are computed with the latter");
        let (code, said) = waiting(SignedDuration::from_mins(30));
        assert!(code == Some(1) && said.contains("Pod shop/waiting") && said.contains(&note), "{hours}: {said}");
        let (code, said) = waiting(SignedDuration::from_secs(5));
        assert!(code == Some(0) && said.contains(&note), "{hours}: {said}");
    }
}

/// The recording is newer than the clock of this server.
#[test]
fn a_cluster_in_the_future_has_no_false_alarms() {
    let server = cluster();
    server.clock(SignedDuration::from_hours(-24 * 365 * 10));
    let (code, said) = run(&server, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the local clock is 3650d ahead of the API server's clock"), "{said}");
}
