//! The endpoints of a Service.

use crate::snapshot::model::{EndpointPort, EndpointSlice, Endpoints, Service};
use crate::snapshot::{Cluster, Extent, Kind, Object};

/// One address behind a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend<'a> {
    pub address: &'a str,
    pub ready: bool,
    /// Serves traffic, whether or not it is terminating.
    pub serving: bool,
    pub terminating: bool,
    /// The name of the pod behind it, if there is one.
    pub pod: Option<&'a str>,
    pub node: &'a str,
    pub ports: &'a [EndpointPort],
}

/// All addresses behind a Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backends<'a> {
    pub backends: Vec<Backend<'a>>,
}

impl Backend<'_> {
    /// Ready, or terminating but still serving.
    pub fn takes_traffic(&self) -> bool {
        self.ready || (self.serving && self.terminating)
    }

    /// Whether it has the Service port of this name: EndpointSlices omit the ports that their pods do not have.
    pub fn has_port(&self, name: &str) -> bool {
        self.ports.iter().any(|port| port.name == name)
    }
}

impl Backends<'_> {
    pub fn ready(&self) -> usize {
        self.backends.iter().filter(|backend| backend.ready).count()
    }

    pub fn not_ready(&self) -> usize {
        self.backends.len() - self.ready()
    }

    /// Whether any endpoint accepts traffic: a ready one, or else a terminating one that still serves (kube-proxy falls
    /// back to those: KEP-1669).
    pub fn takes_traffic(&self) -> bool {
        self.backends.iter().any(Backend::takes_traffic)
    }
}

/// The addresses behind the Services of a cluster.
pub trait EndpointsExt {
    /// The addresses behind a Service from its EndpointSlices (all of them, both address families), or from its Endpoints
    /// where the cluster serves no EndpointSlices. `None` where neither was read.
    fn backends(&self, service: &Service) -> Option<Backends<'_>>;
    /// The same as a lazy iterator.
    fn each_backend(&self, service: &Service) -> Option<Box<dyn Iterator<Item = Backend<'_>> + '_>>;
    /// Whether a Service has an endpoint that accepts traffic; false where that is unknown.
    fn takes_traffic(&self, service: &Service) -> bool;
}

impl EndpointsExt for Cluster {
    fn backends(&self, service: &Service) -> Option<Backends<'_>> {
        Some(Backends { backends: self.each_backend(service)?.collect() })
    }

    fn each_backend(&self, service: &Service) -> Option<Box<dyn Iterator<Item = Backend<'_>> + '_>> {
        let (namespace, name) = (service.namespace(), service.name());
        if matches!(self.coverage().extent(Kind::EndpointSlice), Extent::NotServed) {
            let lookup = self.covers(Kind::Endpoints, namespace).then(|| self.get::<Endpoints>(namespace, name))?;
            return Some(Box::new(lookup.found().into_iter().flat_map(of_endpoints)));
        }
        let slices = self.covers(Kind::EndpointSlice, namespace).then(|| self.endpoint_slices(namespace, name))?;
        Some(Box::new(slices.into_iter().flat_map(of_slice)))
    }

    fn takes_traffic(&self, service: &Service) -> bool {
        self.each_backend(service).is_some_and(|mut backends| backends.any(|backend| backend.takes_traffic()))
    }
}

fn of_slice(slice: &EndpointSlice) -> impl Iterator<Item = Backend<'_>> {
    slice.endpoints.iter().filter_map(|endpoint| {
        Some(Backend {
            // All addresses of one endpoint are equivalent; consumers use the first (EndpointSlice API).
            address: endpoint.addresses.first()?,
            ready: endpoint.is_ready(),
            serving: endpoint.is_serving(),
            terminating: endpoint.is_terminating(),
            pod: endpoint.target_ref.as_ref().filter(|t| t.kind == "Pod").map(|t| t.name.as_str()),
            node: &endpoint.node_name,
            ports: &slice.ports,
        })
    })
}

fn of_endpoints(endpoints: &Endpoints) -> impl Iterator<Item = Backend<'_>> {
    endpoints.subsets.iter().flat_map(|subset| {
        let ready = subset.addresses.iter().map(|address| (true, address));
        let not_ready = subset.not_ready_addresses.iter().map(|address| (false, address));
        ready.chain(not_ready).map(|(ready, address)| Backend {
            address: &address.ip,
            ready,
            serving: ready,
            terminating: false,
            pod: address.target_ref.as_ref().filter(|t| t.kind == "Pod").map(|t| t.name.as_str()),
            node: &address.node_name,
            ports: &subset.ports,
        })
    })
}
