use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::endpoints::EndpointsExt;
use crate::kubernetes::network::netpol::{Answer, Direction, Endpoint, PodEnd, PolicySet, Port, Protocol};
use crate::kubernetes::network::targets::{is_api_server, service_of};
use crate::kubernetes::workloads::log_lines::whole_telling_line;
use crate::kubernetes::workloads::restarts::containers;
use crate::kubernetes::workloads::symptoms::{Failure, Symptom, symptoms};
use crate::snapshot::model::{NetworkPolicy, Pod, Service};
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, shorten_middle};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks connections to Services that time out according to the log of a pod that policies isolate for egress: a
    /// policy allows the Service's ClusterIP as an `ipBlock`, or the Service is that of the API server, but no policy
    /// allows the endpoints behind it.
    ///
    /// ## Why it matters
    ///
    /// Most network plugins apply policies after the address of the Service has been translated: the packet goes to an
    /// endpoint and its port (`192.0.2.5:6443` for the API server), which an `ipBlock` with the ClusterIP does not
    /// contain. The policy looks right, and the connection times out.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get endpointslices -l kubernetes.io/service-name=SERVICE` shows the addresses and ports that the policy
    /// has to allow; `kubectl-gpt trace` shows the policy that blocks the connection.
    ///
    /// ## How to fix
    ///
    /// Allow the endpoints: an `ipBlock` with their addresses and ports for the API server, or a `podSelector` for pods.
    /// Change the policy where it comes from.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire without a timeout in the log of a failing pod, where a policy allows an endpoint, and where
    /// policies of another engine (Cilium, Calico, Antrea) or an administrator's policies may decide.
    "network-policy/cluster-ip": Error,
    "a policy allows the ClusterIP of a Service but not the endpoints behind it",
    needs: [NetworkPolicy, Pod, Service],
    optional: [
        EndpointSlice, Endpoints, Namespace, AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy,
        CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, GlobalNetworkPolicy,
    ],
    reads_custom: true,
    explained_by: [],
}

/// A connection that policies block after the translation of the Service's address.
struct Blocked<'a> {
    service: &'a Service,
    /// Whether a rule allows the ClusterIP.
    by_cluster_ip: bool,
    port: i32,
    /// The endpoints' addresses and ports.
    endpoints: Vec<(IpAddr, i32)>,
    pod: ObjectRef,
    owner: ObjectRef,
    line: String,
}

fn check(cluster: &Cluster, report: &mut Report) {
    if cluster.all::<NetworkPolicy>().is_empty() || cluster.logs().is_empty() {
        return;
    }
    let set = PolicySet::new(cluster);
    let mut found: BTreeMap<(ObjectRef, ObjectRef), Blocked> = BTreeMap::new();
    for (namespace, name, container) in cluster.logs().keys() {
        let Some(pod) = cluster.get::<Pod>(namespace, name).found().filter(|pod| !pod.is_ready()) else { continue };
        let Some(container) = containers(pod).find(|c| c.name() == container) else { continue };
        let Some(line) = whole_telling_line(cluster, &container) else { continue };
        for symptom in symptoms(&line) {
            let Symptom::Connect { targets, failure: Failure::Timeout } = symptom else { continue };
            for target in targets {
                let Some(service) = service_of(cluster, namespace, &target.host) else { continue };
                if let Some((policy, blocked)) = blocked(&set, pod, service, target.port, &line) {
                    found.entry((policy, service.reference())).or_insert(blocked);
                }
            }
        }
    }
    for ((policy, _), blocked) in found {
        report.add(finding(&policy, &blocked));
    }
}

fn blocked<'a>(
    set: &PolicySet<'a>,
    pod: &'a Pod,
    service: &'a Service,
    port: Option<i32>,
    line: &str,
) -> Option<(ObjectRef, Blocked<'a>)> {
    let cluster = set.cluster();
    let port = port.or(service.spec.ports.first().map(|port| port.port))?;
    let service_port = service.port(port)?;
    let end = Endpoint::pod(pod);
    let isolating = set.isolating(Direction::Egress, &PodEnd::of(pod));
    let first = isolating.first()?;
    let backends = cluster.backends(service)?.backends;
    let found: Vec<(IpAddr, i32, Option<&str>)> = backends
        .iter()
        .filter_map(|backend| {
            let target = backend.ports.iter().find(|p| p.name == service_port.name).and_then(|p| p.port)?;
            Some((backend.address.parse().ok()?, target, backend.pod))
        })
        .collect();
    let allowed = found.iter().map(|(address, port, pod)| {
        // A rule for pods does not match an address, so look for the pod behind it.
        let behind = pod.and_then(|name| cluster.get::<Pod>(service.namespace(), name).found());
        let target = behind.map_or(Endpoint::Address(*address), Endpoint::pod);
        set.side(Direction::Egress, &end, &target, Port::tcp(*port)).answer
    });
    let is_blocked = Answer::any(allowed) == Answer::No;
    let endpoints: Vec<(IpAddr, i32)> = found.into_iter().map(|(address, port, _)| (address, port)).collect();
    if endpoints.is_empty() || service_port.protocol() != "TCP" || !is_blocked {
        return None;
    }
    let cluster_ip = Endpoint::Address(service.spec.cluster_ip.parse().ok()?);
    let side = set.side(Direction::Egress, &end, &cluster_ip, Port { number: port, protocol: Protocol::Tcp });
    let decided = side
        .decided_by
        .filter(|_| side.answer == Answer::Yes)
        .map(crate::kubernetes::network::netpol::Decider::reference);
    let by_cluster_ip = decided.is_some();
    if !by_cluster_ip && !is_api_server(service) {
        return None;
    }
    let policy = decided.unwrap_or_else(|| first.object.reference());
    let owner = cluster.owner_of(pod).into_owned();
    let (pod, line) = (pod.reference(), line.to_string());
    Some((policy, Blocked { service, by_cluster_ip, port, endpoints, pod, owner, line }))
}

