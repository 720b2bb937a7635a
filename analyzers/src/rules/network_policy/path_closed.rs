use crate::kubernetes::network::endpoints::EndpointsExt;
use crate::kubernetes::network::ingress::IngressExt;
use std::collections::BTreeMap;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::admission::webhooks::configurations;
use crate::kubernetes::network::ingress::backends;
use crate::kubernetes::network::netpol::connections::{
    Connection, configured_connections, ingress_controller, known_connections,
};
use crate::kubernetes::network::netpol::{
    Answer, Decider, Direction, Endpoint, Peer, PodEnd, Policy, PolicySet, Port, PortMatch, Ports, Protocol, Side,
    Subject,
};
use crate::snapshot::model::{Ingress, NetworkPolicy, Service, ServicePort};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef, Selector};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// That what is known to connect gets through the NetworkPolicies of both ends: a Service that a container's
    /// environment or command line names, or a ConfigMap that its environment takes over or that it alone mounts; the
    /// Services of an Ingress, from the pods of its controller, where that is a well-known one; the Service of an
    /// admission webhook, from the API server; pods that one policy expressly lets connect, on a port that they declare.
    /// One end's policies may allow what the other end's refuse.
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
    /// ## Exceptions
    ///
    /// Where any of the pods on one end gets through to any on the other; for rules that are not about certain pods and
    /// one port each; where the pods do not declare the port; where an administrator's policy, or another engine
    /// (Cilium, Calico, Antrea), decides. Where an ingress rule admits pods that may not go out it is a `warning`: the
    /// rule may be there for later. If they are let out to other ports of the same pods, the rest is closed on purpose.
    /// An address in a mounted file is a `warning`: the program may not use all of the file. A ConfigMap that several
    /// workloads share says of none of them what it connects to. A policy with any `ipBlock` for a webhook's port may
    /// mean the API server, and so may one for the pods of its proxy (konnectivity); from a pod's own node it always
    /// gets through.
    "network-policy/path-closed": Error,
    "something known to connect is refused by the policies of one end",
    needs: [NetworkPolicy, Pod, Service],
    optional: [
        Ingress, IngressClass, Namespace, ConfigMap, ValidatingWebhookConfiguration, MutatingWebhookConfiguration,
        EndpointSlice, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob,
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
    by_config_map(&set, &mut closed);
    by_webhook(&set, &mut closed);
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
    known: Known,
}

/// How it is known that the one connects to the other: the fact, and the object and the field where it was read.
type Known = (String, ObjectRef, String);

impl Closed {
    fn finding(self, path: &Path) -> Finding {
        let Path { from, to, port } = path;
        let from_text = if *from == api_server() { "the API server".to_string() } else { from.title() };
        let to_text = to.title();
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
                let paths = targets(set, &connection).into_iter().map(|(to, port)| (from, to, port));
                let known = |_: &Subject, _: &Subject| {
                    let text = format!("{} of {} names {}", connection.place, from.name(), connection.address);
                    (text, from.sample(), connection.path.clone())
                };
                refused(set, paths, None, Severity::Error, known, closed);
            }
        }
    }
}

/// The Services that ConfigMaps tell workloads to connect to.
fn by_config_map(set: &PolicySet, closed: &mut BTreeMap<Path, Closed>) {
    for namespace in set.namespaces() {
        for (from, connection) in configured_connections(set, namespace) {
            let (Some(config_map), false) = (&connection.config_map, from.end.spec.host_network) else { continue };
            let paths = targets(set, &connection).into_iter().map(|(to, port)| (from, to, port));
            let known = |_: &Subject, _: &Subject| {
                let text = format!(
                    "{} of ConfigMap {}, which {} uses, names {}",
                    connection.place,
                    config_map.name,
                    from.name(),
                    connection.address
                );
                (text, config_map.clone(), connection.path.clone())
            };
            let severity = if connection.in_file { Severity::Warning } else { Severity::Error };
            refused(set, paths, None, severity, known, closed);
        }
    }
}

