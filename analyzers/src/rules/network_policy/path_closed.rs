use std::collections::BTreeMap;

use crate::cluster::{Cluster, Lookup};
use crate::finding::{Finding, ObjectRef, Severity, kubectl};
use crate::ingress::backends;
use crate::kind::{Kind, Object};
use crate::model::{Ingress, NetworkPolicy, Service, ServicePort};
use crate::netpol::connections::{Connection, ingress_controller, known_connections};
use crate::netpol::{
    Answer, Direction, Endpoint, Peer, PodEnd, Policy, PolicySet, Port, PortMatch, Ports, Protocol, Rule, Side, Subject,
};
use crate::rule::{Report, declare_rule};
use crate::selector::Selector;

declare_rule! {
    /// ## What it checks
    ///
    /// That what is known to connect gets through the NetworkPolicies of both ends: a Service that a container's
    /// environment or command line names; the Services of an Ingress, from the pods of its controller, where that is a
    /// well-known one; pods that one policy expressly lets connect, on a port that they declare. One
    /// end's policies may allow what the other end's refuse.
    ///
    /// ## Why it matters
    ///
    /// A connection needs egress at the one end and ingress at the other. Each policy by itself looks right, and the
    /// connection times out.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -- nc -zv -w 2 SERVICE PORT` times out; `kubectl-gpt trace FROM TO` walks the
    /// connection and names the policy at which it ends.
    ///
    /// ## How to fix
    ///
    /// Allow it at the end that refuses it, or take the rule or the address away at the other.
    ///
    /// ## When it stays quiet
    ///
    /// Where any of the pods on one end gets through to any on the other; for rules that are not about certain pods and
    /// one port each; where the pods do not declare the port; where an administrator's policy, or another engine
    /// (Cilium, Calico, Antrea), decides. Where an ingress rule admits pods that may not go out it is a `warning`: the
    /// rule may be there for later. If they are let out to other ports of the same pods, the rest is closed on purpose.
    "network-policy/path-closed": Error,
    "something known to connect is refused by the policies of one end",
    needs: [NetworkPolicy, Pod, Service],
    optional: [
        Ingress, IngressClass, Namespace, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob,
        AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy, CiliumNetworkPolicy,
        CiliumClusterwideNetworkPolicy, GlobalNetworkPolicy,
    ],
    reads_custom: true,
    explained_by: ["network-policy/service-port", "network-policy/named-port", "network-policy/peer-matches-nothing"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if cluster.all::<NetworkPolicy>().is_empty() {
        return;
    }
    let set = PolicySet::new(cluster);
    let mut closed = BTreeMap::new();
    by_address(&set, &mut closed);
    by_ingress(&set, &mut closed);
    for policy in set.policies() {
        for direction in [Direction::Egress, Direction::Ingress] {
            by_rule(&set, policy, direction, &mut closed);
        }
    }
    for (key, closed) in closed {
        report.add(closed.finding(&key));
    }
}

/// One path: from, to, port.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Path {
    from: ObjectRef,
    to: ObjectRef,
    port: Port,
}

struct Closed {
    severity: Severity,
    policy: ObjectRef,
    direction: Direction,
    /// How it is known that the one connects to the other: the fact and where it was read.
    known: (String, ObjectRef, String),
}

impl Closed {
    fn finding(self, path: &Path) -> Finding {
        let Path { from, to, port } = path;
        let (from_text, to_text) = (format!("{} {}", from.kind, from.name), format!("{} {}", to.kind, to.name));
        let (name, namespace) = (&self.policy.name, self.policy.namespace());
        let refused = match self.direction {
            Direction::Egress => format!("does not let {from_text} out to {to_text} on port {port}"),
            Direction::Ingress => format!("does not let {from_text} in to {to_text} on port {port}"),
        };
        let (text, about, place) = self.known;
        let message = format!("NetworkPolicy {name} {refused}, although {text}");
        let list = if self.direction == Direction::Egress { "spec.egress" } else { "spec.ingress" };
        Finding::new(self.severity, self.policy.clone(), message)
            .evidence("none of its rules, and no other policy's, allows it", &self.policy, list)
            .evidence(text, &about, &place)
            .fix_command(
                format!(
                    "Allow it: add a rule for {} on port {port}",
                    if self.direction == Direction::Egress { to_text } else { from_text }
                ),
                kubectl(["-n", namespace, "edit", "networkpolicy", name]),
            )
            .key(format!("{from}/{to}/{port}"))
            .because(about)
    }
}

