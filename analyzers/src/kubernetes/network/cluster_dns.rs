//! The cluster's DNS: its Services, its pods and the ports that they listen on.

use std::collections::BTreeSet;

use crate::snapshot::model::{IntOrString, Pod, PodSpec, Service, ServicePort};
use crate::snapshot::{Cluster, Selector};

/// The cluster's DNS, as distributions install it: Service kube-dns in kube-system (kubeadm, EKS, GKE, k3s …),
/// rke2-coredns-rke2-coredns (RKE2), dns-default in openshift-dns (OpenShift).
#[derive(Debug, Default)]
pub struct ClusterDns<'a> {
    /// The DNS Services; first the one that the kubelets most likely configure in pods.
    pub services: Vec<&'a Service>,
    /// The pods behind them, neither finished nor terminating, ready or not.
    pub pods: Vec<&'a Pod>,
    /// Pods of the node-local cache (169.254.20.10), which use the host network.
    pub node_local: Vec<&'a Pod>,
}

/// One port of the cluster's DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsPort {
    /// `UDP` or `TCP`.
    pub protocol: String,
    /// The port of the Service, 53.
    pub port: i32,
    /// The port of the pods: 53, or 5353 on OpenShift. NetworkPolicies apply to this one.
    pub target: i32,
}

impl<'a> ClusterDns<'a> {
    /// The Service that the kubelets configure in pods.
    pub fn service(&self) -> Option<&'a Service> {
        self.services.first().copied()
    }

    /// The addresses that pods send queries to: the cluster IPs of all families.
    pub fn cluster_ips(&self) -> BTreeSet<&'a str> {
        self.services.iter().flat_map(|service| cluster_ips(service)).collect()
    }

    /// The DNS ports of one pod, according to its Services.
    pub fn ports_of(&self, pod: &Pod) -> BTreeSet<DnsPort> {
        let behind = self.services.iter().filter(|service| {
            service.metadata.namespace == pod.metadata.namespace
                && !service.spec.selector.is_empty()
                && Selector::equals(&service.spec.selector).matches(&pod.metadata.labels)
        });
        let ports = behind.flat_map(|service| service.spec.ports.iter().filter(|port| port.port == 53));
        ports
            .filter_map(|port| {
                let target = target_of(port, &pod.spec)?;
                Some(DnsPort { protocol: port.protocol().to_string(), port: port.port, target })
            })
            .collect()
    }

    /// The DNS ports of all pods.
    pub fn ports(&self) -> BTreeSet<DnsPort> {
        self.pods.iter().flat_map(|pod| self.ports_of(pod)).collect()
    }

    /// Whether this is one of the Services of the cluster's DNS.
    pub fn has(&self, service: &Service) -> bool {
        self.services.iter().any(|known| {
            known.metadata.namespace == service.metadata.namespace && known.metadata.name == service.metadata.name
        })
    }
}

/// The cluster IPs of a Service; none if it is headless.
fn cluster_ips(service: &Service) -> impl Iterator<Item = &str> {
    let first = std::iter::once(service.spec.cluster_ip.as_str());
    first.chain(service.spec.cluster_ips.iter().map(String::as_str)).filter(|ip| !ip.is_empty() && *ip != "None")
}

/// The number of the pod port that a Service port targets; `None` if the pod has no port of that name.
pub fn target_of(port: &ServicePort, spec: &PodSpec) -> Option<i32> {
    match port.target() {
        IntOrString::Int(number) => Some(number),
        IntOrString::String(name) => spec
            .running_containers()
            .flat_map(|container| &container.ports)
            .find(|p| p.name == name && p.protocol() == port.protocol())
            .map(|p| p.container_port),
    }
}

/// The DNS service of a cluster.
pub trait DnsExt {
    /// The cluster's DNS. Empty if there is none, or if it was not read.
    fn dns(&self) -> ClusterDns<'_>;
}

impl DnsExt for Cluster {
    fn dns(&self) -> ClusterDns<'_> {
        let system = self.in_namespace::<Service>("kube-system").iter();
        let openshift = self.in_namespace::<Service>("openshift-dns").iter();
        let mut services: Vec<&Service> = system.chain(openshift).filter(|service| is_dns(service)).collect();
        services.sort_by_key(|service| (rank(service), &service.metadata.namespace, &service.metadata.name));
        let mut pods: Vec<&Pod> = services
            .iter()
            .filter(|service| !service.spec.selector.is_empty())
            .flat_map(|s| self.pods_matching(&s.metadata.namespace, &Selector::equals(&s.spec.selector)))
            .filter(|pod| pod.is_active())
            .collect();
        pods.sort_by_key(|pod| (&pod.metadata.namespace, &pod.metadata.name));
        pods.dedup_by_key(|pod| (&pod.metadata.namespace, &pod.metadata.name));
        let node_local = self.in_namespace::<Pod>("kube-system").iter();
        let node_local = node_local.filter(|pod| is_node_local(pod) && pod.is_active()).collect();
        ClusterDns { services, pods, node_local }
    }
}

