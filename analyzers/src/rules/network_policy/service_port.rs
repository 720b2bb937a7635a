use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::netpol::{
    Answer, Direction, Endpoint, Peer, Policy, PolicySet, Port, Ports, Protocol, Rule, Subject,
};
use crate::snapshot::model::{NetworkPolicy, Service};
use crate::snapshot::{Cluster, Object, ObjectRef, Selector};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that a NetworkPolicy that opens the port of a Service opens the port that the pods behind it listen on.
    /// Policies apply after the Service's address and port have been translated to the pod's, so the Service's `port`
    /// has no meaning to them; only the `targetPort` does.
    ///
    /// ## Why it matters
    ///
    /// The policy opens a port that nothing listens on, and the actual port stays closed: connections through the
    /// Service time out, although the Service, its endpoints and its pods are healthy.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe service SERVICE` shows `Port` and `TargetPort`;
    /// `kubectl -n NAMESPACE describe networkpolicy NAME` shows the open port.
    ///
    /// ## How to fix
    ///
    /// Set the port in the policy to the Service's `targetPort`, by number or by the name of the container port.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - where any policy also opens the actual port, or a port range that includes it
    /// - where the pods also declare or probe the Service's port, or another Service port targets it
    /// - for rules whose peers are addresses outside the cluster, or all pods alike
    ///
    /// The finding is `info` where policies of another engine (Cilium, Calico, Antrea) may open the port.
    "network-policy/service-port": Error,
    "a NetworkPolicy opens the port of a Service instead of its targetPort",
    needs: [NetworkPolicy, Service, Pod],
    optional: [
        Namespace, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob,
        AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy, CiliumNetworkPolicy,
        CiliumClusterwideNetworkPolicy, GlobalNetworkPolicy,
    ],
    reads_custom: true,
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let set = PolicySet::new(cluster);
    for policy in set.policies() {
        let mut wrong: BTreeMap<Wrong, BTreeSet<String>> = BTreeMap::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            for (n, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
                for port in rule.ports.iter().filter_map(single) {
                    let found = match direction {
                        Direction::Ingress => ingress(&set, policy, port),
                        Direction::Egress => egress(&set, policy, rule, port),
                    };
                    for (service, real, owner) in found {
                        let wrong_port = Wrong { direction, rule: n, open: port, real, service: service.reference() };
                        wrong.entry(wrong_port).or_default().insert(owner);
                    }
                }
            }
        }
        for (wrong, owners) in wrong {
            report.add(finding(&set, policy.object, &wrong, &owners));
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Wrong {
    direction: Direction,
    rule: usize,
    open: Port,
    real: Port,
    service: ObjectRef,
}

fn single(port: &crate::kubernetes::network::netpol::PortMatch) -> Option<Port> {
    match port.ports {
        Ports::Range(first, last) if first == last => Some(Port { number: first, protocol: port.protocol? }),
        _ => None,
    }
}

type Mistaken<'a> = (&'a Service, Port, String);

/// The selected pods that do not listen on the port that the policy opens for ingress.
fn ingress<'a>(set: &PolicySet<'a>, policy: &Policy<'a>, open: Port) -> Vec<Mistaken<'a>> {
    let mistaken = set.selected_by(policy).flat_map(|subject| mistaken(set, subject, open));
    mistaken
        .filter(|(_, real, subject)| !is_opened(set, subject, *real))
        .map(|(service, real, subject)| (service, real, subject.name()))
        .collect()
}

/// Whether any policy opens a port of a pod to anyone.
fn is_opened<'a>(set: &PolicySet<'a>, subject: &Subject<'a>, port: Port) -> bool {
    let end = Endpoint::Pod(subject.end);
    let policies = set.isolating(Direction::Ingress, &subject.end);
    let mut rules = policies.iter().flat_map(|policy| policy.rules(Direction::Ingress).unwrap_or_default());
    rules.any(|rule| rule.allows_port(port, &end) != Answer::No)
}