/// The Services that containers are told to connect to.
fn by_address(set: &PolicySet, closed: &mut BTreeMap<Path, Closed>) {
    for namespace in set.namespaces() {
        for from in set.subjects_in(namespace).iter().filter(|from| !from.end.spec.host_network) {
            for connection in known_connections(set.cluster(), &from.end) {
                let targets = targets(set, &connection);
                let text = format!("{} of {} names {}", connection.place, from.name(), connection.address);
                let known = (text, from.sample(), connection.path.clone());
                refused(set, &[from], &targets, None, Severity::Error, known, closed);
            }
        }
    }
}

/// The workloads that a connection leads to, each with the port on which it is connected to.
fn targets<'s, 'a>(set: &'s PolicySet<'a>, connection: &Connection<'a>) -> Vec<(&'s Subject<'a>, Port)> {
    let service: &Service = connection.service;
    let port = match (connection.port, &*service.spec.ports) {
        (Some(number), _) => service.port(number),
        (None, [only]) => Some(only),
        _ => None,
    };
    port.map(|port| behind(set, service, port)).unwrap_or_default()
}

/// The workloads behind a port of a Service.
fn behind<'s, 'a>(set: &'s PolicySet<'a>, service: &Service, port: &ServicePort) -> Vec<(&'s Subject<'a>, Port)> {
    let Some(protocol) = Protocol::parse(&port.protocol) else { return Vec::new() };
    if service.spec.selector.is_empty() || service.is_external_name() {
        return Vec::new();
    }
    let selector = Selector::equals(&service.spec.selector);
    let behind = set.subjects_in(&service.metadata.namespace).iter().filter(|s| selector.matches(s.end.labels));
    behind.filter_map(|subject| Some((subject, subject.end.target(&port.target(), protocol)?))).collect()
}

/// The Services to which the controllers of Ingresses pass requests.
fn by_ingress<'a>(set: &PolicySet<'a>, closed: &mut BTreeMap<Path, Closed>) {
    let cluster = set.cluster();
    let mut controllers: BTreeMap<&str, Option<Subject<'a>>> = BTreeMap::new();
    for ingress in cluster.all::<Ingress>() {
        let Some(class) = cluster.ingress_class(ingress) else { continue };
        let controller = controllers.entry(class.name()).or_insert_with(|| {
            let pod = ingress_controller(cluster, class)?;
            Some(Subject { owner: cluster.owner_of(pod), end: PodEnd::of(pod), pods: 1 })
        });
        let Some(controller) = controller.as_ref().filter(|controller| !controller.end.spec.host_network) else {
            continue;
        };
        for backend in backends(ingress) {
            let Lookup::Found(service) = cluster.get::<Service>(ingress.namespace(), backend.service) else { continue };
            let Some(port) = backend.port.find(service) else { continue };
            let text = format!("Ingress {} passes {} on to Service {}", ingress.name(), backend.from, backend.service);
            let known = (text, ingress.reference(), backend.path.clone());
            let targets = behind(set, service, port);
            refused(set, &[controller], &targets, None, Severity::Error, known, closed);
        }
    }
}

/// The connections that a rule expressly allows.
fn by_rule<'a>(set: &PolicySet<'a>, policy: &Policy<'a>, direction: Direction, closed: &mut BTreeMap<Path, Closed>) {
    let own: Vec<&Subject> =
        set.subjects_in(policy.namespace()).iter().filter(|subject| policy.selects(&subject.end)).collect();
    if own.is_empty() {
        return;
    }
    for (n, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
        let peers = peers(set, policy, rule);
        if peers.is_empty() {
            continue;
        }
        for port in &rule.ports {
            let (from, to) = if direction == Direction::Egress { (&own, &peers) } else { (&peers, &own) };
            let targets: Vec<(&Subject, Port)> =
                to.iter().flat_map(|to| declared(to, port).into_iter().map(move |port| (*to, port))).collect();
            let (Some(first), Some((target, _))) = (from.first(), targets.first()) else { continue };
            let (list, text, severity) = match direction {
                Direction::Egress => (
                    "egress",
                    format!("NetworkPolicy {} lets {} connect to {}", policy.name(), first.name(), target.name()),
                    Severity::Error,
                ),
                Direction::Ingress => (
                    "ingress",
                    format!("NetworkPolicy {} admits {} to {}", policy.name(), first.name(), target.name()),
                    Severity::Warning,
                ),
            };
            let known = (text, policy.object.reference(), format!("spec.{list}[{n}]"));
            refused(set, from, &targets, Some(direction), severity, known, closed);
        }
    }
}

