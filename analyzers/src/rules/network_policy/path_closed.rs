use crate::kubernetes::network::endpoints::EndpointsExt;
use crate::kubernetes::network::ingress::IngressExt;
use std::collections::BTreeMap;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::admission::webhooks::configurations;
use crate::kubernetes::network::ingress::{Backend, backends};
use crate::kubernetes::network::netpol::connections::{
    Connection, configured_connections, ingress_controller, known_connections,
};
use crate::kubernetes::network::netpol::{
    Answer, Decider, Direction, Endpoint, Peer, PodEnd, Policy, PolicySet, Port, PortMatch, Ports, Protocol, Side,
    Subject, host,
};
use crate::snapshot::model::{Ingress, NetworkPolicy, Pod, Service, ServicePort};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef, Selector};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that known connections are allowed by the NetworkPolicies at both ends. The rule fires where the policies
    /// of one end block what the policies of the other end allow. Known connections are:
    ///
    /// - from a pod to a Service that a container's environment or command line refers to, or a ConfigMap that its
    ///   environment imports or that it alone mounts
    /// - from the pods of a well-known ingress controller to the Services of its Ingresses; if they are on the host
    ///   network, from the addresses of their nodes, which no selector matches
    /// - from the API server to the Service of an admission webhook
    /// - between pods that a policy explicitly allows to connect, on a port that they declare
    ///
    /// ## Why it matters
    ///
    /// A connection needs egress at the source and ingress at the destination. Each policy looks correct on its own,
    /// but the connection times out.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -- nc -zv -w 2 SERVICE PORT` times out; `kubectl-gpt trace FROM TO` traces the
    /// connection and names the policy that blocks it.
    ///
    /// ## How to fix
    ///
    /// Allow the connection at the end that blocks it, or remove the rule or the address at the other end.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - where any pod at one end can reach any pod at the other end
    /// - for rules that are not limited to specific pods and a single port each
    /// - where the pods do not declare the port
    /// - for controllers on the host network of OpenShift, OVN-Kubernetes and the Amazon VPC CNI, whose selectors may match
    ///   them
    /// - where an administrator's policy or another engine (Cilium, Calico, Antrea) decides
    /// - where an ingress rule admits pods that may reach only other ports of the same pods: the remaining ports are
    ///   blocked on purpose
    /// - for addresses in a ConfigMap that several workloads share, which does not show which of them connects
    /// - for the port of a webhook that a policy opens to any `ipBlock`, or to any peer in a cluster whose API server
    ///   connects through proxy pods (konnectivity): the rule may admit the API server
    /// - for a webhook whose pods run on the node of the API server, because traffic from a pod's own node is always
    ///   allowed
    ///
    /// The finding is a `warning`:
    ///
    /// - where an ingress rule admits pods whose egress is blocked: the rule may have been added in advance
    /// - for an address in a mounted file: the program may not use the whole file
    "network-policy/path-closed": Error,
    "NetworkPolicies at one end block a known connection",
    needs: [NetworkPolicy, Pod, Service],
    optional: [
        Ingress, IngressClass, Namespace, ConfigMap, ValidatingWebhookConfiguration, MutatingWebhookConfiguration,
        EndpointSlice, Node, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob,
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
    /// The addresses of the nodes, if the source is on the host network.
    hosts: Option<Vec<String>>,
}

/// How many pods are compared per end where the node matters.
const HOSTS: usize = 20;

/// The evidence for a connection: a sentence, and the object and field it was read from.
type Known = (String, ObjectRef, String);