fn finding(policy: &ObjectRef, blocked: &Blocked) -> Finding {
    let Blocked { service, port, endpoints, pod, owner, line, .. } = blocked;
    let texts: Vec<String> = endpoints.iter().map(|(address, port)| format!("{address}:{port}")).collect();
    let (ip, behind) = (&service.spec.cluster_ip, list(&texts, 3));
    let name = format!("Service {}/{}", service.namespace(), service.name());
    let message = if blocked.by_cluster_ip {
        format!(
            "NetworkPolicy {} allows {} to reach ClusterIP {ip}:{port} of {name}, but not its endpoints {behind}, to which \
         connections are translated before policies apply",
            policy.name,
            owner.title()
        )
    } else {
        format!(
            "NetworkPolicy {} blocks {} from {name}: no policy allows egress to its endpoints {behind}",
            policy.name,
            owner.title()
        )
    };
    let rules: Vec<serde_json::Value> = endpoints
        .iter()
        .take(5)
        .map(|(address, port)| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            serde_json::json!({
                "to": [{"ipBlock": {"cidr": format!("{address}/{bits}")}}],
                "ports": [{"protocol": "TCP", "port": port}],
            })
        })
        .map(|rule| serde_json::json!({"op": "add", "path": "/spec/egress/-", "value": rule}))
        .collect();
    let patch = serde_json::Value::Array(rules).to_string();
    Finding::error(policy.clone(), message)
        .key(service.reference().to_string())
        .evidence(format!("{ip}:{port} is the ClusterIP of {name}"), &service.reference(), "spec.clusterIP")
        .evidence(format!("endpoints of {name}: {behind}"), &service.reference(), "")
        .evidence(format!("log of {}: {}", pod.name, shorten_middle(line, 200)), pod, "")
        .fix_command(
            format!("Add an egress rule for the endpoints {behind}"),
            kubectl(["-n", policy.namespace(), "patch", "networkpolicy", &policy.name, "--type=json", "-p", &patch]),
        )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, TestCluster};

    const API: &str = "
{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}},
 addressType: IPv4, endpoints: [{addresses: [192.0.2.5], conditions: {ready: true}}], ports: [{name: https, port: 6443, protocol: TCP}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: c}]},
 status: {phase: Running, podIP: 10.244.0.9, containerStatuses: [{name: c}]}}";

    fn said(cidr: &str, port: u32, line: &str) -> Findings {
        let policy = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: web, namespace: shop}},
               spec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: {cidr}}}}}], ports: [{{port: {port}}}]}}]}}}}"
        );
        TestCluster::new(&[API, &policy]).log("shop", "web", "c", &[line]).check(&RULE)
    }

    const TIMEOUT: &str = "ERROR Get \"https://10.96.0.1:443/api\": dial tcp 10.96.0.1:443: i/o timeout";

    #[test]
    fn fires_where_only_the_cluster_ip_is_allowed() {
        let said = said("10.96.0.1/32", 443, TIMEOUT);
        said.finds(&[
            "error NetworkPolicy shop/web: NetworkPolicy web allows Pod web to reach ClusterIP 10.96.0.1:443 of Service \
             default/kubernetes, but not its endpoints 192.0.2.5:6443, to which connections are translated before \
             policies apply",
        ]);
        assert!(said.text().contains("192.0.2.5/32"));
    }

    #[test]
    fn fires_where_nothing_allows_the_api_server() {
        assert!(
            said("10.0.0.0/24", 80, TIMEOUT).finding().message.starts_with("NetworkPolicy web blocks Pod web from")
        );
    }

    #[test]
    fn quiet_where_the_endpoint_is_allowed_or_nothing_times_out() {
        said("192.0.2.0/24", 6443, TIMEOUT).finds_nothing();
        said("10.96.0.1/32", 443, "ERROR dial tcp 10.96.0.1:443: connection refused").finds_nothing();
        said("10.96.0.1/32", 443, "started").finds_nothing();
    }
}