/// The workloads that a rule is about, if it is about certain pods only.
fn peers<'s, 'a>(set: &'s PolicySet<'a>, policy: &Policy<'a>, rule: &Rule) -> Vec<&'s Subject<'a>> {
    let is_vague = |peer: &Peer| matches!(peer, Peer::Selected { pods, .. } if pods.is_empty());
    if rule.peers.iter().any(is_vague) { Vec::new() } else { set.peers_of(policy, rule) }
}

/// The ports of a rule that a pod declares: only of those is it certain that something listens.
fn declared(subject: &Subject, port: &PortMatch) -> Vec<Port> {
    match (&port.ports, port.protocol) {
        (Ports::Range(first, last), Some(protocol)) if first == last => {
            let port = Port { number: *first, protocol };
            subject.end.declares(port).then_some(port).into_iter().collect()
        }
        (Ports::Named(name), Some(protocol)) => {
            subject.end.named_ports(name).filter(|port| port.protocol == protocol).take(1).collect()
        }
        _ => Vec::new(),
    }
}

/// Notes the path from the first source to the first target, if none of the sources gets through to any target and
/// all fail at NetworkPolicies of one end (the one that `allowed_at` is not).
fn refused<'a>(
    set: &PolicySet<'a>,
    from: &[&Subject<'a>],
    targets: &[(&Subject<'a>, Port)],
    allowed_at: Option<Direction>,
    severity: Severity,
    known: (String, ObjectRef, String),
    closed: &mut BTreeMap<Path, Closed>,
) {
    let mut first: Option<(Path, Closed)> = None;
    for source in from {
        for (target, port) in targets {
            if source.owner == target.owner {
                continue;
            }
            let (a, b) = (Endpoint::Pod(source.end), Endpoint::Pod(target.end));
            let verdict = set.verdict(&a, &b, *port);
            if verdict.allowed != Answer::No {
                return;
            }
            if first.is_some() {
                continue;
            }
            let direction = if verdict.egress.answer == Answer::No { Direction::Egress } else { Direction::Ingress };
            if allowed_at == Some(direction) {
                return;
            }
            if allowed_at == Some(Direction::Ingress) && reaches_other_ports(set, source, target) {
                return;
            }
            let (side, end) = match direction {
                Direction::Egress => (&verdict.egress, &source.end),
                Direction::Ingress => (&verdict.ingress, &target.end),
            };
            let policies = set.isolating(direction, end);
            let Some(policy) = refusing(&policies, side, direction, *port, &b) else { return };
            let path = Path { from: source.owner.clone(), to: target.owner.clone(), port: *port };
            first = Some((path, Closed { severity, policy, direction, known: known.clone() }));
        }
    }
    if let Some((path, new)) = first {
        match closed.get(&path) {
            Some(known) if known.severity >= new.severity => {}
            _ => {
                closed.insert(path, new);
            }
        }
    }
}

/// Whether some port that the target declares is open to the source at both ends.
fn reaches_other_ports<'a>(set: &PolicySet<'a>, source: &Subject<'a>, target: &Subject<'a>) -> bool {
    let ports = target.end.spec.running_containers().flat_map(|container| &container.ports);
    let mut ports =
        ports.filter_map(|p| Some(Port { number: p.container_port, protocol: Protocol::parse(&p.protocol)? }));
    let (a, b) = (Endpoint::Pod(source.end), Endpoint::Pod(target.end));
    ports.any(|port| set.verdict(&a, &b, port).allowed == Answer::Yes)
}

/// The policy that one would correct: the one with rules for the port, else one with rules, else the first. None if an
/// administrator's policy refuses, which is meant.
fn refusing(
    policies: &[&Policy],
    side: &Side,
    direction: Direction,
    port: Port,
    destination: &Endpoint,
) -> Option<ObjectRef> {
    if side.decided_by.as_ref().is_some_and(|policy| !policy.is(Kind::NetworkPolicy)) {
        return None;
    }
    let rules = |policy: &Policy| policy.rules(direction).unwrap_or_default().len();
    let for_port = |policy: &Policy| {
        let mut rules = policy.rules(direction).unwrap_or_default().iter();
        rules.any(|rule| !rule.ports.is_empty() && rule.allows_port(port, destination) == Answer::Yes)
    };
    // One for these pods in particular rather than one for all pods of the namespace.
    let best = policies.iter().rev().max_by_key(|p| (for_port(p), rules(p) > 0, !p.selector.is_empty()));
    best.map(|policy| policy.object.reference())
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: shop, labels: {app: front}}
spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: back, namespace: shop, labels: {app: back}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 9000}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: shop}
spec: {selector: {app: back}, ports: [{port: 80, targetPort: http}]}";

    fn policy(name: &str, app: &str, rest: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: shop}}, \
             spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, {rest}}}}}"
        )
    }

    fn out(port: &str) -> String {
        let rest =
            "policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: back}}}], ports: [{port: PORT}]}]";
        policy("front-out", "front", &rest.replace("PORT", port))
    }

    fn into(app: &str) -> String {
        policy(
            "back-in",
            "back",
            &format!(
                "ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}], ports: [{{port: 9000}}]}}]"
            ),
        )
    }

    #[test]
    fn fires_when_the_other_end_refuses_what_a_policy_lets_out() {
        check(&RULE, &[PODS, &out("9000"), &into("web")]).finds(&[
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in does not let Pod front in to Pod back on port 9000, although NetworkPolicy front-out lets Pod front connect to Pod back",
        ]);
    }

    #[test]
    fn quiet_when_both_ends_allow_it() {
        check(&RULE, &[PODS, &out("9000"), &into("front")]).finds_nothing();
        check(&RULE, &[PODS, &out("http"), &into("front")]).finds_nothing();
        check(&RULE, &[PODS, &out("9000")]).finds_nothing();
    }

    #[test]
    fn quiet_when_nothing_is_certain() {
        // Nothing says that the pods listen there.
        check(&RULE, &[PODS, &out("7000"), &into("web")]).finds_nothing();
        let cilium = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: x, namespace: shop}}";
        check(&RULE, &[PODS, &out("9000"), &into("web"), cilium]).finds_nothing();
        // Another of the pods that may connect is let in.
        let other = PODS.replace(
            "name: front, namespace: shop, labels: {app: front}",
            "name: web, namespace: shop, labels: {app: front, role: web}",
        );
        let role = into("front").replace("app: front", "role: web");
        check(&RULE, &[PODS, &other, &out("9000"), &role]).finds_nothing();
    }

    #[test]
    fn fires_when_the_environment_names_what_is_refused() {
        let told = PODS.replacen("{name: c}", "{name: c, env: [{name: API_URL, value: 'http://u:secret@back/v1'}]}", 1);
        let said = check(&RULE, &[&told, &into("web")]);
        said.finds(&[
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in does not let Pod front in to Pod back on port 9000, although API_URL of Pod front names back:80",
        ]);
        assert!(!said.text().contains("secret"));
        let host = PODS.replacen(
            "{name: c}",
            "{name: c, env: [{name: API_HOST, value: back.shop.svc.cluster.local}, {name: API_PORT, value: '80'}]}",
            1,
        );
        assert_eq!(check(&RULE, &[&host, &into("web")]).0.findings.len(), 1);
        check(&RULE, &[&told, &into("front")]).finds_nothing();
    }

    #[test]
    fn fires_when_the_ingress_controller_is_kept_out() {
        let ingress = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: shop}