/// The Services of admission webhooks, which the API server calls. It is no pod that a selector could name.
fn by_webhook(set: &PolicySet, closed: &mut BTreeMap<Path, Closed>) {
    let cluster = set.cluster();
    for configuration in configurations(cluster) {
        for webhook in &configuration.webhooks {
            let Some(to) = &webhook.client_config.service else { continue };
            let Lookup::Found(service) = cluster.get::<Service>(&to.namespace, &to.name) else { continue };
            // 443 is the default of the API.
            let Some(port) = service.port(to.port.unwrap_or(443)) else { continue };
            let targets = behind(set, service, port);
            let policies = targets.iter().map(|(target, port)| closed_to_api_server(set, target, *port));
            let Some(policies) = policies.collect::<Option<Vec<ObjectRef>>>() else { continue };
            let (Some((target, port)), Some(policy)) = (targets.first(), policies.into_iter().next()) else { continue };
            let from = api_server();
            let text = format!("{} calls it through Service {}", configuration.object.title(), service.name());
            let place = format!("webhooks[{}].clientConfig.service", webhook.index);
            let known = (text, configuration.object.clone(), place);
            let severity = if webhook.fails { Severity::Error } else { Severity::Warning };
            let path = Path { from, to: target.owner.clone().into_owned(), port: *port };
            closed.entry(path).or_insert(Closed { severity, policy, direction: Direction::Ingress, known });
        }
    }
}

fn api_server() -> ObjectRef {
    ObjectRef::new(Kind::Service, "default", "kubernetes")
}

/// The policy that keeps the API server out, where that is certain: wherever it runs, and whatever address it has.
fn closed_to_api_server<'a>(set: &PolicySet<'a>, target: &Subject<'a>, port: Port) -> Option<ObjectRef> {
    let cluster = set.cluster();
    // Without a pod nothing is known of its node.
    let node = target.end.pod.map(|pod| pod.status.host_ip.as_str())?;
    if set.is_undecided(target.end.namespace) || is_near_api_server(cluster, node) {
        return None;
    }
    let side = set.side(Direction::Ingress, &Endpoint::Pod(target.end), &Endpoint::Internet, port);
    let policies = set.isolating(Direction::Ingress, &target.end);
    let destination = Endpoint::Pod(target.end);
    let rules = policies.iter().flat_map(|policy| policy.rules(Direction::Ingress).unwrap_or_default());
    let mut open = rules.filter(|rule| rule.allows_port(port, &destination) != Answer::No);
    let may_mean_it = |peer: &Peer| matches!(peer, Peer::Block { .. }) || has_proxy(cluster);
    if side.answer != Answer::No || open.any(|rule| rule.peers.is_empty() || rule.peers.iter().any(may_mean_it)) {
        return None;
    }
    refusing(&policies, &side, Direction::Ingress, port, &destination)
}

/// Whether the API server runs on a pod's node, from where every connection gets through.
fn is_near_api_server(cluster: &Cluster, node: &str) -> bool {
    let Lookup::Found(service) = cluster.get::<Service>("default", "kubernetes") else { return true };
    let addresses = cluster.backends(service);
    addresses.is_none_or(|found| found.backends.is_empty() || found.backends.iter().any(|b| b.address == node))
}

/// Whether the API server reaches pods through pods of its own (GKE, AKS and others with a control plane elsewhere).
fn has_proxy(cluster: &Cluster) -> bool {
    let named = |name: &str| name.starts_with("konnectivity-agent");
    cluster.pod_groups().iter().any(|group| named(&group.owner.name))
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
    let behind = set.subjects_matching(&service.metadata.namespace, &selector);
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
            let targets = behind(set, service, port);
            let paths = targets.into_iter().map(|(to, port)| (controller, to, port));
            let known = |_: &Subject, _: &Subject| {
                let text =
                    format!("Ingress {} passes {} on to Service {}", ingress.name(), backend.from(), backend.service);
                (text, ingress.reference(), backend.path())
            };
            refused(set, paths, None, Severity::Error, known, closed);
        }
    }
}

