use crate::kubernetes::network::cluster_dns::DnsExt;
use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::cluster_dns::ClusterDns;
use crate::kubernetes::network::netpol::connections::known_connections;
use crate::kubernetes::network::netpol::{
    Answer, Direction, Endpoint, NAME_LABEL, NODE_LOCAL, Peer, Policy, PolicySet, Port, Ports, Protocol, Rule, Subject,
    dns_targets, is_private,
};
use crate::snapshot::model::{NetworkPolicy, Pod};
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// That pods which NetworkPolicies isolate for egress can still ask the cluster's DNS: some policy lets them reach
    /// the DNS pods on the ports where those really listen (53, on OpenShift 5353), or the Service's address, or the
    /// node-local cache, over UDP; and that the DNS pods' own policies let them in.
    ///
    /// ## Why it matters
    ///
    /// Without DNS every name is unknown: whatever else the policies allow, the connection is never tried. The
    /// application says "Temporary failure in name resolution" or hangs for seconds in each lookup, and the policies
    /// that allow the connection itself look right.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -- nslookup kubernetes.default` times out, while `kubectl -n NAMESPACE get
    /// networkpolicy` lists policies of type Egress and none that opens port 53 to kube-system.
    ///
    /// ## How to fix
    ///
    /// Allow egress to the DNS pods over UDP and TCP, most simply for the whole namespace; the finding has the rule.
    /// Every namespace carries its name in the label `kubernetes.io/metadata.name`; a label `name` is there only if
    /// somebody put it there.
    ///
    /// ## Exceptions
    ///
    /// For pods in the host's network and pods whose `dnsPolicy` is `Default` or `None`; where policies of another
    /// engine (Cilium, Calico, Antrea) or an administrator's may allow it; where the DNS pods are not known. A pod that
    /// is deliberately cut off from everything needs no DNS, so an error needs evidence that a pod wants to resolve
    /// names: a policy tries to open DNS for it and misses; a policy lets it connect to pods of the cluster, or to the
    /// outside on more than the API server's ports; its environment or command line names a Service; its log complains
    /// about name resolution. Without any of these it is only `info`, as is a policy that opens UDP and forgets TCP,
    /// which only long answers need.
    "network-policy/dns-blocked": Error,
    "pods are isolated for egress and no policy lets them reach the cluster's DNS",
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
    let mut blocked: BTreeMap<ObjectRef, Blocked> = BTreeMap::new();
    for namespace in set.namespaces() {
        for subject in set.subjects_in(namespace).iter().filter(|subject| asks_cluster_dns(subject)) {
            look(&set, &dns, &targets, subject, &mut blocked);
        }
    }
    for (object, blocked) in blocked {
        report.add(blocked.finding(&set, &dns, object));
    }
}

fn asks_cluster_dns(subject: &Subject) -> bool {
    let spec = subject.end.spec;
    // ClusterFirst is the default of the API.
    !spec.host_network && matches!(spec.dns_policy.as_str(), "" | "ClusterFirst" | "ClusterFirstWithHostNet")
}

/// What one policy keeps from DNS.
struct Blocked {
    protocol: Protocol,
    /// What is wrong with the rule that was to open DNS.
    miss: Option<String>,
    is_ingress: bool,
    /// Each workload with why it needs DNS, if anything says so.
    subjects: Vec<Cut>,
    has_rules: bool,
    others: BTreeSet<String>,
}

struct Cut {
    name: String,
    sample: ObjectRef,
    pods: usize,
    need: Option<(String, ObjectRef, String)>,
}

fn look<'a>(
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
    let Some((object, miss, has_rules)) = (if is_ingress {
        at_the_dns_pods(set, dns)
    } else {
        let attempt = isolating.iter().find_map(|p| Some((*p, attempt(set, dns, p, protocol)?)));
        let silent = || isolating.iter().find(|p| p.rules(Direction::Egress).is_none_or(<[Rule]>::is_empty));
        match attempt {
            Some((policy, miss)) => Some((policy.object.reference(), Some(miss), true)),
            None => silent().or(isolating.first()).map(|policy| {
                let has_rules = policy.rules(Direction::Egress).is_some_and(|rules| !rules.is_empty());
                (policy.object.reference(), None, has_rules)
            }),
        }
    }) else {
        // No NetworkPolicy, so an administrator's: meant.
        return;
    };
    let need = match (&miss, protocol) {
        (_, Protocol::Tcp) => None,
        (Some(miss), _) => Some((miss.clone(), object.clone(), "spec.egress".to_string())),
        (None, _) => need(set, subject, &isolating),
    };
    let entry = blocked.entry(object.clone()).or_insert_with(|| Blocked {
        protocol,
        miss: None,
        is_ingress,
        subjects: Vec::new(),
        has_rules,
        others: BTreeSet::new(),
    });
    // UDP is the worse of the two.
    if protocol == Protocol::Udp {
        entry.protocol = protocol;
    }
    entry.miss = entry.miss.take().or(miss);
    entry.others.extend(isolating.iter().map(|p| p.name().to_string()).filter(|name| *name != object.name));
    entry.subjects.push(Cut { name: subject.name(), sample: subject.sample(), pods: subject.pods, need });
}