impl Closed {
    fn finding(self, path: &Path) -> Finding {
        let Path { from, to, port } = path;
        let from_text = if *from == api_server() { "the API server".to_string() } else { from.title() };
        let to_text = to.title();
        let (name, namespace) = (&self.policy.name, self.policy.namespace());
        let blocked = match self.direction {
            Direction::Egress => format!("blocks egress from {from_text} to {to_text} on port {port}"),
            Direction::Ingress => format!("blocks ingress from {from_text} to {to_text} on port {port}"),
        };
        let (text, about, place) = self.known;
        let from_node = if self.hosts.is_some() { " (on the host network)" } else { "" };
        let message = format!("NetworkPolicy {name} {blocked}{from_node}, although {text}");
        let (list, rule) = match self.direction {
            Direction::Egress => ("spec.egress", format!("an egress rule that allows {to_text}")),
            Direction::Ingress => ("spec.ingress", format!("an ingress rule that allows {from_text}")),
        };
        let finding = Finding::new(self.severity, self.policy.clone(), message)
            .evidence("no rule of this or any other policy allows it", &self.policy, list)
            .evidence(text, &about, &place);
        let edit = kubectl(["-n", namespace, "edit", "networkpolicy", name]);
        let finding = match &self.hosts {
            None => finding.fix_command(format!("Add {rule} on port {port}"), edit),
            Some(hosts) => {
                let (are, blocks) = (words::list(hosts, 5), hosts.iter().map(|ip| format!("{ip}/{}", prefix(ip))));
                let blocks = words::list(&blocks.collect::<Vec<_>>(), 5);
                let text = format!(
                    "{from_text} is on the host network: its connections come from the address of its node ({are}), which \
                     no podSelector or namespaceSelector matches"
                );
                finding.evidence(text, from, "spec.hostNetwork").fix_command(
                    format!(
                        "Add an ingress rule on port {port} with an ipBlock for each node of the controller ({blocks}), and \
                         for the addresses of its tunnels if the network uses some; with Cilium, a CiliumNetworkPolicy with \
                         fromEntities: [host, remote-node] instead"
                    ),
                    edit,
                )
            }
        };
        finding.key(format!("{from}/{to}/{port}")).because(about)
    }
}

/// Connections to the Services that containers' environments and command lines refer to.
fn by_address(set: &PolicySet, closed: &mut BTreeMap<Path, Closed>) {
    for namespace in set.namespaces() {
        for from in set.subjects_in(namespace).iter().filter(|from| !from.end.spec.host_network) {
            for connection in known_connections(set.cluster(), &from.end) {
                let paths = targets(set, &connection).into_iter().map(|(to, port)| (from, to, port));
                let known = |_: &Subject, _: &Subject| {
                    let text = format!("{} of {} refers to {}", connection.place, from.name(), connection.address);
                    (text, from.sample(), connection.path.clone())
                };
                record_blocked(set, paths, None, Severity::Error, known, closed);
            }
        }
    }
}

/// Connections to the Services that the workloads' ConfigMaps refer to.
fn by_config_map(set: &PolicySet, closed: &mut BTreeMap<Path, Closed>) {
    for namespace in set.namespaces() {
        for (from, connection) in configured_connections(set, namespace) {
            let (Some(config_map), false) = (&connection.config_map, from.end.spec.host_network) else { continue };
            let paths = targets(set, &connection).into_iter().map(|(to, port)| (from, to, port));
            let known = |_: &Subject, _: &Subject| {
                let text = format!(
                    "key {} of ConfigMap {}, used by {}, refers to {}",
                    connection.place,
                    config_map.name,
                    from.name(),
                    connection.address
                );
                (text, config_map.clone(), connection.path.clone())
            };
            let severity = if connection.in_file { Severity::Warning } else { Severity::Error };
            record_blocked(set, paths, None, severity, known, closed);
        }
    }
}

/// Connections from the API server, which no podSelector matches, to the Services of admission webhooks.
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
            let text = format!("{} calls Service {}", configuration.object.title(), service.name());
            let place = format!("webhooks[{}].clientConfig.service", webhook.index);
            let known = (text, configuration.object.clone(), place);
            let severity = if webhook.fails { Severity::Error } else { Severity::Warning };
            let path = Path { from, to: target.owner.clone().into_owned(), port: *port };
            closed.entry(path).or_insert(Closed {
                severity,
                policy,
                direction: Direction::Ingress,
                known,
                hosts: None,
            });
        }
    }
}

/// The length of the prefix for a single address.
fn prefix(ip: &str) -> u8 {
    if ip.contains(':') { 128 } else { 32 }
}

fn api_server() -> ObjectRef {
    ObjectRef::new(Kind::Service, "default", "kubernetes")
}

