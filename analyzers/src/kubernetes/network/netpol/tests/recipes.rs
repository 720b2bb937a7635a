//! The policies of <https://github.com/ahmetb/kubernetes-network-policy-recipes>, by their numbers.

use super::super::Answer::{No, Yes};
use super::{namespace, pod, policy, table};

/// The pods and namespaces of all recipes, with the policies.
fn world(policies: &[String]) -> Vec<String> {
    let mut world = vec![
        namespace("default", ""),
        namespace("dev", ", purpose: testing"),
        namespace("prod", ", purpose: production, team: operations"),
        namespace("kube-system", ""),
        pod("default", "web", "app: web", "10.0.0.1", ""),
        pod("default", "bookstore", "app: bookstore, role: api", "10.0.0.2", ""),
        pod("default", "frontend", "app: bookstore, role: frontend", "10.0.0.3", ""),
        pod("default", "db", "app: bookstore, role: db", "10.0.0.4", ""),
        pod("default", "search", "app: bookstore, role: search", "10.0.0.5", ""),
        pod("default", "catalog", "app: inventory, role: web", "10.0.0.6", ""),
        pod("default", "apiserver", "app: apiserver", "10.0.0.7", ""),
        pod("default", "monitor", "role: monitoring", "10.0.0.8", ""),
        pod("default", "foo", "app: foo", "10.0.0.9", ""),
        pod("default", "coffee", "type: other", "10.0.0.10", ""),
        pod("dev", "client", "app: client", "10.0.1.1", ""),
        pod("dev", "monitor", "type: monitoring", "10.0.1.2", ""),
        pod("prod", "client", "app: client", "10.0.2.1", ""),
        pod("prod", "monitor", "type: monitoring", "10.0.2.2", ""),
        pod("kube-system", "dns", "k8s-app: kube-dns", "10.0.3.1", ""),
    ];
    world.extend_from_slice(policies);
    world
}

#[track_caller]
fn recipe(policies: &[String], questions: &[(&str, &str, &str, super::super::Answer)]) {
    let world = world(policies);
    table(&world.iter().map(String::as_str).collect::<Vec<_>>(), questions);
}

#[test]
fn recipe_01_deny_all_traffic_to_an_application() {
    let deny = policy("web-deny-all", "podSelector: {matchLabels: {app: web}}, ingress: []");
    recipe(
        &[deny],
        &[
            ("default/foo", "default/web", "80", No),
            ("dev/client", "default/web", "80", No),
            ("internet", "default/web", "80", No),
            ("default/foo", "default/db", "80", Yes),
            ("default/web", "internet", "443", Yes),
            ("default/web", "default/web", "80", Yes),
        ],
    );
}

#[test]
fn recipe_02_limit_traffic_to_an_application() {
    let allow = policy(
        "api-allow",
        "podSelector: {matchLabels: {app: bookstore, role: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: bookstore}}}]}]",
    );
    recipe(
        &[allow],
        &[
            ("default/frontend", "default/bookstore", "80", Yes),
            ("default/foo", "default/bookstore", "80", No),
            ("dev/client", "default/bookstore", "80", No),
        ],
    );
}

#[test]
fn recipe_02a_allow_all_traffic_to_an_application() {
    let policies = [
        policy("web-deny-all", "podSelector: {matchLabels: {app: web}}, ingress: []"),
        policy("web-allow-all", "podSelector: {matchLabels: {app: web}}, ingress: [{}]"),
    ];
    recipe(&policies, &[("prod/client", "default/web", "80", Yes), ("internet", "default/web", "80", Yes)]);
}

#[test]
fn recipe_03_deny_all_non_whitelisted_traffic_in_the_namespace() {
    let deny = policy("default-deny-all", "podSelector: {}, ingress: []");
    recipe(
        &[deny],
        &[
            ("default/foo", "default/web", "80", No),
            ("default/foo", "prod/client", "80", Yes),
            ("default/foo", "internet", "80", Yes),
        ],
    );
}

#[test]
fn recipe_04_deny_traffic_from_other_namespaces() {
    let deny =
        policy("deny-from-other-namespaces", "podSelector: {matchLabels: }, ingress: [{from: [{podSelector: {}}]}]");
    recipe(
        &[deny],
        &[
            ("default/foo", "default/web", "80", Yes),
            ("dev/client", "default/web", "80", No),
            ("internet", "default/web", "80", No),
        ],
    );
}

