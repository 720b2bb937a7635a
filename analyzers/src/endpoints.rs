//! Where a Service sends its traffic.

use crate::cluster::Cluster;
use crate::coverage::Extent;
use crate::kind::{Kind, Object};
use crate::model::{EndpointPort, Endpoints, IntOrString, Service};

/// One address behind a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend<'a> {
    pub address: &'a str,
    pub ready: bool,
    /// Answers, whether or not it is on its way out.
    pub serving: bool,
    pub terminating: bool,
    /// The pod behind it, by name, if it is one.
    pub pod: Option<&'a str>,
    pub node: &'a str,
    pub ports: &'a [EndpointPort],
}

/// All addresses behind a Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backends<'a> {
    pub backends: Vec<Backend<'a>>,
    /// How many EndpointSlices (or Endpoints) there are.
    pub slices: usize,
}

impl Backend<'_> {
    /// Ready, or on its way out but still serving.
    pub fn takes_traffic(&self) -> bool {
        self.ready || (self.serving && self.terminating)
    }
}

impl Backends<'_> {
    pub fn ready(&self) -> usize {
        self.backends.iter().filter(|backend| backend.ready).count()
    }

    pub fn not_ready(&self) -> usize {
        self.backends.len() - self.ready()
    }

    /// Whether traffic gets through: something is ready, or, when nothing is, something on its way out still serves
    /// (kube-proxy falls back to those: KEP-1669).
    pub fn takes_traffic(&self) -> bool {
        self.backends.iter().any(Backend::takes_traffic)
    }

    /// The same for one port of the Service, by its name: slices leave out the ports that their pods do not have.
    pub fn takes_traffic_on(&self, port: &str) -> bool {
        self.backends.iter().any(|b| b.takes_traffic() && b.ports.iter().any(|p| p.name == port))
    }
}

impl Cluster {
    /// The addresses behind a Service by its EndpointSlices (all of them, both address families), or by its Endpoints
    /// where the cluster serves no EndpointSlices. `None` where neither was read.
    pub fn backends(&self, service: &Service) -> Option<Backends<'_>> {
        self.backends_of(service.namespace(), service.name())
    }

    /// The same for a Service by name.
    pub fn backends_of(&self, namespace: &str, service: &str) -> Option<Backends<'_>> {
        if matches!(self.coverage().extent(Kind::EndpointSlice), Extent::NotServed) {
            return self.endpoints_of(namespace, service);
        }
        if !self.covers(Kind::EndpointSlice, namespace) {
            return None;
        }
        let slices = self.endpoint_slices(namespace, service);
        let mut backends = Backends { backends: Vec::new(), slices: slices.len() };
        for slice in slices {
            for endpoint in &slice.endpoints {
                // Several addresses of one endpoint are the same thing; consumers use the first (EndpointSlice API).
                let Some(address) = endpoint.addresses.first() else { continue };
                backends.backends.push(Backend {
                    address,
                    ready: endpoint.is_ready(),
                    serving: endpoint.is_serving(),
                    terminating: endpoint.is_terminating(),
                    pod: endpoint.target_ref.as_ref().filter(|t| t.kind == "Pod").map(|t| t.name.as_str()),
                    node: &endpoint.node_name,
                    ports: &slice.ports,
                });
            }
        }
        Some(backends)
    }

    fn endpoints_of(&self, namespace: &str, service: &str) -> Option<Backends<'_>> {
        if !self.covers(Kind::Endpoints, namespace) {
            return None;
        }
        let Some(endpoints) = self.get::<Endpoints>(namespace, service).found() else {
            return Some(Backends::default());
        };
        let mut backends = Backends { backends: Vec::new(), slices: 1 };
        for subset in &endpoints.subsets {
            let ready = subset.addresses.iter().map(|address| (true, address));
            for (ready, address) in ready.chain(subset.not_ready_addresses.iter().map(|address| (false, address))) {
                backends.backends.push(Backend {
                    address: &address.ip,
                    ready,
                    serving: ready,
                    terminating: false,
                    pod: address.target_ref.as_ref().filter(|t| t.kind == "Pod").map(|t| t.name.as_str()),
                    node: &address.node_name,
                    ports: &subset.ports,
                });
            }
        }
        Some(backends)
    }
}

/// A port as people write it: the number or the name.
pub fn port_text(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}
