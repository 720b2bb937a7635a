//! The specification as tables, the well-known recipes, and a comparison with a naive evaluator on random clusters.

mod naive;
mod recipes;
mod specification;

use super::{Answer, Direction, Endpoint, PolicySet, Port, Protocol};
use crate::snapshot::Cluster;
use crate::snapshot::model::Pod;
use crate::testing::TestCluster;

/// One end as tests write it: `namespace/pod`, an address, or `internet`.
fn end<'a>(cluster: &'a Cluster, text: &str) -> Endpoint<'a> {
    if text == "internet" {
        return Endpoint::Internet;
    }
    match text.split_once('/') {
        Some((namespace, name)) => Endpoint::pod(cluster.get::<Pod>(namespace, name).found().unwrap()),
        None => Endpoint::Address(text.parse().unwrap()),
    }
}

/// `80`, `UDP 53`.
fn port(text: &str) -> Port {
    let (protocol, number) = text.split_once(' ').unwrap_or(("TCP", text));
    Port { number: number.parse().unwrap(), protocol: Protocol::parse(protocol).unwrap() }
}

/// A cluster and questions about it: from, to, port, and the expected answer.
#[track_caller]
fn table(documents: &[&str], questions: &[(&str, &str, &str, Answer)]) {
    let cluster = TestCluster::new(documents).build();
    let set = PolicySet::new(&cluster);
    for (from, to, at, expected) in questions {
        let verdict = set.verdict(&end(&cluster, from), &end(&cluster, to), port(at));
        assert_eq!(verdict.allowed, *expected, "{from} → {to}:{at}: {verdict:#?}");
    }
}

/// A pod on one line.
fn pod(namespace: &str, name: &str, labels: &str, ip: &str, ports: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}, \
         spec: {{nodeName: n1, containers: [{{name: c, ports: [{ports}]}}]}}, \
         status: {{hostIP: 192.168.0.1, podIP: {ip}, podIPs: [{{ip: {ip}}}]}}}}"
    )
}

fn namespace(name: &str, labels: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{kubernetes.io/metadata.name: {name}{labels}}}}}}}"
    )
}

/// A NetworkPolicy of namespace `default`.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: default}}, spec: {{{spec}}}}}"
    )
}

#[test]
fn reports_which_policy_decides() {
    let world = [
        pod("default", "web", "app: web", "10.0.0.1", ""),
        pod("default", "api", "app: api", "10.0.0.2", ""),
        policy("deny", "podSelector: {}, policyTypes: [Ingress, Egress]"),
        policy(
            "api-in",
            "podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]",
        ),
    ];
    let cluster = TestCluster::new(&world.each_ref().map(String::as_str)).build();
    let set = PolicySet::new(&cluster);
    let verdict = set.verdict(&end(&cluster, "default/web"), &end(&cluster, "default/api"), port("80"));
    let names = |side: &super::Side| -> Vec<String> {
        side.isolated_by.iter().filter_map(|policy| policy.metadata.name.clone()).collect()
    };
    assert_eq!(verdict.allowed, Answer::No);
    assert_eq!((verdict.egress.answer, names(&verdict.egress)), (Answer::No, vec!["deny".to_string()]));
    assert_eq!(names(&verdict.ingress), ["api-in", "deny"]);
    assert_eq!(verdict.ingress.decided_by.map(|policy| policy.reference().name), Some("api-in".to_string()));
    let Endpoint::Pod(web) = end(&cluster, "default/web") else { panic!("no pod") };
    assert_eq!(set.isolating(Direction::Egress, &web).len(), 1);
}

#[test]
fn finds_each_pod_of_a_policy_once_and_in_order() {
    let world = [
        namespace("default", ""),
        namespace("dev", ", team: a"),
        namespace("prod", ", team: b"),
        pod("default", "web", "app: web, tier: front", "10.0.0.1", ""),
        pod("default", "api", "app: api, tier: back", "10.0.0.2", ""),
        pod("dev", "client", "app: client", "10.0.1.1", ""),
        pod("prod", "client", "app: client", "10.0.2.1", ""),
        policy(
            "out",
            "podSelector: {matchExpressions: [{key: app, operator: Exists}, {key: tier, operator: In, values: [back, front]}]}, \
             policyTypes: [Egress], egress: [{to: [\
             {namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [web, client]}]}}, \
             {podSelector: {matchLabels: {app: web}}}]}, \
             {to: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: client}}}]}, \
             {to: [{podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 10.0.0.0/8}}]}]",
        ),
    ];
    let cluster = TestCluster::new(&world.each_ref().map(String::as_str)).build();
    let set = PolicySet::new(&cluster);
    let [policy] = set.policies() else { panic!("one policy") };
    let [several, one, block] = policy.rules(Direction::Egress).unwrap() else { panic!("three rules") };
    let peers = |rule| set.peers_of(policy, rule).map(|subject| subject.owner.to_string()).collect::<Vec<_>>();
    assert_eq!(peers(several), ["Pod default/web", "Pod dev/client", "Pod prod/client"]);
    assert_eq!(peers(one), ["Pod dev/client"]);
    assert!(peers(block).is_empty());
    let selected: Vec<String> = set.selected_by(policy).map(|subject| subject.owner.to_string()).collect();
    assert_eq!(selected, ["Pod default/api", "Pod default/web"]);
}