/// The policy that blocks the API server, where that is certain regardless of its node and address.
fn closed_to_api_server<'a>(set: &PolicySet<'a>, target: &Subject<'a>, port: Port) -> Option<ObjectRef> {
    let cluster = set.cluster();
    // Without a pod the node is unknown.
    let node = target.end.pod.map(|pod| pod.status.host_ip.as_str())?;
    if set.is_undecided(target.end.namespace) || may_run_on_node_of_api_server(cluster, node) {
        return None;
    }
    let side = set.side(Direction::Ingress, &Endpoint::Pod(target.end), &Endpoint::Internet, port);
    let policies = set.isolating(Direction::Ingress, &target.end);
    let destination = Endpoint::Pod(target.end);
    let rules = policies.iter().flat_map(|policy| policy.rules(Direction::Ingress).unwrap_or_default());
    let mut open = rules.filter(|rule| rule.allows_port(port, &destination) != Answer::No);
    let may_match = |peer: &Peer| matches!(peer, Peer::Block { .. }) || has_proxy(cluster);
    if side.answer != Answer::No || open.any(|rule| rule.peers.is_empty() || rule.peers.iter().any(may_match)) {
        return None;
    }
    blocking_policy(&policies, &side, Direction::Ingress, port, &destination)
}

/// Whether the API server may run on a pod's node, from which every connection is allowed.
fn may_run_on_node_of_api_server(cluster: &Cluster, node: &str) -> bool {
    let Lookup::Found(service) = cluster.get::<Service>("default", "kubernetes") else { return true };
    let addresses = cluster.backends(service);
    addresses.is_none_or(|found| found.backends.is_empty() || found.backends.iter().any(|b| b.address == node))
}

/// Whether the API server reaches pods through proxy pods (GKE, AKS and others with an external control plane).
fn has_proxy(cluster: &Cluster) -> bool {
    let named = |name: &str| name.starts_with("konnectivity-agent");
    cluster.pod_groups().iter().any(|group| named(&group.owner.name))
}

/// The workloads that a connection reaches, each with its port.
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

/// Connections from ingress controllers to the Services of their Ingresses.
fn by_ingress<'a>(set: &PolicySet<'a>, closed: &mut BTreeMap<Path, Closed>) {
    let cluster = set.cluster();
    let mut controllers: BTreeMap<&str, Option<Subject<'a>>> = BTreeMap::new();
    let mut ingresses_of_host: BTreeMap<ObjectRef, Vec<&Ingress>> = BTreeMap::new();
    for ingress in cluster.all::<Ingress>() {
        let Some(class) = cluster.ingress_class(ingress) else { continue };
        let controller = controllers.entry(class.name()).or_insert_with(|| {
            let pod = ingress_controller(cluster, class)?;
            Some(Subject { owner: cluster.owner_of(pod), end: PodEnd::of(pod), pods: 1 })
        });
        let Some(controller) = controller.as_ref() else { continue };
        if controller.end.spec.host_network {
            ingresses_of_host.entry(controller.owner.clone().into_owned()).or_default().push(ingress);
            continue;
        }
        for backend in backends(ingress) {
            let Lookup::Found(service) = cluster.get::<Service>(ingress.namespace(), backend.service) else { continue };
            let Some(port) = backend.port.find(service) else { continue };
            let targets = behind(set, service, port);
            let paths = targets.into_iter().map(|(to, port)| (controller, to, port));
            let known = |_: &Subject, _: &Subject| {
                let text =
                    format!("Ingress {} routes {} to Service {}", ingress.name(), backend.from(), backend.service);
                (text, ingress.reference(), backend.path())
            };
            record_blocked(set, paths, None, Severity::Error, known, closed);
        }
    }
    by_host_network(set, &ingresses_of_host, closed);
}

/// Connections from ingress controllers on the host network, by their owners. No selector matches them.
fn by_host_network<'a>(
    set: &PolicySet<'a>,
    ingresses: &BTreeMap<ObjectRef, Vec<&'a Ingress>>,
    closed: &mut BTreeMap<Path, Closed>,
) {
    let cluster = set.cluster();
    if ingresses.is_empty() || host::may_match_host_pods(cluster) {
        return;
    }
    for (owner, ingresses) in ingresses {
        let pods = cluster.group_of_owner(owner).into_iter().flat_map(|group| cluster.pods_of(group));
        let controllers: Vec<&Pod> = pods.filter(|pod| pod.is_active() && pod.spec.host_network).take(HOSTS).collect();
        let isolated = ingresses.iter().filter(|ingress| !set.in_namespace(ingress.namespace()).is_empty());
        for (ingress, backend) in isolated.flat_map(|ingress| backends(ingress).into_iter().map(move |b| (*ingress, b)))
        {
            let Some((target, port, policy)) = blocked_from_host(set, &controllers, ingress, &backend) else {
                continue;
            };
            let text = format!("Ingress {} routes {} to Service {}", ingress.name(), backend.from(), backend.service);
            let known = (text, ingress.reference(), backend.path());
            let hosts = controllers.iter().filter_map(|pod| host::addresses(cluster, pod).first().copied());
            let hosts = Some(hosts.map(|ip| ip.to_string()).collect());
            let path = Path { from: owner.clone(), to: cluster.owner_of(target).into_owned(), port };
            let direction = Direction::Ingress;
            closed.entry(path).or_insert(Closed { severity: Severity::Error, policy, direction, known, hosts });
        }
    }
}

