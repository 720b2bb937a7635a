//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>, sentence by sentence.

use super::super::Answer::{No, Unknown, Yes};
use super::{end, namespace, pod, policy, port, table};
use crate::kubernetes::network::netpol::PolicySet;
use crate::snapshot::Kind;
use crate::testing::TestCluster;

fn world(policies: &[&str]) -> Vec<String> {
    let mut world = vec![
        namespace("default", ""),
        namespace("other", ", team: a"),
        pod(
            "default",
            "a",
            "app: a",
            "10.0.0.1",
            "{name: http, containerPort: 80}, {name: dns, containerPort: 53, protocol: UDP}",
        ),
        pod("default", "b", "app: b", "10.0.0.2", "{name: http, containerPort: 8080}"),
        pod("other", "c", "app: a", "10.1.0.1", "{name: http, containerPort: 9090}"),
    ];
    world.extend(policies.iter().enumerate().map(|(n, spec)| policy(&format!("p{n}"), spec)));
    world
}

#[track_caller]
fn holds(policies: &[&str], questions: &[(&str, &str, &str, super::super::Answer)]) {
    let world = world(policies);
    table(&world.iter().map(String::as_str).collect::<Vec<_>>(), questions);
}

#[test]
fn policy_types_default_to_ingress_and_to_egress_if_there_are_egress_rules() {
    holds(&["podSelector: {}"], &[("other/c", "default/a", "80", No), ("default/a", "other/c", "80", Yes)]);
    holds(&["podSelector: {}, egress: []"], &[("default/a", "other/c", "80", Yes)]);
    let own = "podSelector: {}, egress: [{to: [{podSelector: {}}]}]";
    holds(&[own], &[("default/a", "other/c", "80", No), ("other/c", "default/a", "80", No)]);
    let ignored = "podSelector: {}, policyTypes: [Egress], ingress: [{}], egress: [{}]";
    holds(&[ignored], &[("other/c", "default/a", "80", Yes)]);
    holds(&["policyTypes: [Ingress]"], &[("other/c", "default/a", "80", No)]);
}

#[test]
fn both_ends_must_allow() {
    let policies = [
        "podSelector: {matchLabels: {app: a}}, policyTypes: [Egress]",
        "podSelector: {matchLabels: {app: b}}, ingress: [{}]",
    ];
    holds(&policies, &[("default/a", "default/b", "80", No), ("other/c", "default/b", "80", Yes)]);
}

#[test]
fn one_element_with_two_selectors_is_not_two_elements() {
    let and = "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: b}}}]}]";
    holds(&[and], &[("other/c", "default/b", "80", No), ("default/b", "default/a", "80", No)]);
    let or = "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}, {podSelector: {matchLabels: {app: b}}}]}]";
    holds(&[or], &[("other/c", "default/b", "80", Yes), ("default/b", "default/a", "80", Yes)]);
}

#[test]
fn named_ports_are_looked_up_pod_by_pod() {
    let ingress = "podSelector: {}, ingress: [{ports: [{port: http}]}]";
    holds(
        &[ingress],
        &[
            ("other/c", "default/a", "80", Yes),
            ("other/c", "default/a", "8080", No),
            ("other/c", "default/b", "8080", Yes),
            ("other/c", "default/a", "UDP 80", No),
        ],
    );
    let egress =
        "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}, {port: dns, protocol: UDP}]}]";
    holds(
        &[egress],
        &[
            ("default/b", "default/a", "80", Yes),
            ("default/b", "default/a", "UDP 53", Yes),
            ("default/a", "other/c", "9090", Yes),
            ("default/a", "other/c", "80", No),
            ("default/a", "internet", "80", No),
        ],
    );
}

#[test]
fn ports_protocols_and_ranges() {
    let ranges = "podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 8080}, {protocol: UDP}, {port: 5, protocol: SCTP}]}]";
    holds(
        &[ranges],
        &[
            ("other/c", "default/a", "7999", No),
            ("other/c", "default/a", "8000", Yes),
            ("other/c", "default/a", "8080", Yes),
            ("other/c", "default/a", "8081", No),
            ("other/c", "default/a", "UDP 1", Yes),
            ("other/c", "default/a", "SCTP 5", Yes),
            ("other/c", "default/a", "SCTP 6", No),
        ],
    );
}

#[test]
fn ip_blocks_with_exceptions() {
    let block = "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.168.0.0/16]}}]}]";
    holds(
        &[block],
        &[
            ("default/a", "internet", "443", Yes),
            ("default/a", "8.8.8.8", "443", Yes),
            ("default/a", "10.9.9.9", "443", No),
            ("default/a", "default/b", "443", No),
        ],
    );
    let pods = "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.0.0/16}}]}]";
    holds(
        &[pods],
        &[
            ("other/c", "default/a", "80", Yes),
            ("default/b", "default/a", "80", No),
            ("internet", "default/a", "80", No),
        ],
    );
    let public = "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]";
    holds(&[public], &[("internet", "default/a", "80", Unknown), ("203.0.113.7", "default/a", "80", Yes)]);
    holds(
        &["podSelector: {}, ingress: [{from: [{ipBlock: {cidr: nonsense}}]}]"],
        &[("internet", "default/a", "80", No)],
    );
    let six = "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 'fd00::/8'}}]}]";
    holds(&[six], &[("default/a", "fd00::1", "80", Yes), ("default/a", "10.0.0.1", "80", No)]);
}

