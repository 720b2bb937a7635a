use std::collections::BTreeSet;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::netpol::{
    Direction, Endpoint, PodEnd, Policy, PolicySet, Port, Ports, Protocol, Rule, Subject,
};
use crate::snapshot::{Cluster, Object};
use crate::text::similar::nearest_name;
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that each port name in a NetworkPolicy (`port: http`) is declared, with the same protocol, by a container
    /// of the pods concerned: for ingress the pods that the policy selects, for egress the pods that they connect to.
    ///
    /// ## Why it matters
    ///
    /// A name that no container declares resolves to no port, so the rule opens nothing. The name is that of the
    /// container port (`spec.containers[].ports[].name`), not that of the Service port.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -l SELECTOR -o jsonpath='{.items[*].spec.containers[*].ports}'` shows the
    /// declared ports.
    ///
    /// ## How to fix
    ///
    /// Use the name of the container port, or its number.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire where at least one of the pods declares the name, or where there are no pods and no
    /// workloads to compare with.
    ///
    /// The finding is `info` where the same rule opens other ports that the pods declare and the name resembles none of
    /// their remaining ports: it probably belongs to a listener that is not in use.
    "network-policy/named-port": Warning,
    "a NetworkPolicy uses a port name that no container declares",
    needs: [NetworkPolicy],
    optional: [
        Pod, Namespace, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob,
    ],
    reads_custom: true,
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let set = PolicySet::new(cluster);
    for policy in set.policies() {
        for direction in [Direction::Ingress, Direction::Egress] {
            for (n, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
                for (m, port) in rule.ports.iter().enumerate() {
                    let (Ports::Named(name), Some(protocol)) = (&port.ports, port.protocol) else { continue };
                    let listening = listening(&set, policy, rule, direction);
                    if listening.is_empty() || listening.iter().any(|s| declares(s, name, protocol)) {
                        continue;
                    }
                    let list = if direction == Direction::Ingress { "ingress" } else { "egress" };
                    let path = format!("spec.{list}[{n}].ports[{m}]");
                    report.add(finding(policy, rule, name, protocol, &path, &listening));
                }
            }
        }
    }
}

/// The workloads whose containers define the port names of a rule.
fn listening<'s, 'a>(
    set: &'s PolicySet<'a>,
    policy: &'s Policy<'a>,
    rule: &'s Rule,
    direction: Direction,
) -> Vec<&'s Subject<'a>> {
    if direction == Direction::Ingress {
        return set.selected_by(policy).collect();
    }
    // A rule without peers, or with IP blocks, applies to more than the present pods: it has none here.
    set.peers_of(policy, rule).collect()
}

fn declares(subject: &Subject, name: &str, protocol: Protocol) -> bool {
    subject.end.named_ports(name).any(|port| port.protocol == protocol)
}