/// The pod behind a backend that the controllers on other nodes cannot reach, and the policy to correct. `None` if one
/// of them can, or may.
fn blocked_from_host<'a>(
    set: &PolicySet<'a>,
    controllers: &[&'a Pod],
    ingress: &Ingress,
    backend: &Backend,
) -> Option<(&'a Pod, Port, ObjectRef)> {
    let cluster = set.cluster();
    let service = cluster.get::<Service>(ingress.namespace(), backend.service).found()?;
    let port = backend.port.find(service)?;
    let protocol = Protocol::parse(&port.protocol)?;
    if service.spec.selector.is_empty() || service.is_external_name() {
        return None;
    }
    let pods = cluster.pods_matching(service.namespace(), &Selector::equals(&service.spec.selector));
    let mut blocked = None;
    for target in pods.into_iter().filter(|pod| pod.is_active() && !pod.spec.host_network).take(HOSTS) {
        let end = PodEnd::of(target);
        let Some(number) = end.target(&port.target(), protocol) else { continue };
        for controller in controllers.iter().filter(|pod| pod.spec.node_name != target.spec.node_name) {
            let side = host::side_from_host(set, controller, &end, number, false);
            if side.answer != Answer::No {
                return None;
            }
            if blocked.is_none() {
                let policies = set.isolating(Direction::Ingress, &end);
                let policy = blocking_policy(&policies, &side, Direction::Ingress, number, &Endpoint::Pod(end))?;
                blocked = Some((target, number, policy));
            }
        }
    }
    blocked
}

/// The connections that a rule explicitly allows.
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
    let selects_all_pods = |peer: &Peer| matches!(peer, Peer::Selected { pods, .. } if pods.is_empty());
    for (n, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
        // Only a rule about specific pods is evidence that they connect.
        if rule.peers.iter().any(selects_all_pods) || set.peers_of(policy, rule).next().is_none() {
            continue;
        }
        for port in &rule.ports {
            let declared = |to: &'s Subject<'a>| declared(to, port).into_iter().map(move |port| (to, port));
            match direction {
                Direction::Egress => {
                    let targets = || set.peers_of(policy, rule).flat_map(declared);
                    let paths = own.iter().flat_map(|from| targets().map(|(to, port)| (*from, to, port)));
                    let known = |from: &Subject, to: &Subject| {
                        let text = format!(
                            "NetworkPolicy {} allows egress from {} to {}",
                            policy.name(),
                            from.name(),
                            to.name()
                        );
                        (text, policy.object.reference(), format!("spec.egress[{n}]"))
                    };
                    record_blocked(set, paths, Some(direction), Severity::Error, known, closed);
                }
                Direction::Ingress => {
                    let targets: Vec<(&Subject, Port)> = own.iter().copied().flat_map(declared).collect();
                    let peers = set.peers_of(policy, rule);
                    let paths = peers.flat_map(|from| targets.iter().map(move |(to, port)| (from, *to, *port)));
                    let known = |from: &Subject, to: &Subject| {
                        let text = format!(
                            "NetworkPolicy {} allows ingress from {} to {}",
                            policy.name(),
                            from.name(),
                            to.name()
                        );
                        (text, policy.object.reference(), format!("spec.ingress[{n}]"))
                    };
                    record_blocked(set, paths, Some(direction), Severity::Warning, known, closed);
                }
            }
        }
    }
}

/// The ports of a rule that a pod declares: only these certainly have a listener.
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