/// The egress destinations that do not listen on the port that a rule opens.
fn egress<'a>(set: &PolicySet<'a>, policy: &Policy<'a>, rule: &Rule, open: Port) -> Vec<Mistaken<'a>> {
    let Some(from) = set.selected_by(policy).next() else { return Vec::new() };
    let selects_by_labels = |peer: &&Peer| matches!(peer, Peer::Selected { pods, .. } if !pods.is_empty());
    let peers: Vec<&Peer> = rule.peers.iter().filter(selects_by_labels).collect();
    let namespaces = if peers.is_empty() { &[][..] } else { set.namespaces() };
    let mut found = Vec::new();
    for namespace in namespaces {
        for subject in set.subjects_in(namespace) {
            let end = Endpoint::Pod(subject.end);
            if !peers.iter().any(|peer| peer.matches(set, policy.namespace(), &end) == Answer::Yes) {
                continue;
            }
            for (service, real, subject) in mistaken(set, subject, open) {
                let verdict = set.verdict(&Endpoint::Pod(from.end), &end, real);
                let is_open = verdict.egress.answer == Answer::Yes
                    || (verdict.egress.answer == Answer::Unknown && !set.is_undecided(policy.namespace()));
                if !is_open {
                    found.push((service, real, subject.name()));
                }
            }
        }
    }
    found
}

/// The Services whose `port` is the open one and whose `targetPort` is another.
fn mistaken<'s, 'a>(
    set: &PolicySet<'a>,
    subject: &'s Subject<'a>,
    open: Port,
) -> Vec<(&'a Service, Port, &'s Subject<'a>)> {
    let end = &subject.end;
    if end.declares(open) || end.probes(open.number) {
        return Vec::new();
    }
    let services: Vec<&Service> = set
        .cluster()
        .in_namespace::<Service>(end.namespace)
        .iter()
        .filter(|s| !s.spec.selector.is_empty() && !s.is_external_name() && !s.is_headless())
        .filter(|s| Selector::equals(&s.spec.selector).matches(end.labels))
        .collect();
    let targets: Vec<(&Service, i32, Port)> = services
        .iter()
        .flat_map(|service| service.spec.ports.iter().map(move |port| (*service, port)))
        .filter_map(|(service, port)| {
            Some((service, port.port, end.target(&port.target(), Protocol::parse(&port.protocol)?)?))
        })
        .collect();
    // Another Service port targets this port, so something listens on it.
    if targets.iter().any(|(_, _, target)| *target == open) {
        return Vec::new();
    }
    let by_its_port = targets.into_iter().filter(|(_, port, target)| {
        *port == open.number && target.protocol == open.protocol && (end.declares(*target) || !end.declares_ports())
    });
    by_its_port.map(|(service, _, target)| (service, target, subject)).collect()
}