/// Whether a Service of a system namespace is a Service of the cluster's DNS. Headless ones and those without port 53
/// only serve metrics (kube-prometheus-stack creates one).
fn is_dns(service: &Service) -> bool {
    let name = service.metadata.name.as_str();
    let known = match service.metadata.namespace.as_str() {
        "openshift-dns" => name == "dns-default",
        _ => {
            service.metadata.labels.get("k8s-app") == Some("kube-dns")
                || matches!(name, "kube-dns" | "coredns" | "rke2-coredns-rke2-coredns")
        }
    };
    known && !service.is_headless() && !service.is_external_name() && service.port(53).is_some()
}

/// NodeLocal DNSCache adds a Service kube-dns-upstream for the same pods, whose address is not configured in pods.
fn rank(service: &Service) -> usize {
    let order = ["kube-dns", "dns-default", "rke2-coredns-rke2-coredns", "coredns"];
    order.iter().position(|name| *name == service.metadata.name).unwrap_or(order.len())
}

/// <https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/>; `nodelocaldns` is the name in kubespray.
fn is_node_local(pod: &Pod) -> bool {
    let label = |key: &str| pod.metadata.labels.get(key).unwrap_or_default();
    [label("k8s-app"), label("app.kubernetes.io/name")]
        .iter()
        .any(|value| matches!(*value, "node-local-dns" | "nodelocaldns" | "node-local-dns-cache"))
}

#[cfg(test)]
mod tests {
    use super::DnsExt;
    use crate::testing::TestCluster;

    #[test]
    fn openshift_pods_listen_on_another_port() {
        let world = TestCluster::new(&[
            "
            apiVersion: v1
            kind: Service
            metadata: {name: dns-default, namespace: openshift-dns}
            spec:
              clusterIP: 172.30.0.10
              clusterIPs: [172.30.0.10, 'fd02::a']
              selector: {dns.operator.openshift.io/daemonset-dns: default}
              ports:
              - {name: dns, port: 53, protocol: UDP, targetPort: dns}
              - {name: dns-tcp, port: 53, targetPort: dns-tcp}
              - {name: metrics, port: 9154, targetPort: metrics}
            ",
            "
            apiVersion: v1
            kind: Pod
            metadata:
              name: dns-default-x
              namespace: openshift-dns
              labels: {dns.operator.openshift.io/daemonset-dns: default}
            spec:
              containers:
              - name: dns
                ports:
                - {name: dns, containerPort: 5353, protocol: UDP}
                - {name: dns-tcp, containerPort: 5353}",
        ]);
        let cluster = world.build();
        let dns = cluster.dns();
        let ports: Vec<String> =
            dns.ports().iter().map(|p| format!("{} {}→{}", p.protocol, p.port, p.target)).collect();
        assert_eq!(ports, ["TCP 53→5353", "UDP 53→5353"]);
        assert_eq!(dns.cluster_ips().into_iter().collect::<Vec<_>>(), ["172.30.0.10", "fd02::a"]);
        assert_eq!(dns.pods.len(), 1);
    }

    #[test]
    fn prefers_kube_dns_and_omits_metrics() {
        let service = |name: &str, ip: &str, port: i32| {
            format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: kube-system, \
                 labels: {{k8s-app: kube-dns}}}}, spec: {{clusterIP: {ip}, selector: {{k8s-app: kube-dns}}, \
                 ports: [{{port: {port}, protocol: UDP}}]}}}}"
            )
        };
        let documents = [
            service("a-coredns-metrics", "None", 9153),
            service("k-upstream", "10.96.9.9", 53),
            service("kube-dns", "10.96.0.10", 53),
        ];
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let cluster = TestCluster::new(&documents).build();
        let names: Vec<&str> = cluster.dns().services.iter().map(|s| s.metadata.name.as_str()).collect();
        assert_eq!(names, ["kube-dns", "k-upstream"]);
        assert!(TestCluster::new(&[]).build().dns().service().is_none());
    }
}
