use crate::kubernetes::network::cluster_dns::DnsExt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::cluster_dns::ClusterDns;
use crate::kubernetes::network::netpol::connections::known_connections;
use crate::kubernetes::network::netpol::{
    Answer, Direction, Endpoint, NAME_LABEL, NODE_LOCAL, Peer, Policy, PolicySet, Port, Ports, Protocol, Rule, Subject,
    dns_targets, is_private,
};
use crate::kubernetes::workloads::log_lines::whole_telling_line;
use crate::kubernetes::workloads::restarts::containers;
use crate::kubernetes::workloads::symptoms::{Symptom, symptoms};
use crate::snapshot::model::{NetworkPolicy, Pod};
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that pods that NetworkPolicies isolate for egress can reach the cluster's DNS: some policy allows UDP
    /// traffic to the DNS pods on the ports they listen on (53, or 5353 on OpenShift), to the Service's address, or to
    /// the node-local cache, and the DNS pods' own policies admit it. If a log reports that the node-local cache does not
    /// answer, a policy has to allow the address of the cache: it runs on the host network, so no `podSelector` matches.
    ///
    /// ## Why it matters
    ///
    /// Without DNS no name resolves: whatever else the policies allow, the connection is never attempted. The
    /// application logs "Temporary failure in name resolution" or hangs for seconds in each lookup, while the policies
    /// that allow the connection itself look correct.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -- nslookup kubernetes.default` times out, and
    /// `kubectl -n NAMESPACE get networkpolicy` lists policies of type Egress, none of which opens port 53 to
    /// kube-system.
    ///
    /// ## How to fix
    ///
    /// Allow egress to the DNS pods over UDP and TCP, preferably for the whole namespace; the finding contains the
    /// rule. Every namespace carries its name in the label `kubernetes.io/metadata.name`; a label `name` exists only if
    /// someone added it.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for pods on the host network, and for pods whose `dnsPolicy` is `Default` or `None`
    /// - where policies of another engine (Cilium, Calico, Antrea) or an administrator's policies may allow the traffic
    /// - where the DNS pods are unknown
    ///
    /// A pod that is isolated from everything on purpose needs no DNS, so an `error` requires evidence that a pod
    /// resolves names:
    ///
    /// - a policy tries to allow DNS for it, but has a mistake
    /// - a policy allows it to connect to pods of the cluster, or to external addresses on more than the API server's
    ///   ports
    /// - its environment or command line refers to a Service
    /// - its log contains name resolution errors
    ///
    /// Without such evidence the finding is `info`. It is also `info` for a policy that allows UDP but not TCP, which
    /// only large responses need.
    "network-policy/dns-blocked": Error,
    "pods are isolated for egress and no policy allows them to reach the cluster's DNS",
    needs: [NetworkPolicy, Pod, Service],
    optional: [
        Namespace, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob,
        AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy, CiliumNetworkPolicy,
        CiliumClusterwideNetworkPolicy, GlobalNetworkPolicy,
    ],
    reads_custom: true,
    explained_by: ["network-policy/peer-matches-nothing"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if cluster.all::<NetworkPolicy>().is_empty() {
        return;
    }
    let dns = cluster.dns();
    let targets = dns_targets(&dns);
    if dns.pods.is_empty() || targets.is_empty() {
        return;
    }
    let set = PolicySet::new(cluster);
    let caches = unanswered_caches(cluster, &dns);
    let mut blocked: BTreeMap<ObjectRef, Blocked> = BTreeMap::new();
    for namespace in set.namespaces() {
        for subject in set.subjects_in(namespace).iter().filter(|subject| uses_cluster_dns(subject)) {
            match caches.get(&*subject.owner) {
                Some((cache, pod)) => check_cache(&set, (*cache, pod), subject, &mut blocked),
                None => check_subject(&set, &dns, &targets, subject, &mut blocked),
            }
        }
    }
    for (object, blocked) in blocked {
        report.add(blocked.finding(&set, &dns, object));
    }
}