/// The policy that isolates the DNS pods themselves.
fn at_the_dns_pods<'a>(set: &PolicySet<'a>, dns: &ClusterDns<'a>) -> Option<(ObjectRef, Option<String>, bool)> {
    let pod = dns.pods.first()?;
    let policies = set.isolating(Direction::Ingress, &crate::kubernetes::network::netpol::PodEnd::of(pod));
    let policy = policies.first()?;
    let has_rules = policy.rules(Direction::Ingress).is_some_and(|rules| !rules.is_empty());
    Some((policy.object.reference(), None, has_rules))
}

/// What is wrong with a policy's rule that was to open DNS, if it has one.
fn attempt(set: &PolicySet, dns: &ClusterDns, policy: &Policy, protocol: Protocol) -> Option<String> {
    let pod = dns.pods.first()?;
    let real = dns.ports_of(pod).into_iter().find(|port| Protocol::parse(&port.protocol) == Some(protocol))?;
    let end = Endpoint::pod(pod);
    for rule in policy.rules(Direction::Egress)? {
        let names_dns = rule.ports.iter().any(|p| is_just(&p.ports, 53) || is_just(&p.ports, real.target));
        let meets = |peer: &Peer| matches!(peer, Peer::Selected { pods, .. } if !pods.is_empty());
        let means_dns_pods =
            rule.peers.iter().any(|p| meets(p) && p.matches(set, policy.namespace(), &end) == Answer::Yes);
        if means_dns_pods && !names_dns && rule.ports.iter().all(|p| !matches!(p.ports, Ports::Named(_))) {
            return Some(format!("it opens other ports to the DNS pods, which listen on {protocol} {}", real.target));
        }
        if !names_dns {
            continue;
        }
        if rule.allows_peer(set, policy.namespace(), &end) == Answer::No {
            return Some(peer_miss(set, dns, policy, rule));
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
        return Some(format!("it opens {opened}, the DNS pods listen on {protocol} {}", real.target));
    }
    None
}

fn is_just(ports: &Ports, number: i32) -> bool {
    matches!(ports, Ports::Range(first, last) if *first == number && *last == number)
}

/// Why none of a rule's peers is the DNS.
fn peer_miss(set: &PolicySet, dns: &ClusterDns, policy: &Policy, rule: &Rule) -> String {
    let Some(pod) = dns.pods.first() else { return String::new() };
    let system = &pod.metadata.namespace;
    for peer in &rule.peers {
        match peer {
            Peer::Selected { namespaces: None, .. } if system != policy.namespace() => {
                return format!(
                    "its rule for DNS has no namespaceSelector, so it means pods of {}, and DNS runs in {system}",
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
                    "its rule for DNS asks for a namespace with {selector}, {system} has {}",
                    has.unwrap_or("not")
                );
            }
            Peer::Selected { pods, .. } if !pods.matches(&pod.metadata.labels) => {
                let asks: Vec<String> =
                    pods.differences(&pod.metadata.labels).into_iter().map(|(asked, _)| asked).collect();
                let has = dns.service().map(|s| crate::snapshot::Selector::equals(&s.spec.selector).to_string());
                return format!(
                    "its rule for DNS asks for pods with {}, the DNS pods have {}",
                    words::list(&asks, 3),
                    has.unwrap_or_default()
                );
            }
            _ => {}
        }
    }
    "its rule for DNS names addresses that are not the DNS's".to_string()
}

/// What shows that a pod wants to resolve names: the fact, and where it was read.
fn need<'a>(
    set: &PolicySet<'a>,
    subject: &Subject<'a>,
    isolating: &[&Policy<'a>],
) -> Option<(String, ObjectRef, String)> {
    for policy in isolating {
        let rules = policy.rules(Direction::Egress).unwrap_or_default();
        if let Some(n) = rules.iter().position(leads_to_names) {
            let text = format!("NetworkPolicy {} lets {} connect", policy.name(), subject.name());
            return Some((text, policy.object.reference(), format!("spec.egress[{n}]")));
        }
    }
    if let Some(known) = known_connections(set.cluster(), &subject.end).first() {
        let text = format!("{} of {} names {}", known.place, subject.name(), known.address);
        return Some((text, subject.sample(), known.path.clone()));
    }
    let pod = subject.end.pod?;
    let line = complaint(set.cluster(), pod)?;
    Some((format!("its log says: {}", words::shorten(line, 120)), pod.reference(), String::new()))
}

/// Whether a rule lets pods go where one only gets by a name. The API server's address is in every pod's environment,
/// and a single address needs no name.
fn leads_to_names(rule: &Rule) -> bool {
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

fn complaint<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a str> {
    const SAYS: &[&str] = &[
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
    let says = |line: &str| {
        SAYS.iter().any(|says| line.contains(says)) || (line.contains("lookup ") && line.contains("i/o timeout"))
    };
    pod.spec.running_containers().find_map(|container| {
        let log = cluster.log(&pod.metadata.namespace, &pod.metadata.name, &container.name)?;
        log.lines.iter().rev().map(String::as_str).find(|line| says(line))
    })
}

impl Blocked {
    fn finding(&self, set: &PolicySet, dns: &ClusterDns, object: ObjectRef) -> Finding {
        let needy: Vec<&Cut> = self.subjects.iter().filter(|cut| cut.need.is_some()).collect();
        let cut: Vec<&Cut> = if needy.is_empty() { self.subjects.iter().collect() } else { needy.clone() };
        let names: Vec<&str> = cut.iter().map(|cut| cut.name.as_str()).collect();
        let who = words::list(&names, 3);
        let is_error = !needy.is_empty() && self.protocol == Protocol::Udp;
        let message = self.message(set, dns, &object, &who, is_error);
        let new = if is_error { Finding::error } else { Finding::info };
        let path = if self.is_ingress { "spec.ingress" } else { "spec.egress" };
        let mut finding = new(object.clone(), message).pods(cut.iter().map(|cut| cut.pods).sum());
        if !self.has_rules {
            finding = finding.evidence("it isolates the pods and allows nothing", &object, path);
        }
        if !self.others.is_empty() {
            let others: Vec<&str> = self.others.iter().map(String::as_str).collect();
            let text = format!("nor do the other policies that apply: {}", words::list(&others, 5));
            finding = finding.evidence(text, &object, "");
        }
        for cut in cut.iter().take(5) {
            finding = match &cut.need {
                Some((text, about, path)) => finding.evidence(text.clone(), about, path),
                None => finding.evidence(format!("{} is isolated by it", cut.name), &cut.sample, "metadata.labels"),
            };
        }
        if !needy.is_empty() && needy.len() < self.subjects.len() {
            let rest: Vec<&str> =
                self.subjects.iter().filter(|cut| cut.need.is_none()).map(|cut| cut.name.as_str()).collect();
            let text =
                format!("{} cannot reach DNS either; nothing shows that it is needed there", words::list(&rest, 5));
            finding = finding.evidence(text, &object, "spec.podSelector");
        }
        finding.fix_command("Allow DNS: add this rule", self.patch(dns, &object))
    }

    fn message(&self, set: &PolicySet, dns: &ClusterDns, object: &ObjectRef, who: &str, is_error: bool) -> String {
        let name = &object.name;
        let ports = ports_text(dns);
        if self.protocol == Protocol::Tcp {
            return format!(
                "NetworkPolicy {name} lets {who} reach DNS over UDP but not over TCP, which long answers need"
            );
        }
        if self.is_ingress {
            let namespace = object.namespace();
            return format!("NetworkPolicy {name} in {namespace} does not let {who} reach the DNS pods on {ports}");
        }
        match &self.miss {
            Some(miss) => format!("NetworkPolicy {name} does not let {who} reach DNS: {miss}"),
            None => {
                let service = dns.service().map(Object::reference).map(|s| format!("{} in {}", s.name, s.namespace()));
                let service = service.unwrap_or_default();
                let doubt = if is_error { "" } else { ", which is fine if they are meant to resolve no name" };
                let also = if set.in_namespace(object.namespace()).len() > 1 { "no policy" } else { "nothing" };
                format!(
                    "NetworkPolicy {name} cuts {who} off from DNS: {also} allows egress to {service} on {ports}{doubt}"
                )
            }
        }
    }

    /// Adds the rule that is missing to the policy.
    fn patch(&self, dns: &ClusterDns, object: &ObjectRef) -> String {
        let rule = if self.is_ingress { ingress_rule(dns) } else { egress_rule(dns) };
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

fn ingress_rule(dns: &ClusterDns) -> serde_json::Value {
    serde_json::json!({"from": [{"namespaceSelector": {}}], "ports": ports_json(dns)})
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

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

    fn said(more: &[&str]) -> crate::testing::Said {
        let mut documents = docs().to_vec();
        documents.extend(more);
        check(&RULE, &documents)
    }

    const CUT_OFF: &str = "error NetworkPolicy shop/deny-all: NetworkPolicy deny-all cuts Pod front off from DNS: no \
                           policy allows egress to kube-dns in kube-system on UDP and TCP port 53";

    #[test]
    fn fires_when_pods_may_connect_but_not_resolve() {
        let said = said(&[DENY_ALL, &to_back()]);
        said.finds(&[CUT_OFF]);
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
    fn fires_on_the_policy_that_was_to_open_dns() {
        let by_name = "{namespaceSelector: {matchLabels: {name: kube-system}}}";
        said(&[DENY_ALL, &dns_rule(by_name, BOTH)]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns does not let Pod back and Pod front reach \
             DNS: its rule for DNS asks for a namespace with name=kube-system, kube-system has no such label",
        ]);
        let own = "{podSelector: {matchLabels: {k8s-app: kube-dns}}}";
        said(&[DENY_ALL, &dns_rule(own, BOTH)]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns does not let Pod back and Pod front reach \
             DNS: its rule for DNS has no namespaceSelector, so it means pods of shop, and DNS runs in kube-system",
        ]);
        let coredns = "{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: coredns}}}";
        said(&[DENY_ALL, &dns_rule(coredns, BOTH)]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns does not let Pod back and Pod front reach \
             DNS: its rule for DNS asks for pods with k8s-app=coredns, the DNS pods have k8s-app=kube-dns",
        ]);
        said(&[DENY_ALL, &dns_rule("{namespaceSelector: {}}", "{port: 53}")]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns does not let Pod back and Pod front reach \
             DNS: it opens TCP 53, the DNS pods listen on UDP 53",
        ]);
    }

    #[test]
    fn fires_on_openshift_where_the_pods_listen_on_5353() {
        let dns = docs()[0].replace("port: 53, protocol", "port: 53, targetPort: 5353, protocol");
        let pods = egress("allow-dns", "", &format!("{{to: [{{namespaceSelector: {{}}}}], ports: [{BOTH}]}}"));
        check(&RULE, &[&dns, docs()[1], DENY_ALL, &pods]).finds(&[
            "error NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns does not let Pod back and Pod front reach \
             DNS: it opens UDP 53 and TCP 53, the DNS pods listen on UDP 5353",
        ]);
    }

    #[test]
    fn fires_as_info_when_nothing_shows_the_need() {
        said(&[DENY_ALL]).finds(&[
            "info NetworkPolicy shop/deny-all: NetworkPolicy deny-all cuts Pod back and Pod front off from DNS: \
             nothing allows egress to kube-dns in kube-system on UDP and TCP port 53, which is fine if they are meant \
             to resolve no name",
        ]);
        said(&[DENY_ALL, &dns_rule("", "{port: 53, protocol: UDP}")]).finds(&[
            "info NetworkPolicy shop/allow-dns: NetworkPolicy allow-dns lets Pod back and Pod front reach DNS over \
             UDP but not over TCP, which long answers need",
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
        check(&RULE, &[docs()[0], &asks, service, DENY_ALL]).finds(&[CUT_OFF.replace("no policy", "nothing").as_str()]);
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
            "error NetworkPolicy kube-system/dns-in: NetworkPolicy dns-in in kube-system does not let Pod front reach \
             the DNS pods on UDP and TCP port 53",
        ]);
    }

    #[test]
    fn quiet_for_pods_that_do_not_ask_the_cluster() {
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
        World::new(&documents).forbid(Kind::AdminNetworkPolicy).check(&RULE).finds_nothing();
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
        World::new(&documents).forbid(Kind::Namespace).check(&RULE).finds_nothing();
    }
}