fn finding(
    policy: &Policy,
    rule: &Rule,
    name: &str,
    protocol: Protocol,
    path: &str,
    listening: &[&Subject],
) -> Finding {
    let object = policy.object.reference();
    let known: BTreeSet<String> = listening
        .iter()
        .flat_map(|s| s.end.spec.running_containers())
        .flat_map(|container| &container.ports)
        .map(|port| match port.name.as_str() {
            "" => port.container_port.to_string(),
            name => format!("{name} ({})", port.container_port),
        })
        .collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let owners: Vec<String> = listening.iter().map(|s| s.name()).collect();
    let owners = words::list(&owners, 3);
    let what = if known.is_empty() { "none".to_string() } else { words::list(&known, 5) };
    let other_protocol = listening.iter().any(|s| s.end.named_ports(name).next().is_some());
    let wanted = if other_protocol { format!("{protocol} port {name}") } else { format!("port {name}") };
    let message = format!(
        "NetworkPolicy {} opens {wanted}, but no container of {owners} declares it; declared: {what}",
        policy.name()
    );
    // A port that another entry of the rule opens is not the intended one.
    let opened = |end: &PodEnd, port: Port| rule.ports.iter().any(|p| p.matches(port, &Endpoint::Pod(*end)));
    let declared =
        listening.iter().flat_map(|s| s.end.spec.running_containers().flat_map(|c| &c.ports).map(|p| (s.end, p)));
    let declared = declared.filter_map(|(end, port)| {
        let protocol = Protocol::parse(&port.protocol)?;
        Some((port.name.as_str(), opened(&end, Port { number: port.container_port, protocol })))
    });
    let (others, closed): (Vec<_>, Vec<_>) = declared.partition(|(_, is_open)| *is_open);
    let near = nearest_name(name, closed.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()));
    let is_unused_listener = near.is_none() && !others.is_empty() && !other_protocol;
    let severity = if is_unused_listener { Severity::Info } else { Severity::Warning };
    let text = match near {
        Some(near) => format!("Set {path}.port to {near}"),
        None => format!("Set {path}.port to a declared port name, or to a port number"),
    };
    Finding::new(severity, object.clone(), message)
        .evidence(format!("the rule opens {protocol} {name}"), &object, path)
        .fix_command(text, kubectl(["-n", policy.namespace(), "edit", "networkpolicy", policy.name()]))
        .key(path)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: api, namespace: shop, labels: {app: api}}
        spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}";

    fn ingress(port: &str) -> String {
        format!(
            "
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata: {{name: api-in, namespace: shop}}
            spec: {{podSelector: {{matchLabels: {{app: api}}}}, ingress: [{{ports: [{port}]}}]}}"
        )
    }

    #[test]
    fn fires_when_no_container_declares_the_name() {
        check(&RULE, &[POD, &ingress("{port: web}")]).finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in opens port web, but no container of Pod api declares it; declared: http (8080)",
        ]);
        check(&RULE, &[POD, &ingress("{port: http, protocol: UDP}")]).finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in opens UDP port http, but no container of Pod api declares it; declared: http (8080)",
        ]);
    }

    #[test]
    fn quiet_when_one_declares_it() {
        check(&RULE, &[POD, &ingress("{port: http}")]).finds_nothing();
        let other = POD.replace("name: api, namespace", "name: bare, namespace").replace("name: http, ", "");
        check(&RULE, &[POD, &other, &ingress("{port: http}")]).finds_nothing();
    }

    /// A chart opens `http` and `https`, and the server listens on only one of them.
    #[test]
    fn fires_as_info_for_a_listener_that_is_not_in_use() {
        let said = check(&RULE, &[POD, &ingress("{port: http}, {port: https}")]);
        assert_eq!(said.finding().severity.to_string(), "info");
        let metrics = POD.replace("ports: [", "ports: [{name: metrics, containerPort: 9090}, ");
        let said = check(&RULE, &[&metrics, &ingress("{port: http}, {port: metric}")]);
        assert_eq!(said.finding().severity.to_string(), "warning");
    }

    #[test]
    fn quiet_without_pods() {
        check(&RULE, &[&ingress("{port: web}")]).finds_nothing();
    }

    #[test]
    fn fires_for_the_pods_that_are_connected_to() {
        let egress = |peer: &str, port: &str| {
            format!(
                "
                apiVersion: networking.k8s.io/v1
                kind: NetworkPolicy
                metadata: {{name: out, namespace: shop}}
                spec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{peer}], ports: [{{port: {port}}}]}}]}}"
            )
        };
        let api = "{podSelector: {matchLabels: {app: api}}}";
        check(&RULE, &[POD, &egress(api, "grpc")]).finds(&[
            "warning NetworkPolicy shop/out: NetworkPolicy out opens port grpc, but no container of Pod api declares it; declared: http (8080)",
        ]);
        check(&RULE, &[POD, &egress(api, "http")]).finds_nothing();
        check(&RULE, &[POD, &egress("{ipBlock: {cidr: 10.0.0.0/8}}", "grpc")]).finds_nothing();
    }
}