/// The addresses of node-local caches that did not answer queries, according to logs, by the owner of the pods.
fn unanswered_caches(cluster: &Cluster, dns: &ClusterDns) -> BTreeMap<ObjectRef, (IpAddr, ObjectRef)> {
    let mut found = BTreeMap::new();
    for (namespace, name, container) in cluster.logs().keys() {
        let Some(pod) = cluster.get::<Pod>(namespace, name).found() else { continue };
        let Some(container) = containers(pod).find(|c| c.name() == container) else { continue };
        let line = whole_telling_line(cluster, &container).unwrap_or_default();
        let servers = symptoms(&line).into_iter().filter_map(|symptom| match symptom {
            Symptom::Lookup { server, answered: false, .. } => server?.parse::<IpAddr>().ok(),
            _ => None,
        });
        // Where a cache runs on each node, it answers the queries to the Service's address too.
        let is_cache = |server: &IpAddr| {
            let is_link_local = matches!(server, IpAddr::V4(v4) if v4.is_link_local());
            is_link_local || !dns.node_local.is_empty()
        };
        for server in servers.filter(is_cache) {
            found.insert(cluster.owner_of(pod).into_owned(), (server, pod.reference()));
        }
    }
    found
}

/// Whether policies let the pods reach the cache, which runs on the host network: no selector of pods matches it.
fn check_cache<'a>(
    set: &PolicySet<'a>,
    (cache, pod): (IpAddr, &ObjectRef),
    subject: &Subject<'a>,
    blocked: &mut BTreeMap<ObjectRef, Blocked>,
) {
    let end = Endpoint::Pod(subject.end);
    let side = set.side(Direction::Egress, &end, &Endpoint::Address(cache), Port::udp(53));
    if side.answer != Answer::No {
        return;
    }
    let isolating = set.isolating(Direction::Egress, &subject.end);
    let opens_dns = |policy: &&&Policy| {
        let rules = policy.rules(Direction::Egress).unwrap_or_default();
        rules.iter().any(|rule| rule.ports.iter().any(|p| is_just(&p.ports, 53)))
    };
    let Some(policy) = isolating.iter().find(opens_dns).or(isolating.first()) else { return };
    let mistake = format!(
        "pods query the node-local DNS cache at {cache} on the host network, which no podSelector matches and no ipBlock \
         contains"
    );
    let object = policy.object.reference();
    let has_rules = policy.rules(Direction::Egress).is_some_and(|rules| !rules.is_empty());
    let entry = blocked.entry(object.clone()).or_insert_with(|| Blocked {
        protocol: Protocol::Udp,
        mistake: None,
        cache: None,
        is_ingress: false,
        subjects: Vec::new(),
        has_rules,
        others: BTreeSet::new(),
    });
    entry.mistake.get_or_insert(mistake);
    entry.cache = Some(cache);
    entry.others.extend(isolating.iter().map(|p| p.name().to_string()).filter(|name| *name != object.name));
    let need = Some((format!("its log contains: no answer from {cache}"), pod.clone(), String::new()));
    entry.subjects.push(BlockedWorkload { name: subject.name(), sample: subject.sample(), pods: subject.pods, need });
}

fn uses_cluster_dns(subject: &Subject) -> bool {
    let spec = subject.end.spec;
    // ClusterFirst is the default of the API.
    !spec.host_network && matches!(spec.dns_policy.as_str(), "" | "ClusterFirst" | "ClusterFirstWithHostNet")
}

/// The workloads that one policy blocks from DNS.
struct Blocked {
    protocol: Protocol,
    /// Why the policy's rule for DNS does not apply, if it has one.
    mistake: Option<String>,
    /// The node-local cache that the pods query.
    cache: Option<IpAddr>,
    is_ingress: bool,
    subjects: Vec<BlockedWorkload>,
    has_rules: bool,
    others: BTreeSet<String>,
}

struct BlockedWorkload {
    name: String,
    sample: ObjectRef,
    pods: usize,
    /// The evidence that it needs DNS: a sentence, and the object and field it was read from.
    need: Option<(String, ObjectRef, String)>,
}