spec: {ingressClassName: nginx, defaultBackend: {service: {name: back, port: {number: 80}}}}
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: nginx}, spec: {controller: k8s.io/ingress-nginx}}
---
apiVersion: v1
kind: Pod
metadata: {name: controller, namespace: ingress-nginx, labels: {app.kubernetes.io/name: ingress-nginx, app.kubernetes.io/component: controller}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ingress-nginx}}";
        check(&RULE, &[PODS, ingress, &into("front")]).finds(&[
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in does not let Pod controller in to Pod back on port 9000, although Ingress shop passes everything else on to Service back",
        ]);
        let admitted = into("front").replace(
            "from: [",
            "from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}, ",
        );
        check(&RULE, &[PODS, ingress, &admitted]).finds_nothing();
    }

    #[test]
    fn quiet_when_admitted_pods_are_let_out_to_another_port_only() {
        let pods = PODS.replace("ports: [{name: http", "ports: [{name: api, containerPort: 9001}, {name: http");
        let admits = into("front").replace("ports: [{port: 9000}]", "ports: [{port: 9000}, {port: 9001}]");
        check(&RULE, &[&pods, &out("9001"), &admits]).finds_nothing();
    }

    #[test]
    fn fires_as_warning_when_admitted_pods_may_not_go_out() {
        let closed = policy("front-closed", "front", "policyTypes: [Egress]");
        check(&RULE, &[PODS, &closed, &into("front")]).finds(&[
            "warning NetworkPolicy shop/front-closed: NetworkPolicy front-closed does not let Pod front out to Pod back on port 9000, although NetworkPolicy back-in admits Pod front to Pod back",
        ]);
    }
}