#[test]
fn traffic_from_the_own_node_is_always_allowed() {
    let deny = "podSelector: {}, policyTypes: [Ingress, Egress]";
    holds(&[deny], &[("192.168.0.1", "default/a", "80", Yes), ("192.168.0.2", "default/a", "80", No)]);
}

#[test]
fn pods_on_the_host_network_are_not_selected_and_do_not_match_by_labels() {
    let mut world = world(&["podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: host}}}]}]"]);
    world.push(
        "{apiVersion: v1, kind: Pod, metadata: {name: host, namespace: default, labels: {app: host}}, \
         spec: {hostNetwork: true, nodeName: n2}, status: {hostIP: 192.168.0.2, podIP: 192.168.0.2}}"
            .to_string(),
    );
    world.push(
        "{apiVersion: v1, kind: Pod, metadata: {name: near, namespace: other, labels: {app: near}}, \
         spec: {hostNetwork: true, nodeName: n1}, status: {hostIP: 192.168.0.1, podIP: 192.168.0.1}}"
            .to_string(),
    );
    table(
        &world.iter().map(String::as_str).collect::<Vec<_>>(),
        &[
            ("default/host", "default/a", "80", Unknown),
            ("other/near", "default/a", "80", Yes),
            ("default/a", "default/host", "80", Yes),
        ],
    );
}

#[test]
fn namespaces_that_were_not_read_are_known_by_name_only() {
    for (selector, expected) in [
        ("{}", Yes),
        ("{matchLabels: {kubernetes.io/metadata.name: other}}", Yes),
        ("{matchLabels: {kubernetes.io/metadata.name: others}}", No),
        ("{matchLabels: {team: a}}", Unknown),
    ] {
        let spec = format!("podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {selector}}}]}}]");
        let world = world(&[&spec]);
        let world: Vec<&str> = world.iter().map(String::as_str).filter(|d| !d.contains("kind: Namespace")).collect();
        let cluster = TestCluster::new(&world).forbid(Kind::Namespace).build();
        let set = PolicySet::new(&cluster);
        let verdict = set.verdict(&end(&cluster, "other/c"), &end(&cluster, "default/a"), port("80"));
        assert_eq!(verdict.allowed, expected, "{selector}");
    }
}

fn admin(kind: &str, name: &str, priority: i32, rules: &str) -> String {
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, \
         spec: {{priority: {priority}, subject: {{namespaces: {{}}}}, {rules}}}}}"
    )
}

#[test]
fn admin_policies_decide_before_and_baseline_policies_after() {
    let from_other = "from: [{namespaces: {matchLabels: {team: a}}}]";
    let rule = |action: &str| format!("ingress: [{{action: {action}, {from_other}}}]");
    let closed = "podSelector: {}, ingress: []";
    let ask = |more: &[String], policies: &[&str], expected| {
        let mut world = world(policies);
        world.extend_from_slice(more);
        table(&world.iter().map(String::as_str).collect::<Vec<_>>(), &[("other/c", "default/a", "80", expected)]);
    };
    let anp = |name: &str, priority, action: &str| admin("AdminNetworkPolicy", name, priority, &rule(action));
    let baseline = |action: &str| admin("BaselineAdminNetworkPolicy", "default", 0, &rule(action));
    ask(&[anp("x", 5, "Allow")], &[closed], Yes);
    ask(&[anp("x", 5, "Deny")], &["podSelector: {}, ingress: [{}]"], No);
    ask(&[anp("x", 5, "Pass"), anp("z", 9, "Allow")], &[closed], No);
    ask(&[anp("x", 5, "Deny"), anp("z", 1, "Allow")], &[], Yes);
    ask(&[baseline("Deny")], &[], No);
    ask(&[baseline("Deny")], &["podSelector: {}, ingress: [{}]"], Yes);
    ask(&[baseline("Deny"), anp("x", 5, "Pass")], &[], No);
    let names = "egress: [{action: Deny, to: [{domainNames: [example.com]}]}]";
    let mut world = world(&[]);
    world.push(admin("AdminNetworkPolicy", "x", 1, names));
    table(
        &world.iter().map(String::as_str).collect::<Vec<_>>(),
        &[("default/a", "internet", "443", Unknown), ("default/a", "default/b", "443", Yes)],
    );
}

#[test]
fn other_engines_make_a_denial_uncertain() {
    let closed = "podSelector: {}, ingress: []";
    for (document, expected) in [
        ("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: x, namespace: default}}", Unknown),
        ("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: x, namespace: other}}", No),
        ("{apiVersion: crd.projectcalico.org/v1, kind: GlobalNetworkPolicy, metadata: {name: x}}", Unknown),
        (
            "{apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, metadata: {name: x, namespace: default}}",
            Unknown,
        ),
        (
            "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: knp.default.p0, namespace: default}}",
            No,
        ),
        ("{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: x}}", Unknown),
    ] {
        let mut world = world(&[closed]);
        world.push(document.to_string());
        table(&world.iter().map(String::as_str).collect::<Vec<_>>(), &[("other/c", "default/a", "80", expected)]);
    }
}