fn check_subject<'a>(
    set: &PolicySet<'a>,
    dns: &ClusterDns<'a>,
    targets: &[(Endpoint<'a>, Port)],
    subject: &Subject<'a>,
    blocked: &mut BTreeMap<ObjectRef, Blocked>,
) {
    let end = Endpoint::Pod(subject.end);
    let reaches = |protocol: Protocol, direction: Option<Direction>| {
        let wanted = targets.iter().filter(|(_, port)| port.protocol == protocol);
        Answer::any(wanted.map(|(target, port)| {
            let verdict = set.verdict(&end, target, *port);
            match direction {
                None => verdict.allowed,
                Some(Direction::Egress) => verdict.egress.answer,
                Some(Direction::Ingress) => verdict.ingress.answer,
            }
        }))
    };
    let (udp, tcp) = (reaches(Protocol::Udp, None), reaches(Protocol::Tcp, None));
    let protocol = match (udp, tcp) {
        (Answer::No, _) => Protocol::Udp,
        (Answer::Yes, Answer::No) => Protocol::Tcp,
        _ => return,
    };
    let isolating = set.isolating(Direction::Egress, &subject.end);
    let is_ingress = reaches(protocol, Some(Direction::Egress)) == Answer::Yes;
    let Some((object, mistake, has_rules)) = (if is_ingress {
        policy_of_dns_pods(set, dns)
    } else {
        let attempt = isolating.iter().find_map(|p| Some((*p, attempt(set, dns, p, protocol)?)));
        let without_rules = || isolating.iter().find(|p| p.rules(Direction::Egress).is_none_or(<[Rule]>::is_empty));
        match attempt {
            Some((policy, mistake)) => Some((policy.object.reference(), Some(mistake), true)),
            None => without_rules().or(isolating.first()).map(|policy| {
                let has_rules = policy.rules(Direction::Egress).is_some_and(|rules| !rules.is_empty());
                (policy.object.reference(), None, has_rules)
            }),
        }
    }) else {
        // An administrator's policy blocks it, which is intended.
        return;
    };
    let need = match (&mistake, protocol) {
        (_, Protocol::Tcp) => None,
        (Some(mistake), _) => Some((mistake.clone(), object.clone(), "spec.egress".to_string())),
        (None, _) => need(set, subject, &isolating),
    };
    let entry = blocked.entry(object.clone()).or_insert_with(|| Blocked {
        protocol,
        mistake: None,
        cache: None,
        is_ingress,
        subjects: Vec::new(),
        has_rules,
        others: BTreeSet::new(),
    });
    // Missing UDP is worse than missing TCP.
    if protocol == Protocol::Udp {
        entry.protocol = protocol;
    }
    entry.mistake = entry.mistake.take().or(mistake);
    entry.others.extend(isolating.iter().map(|p| p.name().to_string()).filter(|name| *name != object.name));
    entry.subjects.push(BlockedWorkload { name: subject.name(), sample: subject.sample(), pods: subject.pods, need });
}

/// The policy that isolates the DNS pods themselves.
fn policy_of_dns_pods<'a>(set: &PolicySet<'a>, dns: &ClusterDns<'a>) -> Option<(ObjectRef, Option<String>, bool)> {
    let pod = dns.pods.first()?;
    let policies = set.isolating(Direction::Ingress, &crate::kubernetes::network::netpol::PodEnd::of(pod));
    let policy = policies.first()?;
    let has_rules = policy.rules(Direction::Ingress).is_some_and(|rules| !rules.is_empty());
    Some((policy.object.reference(), None, has_rules))
}

/// Why a policy's rule for DNS does not apply, if it has one.
fn attempt(set: &PolicySet, dns: &ClusterDns, policy: &Policy, protocol: Protocol) -> Option<String> {
    let pod = dns.pods.first()?;
    let real = dns.ports_of(pod).into_iter().find(|port| Protocol::parse(&port.protocol) == Some(protocol))?;
    let end = Endpoint::pod(pod);
    for rule in policy.rules(Direction::Egress)? {
        let names_dns = rule.ports.iter().any(|p| is_just(&p.ports, 53) || is_just(&p.ports, real.target));
        let selects_by_labels = |peer: &Peer| matches!(peer, Peer::Selected { pods, .. } if !pods.is_empty());
        let selects_dns_pods =
            rule.peers.iter().any(|p| selects_by_labels(p) && p.matches(set, policy.namespace(), &end) == Answer::Yes);
        if selects_dns_pods && !names_dns && rule.ports.iter().all(|p| !matches!(p.ports, Ports::Named(_))) {
            return Some(format!(
                "it opens only other ports to the DNS pods, which listen on {protocol} {}",
                real.target
            ));
        }
        if !names_dns {
            continue;
        }
        if rule.allows_peer(set, policy.namespace(), &end) == Answer::No {
            return Some(peer_mistake(set, dns, policy, rule));
        }
        let opened: Vec<String> = rule
            .ports
            .iter()
            .filter_map(|p| match p.ports {
                Ports::Range(first, _) => Some(format!("{} {first}", p.protocol?)),
                _ => None,
            })
            .collect();
        let opened = words::list(&opened, 4);
        return Some(format!("it opens {opened}, but the DNS pods listen on {protocol} {}", real.target));
    }
    None
}

