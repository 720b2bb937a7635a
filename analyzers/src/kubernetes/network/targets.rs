//! The Services that error messages name by host or address.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::kubernetes::network::netpol::connections::service_of_host;
use crate::snapshot::model::{Pod, Service};
use crate::snapshot::{Cluster, Object, Selector};

/// The index of each Service by its addresses.
struct ServiceAddresses(HashMap<IpAddr, u32>);

impl ServiceAddresses {
    fn new(cluster: &Cluster) -> ServiceAddresses {
        let mut found = HashMap::new();
        for (n, service) in (0u32..).zip(cluster.all::<Service>()) {
            let addresses = [&service.spec.cluster_ip].into_iter().chain(&service.spec.cluster_ips);
            found.extend(addresses.filter_map(|address| Some((address.parse().ok()?, n))));
        }
        ServiceAddresses(found)
    }
}

/// The Service with a cluster IP.
pub fn service_of_address(cluster: &Cluster, address: IpAddr) -> Option<&Service> {
    let ServiceAddresses(by_address) = cluster.derived(|| ServiceAddresses::new(cluster));
    cluster.all::<Service>().get(*by_address.get(&address)? as usize)
}

/// The Service behind a host name or a cluster IP, for a pod of a namespace.
pub fn service_of<'a>(cluster: &'a Cluster, namespace: &str, host: &str) -> Option<&'a Service> {
    match host.parse() {
        Ok(address) => service_of_address(cluster, address),
        Err(_) => service_of_host(cluster, namespace, host),
    }
}

/// Whether a Service selects a pod.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    service.metadata.namespace == pod.metadata.namespace
        && !service.spec.selector.is_empty()
        && Selector::equals(&service.spec.selector).matches(&pod.metadata.labels)
}

/// Whether a Service is that of the API server.
pub fn is_api_server(service: &Service) -> bool {
    service.namespace() == "default" && service.name() == "kubernetes"
}