/// The connections that a rule expressly allows.
fn by_rule<'s, 'a>(
    set: &'s PolicySet<'a>,
    policy: &'s Policy<'a>,
    direction: Direction,
    closed: &mut BTreeMap<Path, Closed>,
) {
    let own: Vec<&Subject> = set.selected_by(policy).collect();
    if own.is_empty() {
        return;
    }
    let is_vague = |peer: &Peer| matches!(peer, Peer::Selected { pods, .. } if pods.is_empty());
    for (n, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
        // Only a rule about certain pods says that they connect.
        if rule.peers.iter().any(is_vague) || set.peers_of(policy, rule).next().is_none() {
            continue;
        }
        for port in &rule.ports {
            let declared = |to: &'s Subject<'a>| declared(to, port).into_iter().map(move |port| (to, port));
            match direction {
                Direction::Egress => {
                    let targets = || set.peers_of(policy, rule).flat_map(declared);
                    let paths = own.iter().flat_map(|from| targets().map(|(to, port)| (*from, to, port)));
                    let known = |from: &Subject, to: &Subject| {
                        let text =
                            format!("NetworkPolicy {} lets {} connect to {}", policy.name(), from.name(), to.name());
                        (text, policy.object.reference(), format!("spec.egress[{n}]"))
                    };
                    refused(set, paths, Some(direction), Severity::Error, known, closed);
                }
                Direction::Ingress => {
                    let targets: Vec<(&Subject, Port)> = own.iter().copied().flat_map(declared).collect();
                    let peers = set.peers_of(policy, rule);
                    let paths = peers.flat_map(|from| targets.iter().map(move |(to, port)| (from, *to, *port)));
                    let known = |from: &Subject, to: &Subject| {
                        let text = format!("NetworkPolicy {} admits {} to {}", policy.name(), from.name(), to.name());
                        (text, policy.object.reference(), format!("spec.ingress[{n}]"))
                    };
                    refused(set, paths, Some(direction), Severity::Warning, known, closed);
                }
            }
        }
    }
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

/// Notes the first of the paths from some sources to some targets, if none of them gets through and all fail at
/// NetworkPolicies of one end (the one that `allowed_at` is not). How it is known that the one end connects to the other
/// is asked of the first two ends.
fn refused<'s, 'a: 's>(
    set: &PolicySet<'a>,
    paths: impl Iterator<Item = (&'s Subject<'a>, &'s Subject<'a>, Port)>,
    allowed_at: Option<Direction>,
    severity: Severity,
    known: impl FnOnce(&Subject, &Subject) -> Known,
    closed: &mut BTreeMap<Path, Closed>,
) {
    let mut paths = paths.peekable();
    let Some(&(first_source, first_target, _)) = paths.peek() else { return };
    let mut first: Option<(Path, ObjectRef, Direction)> = None;
    for (source, target, port) in paths.filter(|(source, target, _)| source.owner != target.owner) {
        let (a, b) = (Endpoint::Pod(source.end), Endpoint::Pod(target.end));
        let verdict = set.verdict(&a, &b, port);
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
        let Some(policy) = refusing(&policies, side, direction, port, &b) else { return };
        let owner = |subject: &Subject| subject.owner.clone().into_owned();
        first = Some((Path { from: owner(source), to: owner(target), port }, policy, direction));
    }
    if let Some((path, policy, direction)) = first
        && closed.get(&path).is_none_or(|known| known.severity < severity)
    {
        let known = known(first_source, first_target);
        closed.insert(path, Closed { severity, policy, direction, known });
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
    if matches!(side.decided_by, Some(Decider::Admin(_))) {
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
    use super::{RULE, Severity};
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
    fn fires_when_a_config_map_names_what_is_refused() {
        let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: shop}, data: {API: 'http://back'}}";
        let by_key = "env: [{name: X, valueFrom: {configMapKeyRef: {name: settings, key: API}}}]";
        let told = PODS.replacen("{name: c}", &format!("{{name: c, {by_key}}}"), 1);
        check(&RULE, &[&told, map, &into("web")]).finds(&[
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in does not let Pod front in to Pod back on port 9000, although API of ConfigMap settings, which Pod front uses, names back:80",
        ]);
        check(&RULE, &[&told, map, &into("front")]).finds_nothing();

        let whole = PODS.replacen("{name: c}", "{name: c, envFrom: [{configMapRef: {name: settings}}]}", 1);
        assert_eq!(check(&RULE, &[&whole, map, &into("web")]).0.findings.len(), 1);
        let mounted = PODS.replacen("containers:", "volumes: [{name: v, configMap: {name: settings}}], containers:", 1);
        assert_eq!(check(&RULE, &[&mounted, map, &into("web")]).0.findings[0].severity, Severity::Warning);
    }

    #[test]
    fn quiet_for_a_config_map_that_several_share() {
        let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: shop}, data: {API: 'http://back'}}";
        let whole = PODS.replacen("{name: c}", "{name: c, envFrom: [{configMapRef: {name: settings}}]}", 1);
        let other = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, \
            spec: {containers: [{name: c, envFrom: [{configMapRef: {name: settings}}]}]}}";
        check(&RULE, &[&whole, map, other, &into("web")]).finds_nothing();
        // Another key than the one it asks for.
        let by_key = "env: [{name: X, valueFrom: {configMapKeyRef: {name: settings, key: OTHER}}}]";
        let told = PODS.replacen("{name: c}", &format!("{{name: c, {by_key}}}"), 1);
        check(&RULE, &[&told, map, &into("web")]).finds_nothing();
    }

    /// A webhook that the pods of `back` serve, the API server at 10.0.0.1 and those pods on another node.
    fn webhook(failure_policy: &str) -> String {
        let hook = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: guard}