fn is_just(ports: &Ports, number: i32) -> bool {
    matches!(ports, Ports::Range(first, last) if *first == number && *last == number)
}

/// Why none of a rule's peers matches the DNS pods.
fn peer_mistake(set: &PolicySet, dns: &ClusterDns, policy: &Policy, rule: &Rule) -> String {
    let Some(pod) = dns.pods.first() else { return String::new() };
    let system = &pod.metadata.namespace;
    for peer in &rule.peers {
        match peer {
            Peer::Selected { namespaces: None, .. } if system != policy.namespace() => {
                return format!(
                    "its rule for DNS has no namespaceSelector and selects pods in {}, but DNS runs in {system}",
                    policy.namespace()
                );
            }
            Peer::Selected { namespaces: Some(selector), .. }
                if set.namespace_matches(selector, system) == Answer::No =>
            {
                let labels = set.cluster().get::<crate::snapshot::model::Namespace>("", system).found();
                let differences = labels.map(|n| selector.differences(n.labels())).unwrap_or_default();
                let has = differences.first().map(|(_, value)| value.map_or("no such label", |value| value));
                return format!(
                    "its rule for DNS selects namespaces with {selector}, but {system} has {}",
                    has.unwrap_or("no such label")
                );
            }
            Peer::Selected { pods, .. } if !pods.matches(&pod.metadata.labels) => {
                let unmet: Vec<String> =
                    pods.differences(&pod.metadata.labels).into_iter().map(|(unmet, _)| unmet).collect();
                let has = dns.service().map(|s| crate::snapshot::Selector::equals(&s.spec.selector).to_string());
                return format!(
                    "its rule for DNS selects pods with {}, but the DNS pods have {}",
                    words::list(&unmet, 3),
                    has.unwrap_or_default()
                );
            }
            _ => {}
        }
    }
    "its rule for DNS does not include the DNS addresses".to_string()
}

/// The evidence that a pod resolves names: a sentence, and the object and field it was read from.
fn need<'a>(
    set: &PolicySet<'a>,
    subject: &Subject<'a>,
    isolating: &[&Policy<'a>],
) -> Option<(String, ObjectRef, String)> {
    for policy in isolating {
        let rules = policy.rules(Direction::Egress).unwrap_or_default();
        if let Some(n) = rules.iter().position(requires_names) {
            let text = format!("NetworkPolicy {} allows egress from {}", policy.name(), subject.name());
            return Some((text, policy.object.reference(), format!("spec.egress[{n}]")));
        }
    }
    if let Some(known) = known_connections(set.cluster(), &subject.end).first() {
        let text = format!("{} of {} refers to {}", known.place, subject.name(), known.address);
        return Some((text, subject.sample(), known.path.clone()));
    }
    let pod = subject.end.pod?;
    let line = resolution_error(set.cluster(), pod)?;
    Some((format!("its log contains: {}", words::shorten(line, 120)), pod.reference(), String::new()))
}

/// Whether a rule allows connections that pods open by name. The API server's address is in every pod's environment,
/// and a single address needs no name.
fn requires_names(rule: &Rule) -> bool {
    let only_api_server = !rule.ports.is_empty()
        && rule.ports.iter().all(|p| is_just(&p.ports, 443) || is_just(&p.ports, 6443) || is_just(&p.ports, 8443));
    if rule.peers.is_empty() {
        return !only_api_server;
    }
    rule.peers.iter().any(|peer| match peer {
        Peer::Selected { .. } => true,
        Peer::Block { cidr, .. } => cidr.prefix_len() == 0 && !is_private(cidr) && !only_api_server,
        Peer::Nothing => false,
    })
}

