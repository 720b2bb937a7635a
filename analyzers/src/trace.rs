//! Traces one connection hop by hop: where it is blocked, by which object, and how to allow it.

use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::kubernetes::network::endpoints::EndpointsExt;
use crate::kubernetes::network::ingress::IngressExt;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::engine::Fix;
use crate::kubernetes::network::cluster_dns::ClusterDns;
use crate::kubernetes::network::ingress::{Backend, BackendPort, backends, sources};
use crate::kubernetes::network::kube_proxy::outdated_on;
use crate::kubernetes::network::listeners::{Side, split};
use crate::kubernetes::network::mesh::refuses_plain_text;
use crate::kubernetes::network::metallb::{is_announced, pool_of, unannounced};
use crate::kubernetes::network::netpol::connections::{ingress_controller, service_of_host};
use crate::kubernetes::network::netpol::{
    Answer, Decider, Direction, Endpoint, PodEnd, Policy, PolicySet, Port, Protocol, Side as PolicySide, dns_targets,
    host,
};
use crate::snapshot::model::{Ingress, Pod, Service, ServicePort};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef, Selector};
use crate::text::{kubectl, words};

/// One end of the connection, as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceEnd {
    Pod { namespace: String, name: String, port: Option<String> },
    Workload { object: ObjectRef, port: Option<String> },
    Service { namespace: String, name: String, port: Option<String> },
    Ingress { namespace: String, name: String },
    Host { name: String, port: Option<String> },
    Internet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HopVerdict {
    Open,
    Closed,
    Unknown,
}

/// One step that the connection has to pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// `DNS`, `Service`, `endpoints`, `egress policy` …
    pub what: &'static str,
    pub verdict: HopVerdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    pub from: String,
    pub to: String,
    pub hops: Vec<Hop>,
    /// Closed if any hop is closed, open if all hops are open.
    pub verdict: HopVerdict,
}

impl Trace {
    /// The first hop that blocks the connection.
    pub fn closed_at(&self) -> Option<&Hop> {
        self.hops.iter().find(|hop| hop.verdict == HopVerdict::Closed)
    }
}

impl From<Answer> for HopVerdict {
    fn from(answer: Answer) -> HopVerdict {
        match answer {
            Answer::Yes => HopVerdict::Open,
            Answer::No => HopVerdict::Closed,
            Answer::Unknown => HopVerdict::Unknown,
        }
    }
}

impl TraceEnd {
    /// Parses `deploy/front`, `svc/back:80`, `ingress/shop`, `internet` or a host name. Objects are in `namespace`.
    ///
    /// # Errors
    /// For a kind that cannot be an end of a connection.
    pub fn parse(text: &str, namespace: &str) -> Result<TraceEnd, String> {
        if text == "internet" {
            return Ok(TraceEnd::Internet);
        }
        let (rest, port) = match text.rsplit_once(':') {
            Some((rest, port)) if !port.is_empty() && !port.contains('/') => (rest, Some(port.to_string())),
            _ => (text, None),
        };
        let Some((kind, name)) = rest.split_once('/') else {
            return Ok(TraceEnd::Host { name: rest.to_string(), port });
        };
        if name.is_empty() {
            return Err(format!("{text:?} has no object name: use KIND/NAME, such as deploy/front"));
        }
        let (name, namespace) = (name.to_string(), namespace.to_string());
        let workload =
            |kind| TraceEnd::Workload { object: ObjectRef::new(kind, &namespace, &name), port: port.clone() };
        Ok(match kind.to_ascii_lowercase().as_str() {
            "po" | "pod" | "pods" => TraceEnd::Pod { namespace, name, port },
            "svc" | "service" | "services" => TraceEnd::Service { namespace, name, port },
            "ing" | "ingress" | "ingresses" => TraceEnd::Ingress { namespace, name },
            "deploy" | "deployment" | "deployments" => workload(Kind::Deployment),
            "sts" | "statefulset" | "statefulsets" => workload(Kind::StatefulSet),
            "ds" | "daemonset" | "daemonsets" => workload(Kind::DaemonSet),
            "rs" | "replicaset" | "replicasets" => workload(Kind::ReplicaSet),
            "rc" | "replicationcontroller" | "replicationcontrollers" => workload(Kind::ReplicationController),
            "job" | "jobs" => workload(Kind::Job),
            "cj" | "cronjob" | "cronjobs" => workload(Kind::CronJob),
            _ => {
                return Err(format!(
                    "unsupported endpoint kind {kind:?}: use a pod, a workload, a Service, an Ingress, a host name or internet"
                ));
            }
        })
    }
}

impl std::fmt::Display for TraceEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let port = |port: &Option<String>| port.as_ref().map(|port| format!(":{port}")).unwrap_or_default();
        match self {
            TraceEnd::Pod { namespace, name, port: p } => write!(f, "Pod {namespace}/{name}{}", port(p)),
            TraceEnd::Workload { object, port: p } => write!(f, "{object}{}", port(p)),
            TraceEnd::Service { namespace, name, port: p } => write!(f, "Service {namespace}/{name}{}", port(p)),
            TraceEnd::Ingress { namespace, name } => write!(f, "Ingress {namespace}/{name}"),
            TraceEnd::Host { name, port: p } => write!(f, "{name}{}", port(p)),
            TraceEnd::Internet => f.write_str("the Internet"),
        }
    }
}