fn finding(set: &PolicySet, policy: &NetworkPolicy, wrong: &Wrong, owners: &BTreeSet<String>) -> Finding {
    let object = policy.reference();
    let Wrong { direction, rule, open, real, service } = wrong;
    let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
    let listen = if owners.len() == 1 { "listens" } else { "listen" };
    let owners = words::list(&owners, 3);
    let is_undecided = set.is_undecided(policy.namespace());
    let side = match direction {
        Direction::Ingress => "spec.ingress",
        Direction::Egress => "spec.egress",
    };
    let doubt = if is_undecided { " (policies of another engine may)" } else { "" };
    let message = format!(
        "NetworkPolicy {} opens port {open} of Service {}, but {owners} {listen} on port {real}, which no policy \
         opens{doubt}",
        policy.name(),
        service.name
    );
    let patch = serde_json::json!([{
        "op": "add",
        "path": format!("/{}/{rule}/ports/-", side.replace('.', "/")),
        "value": {"protocol": real.protocol.to_string(), "port": real.number},
    }])
    .to_string();
    let new = if is_undecided { Finding::info } else { Finding::error };
    new(object.clone(), message)
        .evidence(format!("the rule opens port {open}"), &object, &format!("{side}[{rule}].ports"))
        .evidence(format!("Service {} maps port {open} to port {real}", service.name), service, "spec.ports")
        .fix_command(
            format!("Open port {real}, which the pods listen on"),
            kubectl(["-n", policy.namespace(), "patch", "networkpolicy", policy.name(), "--type=json", "-p", &patch]),
        )
        .key(format!("{direction:?}/{open}/{}/{}", service.namespace(), service.name))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: back, namespace: shop}
        spec: {selector: {app: back}, ports: [{port: 80, targetPort: 9000}]}";

    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: back, namespace: shop, labels: {app: back}}
        spec: {containers: [{name: back, ports: [{containerPort: 9000}]}]}";

    fn opens(ports: &str) -> String {
        format!(
            "
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata: {{name: back-in, namespace: shop}}
            spec: {{podSelector: {{matchLabels: {{app: back}}}}, ingress: [{{ports: [{ports}]}}]}}"
        )
    }

    const FOUND: &str = "error NetworkPolicy shop/back-in: NetworkPolicy back-in opens port 80 of Service back, but \
                         Pod back listens on port 9000, which no policy opens";

    #[test]
    fn fires_when_the_real_port_stays_closed() {
        let said = check(&RULE, &[SERVICE, POD, &opens("{port: 80}")]);
        said.finds(&[FOUND]);
        assert_eq!(
            said.finding().fix[0].command.as_deref(),
            Some(
                r#"kubectl -n shop patch networkpolicy back-in --type=json -p '[{"op":"add","path":"/spec/ingress/0/ports/-","value":{"port":9000,"protocol":"TCP"}}]'"#
            )
        );
    }

    #[test]
    fn quiet_when_the_real_port_is_open() {
        check(&RULE, &[SERVICE, POD, &opens("{port: 9000}")]).finds_nothing();
        check(&RULE, &[SERVICE, POD, &opens("{port: 80}, {port: 9000}")]).finds_nothing();
        check(&RULE, &[SERVICE, POD, &opens("{port: 80}, {port: 8000, endPort: 9999}")]).finds_nothing();
        let other = opens("{port: 9000}").replace("back-in", "back-too");
        check(&RULE, &[SERVICE, POD, &opens("{port: 80}"), &other]).finds_nothing();
    }

    #[test]
    fn quiet_when_something_listens_on_the_port() {
        let both = POD.replace("{containerPort: 9000}", "{containerPort: 9000}, {containerPort: 80}");
        check(&RULE, &[SERVICE, &both, &opens("{port: 80}")]).finds_nothing();
        let direct =
            SERVICE.replace("{port: 80, ", "{name: direct, port: 81, targetPort: 80}, {name: http, port: 80, ");
        check(&RULE, &[&direct, POD, &opens("{port: 80}")]).finds_nothing();
        check(&RULE, &[SERVICE, POD, &opens("{port: 80, protocol: UDP}")]).finds_nothing();
    }

    #[test]
    fn fires_for_named_target_ports_and_templates_without_status() {
        let named = SERVICE.replace("9000", "http");
        let deployment = "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: back, namespace: shop}
            spec:
              template:
                metadata: {labels: {app: back}}
                spec: {containers: [{name: back, ports: [{name: http, containerPort: 9000}]}]}";
        check(&RULE, &[&named, deployment, &opens("{port: 80}")])
            .finds(&[&FOUND.replace("Pod back", "Deployment back")]);
    }

    const FRONT: &str = "{apiVersion: v1, kind: Pod, metadata: {name: front, namespace: shop, labels: {app: front}}}";

    fn may_reach(port: &str) -> String {
        format!(
            "
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata: {{name: front-out, namespace: shop}}
            spec:
              podSelector: {{matchLabels: {{app: front}}}}
              policyTypes: [Egress]
              egress: [{{to: [{{podSelector: {{matchLabels: {{app: back}}}}}}], ports: [{{port: {port}}}]}}]"
        )
    }

    #[test]
    fn fires_where_the_client_may_only_reach_the_port_of_the_service() {
        check(&RULE, &[SERVICE, POD, FRONT, &may_reach("80")]).finds(&[
            "error NetworkPolicy shop/front-out: NetworkPolicy front-out opens port 80 of Service back, but Pod back \
             listens on port 9000, which no policy opens",
        ]);
    }

    #[test]
    fn quiet_where_the_client_may_reach_the_real_port() {
        check(&RULE, &[SERVICE, POD, FRONT, &may_reach("9000")]).finds_nothing();
    }

    #[test]
    fn fires_as_info_where_cilium_may_open_it() {
        let cilium = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c, namespace: shop}}";
        let said = check(&RULE, &[SERVICE, POD, &opens("{port: 80}"), cilium]);
        assert_eq!(said.finding().severity, crate::engine::Severity::Info);
    }
}