/// The last line of a pod's log that reports a failed name resolution.
fn resolution_error<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a str> {
    const ERRORS: &[&str] = &[
        "Temporary failure in name resolution",
        "EAI_AGAIN",
        "bad address",
        "ould not resolve host",
        "no servers could be reached",
        "server misbehaving",
        "no such host",
        "Name or service not known",
        "UnknownHostException",
    ];
    let is_error = |line: &str| {
        ERRORS.iter().any(|error| line.contains(error)) || (line.contains("lookup ") && line.contains("i/o timeout"))
    };
    pod.spec.running_containers().find_map(|container| {
        let log = cluster.log(&pod.metadata.namespace, &pod.metadata.name, &container.name)?;
        log.lines.iter().rev().map(String::as_str).find(|line| is_error(line))
    })
}

impl Blocked {
    fn finding(&self, set: &PolicySet, dns: &ClusterDns, object: ObjectRef) -> Finding {
        let in_need: Vec<&BlockedWorkload> = self.subjects.iter().filter(|subject| subject.need.is_some()).collect();
        let blocked: Vec<&BlockedWorkload> =
            if in_need.is_empty() { self.subjects.iter().collect() } else { in_need.clone() };
        let names: Vec<&str> = blocked.iter().map(|subject| subject.name.as_str()).collect();
        let who = words::list(&names, 3);
        let is_error = !in_need.is_empty() && self.protocol == Protocol::Udp;
        let message = self.message(set, dns, &object, &who, is_error);
        let new = if is_error { Finding::error } else { Finding::info };
        let path = if self.is_ingress { "spec.ingress" } else { "spec.egress" };
        let mut finding = new(object.clone(), message).pods(blocked.iter().map(|subject| subject.pods).sum());
        if !self.has_rules {
            finding = finding.evidence("it isolates the pods and allows no traffic", &object, path);
        }
        if !self.others.is_empty() {
            let others: Vec<&str> = self.others.iter().map(String::as_str).collect();
            let text = format!("the other policies that apply do not allow it either: {}", words::list(&others, 5));
            finding = finding.evidence(text, &object, "");
        }
        for subject in blocked.iter().take(5) {
            finding = match &subject.need {
                Some((text, about, path)) => finding.evidence(text.clone(), about, path),
                None => finding.evidence(format!("it isolates {}", subject.name), &subject.sample, "metadata.labels"),
            };
        }
        if !in_need.is_empty() && in_need.len() < self.subjects.len() {
            let rest = self.subjects.iter().filter(|subject| subject.need.is_none());
            let rest: Vec<&str> = rest.map(|subject| subject.name.as_str()).collect();
            let text = format!("{} cannot reach DNS either (no evidence that DNS is needed)", words::list(&rest, 5));
            finding = finding.evidence(text, &object, "spec.podSelector");
        }
        finding.fix_command("Add a rule that allows DNS", self.patch(dns, &object))
    }

    fn message(&self, set: &PolicySet, dns: &ClusterDns, object: &ObjectRef, who: &str, is_error: bool) -> String {
        let name = &object.name;
        let ports = ports_text(dns);
        if self.protocol == Protocol::Tcp {
            return format!(
                "NetworkPolicy {name} allows {who} to reach DNS over UDP but not over TCP, which large responses need"
            );
        }
        if self.is_ingress {
            let namespace = object.namespace();
            return format!("NetworkPolicy {name} in namespace {namespace} blocks {who} from the DNS pods on {ports}");
        }
        if let Some(mistake) = &self.mistake {
            format!("NetworkPolicy {name} blocks DNS for {who}: {mistake}")
        } else {
            let service = dns.service().map(Object::reference).map(|s| format!("{} in {}", s.name, s.namespace()));
            let service = service.unwrap_or_default();
            let doubt = if is_error { "" } else { " (fine if they do not resolve names)" };
            let scope = if set.in_namespace(object.namespace()).len() > 1 { "no policy" } else { "no rule" };
            format!("NetworkPolicy {name} blocks DNS for {who}: {scope} allows egress to {service} on {ports}{doubt}")
        }
    }