/// The kinds that a trace reads.
pub const READS: &[Kind] = &[
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Endpoints,
    Kind::Namespace,
    Kind::Node,
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::ReplicaSet,
    Kind::ReplicationController,
    Kind::Job,
    Kind::CronJob,
    Kind::Ingress,
    Kind::IngressClass,
    Kind::NetworkPolicy,
    Kind::AdminNetworkPolicy,
    Kind::BaselineAdminNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::CiliumNetworkPolicy,
    Kind::CiliumClusterwideNetworkPolicy,
    Kind::GlobalNetworkPolicy,
];

/// Traces one connection. From an Ingress without `to`, traces to all its backends.
///
/// # Errors
/// When an end does not exist, or is not supported on that side.
pub fn trace(cluster: &Cluster, from: &TraceEnd, to: Option<&TraceEnd>) -> Result<Trace, String> {
    let mut walk = Walk { cluster, set: PolicySet::new(cluster), hops: Vec::new() };
    match (from, to) {
        (TraceEnd::Ingress { namespace, name }, to) => walk.ingress(namespace, name, to)?,
        (_, None) => return Err(format!("missing destination for the connection from {from}")),
        (_, Some(to)) => {
            let source = walk.source(from)?;
            walk.to(&source, to)?;
        }
    }
    let any = |verdict| walk.hops.iter().any(|hop| hop.verdict == verdict);
    let verdict = if any(HopVerdict::Closed) {
        HopVerdict::Closed
    } else if any(HopVerdict::Unknown) {
        HopVerdict::Unknown
    } else {
        HopVerdict::Open
    };
    let to = to.map_or_else(|| "its backends".to_string(), TraceEnd::to_string);
    Ok(Trace { from: from.to_string(), to, hops: walk.hops, verdict })
}

/// Where the connection starts.
struct Source<'a> {
    end: Endpoint<'a>,
    /// All its pods; one of them is `end`.
    pods: Vec<&'a Pod>,
    name: String,
    namespace: &'a str,
}

struct Walk<'a> {
    cluster: &'a Cluster,
    set: PolicySet<'a>,
    hops: Vec<Hop>,
}

impl<'a> Walk<'a> {
    fn hop(
        &mut self,
        what: &'static str,
        verdict: HopVerdict,
        object: Option<ObjectRef>,
        text: String,
        fix: Option<Fix>,
    ) {
        self.hops.push(Hop { what, verdict, object, text, fix });
    }