webhooks:
- {name: a.example.com, failurePolicy: POLICY, clientConfig: {service: {namespace: shop, name: back, port: 80}}}
---
{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}, spec: {ports: [{port: 443}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
ports: [{port: 6443}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]";
        hook.replace("POLICY", failure_policy)
    }

    #[test]
    fn fires_when_the_api_server_is_kept_out_of_a_webhook() {
        let pods = PODS.replace("containerPort: 9000}]}]}", "containerPort: 9000}]}]}\nstatus: {hostIP: 10.0.0.2}");
        check(&RULE, &[&pods, &webhook("Fail"), &into("front")]).finds(&[
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in does not let the API server in to Pod back on port 9000, although ValidatingWebhookConfiguration guard calls it through Service back",
        ]);
        assert_eq!(
            check(&RULE, &[&pods, &webhook("Ignore"), &into("front")]).0.findings[0].severity,
            Severity::Warning
        );
    }

    #[test]
    fn quiet_when_the_api_server_may_get_through() {
        let pods = PODS.replace("containerPort: 9000}]}]}", "containerPort: 9000}]}]}\nstatus: {hostIP: 10.0.0.2}");
        let quiet = |pods: &str, rest: &[&str]| {
            check(&RULE, &[&[pods, &webhook("Fail")], rest].concat()).finds_nothing();
        };
        // On its node.
        quiet(&pods.replace("10.0.0.2", "10.0.0.1"), &[&into("front")]);
        quiet(&pods, &[&policy("back-in", "back", "ingress: [{ports: [{port: 9000}]}]")]);
        quiet(&pods, &[&policy("back-in", "back", "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}}]}]")]);
        quiet(&pods, &[]);
        let agent = "{apiVersion: v1, kind: Pod, metadata: {name: konnectivity-agent-x, namespace: kube-system}}";
        quiet(&pods, &[&into("front"), agent]);
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