    /// The command that adds the missing rule to the policy.
    fn patch(&self, dns: &ClusterDns, object: &ObjectRef) -> String {
        let rule = match self.cache {
            Some(cache) => cache_rule(cache),
            None if self.is_ingress => ingress_rule(dns),
            None => egress_rule(dns),
        };
        let direction = if self.is_ingress { "ingress" } else { "egress" };
        let patch = if self.has_rules {
            serde_json::json!([{"op": "add", "path": format!("/spec/{direction}/-"), "value": rule}])
        } else {
            serde_json::json!([{"op": "add", "path": format!("/spec/{direction}"), "value": [rule]}])
        };
        let patch = patch.to_string();
        kubectl(["-n", object.namespace(), "patch", "networkpolicy", &object.name, "--type=json", "-p", &patch])
    }
}

/// `UDP and TCP port 53`.
fn ports_text(dns: &ClusterDns) -> String {
    let numbers: BTreeSet<i32> = dns.ports().iter().map(|port| port.target).collect();
    let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
    format!("UDP and TCP port {}", words::list(&numbers, 3))
}

fn ports_json(dns: &ClusterDns) -> Vec<serde_json::Value> {
    let ports: BTreeSet<(bool, i32)> = dns.ports().iter().map(|port| (port.protocol != "UDP", port.target)).collect();
    let protocol = |is_tcp: bool| if is_tcp { "TCP" } else { "UDP" };
    ports.iter().map(|(tcp, port)| serde_json::json!({"protocol": protocol(*tcp), "port": port})).collect()
}

fn egress_rule(dns: &ClusterDns) -> serde_json::Value {
    let mut to = Vec::new();
    if let Some(service) = dns.service() {
        to.push(serde_json::json!({
            "namespaceSelector": {"matchLabels": {NAME_LABEL: service.metadata.namespace}},
            "podSelector": {"matchLabels": service.spec.selector},
        }));
    }
    if !dns.node_local.is_empty() {
        to.push(serde_json::json!({"ipBlock": {"cidr": format!("{NODE_LOCAL}/32")}}));
    }
    serde_json::json!({"to": to, "ports": ports_json(dns)})
}

fn cache_rule(cache: IpAddr) -> serde_json::Value {
    let bits = if cache.is_ipv4() { 32 } else { 128 };
    serde_json::json!({
        "to": [{"ipBlock": {"cidr": format!("{cache}/{bits}")}}],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    })
}