    fn source(&self, from: &TraceEnd) -> Result<Source<'a>, String> {
        match from {
            TraceEnd::Internet => {
                let name = "the Internet".to_string();
                Ok(Source { end: Endpoint::Internet, pods: Vec::new(), name, namespace: "" })
            }
            TraceEnd::Pod { .. } | TraceEnd::Workload { .. } => {
                let ends = self.pods(from)?;
                let pods = ends.iter().filter_map(|(end, _)| end.pod).collect();
                let (end, name) =
                    ends.into_iter().next().ok_or_else(|| format!("{from} has no pods and no pod template"))?;
                Ok(Source { end: Endpoint::Pod(end), pods, name, namespace: end.namespace })
            }
            _ => Err(format!("unsupported source {from}: use a pod, a workload, an Ingress or internet")),
        }
    }

    /// The pods of an end, the ready ones first, or else the pod template.
    fn pods(&self, end: &TraceEnd) -> Result<Vec<(PodEnd<'a>, String)>, String> {
        match end {
            TraceEnd::Pod { namespace, name, .. } => match self.cluster.get::<Pod>(namespace, name) {
                Lookup::Found(pod) => Ok(vec![(PodEnd::of(pod), format!("Pod {name}"))]),
                Lookup::Missing => Err(format!("Pod {name} not found in namespace {namespace}")),
                Lookup::Unknown => Err(format!("Pod {name} in namespace {namespace} could not be read")),
            },
            TraceEnd::Workload { object, .. } => {
                let name = format!("{} {}", object.kind, object.name);
                let group = self.cluster.group_of_owner(object);
                let mut pods: Vec<&Pod> = Vec::new();
                if let Some(group) = group {
                    let members = self.cluster.group_of_owner(&group.owner);
                    pods.extend(members.into_iter().flat_map(|g| self.cluster.pods_of(g)).filter(|p| p.is_active()));
                }
                pods.sort_by_key(|pod| !pod.is_ready());
                if !pods.is_empty() {
                    return Ok(pods.into_iter().map(|pod| (PodEnd::of(pod), name.clone())).collect());
                }
                let found = self.cluster.workload(object);
                let workload = found.ok_or_else(|| format!("{name} not found in namespace {}", object.namespace()))?;
                let namespace = &workload.metadata.namespace;
                Ok(vec![(PodEnd::of_template(namespace, workload.template), name)])
            }
            _ => Ok(Vec::new()),
        }
    }

    fn to(&mut self, source: &Source<'a>, to: &TraceEnd) -> Result<(), String> {
        match to {
            TraceEnd::Service { namespace, name, port } => self.service(source, namespace, name, port.as_deref()),
            TraceEnd::Host { name, port } => self.host(source, name, port.as_deref()),
            TraceEnd::Pod { port, .. } | TraceEnd::Workload { port, .. } => {
                let ends = self.pods(to)?;
                let target = |end: &PodEnd<'a>| {
                    if let Some(port) = port.as_deref() {
                        match port.parse() {
                            Ok(number) => Some(Port::tcp(number)),
                            Err(_) => end.named_ports(port).next(),
                        }
                    } else {
                        let mut ports = end.spec.running_containers().flat_map(|c| &c.ports);
                        ports.next().and_then(|p| {
                            Some(Port { number: p.container_port, protocol: Protocol::parse(&p.protocol)? })
                        })
                    }
                };
                let targets: Vec<Target> = ends
                    .iter()
                    .filter_map(|(end, name)| Some(Target { end: *end, port: target(end)?, name: name.clone() }))
                    .collect();
                if targets.is_empty() {
                    return Err(format!(
                        "cannot determine the port of {to}: its containers declare no such port; add a port number, as in deploy/front:8080"
                    ));
                }
                self.policies(source, &targets);
                Ok(())
            }
            TraceEnd::Internet => {
                let side = self.set.side(Direction::Egress, &source.end, &Endpoint::Internet, Port::tcp(443));
                self.policy_hop(source, "the Internet", Port::tcp(443), Direction::Egress, &side, None);
                Ok(())
            }
            TraceEnd::Ingress { .. } => {
                Err("an Ingress cannot be a destination: trace to its Service, or from the Ingress".to_string())
            }
        }
    }

    fn host(&mut self, source: &Source<'a>, name: &str, port: Option<&str>) -> Result<(), String> {
        if let Some(service) = service_of_host(self.cluster, source.namespace, name) {
            return self.service(source, &service.metadata.namespace, &service.metadata.name, port);
        }
        self.dns(source);
        let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
        if labels.len() == 1 || labels.get(2) == Some(&"svc") {
            let namespace = labels.get(1).copied().unwrap_or(source.namespace);
            let verdict =
                if self.cluster.covers(Kind::Service, namespace) { HopVerdict::Closed } else { HopVerdict::Unknown };
            let text = format!("no Service {} in namespace {namespace}: {name} does not resolve", labels[0]);
            let object = ObjectRef::new(Kind::Service, namespace, labels[0]);
            self.hop("Service", verdict, Some(object), text, None);
            return Ok(());
        }
        let number = port.and_then(|port| port.parse().ok()).unwrap_or(443);
        let side = self.set.side(Direction::Egress, &source.end, &Endpoint::Internet, Port::tcp(number));
        self.policy_hop(source, name, Port::tcp(number), Direction::Egress, &side, None);
        Ok(())
    }

    /// Whether the source can reach the cluster's DNS.
    fn dns(&mut self, source: &Source<'a>) {
        let Endpoint::Pod(end) = source.end else { return };
        if end.spec.host_network
            || !matches!(end.spec.dns_policy.as_str(), "" | "ClusterFirst" | "ClusterFirstWithHostNet")
        {
            return;
        }
        let dns: ClusterDns<'a> = self.cluster.dns();
        let Some(service) = dns.service() else {
            return self.hop("DNS", HopVerdict::Unknown, None, "no DNS Service found in the cluster".to_string(), None);
        };
        let object = service.reference();
        if !dns.pods.is_empty()
            && dns.pods.iter().any(|pod| pod.metadata.is_live())
            && !dns.pods.iter().any(|p| p.is_ready())
        {
            let text = format!("0/{} pods of Service {} are ready", dns.pods.len(), service.name());
            let command = kubectl([
                "-n",
                service.namespace(),
                "get",
                "pods",
                "-l",
                &Selector::equals(&service.spec.selector).to_string(),
            ]);
            return self.hop(
                "DNS",
                HopVerdict::Closed,
                Some(object),
                text,
                Some(Fix { text: "Check the DNS pods".into(), command: Some(command.into()) }),
            );
        }
        let targets = dns_targets(&dns);
        let udp = targets.iter().filter(|(_, port)| port.protocol == Protocol::Udp);
        let answer = Answer::any(udp.map(|(end, port)| self.set.verdict(&source.end, end, *port).allowed));
        let isolating: Vec<ObjectRef> =
            self.set.isolating(Direction::Egress, &end).iter().map(|policy| policy.object.reference()).collect();
        let (object, text) = match (answer, isolating.first()) {
            (Answer::No, Some(policy)) => {
                let names: Vec<&str> = isolating.iter().map(|policy| policy.name.as_str()).collect();
                (
                    policy.clone(),
                    format!("no policy allows {} to reach DNS (isolated by {})", source.name, words::list(&names, 5)),
                )
            }
            (Answer::Unknown, _) => {
                (object, format!("cannot determine whether {} can reach {}", source.name, service.name()))
            }
            _ => (object, format!("{} can reach {} in {}", source.name, service.name(), service.namespace())),
        };
        let fix = (answer == Answer::No).then(|| Fix {
            text: "Allow egress to the DNS pods; the finding network-policy/dns-blocked contains the rule".into(),
            command: None,
        });
        self.hop("DNS", answer.into(), Some(object), text, fix);
    }

    fn service(&mut self, source: &Source<'a>, namespace: &str, name: &str, port: Option<&str>) -> Result<(), String> {
        self.dns(source);
        let object = ObjectRef::new(Kind::Service, namespace, name);
        let service = match self.cluster.get::<Service>(namespace, name) {
            Lookup::Found(service) => service,
            Lookup::Missing => {
                let text = format!("Service {name} not found in namespace {namespace}");
                self.hop("Service", HopVerdict::Closed, Some(object), text, None);
                return Ok(());
            }
            Lookup::Unknown => {
                let text = format!("Service {name} could not be read");
                self.hop("Service", HopVerdict::Unknown, Some(object), text, None);
                return Ok(());
            }
        };
        if service.is_external_name() {
            let text = format!("Service {name} is an alias for {}", service.spec.external_name);
            self.hop("Service", HopVerdict::Unknown, Some(object), text, None);
            return Ok(());
        }
        let Some(port) = self.service_port(service, port) else { return Ok(()) };
        if matches!(source.end, Endpoint::Internet) && source.namespace.is_empty() {
            self.outside_address(service);
        }
        self.proxy(source, service);
        self.endpoints(service);
        if service.spec.selector.is_empty() && self.fixed_endpoints(source, service, port) {
            return Ok(());
        }
        self.silent(service, port);
        let targets = self.targets(service, port);
        if targets.is_empty() {
            let text = format!(
                "no pod of Service {name} has target port {}",
                crate::snapshot::model::port_text(&port.target())
            );
            let verdict = if service.spec.selector.is_empty() { HopVerdict::Unknown } else { HopVerdict::Closed };
            self.hop("target port", verdict, Some(object), text, None);
            return Ok(());
        }
        self.policies(source, &targets);
        Ok(())
    }

    /// Whether a Service has an external address.
    fn outside_address(&mut self, service: &'a Service) {
        let (name, type_) = (service.name(), service.spec.type_.as_str());
        let has_address = !service.status.load_balancer.ingress.is_empty() || !service.spec.external_ips.is_empty();
        let (verdict, text) = match type_ {
            _ if unannounced_pool(self.cluster, service).is_some() => (
                HopVerdict::Closed,
                format!(
                    "no advertisement of MetalLB announces the address of Service {name}, which is of IPAddressPool {}",
                    pool_of(service).unwrap_or_default()
                ),
            ),
            _ if has_address => (HopVerdict::Open, format!("Service {name} has an external address")),
            "NodePort" => (
                HopVerdict::Unknown,
                format!("Service {name} is reachable at the addresses of the nodes, if those are reachable"),
            ),
            "LoadBalancer" => {
                (HopVerdict::Closed, format!("Service {name} of type LoadBalancer has no external address"))
            }
            _ => (
                HopVerdict::Closed,
                format!("Service {name} has no external address; if an Ingress exposes it, trace from the Ingress"),
            ),
        };
        self.hop("address", verdict, Some(service.reference()), text, None);
    }

    fn service_port(&mut self, service: &'a Service, port: Option<&str>) -> Option<&'a ServicePort> {
        let found = match port {
            None => service.spec.ports.first(),
            Some(port) => match port.parse() {
                Ok(number) => service.port(number),
                Err(_) => service.port_named(port),
            },
        };
        let ports: Vec<String> = service.spec.ports.iter().map(|p| p.port.to_string()).collect();
        let object = Some(service.reference());
        if let Some(found) = found {
            let target = crate::snapshot::model::port_text(&found.target());
            let text = format!("Service {} maps port {} to port {target} of its pods", service.name(), found.port);
            self.hop("Service", HopVerdict::Open, object, text, None);
        } else {
            let text = format!(
                "Service {} has no port {}, only {}",
                service.name(),
                port.unwrap_or_default(),
                words::list(&ports, 5)
            );
            self.hop("Service", HopVerdict::Closed, object, text, None);
        }
        found
    }

    fn endpoints(&mut self, service: &'a Service) {
        let object = Some(service.reference());
        let name = service.name();
        match self.cluster.backends(service) {
            None => {
                self.hop(
                    "endpoints",
                    HopVerdict::Unknown,
                    object,
                    "EndpointSlices could not be read".to_string(),
                    None,
                );
            }
            Some(_) if !service.metadata.is_live() => {}
            Some(backends)
                if backends.takes_traffic()
                    || (service.spec.publish_not_ready_addresses && !backends.backends.is_empty()) =>
            {
                let text =
                    format!("{}/{} endpoints of Service {name} are ready", backends.ready(), backends.backends.len());
                self.hop("endpoints", HopVerdict::Open, object, text, None);
            }
            Some(backends) => {
                let text = match backends.backends.len() {
                    0 => format!("Service {name} has no endpoints"),
                    n => format!("0/{n} endpoints of Service {name} are ready"),
                };
                let command = kubectl(["-n", service.namespace(), "describe", "service", name]);
                let fix = Fix {
                    text: "Check which pods its selector matches, and why they are not ready".into(),
                    command: Some(command.into()),
                };
                self.hop("endpoints", HopVerdict::Closed, object, text, Some(fix));
            }
        }
    }

    /// The nodes of the source on which kube-proxy does not follow the Services.
    fn proxy(&mut self, source: &Source<'a>, service: &'a Service) {
        if service.is_headless() {
            return;
        }
        let mut by_node: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for pod in source.pods.iter().filter(|pod| !pod.spec.node_name.is_empty()) {
            by_node.entry(&pod.spec.node_name).or_default().push(pod.name());
        }
        for (node, pods) in by_node {
            let Some((proxy, line)) = outdated_on(self.cluster, node) else { continue };
            let text = format!(
                "kube-proxy on node {node} cannot read Services and EndpointSlices, so Pod {} may be sent to endpoints of \
                 Service {} that are gone: {line}",
                words::list(&pods, 3),
                service.name()
            );
            let command = kubectl(["-n", proxy.namespace(), "logs", &proxy.name]);
            let fix = Fix {
                text: "Restore the access of this kube-proxy to the API server (its kubeconfig or certificate)".into(),
                command: Some(command.into()),
            };
            self.hop("kube-proxy", HopVerdict::Closed, Some(proxy), text, Some(fix));
        }
    }

    /// Workloads behind the Service that do not listen on its target port.
    fn silent(&mut self, service: &'a Service, port: &ServicePort) {
        let Some(split) = split(self.cluster, service, port) else { return };
        let pods = |sides: &[Side]| sides.iter().map(|side| side.pods).sum::<usize>();
        let (silent, all) = (pods(&split.silent), pods(&split.silent) + pods(&split.listening));
        let owners: Vec<String> = split.silent.iter().map(|side| side.owner.title()).collect();
        let text = format!(
            "{silent}/{all} ready endpoints of Service {} do not listen on port {}: {}",
            service.name(),
            split.number,
            words::list(&owners, 3)
        );
        let fix = split.distinguishing_label().map(|(key, value)| Fix {
            text: format!("Add the label {key}={value} to the selector of Service {}", service.name()).into(),
            command: None,
        });
        self.hop("target port", HopVerdict::Closed, Some(service.reference()), text, fix);
    }

    /// The egress policies towards the addresses of a Service without a selector, such as that of the API server. Policies
    /// see a packet after the Service's address was replaced. False if it has no addresses.
    fn fixed_endpoints(&mut self, source: &Source<'a>, service: &'a Service, port: &ServicePort) -> bool {
        let Some(backends) = self.cluster.backends(service) else { return false };
        let protocol = Protocol::parse(&port.protocol).unwrap_or(Protocol::Tcp);
        let mut targets: Vec<(IpAddr, Port)> = Vec::new();
        for backend in backends.backends.iter().filter(|backend| backend.takes_traffic()) {
            let number = backend.ports.iter().find(|p| p.name == port.name).and_then(|p| p.port);
            let number = number.or_else(|| backend.ports.first().filter(|_| backend.ports.len() == 1)?.port);
            if let (Ok(ip), Some(number)) = (backend.address.parse(), number) {
                targets.push((ip, Port { number, protocol }));
            }
        }
        let sides = targets.iter().map(|(ip, port)| {
            let side = self.set.side(Direction::Egress, &source.end, &Endpoint::Address(*ip), *port);
            (*ip, *port, side)
        });
        let Some((ip, port, side)) = sides.min_by_key(|(.., side)| rank(side.answer)) else { return false };
        let target = format!("{ip} (endpoint of Service {})", service.name());
        self.policy_hop(source, &target, port, Direction::Egress, &side, None);
        true
    }

    /// Whether the pods at the other end require mutual TLS, which a pod without a sidecar cannot use.
    fn mutual_tls(&mut self, source: &Source<'a>, targets: &[Target<'a>]) {
        let Endpoint::Pod(end) = source.end else { return };
        let ends: Vec<PodEnd> =
            if source.pods.is_empty() { vec![end] } else { source.pods.iter().map(|p| PodEnd::of(p)).collect() };
        let refused = ends.iter().find_map(|from| {
            let mut policies =
                targets.iter().map(|to| (to, refuses_plain_text(self.cluster, from, &to.end, to.port.number)));
            policies.find_map(|(to, policy)| Some((from, to.name.clone(), policy?)))
        });
        let Some((from, target, policy)) = refused else { return };
        let who = from.pod.map_or(source.name.clone(), |pod| format!("Pod {}", pod.name()));
        let text = format!(
            "PeerAuthentication {} requires mutual TLS (STRICT) for {target}, and {who} has no sidecar",
            policy.name
        );
        let fix = Fix {
            text: format!(
                "Inject the sidecar into {}: correct the label istio.io/rev or istio-injection of Namespace {}, then restart \
                 the pods",
                source.name, from.namespace
            )
            .into(),
            command: Some(kubectl(["get", "namespace", from.namespace, "--show-labels"]).into()),
        };
        self.hop("mutual TLS", HopVerdict::Closed, Some(policy), text, Some(fix));
    }

    /// The result of the ingress policies for a source on the host network, and the addresses that it comes from. Targets
    /// on its own node are always reachable, so one on another node counts.
    fn side_from_host(&self, source: &Source<'a>, targets: &[Target<'a>]) -> Option<(usize, PolicySide<'a>)> {
        let Endpoint::Pod(PodEnd { pod: Some(_), spec, .. }) = source.end else { return None };
        if !spec.host_network {
            return None;
        }
        let may_match = host::may_match_host_pods(self.cluster);
        let pairs =
            source.pods.iter().flat_map(|pod| targets.iter().enumerate().map(move |(n, target)| (*pod, n, target)));
        let sides = pairs
            .map(|(pod, n, target)| (n, host::side_from_host(&self.set, pod, &target.end, target.port, may_match)));
        sides.max_by_key(|(n, side)| (rank(side.answer), std::cmp::Reverse(*n)))
    }

    /// The pods behind a Service, the ready ones first, or else the matching pod templates.
    fn targets(&self, service: &'a Service, port: &ServicePort) -> Vec<Target<'a>> {
        if service.spec.selector.is_empty() {
            return Vec::new();
        }
        let protocol = Protocol::parse(&port.protocol).unwrap_or(Protocol::Tcp);
        let selector = Selector::equals(&service.spec.selector);
        let cluster = self.cluster;
        let mut pods: Vec<&Pod> = cluster
            .pods_matching(&service.metadata.namespace, &selector)
            .into_iter()
            .filter(|p| p.is_active())
            .collect();
        pods.sort_by_key(|pod| !pod.is_ready());
        let mut ends: Vec<(PodEnd, String)> = pods
            .into_iter()
            .map(|pod| (PodEnd::of(pod), cluster.owner_of(pod)))
            .map(|(end, owner)| (end, format!("{} {}", owner.kind, owner.name)))
            .collect();
        if ends.is_empty() {
            let subjects = self.set.subjects_matching(&service.metadata.namespace, &selector);
            ends = subjects.map(|subject| (subject.end, subject.name())).collect();
        }
        ends.into_iter()
            .filter_map(|(end, name)| Some(Target { end, port: end.target(&port.target(), protocol)?, name }))
            .collect()
    }

    /// Checks the policies of both ends and the container port.
    fn policies(&mut self, source: &Source<'a>, targets: &[Target<'a>]) {
        let best = |set: &PolicySet<'a>, direction: Direction| {
            let sides = targets.iter().map(|target| {
                let (a, b) = (source.end, Endpoint::Pod(target.end));
                let side = match direction {
                    Direction::Egress => set.verdict(&a, &b, target.port).egress,
                    Direction::Ingress => set.verdict(&a, &b, target.port).ingress,
                };
                (target, side)
            });
            sides.min_by_key(|(_, side)| rank(side.answer))
        };
        for direction in [Direction::Egress, Direction::Ingress] {
            if direction == Direction::Egress && !matches!(source.end, Endpoint::Pod(_)) {
                continue;
            }
            let host = if direction == Direction::Ingress { self.side_from_host(source, targets) } else { None };
            let found = match host {
                Some((n, side)) => targets.get(n).map(|target| (target, side)),
                None => best(&self.set, direction),
            };
            if let Some((target, side)) = found {
                let end = Some(target.end);
                self.policy_hop(source, &target.name, target.port, direction, &side, end);
            }
        }
        self.mutual_tls(source, targets);
        let Some(target) = targets.first() else { return };
        let object = target.end.pod.map(Object::reference);
        if target.end.declares(target.port) {
            let text = format!("{} declares port {}", target.name, target.port);
            self.hop("container port", HopVerdict::Open, object, text, None);
        } else if target.end.declares_ports() {
            let text = format!("{} does not declare port {}, but may listen on it anyway", target.name, target.port);
            self.hop("container port", HopVerdict::Unknown, object, text, None);
        }
    }

    fn policy_hop(
        &mut self,
        source: &Source<'a>,
        target: &str,
        port: Port,
        direction: Direction,
        side: &crate::kubernetes::network::netpol::Side<'a>,
        end: Option<PodEnd<'a>>,
    ) {
        let answer = side.answer;
        let what = if direction == Direction::Egress { "egress policy" } else { "ingress policy" };
        let (from, way) = (&source.name, if direction == Direction::Egress { "egress" } else { "ingress" });
        let names: Vec<&str> = side.isolated_by.iter().map(|policy| policy.name()).collect();
        let isolated = words::list(&names, 5);
        let decided_by = side.decided_by.map(Decider::reference);
        let text = match (answer, &decided_by) {
            (Answer::Yes, Some(policy)) => {
                format!("{} {} allows {way} from {from} to {target} on port {port}", policy.kind, policy.name)
            }
            (Answer::Yes, None) => {
                format!("no policy isolates {}", if direction == Direction::Egress { from } else { target })
            }
            (Answer::No, Some(policy)) => {
                format!("{} {} denies {way} from {from} to {target} on port {port}", policy.kind, policy.name)
            }
            (Answer::No, None) => {
                let opened = self.opened(direction, source, end, port);
                let host = match direction {
                    Direction::Ingress => self.host_of(source),
                    Direction::Egress => None,
                };
                let host = host.map(|host| format!(": {from} is on the host network, so it connects from {host}"));
                let why = host.unwrap_or(opened);
                format!("no policy allows {way} from {from} to {target} on port {port} (isolated by {isolated}){why}")
            }
            (Answer::Unknown, _) => {
                format!("cannot determine whether {way} from {from} to {target} on port {port} is allowed")
            }
        };
        let object = match (answer, decided_by) {
            (Answer::No, None) => {
                self.culprit(direction, source, end).or(side.isolated_by.first().map(|p| p.reference()))
            }
            (_, policy) => policy,
        };
        let host = self.host_of(source).filter(|_| direction == Direction::Ingress);
        let from = &host.map_or(from.clone(), |host| format!("the node of {from} (ipBlock {host})"));
        let fix = object.as_ref().filter(|_| answer == Answer::No).map(|policy| Fix {
            text: format!("Allow port {port} from {from} to {target} in NetworkPolicy {}", policy.name).into(),
            command: Some(kubectl(["-n", policy.namespace(), "edit", "networkpolicy", &policy.name]).into()),
        });
        self.hop(what, answer.into(), object, text, fix);
    }

    /// The addresses of a source on the host network.
    fn host_of(&self, source: &Source<'a>) -> Option<String> {
        let Endpoint::Pod(PodEnd { pod: Some(pod), spec, .. }) = source.end else { return None };
        let addresses = if spec.host_network { host::addresses(self.cluster, pod) } else { Vec::new() };
        Some(addresses.first()?.to_string())
    }

    /// The pod whose policies block the connection.
    fn subject(direction: Direction, source: &Source<'a>, end: Option<PodEnd<'a>>) -> Option<PodEnd<'a>> {
        match (direction, source.end) {
            (Direction::Egress, Endpoint::Pod(pod)) => Some(pod),
            (Direction::Ingress, _) => end,
            _ => None,
        }
    }

    /// The policy to correct: an isolating one, preferably with rules.
    fn culprit(&self, direction: Direction, source: &Source<'a>, end: Option<PodEnd<'a>>) -> Option<ObjectRef> {
        let pod = Self::subject(direction, source, end)?;
        let policies = self.set.isolating(direction, &pod);
        let has_rules = |policy: &Policy| policy.rules(direction).is_some_and(|rules| !rules.is_empty());
        // Prefers a policy for these pods to one for all pods of the namespace.
        let best = policies.iter().rev().max_by_key(|policy| (has_rules(policy), !policy.selector.is_empty()));
        best.map(|policy| policy.object.reference())
    }

    /// The ports that the policies open to the other end.
    fn opened(&self, direction: Direction, source: &Source<'a>, end: Option<PodEnd<'a>>, port: Port) -> String {
        let Some(pod) = Self::subject(direction, source, end) else { return String::new() };
        let other = if direction == Direction::Ingress { Some(source.end) } else { end.map(Endpoint::Pod) };
        let Some(other) = other else { return String::new() };
        for policy in self.set.isolating(direction, &pod) {
            let rules = policy.rules(direction).unwrap_or_default().iter();
            let for_peer = rules.filter(|rule| rule.allows_peer(&self.set, policy.namespace(), &other) == Answer::Yes);
            let ports: Vec<String> =
                for_peer.flat_map(|rule| &rule.ports).map(std::string::ToString::to_string).collect();
            if !ports.is_empty() {
                return format!(": NetworkPolicy {} opens port {}, not {port}", policy.name(), words::list(&ports, 5));
            }
        }
        String::new()
    }

    fn ingress(&mut self, namespace: &str, name: &str, to: Option<&TraceEnd>) -> Result<(), String> {
        let ingress = match self.cluster.get::<Ingress>(namespace, name) {
            Lookup::Found(ingress) => ingress,
            Lookup::Missing => return Err(format!("Ingress {name} not found in namespace {namespace}")),
            Lookup::Unknown => return Err(format!("Ingress {name} in namespace {namespace} could not be read")),
        };
        let wanted = |service: &str| match to {
            None => true,
            Some(TraceEnd::Service { namespace: n, name, .. }) => n == namespace && name == service,
            Some(_) => false,
        };
        let backends: Vec<_> = backends(ingress).into_iter().filter(|backend| wanted(backend.service)).collect();
        let object = ingress.reference();
        if backends.is_empty() {
            let text = format!(
                "Ingress {name} routes no traffic to {}",
                to.map_or("any Service".to_string(), TraceEnd::to_string)
            );
            self.hop("Ingress", HopVerdict::Closed, Some(object), text, None);
            return Ok(());
        }
        let controller = self.cluster.ingress_class(ingress).and_then(|class| ingress_controller(self.cluster, class));
        let mut by_port: BTreeMap<(&str, BackendPort), Vec<&Backend>> = BTreeMap::new();
        for backend in &backends {
            by_port.entry((backend.service, backend.port)).or_default().push(backend);
        }
        for ((service, port), backends) in by_port {
            let text = format!("Ingress {name} routes {} to Service {service} port {port}", sources(&backends));
            self.hop("Ingress", HopVerdict::Open, Some(object.clone()), text, None);
            let port = port.to_string();
            let source = Source {
                end: controller.map_or(Endpoint::Internet, Endpoint::pod),
                pods: controller.into_iter().collect(),
                name: controller.map_or("the ingress controller".to_string(), |pod| {
                    let owner = self.cluster.owner_of(pod);
                    format!("{} {}", owner.kind, owner.name)
                }),
                namespace: ingress.namespace(),
            };
            // The controller connects to pod addresses and needs no DNS.
            let before = self.hops.len();
            self.service(&source, namespace, service, Some(&port))?;
            let mut n = 0;
            self.hops.retain(|hop| {
                n += 1;
                n <= before || hop.what != "DNS"
            });
            if controller.is_none() {
                // The source of the requests is unknown, so policies that deny the Internet may allow it.
                for hop in self.hops.iter_mut().skip(before).filter(|hop| hop.what == "ingress policy") {
                    if hop.verdict == HopVerdict::Closed {
                        hop.verdict = HopVerdict::Unknown;
                        hop.fix = None;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The best answer first.
fn rank(answer: Answer) -> u8 {
    match answer {
        Answer::Yes => 0,
        Answer::Unknown => 1,
        Answer::No => 2,
    }
}

/// The pool of a Service's external address, if nothing announces it.
fn unannounced_pool(cluster: &Cluster, service: &Service) -> Option<ObjectRef> {
    let name = pool_of(service).filter(|_| !is_announced(cluster, service))?;
    let pools = unannounced(cluster);
    pools.iter().find(|found| found.pool.metadata.name == name).map(|found| found.pool.reference())
}

/// A destination pod and port.
struct Target<'a> {
    end: PodEnd<'a>,
    port: Port,
    name: String,
}

#[cfg(test)]
mod tests {
    use super::{HopVerdict, Trace, TraceEnd, trace};
    use crate::testing::TestCluster;

    const SHOP: &str = "
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: shop, labels: {app: front}}
spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: back, namespace: shop, labels: {app: back}}
spec: {containers: [{name: c, ports: [{containerPort: 9000}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: shop}
spec: {selector: {app: back}, ports: [{port: 80, targetPort: 9000}]}";

    fn walk(documents: &[&str], from: &str, to: &str) -> Trace {
        let cluster = TestCluster::new(documents).build();
        let end = |text| TraceEnd::parse(text, "shop").unwrap();
        trace(&cluster, &end(from), Some(&end(to))).unwrap()
    }

    fn policy(ports: &str) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: back-in, namespace: shop}}, \
             spec: {{podSelector: {{matchLabels: {{app: back}}}}, \
             ingress: [{{from: [{{podSelector: {{matchLabels: {{app: front}}}}}}], ports: [{ports}]}}]}}}}"
        )
    }

    #[test]
    fn names_the_policy_and_both_ports() {
        let trace = walk(&[SHOP, &policy("{port: 80}")], "po/front", "svc/back:80");
        assert_eq!(trace.verdict, HopVerdict::Closed);
        let hop = trace.closed_at().unwrap();
        assert_eq!(hop.what, "ingress policy");
        assert_eq!(hop.object.as_ref().map(|policy| policy.name.as_str()), Some("back-in"));
        assert_eq!(
            hop.text,
            "no policy allows ingress from Pod front to Pod back on port 9000 (isolated by back-in): NetworkPolicy back-in opens port 80, not 9000"
        );
    }

    #[test]
    fn open_by_name() {
        let trace = walk(&[SHOP, &policy("{port: 9000}")], "pod/front", "svc/back");
        assert_eq!(trace.closed_at(), None, "{trace:#?}");
        assert!(
            trace
                .hops
                .iter()
                .any(|hop| hop.text == "NetworkPolicy back-in allows ingress from Pod front to Pod back on port 9000")
        );
    }

    #[test]
    fn a_port_that_the_service_lacks_and_a_host_that_does_not_resolve() {
        let closed = walk(&[SHOP], "pod/front", "back.shop.svc:81");
        assert_eq!(closed.closed_at().unwrap().text, "Service back has no port 81, only 80");
        let closed = walk(&[SHOP], "pod/front", "bakc:80");
        assert_eq!(closed.closed_at().unwrap().text, "no Service bakc in namespace shop: bakc does not resolve");
    }

    #[test]
    fn parses_the_kinds_that_kubectl_accepts() {
        let parse = |text: &str| TraceEnd::parse(text, "shop").map(|end| end.to_string());
        assert_eq!(parse("deploy/front").unwrap(), "Deployment shop/front");
        assert_eq!(parse("svc/back:http").unwrap(), "Service shop/back:http");
        assert_eq!(parse("ing/shop").unwrap(), "Ingress shop/shop");
        assert_eq!(parse("internet").unwrap(), "the Internet");
        assert_eq!(parse("db.example.com:5432").unwrap(), "db.example.com:5432");
        assert!(parse("cm/x").is_err());
        assert!(parse("pod/").is_err());
    }
}