/// Records the first of the paths from some sources to some targets, if none of them is open and all are blocked by
/// NetworkPolicies of one end (not the end `allowed_at`). `known` gives the evidence for the connection between the
/// first two ends.
fn record_blocked<'s, 'a: 's>(
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
        let Some(policy) = blocking_policy(&policies, side, direction, port, &b) else { return };
        let owner = |subject: &Subject| subject.owner.clone().into_owned();
        first = Some((Path { from: owner(source), to: owner(target), port }, policy, direction));
    }
    if let Some((path, policy, direction)) = first
        && closed.get(&path).is_none_or(|known| known.severity < severity)
    {
        let known = known(first_source, first_target);
        closed.insert(path, Closed { severity, policy, direction, known, hosts: None });
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

/// The policy to correct: the one with rules for the port, else one with rules, else the first. None if an
/// administrator's policy blocks the connection, which is intended.
fn blocking_policy(
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
    // Prefers a policy for these pods to one for all pods of the namespace.
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
    fn fires_when_ingress_blocks_what_egress_allows() {
        check(&RULE, &[PODS, &out("9000"), &into("web")]).finds(&[
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in blocks ingress from Pod front to Pod back on port 9000, although NetworkPolicy front-out allows egress from Pod front to Pod back",
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
        // The pods do not declare the port.
        check(&RULE, &[PODS, &out("7000"), &into("web")]).finds_nothing();
        let cilium = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: x, namespace: shop}}";
        check(&RULE, &[PODS, &out("9000"), &into("web"), cilium]).finds_nothing();
        // Another of the source pods is admitted.
        let other = PODS.replace(
            "name: front, namespace: shop, labels: {app: front}",
            "name: web, namespace: shop, labels: {app: front, role: web}",
        );
        let role = into("front").replace("app: front", "role: web");
        check(&RULE, &[PODS, &other, &out("9000"), &role]).finds_nothing();
    }

    #[test]
    fn fires_when_the_environment_refers_to_what_is_blocked() {
        let configured =
            PODS.replacen("{name: c}", "{name: c, env: [{name: API_URL, value: 'http://u:secret@back/v1'}]}", 1);
        let said = check(&RULE, &[&configured, &into("web")]);
        said.finds(&[
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in blocks ingress from Pod front to Pod back on port 9000, although API_URL of Pod front refers to back:80",
        ]);
        assert!(!said.text().contains("secret"));
        let host = PODS.replacen(
            "{name: c}",
            "{name: c, env: [{name: API_HOST, value: back.shop.svc.cluster.local}, {name: API_PORT, value: '80'}]}",
            1,
        );
        assert_eq!(check(&RULE, &[&host, &into("web")]).0.findings.len(), 1);
        check(&RULE, &[&configured, &into("front")]).finds_nothing();
    }

    #[test]
    fn fires_when_a_config_map_refers_to_what_is_blocked() {
        let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: shop}, data: {API: 'http://back'}}";
        let by_key = "env: [{name: X, valueFrom: {configMapKeyRef: {name: settings, key: API}}}]";
        let configured = PODS.replacen("{name: c}", &format!("{{name: c, {by_key}}}"), 1);
        check(&RULE, &[&configured, map, &into("web")]).finds(&[
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in blocks ingress from Pod front to Pod back on port 9000, although key API of ConfigMap settings, used by Pod front, refers to back:80",
        ]);
        check(&RULE, &[&configured, map, &into("front")]).finds_nothing();

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
        // A key that the pod does not use.
        let by_key = "env: [{name: X, valueFrom: {configMapKeyRef: {name: settings, key: OTHER}}}]";
        let configured = PODS.replacen("{name: c}", &format!("{{name: c, {by_key}}}"), 1);
        check(&RULE, &[&configured, map, &into("web")]).finds_nothing();
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
    fn fires_when_the_api_server_is_blocked_from_a_webhook() {
        let pods = PODS.replace("containerPort: 9000}]}]}", "containerPort: 9000}]}]}\nstatus: {hostIP: 10.0.0.2}");
        check(&RULE, &[&pods, &webhook("Fail"), &into("front")]).finds(&[
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in blocks ingress from the API server to Pod back on port 9000, although ValidatingWebhookConfiguration guard calls Service back",
        ]);
        assert_eq!(
            check(&RULE, &[&pods, &webhook("Ignore"), &into("front")]).0.findings[0].severity,
            Severity::Warning
        );
    }

    #[test]
    fn quiet_when_the_api_server_may_be_allowed() {
        let pods = PODS.replace("containerPort: 9000}]}]}", "containerPort: 9000}]}]}\nstatus: {hostIP: 10.0.0.2}");
        let quiet = |pods: &str, rest: &[&str]| {
            check(&RULE, &[&[pods, &webhook("Fail")], rest].concat()).finds_nothing();
        };
        // On the API server's node.
        quiet(&pods.replace("10.0.0.2", "10.0.0.1"), &[&into("front")]);
        quiet(&pods, &[&policy("back-in", "back", "ingress: [{ports: [{port: 9000}]}]")]);
        quiet(&pods, &[&policy("back-in", "back", "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}}]}]")]);
        quiet(&pods, &[]);
        let agent = "{apiVersion: v1, kind: Pod, metadata: {name: konnectivity-agent-x, namespace: kube-system}}";
        quiet(&pods, &[&into("front"), agent]);
    }

    #[test]
    fn fires_when_the_ingress_controller_is_blocked() {
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
            "error NetworkPolicy shop/back-in: NetworkPolicy back-in blocks ingress from Pod controller to Pod back on port 9000, although Ingress shop routes all other traffic to Service back",
        ]);
        let admitted = into("front").replace(
            "from: [",
            "from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}, ",
        );
        check(&RULE, &[PODS, ingress, &admitted]).finds_nothing();
    }

    const HOST: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: docs, namespace: shop}