fn ingress_rule(dns: &ClusterDns) -> serde_json::Value {
    serde_json::json!({"from": [{"namespaceSelector": {}}], "ports": ports_json(dns)})
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const DNS: &str = "
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: 10.96.0.10
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: coredns-0, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {containers: [{name: coredns}]}
status: {podIP: 10.0.0.53}
---
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system, labels: {kubernetes.io/metadata.name: kube-system}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}}";

    const FRONT: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: front, namespace: shop, labels: {app: front}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: back, namespace: shop, labels: {app: back}}}";

    const DENY_ALL: &str = "
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: deny-all, namespace: shop}
        spec: {podSelector: {}, policyTypes: [Ingress, Egress]}";

    fn egress(name: &str, selector: &str, rule: &str) -> String {
        format!(
            "
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata: {{name: {name}, namespace: shop}}
            spec: {{podSelector: {{{selector}}}, policyTypes: [Egress], egress: [{rule}]}}"
        )
    }

    fn to_back() -> String {
        egress(
            "front-to-back",
            "matchLabels: {app: front}",
            "{to: [{podSelector: {matchLabels: {app: back}}}], ports: [{port: 9000}]}",
        )
    }

    fn docs() -> [&'static str; 2] {
        [DNS, FRONT]
    }

    fn said(more: &[&str]) -> crate::testing::Findings {
        let mut documents = docs().to_vec();
        documents.extend(more);
        check(&RULE, &documents)
    }

    const BLOCKED: &str = "error NetworkPolicy shop/deny-all: NetworkPolicy deny-all blocks DNS for Pod front: no \
                           policy allows egress to kube-dns in kube-system on UDP and TCP port 53";

    #[test]
    fn fires_when_pods_may_connect_but_not_resolve() {
        let said = said(&[DENY_ALL, &to_back()]);
        said.finds(&[BLOCKED]);
        assert!(said.finding().fix[0].command.as_deref().is_some_and(|command| {
            command.starts_with("kubectl -n shop patch networkpolicy deny-all --type=json -p '[{\"op\":\"add\",")
        }));
    }

    fn dns_rule(to: &str, ports: &str) -> String {
        egress("allow-dns", "", &format!("{{to: [{to}], ports: [{ports}]}}"))
    }

    const BOTH: &str = "{port: 53, protocol: UDP}, {port: 53, protocol: TCP}";

    #[test]
    fn quiet_when_a_policy_opens_dns() {
        for to in [
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}",
            "{namespaceSelector: {}}",
            "",
            "{ipBlock: {cidr: 10.96.0.10/32}}",
            "{ipBlock: {cidr: 10.0.0.0/16}}",
        ] {
            said(&[DENY_ALL, &to_back(), &dns_rule(to, BOTH)]).finds_nothing();
        }
        said(&[DENY_ALL, &egress("all", "", "{}")]).finds_nothing();
    }

    #[test]
    fn fires_on_the_policy_that_tries_to_allow_dns() {
        let by_name = "{namespaceSelector: {matchLabels: {name: kube-system}}}";
        said(&[DENY_ALL, &dns_rule(by_name, BOTH)]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns blocks DNS for Pod back and Pod front: \
             its rule for DNS selects namespaces with name=kube-system, but kube-system has no such label",
        ]);
        let own = "{podSelector: {matchLabels: {k8s-app: kube-dns}}}";
        said(&[DENY_ALL, &dns_rule(own, BOTH)]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns blocks DNS for Pod back and Pod front: \
             its rule for DNS has no namespaceSelector and selects pods in shop, but DNS runs in kube-system",
        ]);
        let coredns = "{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: coredns}}}";
        said(&[DENY_ALL, &dns_rule(coredns, BOTH)]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns blocks DNS for Pod back and Pod front: \
             its rule for DNS selects pods with k8s-app=coredns, but the DNS pods have k8s-app=kube-dns",
        ]);
        said(&[DENY_ALL, &dns_rule("{namespaceSelector: {}}", "{port: 53}")]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns blocks DNS for Pod back and Pod front: \
             it opens TCP 53, but the DNS pods listen on UDP 53",
        ]);
    }

    fn with_cache(block: &str) -> crate::testing::Findings {
        let cache = "{apiVersion: v1, kind: Pod, metadata: {name: node-local-dns-x, namespace: kube-system, labels: {
            k8s-app: node-local-dns}}, spec: {hostNetwork: true}}";
        let front = "{apiVersion: v1, kind: Pod, metadata: {name: front, namespace: shop, labels: {app: front}},
            spec: {containers: [{name: c}]}, status: {containerStatuses: [{name: c}]}}";
        let to = format!("{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{k8s-app: kube-dns}}}}}}{block}");
        let line = "lookup back on 169.254.20.10:53: read udp 10.0.0.9:1->169.254.20.10:53: i/o timeout";
        TestCluster::new(&[DNS, front, cache, DENY_ALL, &dns_rule(&to, BOTH)])
            .log("shop", "front", "c", &[line])
            .check(&RULE)
    }

    #[test]
    fn fires_for_a_node_local_cache_that_the_policy_does_not_cover() {
        let said = with_cache("");
        said.finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns blocks DNS for Pod front: pods query the \
             node-local DNS cache at 169.254.20.10 on the host network, which no podSelector matches and no ipBlock \
             contains",
        ]);
        assert!(said.text().contains("169.254.20.10/32"));
    }

    #[test]
    fn quiet_where_the_node_local_cache_is_covered() {
        with_cache(", {ipBlock: {cidr: 169.254.20.10/32}}").finds_nothing();
    }

    #[test]
    fn fires_on_openshift_where_the_pods_listen_on_5353() {
        let dns = docs()[0].replace("port: 53, protocol", "port: 53, targetPort: 5353, protocol");
        let pods = egress("allow-dns", "", &format!("{{to: [{{namespaceSelector: {{}}}}], ports: [{BOTH}]}}"));
        check(&RULE, &[&dns, docs()[1], DENY_ALL, &pods]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns blocks DNS for Pod back and Pod front: \
             it opens UDP 53 and TCP 53, but the DNS pods listen on UDP 5353",
        ]);
    }

    #[test]
    fn fires_as_info_without_evidence_of_need() {
        said(&[DENY_ALL]).finds(&[
            "info NetworkPolicy shop/deny-all: NetworkPolicy deny-all blocks DNS for Pod back and Pod front: \
             no rule allows egress to kube-dns in kube-system on UDP and TCP port 53 (fine if they do not resolve \
             names)",
        ]);
        said(&[DENY_ALL, &dns_rule("", "{port: 53, protocol: UDP}")]).finds(&[
            "info NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns allows Pod back and Pod front to reach DNS \
             over UDP but not over TCP, which large responses need",
        ]);
    }

    #[test]
    fn fires_when_the_environment_names_a_service() {
        let service =
            "{apiVersion: v1, kind: Service, metadata: {name: back, namespace: shop}, spec: {selector: {app: back}}}";
        let asks = docs()[1].replacen(
            "labels: {app: front}}",
            "labels: {app: front}}, spec: {containers: [{name: c, env: [{name: API, value: 'http://back:80'}]}]}",
            1,
        );
        check(&RULE, &[docs()[0], &asks, service, DENY_ALL]).finds(&[BLOCKED.replace("no policy", "no rule").as_str()]);
    }

    #[test]
    fn fires_on_the_policy_of_the_dns_pods() {
        let closed = "
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata: {name: dns-in, namespace: kube-system}
            spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}";
        let need =
            "{apiVersion: v1, kind: Service, metadata: {name: back, namespace: shop}, spec: {selector: {app: back}}}";
        let asks = docs()[1].replacen(
            "labels: {app: front}}",
            "labels: {app: front}}, spec: {containers: [{name: c, args: ['http://back:80']}]}",
            1,
        );
        let dns = docs()[0].replace("clusterIP: 10.96.0.10", "clusterIP: ''");
        check(&RULE, &[&dns, &asks, need, closed]).finds(&[
            "error NetworkPolicy kube-system/dns-in: NetworkPolicy dns-in in namespace kube-system blocks Pod front \
             from the DNS pods on UDP and TCP port 53",
        ]);
    }

    #[test]
    fn quiet_for_pods_that_do_not_use_the_clusters_dns() {
        for spec in ["hostNetwork: true", "dnsPolicy: Default", "dnsPolicy: None"] {
            let front =
                docs()[1].replacen("labels: {app: front}}", &format!("labels: {{app: front}}}}, spec: {{{spec}}}"), 1);
            let front = front.split("---").next().unwrap();
            check(&RULE, &[docs()[0], front, DENY_ALL, &to_back()]).finds_nothing();
        }
    }

    #[test]
    fn quiet_where_another_engine_may_allow_it() {
        let cilium = "{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: dns}}";
        said(&[DENY_ALL, &to_back(), cilium]).finds_nothing();
        let documents = [docs()[0], docs()[1], DENY_ALL, &to_back()];
        TestCluster::new(&documents).forbid(Kind::AdminNetworkPolicy).check(&RULE).finds_nothing();
        let allowed = "
            apiVersion: policy.networking.k8s.io/v1alpha1
            kind: AdminNetworkPolicy
            metadata: {name: dns}
            spec:
              priority: 1
              subject: {namespaces: {}}
              egress: [{action: Allow, to: [{namespaces: {}}], ports: [{portNumber: {protocol: UDP, port: 53}}, {portNumber: {protocol: TCP, port: 53}}]}]";
        said(&[DENY_ALL, &to_back(), allowed]).finds_nothing();
    }

    #[test]
    fn quiet_where_namespaces_were_not_read() {
        let by_label = "{namespaceSelector: {matchLabels: {role: system}}}";
        let pods_only: Vec<&str> = docs()[0].split("---").take(2).collect();
        let documents = [pods_only[0], pods_only[1], docs()[1], DENY_ALL, &dns_rule(by_label, BOTH)];
        TestCluster::new(&documents).forbid(Kind::Namespace).check(&RULE).finds_nothing();
    }
}