#[test]
fn recipe_05_allow_traffic_from_all_namespaces() {
    let allow = policy(
        "web-allow-all-namespaces",
        "podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}]}]",
    );
    recipe(
        &[allow],
        &[
            ("default/foo", "default/web", "80", Yes),
            ("dev/client", "default/web", "80", Yes),
            ("internet", "default/web", "80", No),
        ],
    );
}

#[test]
fn recipe_06_allow_traffic_from_a_namespace() {
    let allow = policy(
        "web-allow-prod",
        "podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {purpose: production}}}]}]",
    );
    recipe(
        &[allow],
        &[
            ("prod/client", "default/web", "80", Yes),
            ("dev/client", "default/web", "80", No),
            ("default/foo", "default/web", "80", No),
        ],
    );
}

#[test]
fn recipe_07_allow_traffic_from_some_pods_in_another_namespace() {
    let allow = policy(
        "web-allow-all-ns-monitoring",
        "podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: operations}}, podSelector: {matchLabels: {type: monitoring}}}]}]",
    );
    recipe(
        &[allow],
        &[
            ("prod/monitor", "default/web", "80", Yes),
            ("prod/client", "default/web", "80", No),
            ("dev/monitor", "default/web", "80", No),
        ],
    );
}

#[test]
fn recipe_08_allow_external_traffic() {
    let allow = policy("web-allow-external", "podSelector: {matchLabels: {app: web}}, ingress: [{from: []}]");
    recipe(&[allow], &[("internet", "default/web", "80", Yes), ("dev/client", "default/web", "80", Yes)]);
}

#[test]
fn recipe_09_allow_traffic_only_to_a_port() {
    let allow = policy(
        "api-allow-5000",
        "podSelector: {matchLabels: {app: apiserver}}, ingress: [{ports: [{port: 5000}], from: [{podSelector: {matchLabels: {role: monitoring}}}]}]",
    );
    recipe(
        &[allow],
        &[
            ("default/monitor", "default/apiserver", "5000", Yes),
            ("default/monitor", "default/apiserver", "8000", No),
            ("default/foo", "default/apiserver", "5000", No),
            ("default/monitor", "default/apiserver", "UDP 5000", No),
        ],
    );
}

#[test]
fn recipe_10_allow_traffic_with_multiple_selectors() {
    let allow = policy(
        "redis-allow-services",
        "podSelector: {matchLabels: {app: bookstore, role: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: bookstore, role: search}}}, {podSelector: {matchLabels: {app: bookstore, role: api}}}, {podSelector: {matchLabels: {app: inventory, role: web}}}]}]",
    );
    recipe(
        &[allow],
        &[
            ("default/search", "default/db", "6379", Yes),
            ("default/bookstore", "default/db", "6379", Yes),
            ("default/catalog", "default/db", "6379", Yes),
            ("default/frontend", "default/db", "6379", No),
        ],
    );
}

#[test]
fn recipe_11_deny_egress_traffic_from_an_application() {
    let deny = "podSelector: {matchLabels: {app: foo}}, policyTypes: [Egress], egress: []";
    recipe(
        &[policy("foo-deny-egress", deny)],
        &[
            ("default/foo", "default/web", "80", No),
            ("default/foo", "kube-system/dns", "UDP 53", No),
            ("default/web", "default/foo", "80", Yes),
        ],
    );
    let dns = "podSelector: {matchLabels: {app: foo}}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}]";
    recipe(
        &[policy("foo-deny-egress", dns)],
        &[
            ("default/foo", "default/web", "80", No),
            ("default/foo", "kube-system/dns", "UDP 53", Yes),
            ("default/foo", "internet", "53", Yes),
        ],
    );
}

#[test]
fn recipe_12_deny_all_non_whitelisted_traffic_from_the_namespace() {
    let deny = policy("default-deny-all-egress", "policyTypes: [Egress], podSelector: {}, egress: []");
    recipe(&[deny], &[("default/web", "dev/client", "80", No), ("dev/client", "default/web", "80", Yes)]);
}

#[test]
fn recipe_14_deny_external_egress_traffic() {
    let deny = policy(
        "foo-deny-external-egress",
        "podSelector: {matchLabels: {app: foo}}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}, {to: [{namespaceSelector: {}}]}]",
    );
    recipe(
        &[deny],
        &[
            ("default/foo", "default/web", "80", Yes),
            ("default/foo", "prod/client", "80", Yes),
            ("default/foo", "internet", "80", No),
            ("default/foo", "internet", "UDP 53", Yes),
        ],
    );
}