spec: {ingressClassName: nginx, rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: back, port: {number: 80}}}}]}}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: edge}
---
apiVersion: v1
kind: Pod
metadata: {name: nginx, namespace: edge, labels: {app.kubernetes.io/name: ingress-nginx}}
spec: {hostNetwork: true, nodeName: edge-1, containers: [{name: c}]}
status: {phase: Running, podIP: 192.0.2.10, hostIP: 192.0.2.10}";

    fn from_host(peer: &str) -> String {
        policy("back-in", "back", &format!("ingress: [{{from: [{peer}], ports: [{{port: 9000}}]}}]"))
    }

    #[test]
    fn fires_for_a_controller_on_the_host_network() {
        let pods = PODS.replace("spec: {containers", "spec: {nodeName: n1, containers");
        let selector = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: edge}}}";
        let said = check(&RULE, &[&pods, HOST, &from_host(selector)]);
        assert!(
            said.finding().message.starts_with(
                "NetworkPolicy back-in blocks ingress from Pod nginx to Pod back on \
            port 9000 (on the host network), although Ingress docs routes"
            ),
            "{}",
            said.finding().message
        );
        assert!(said.finding().fix[0].text.contains("192.0.2.10/32"));
    }

    #[test]
    fn quiet_for_a_controller_whose_node_is_admitted_or_is_that_of_the_pod() {
        let pods = PODS.replace("spec: {containers", "spec: {nodeName: n1, containers");
        let block = from_host("{ipBlock: {cidr: 192.0.2.0/24}}");
        check(&RULE, &[&pods, HOST, &block]).finds_nothing();
        let same = PODS.replace("spec: {containers", "spec: {nodeName: edge-1, containers");
        check(&RULE, &[&same, HOST, &from_host("{podSelector: {}}")]).finds_nothing();
    }

    #[test]
    fn quiet_when_admitted_pods_may_reach_another_port_only() {
        let pods = PODS.replace("ports: [{name: http", "ports: [{name: api, containerPort: 9001}, {name: http");
        let admits = into("front").replace("ports: [{port: 9000}]", "ports: [{port: 9000}, {port: 9001}]");
        check(&RULE, &[&pods, &out("9001"), &admits]).finds_nothing();
    }

    #[test]
    fn fires_as_warning_when_egress_of_admitted_pods_is_blocked() {
        let closed = policy("front-closed", "front", "policyTypes: [Egress]");
        check(&RULE, &[PODS, &closed, &into("front")]).finds(&[
            "warning NetworkPolicy shop/front-closed: NetworkPolicy front-closed blocks egress from Pod front to Pod back on port 9000, although NetworkPolicy back-in allows ingress from Pod front to Pod back",
        ]);
    }
}
