use super::{Condition, IntOrString, Interned, Labels, Meta, SharedSlice, api_types};

api_types! {
    pub struct Service {
        pub metadata: Meta,
        pub spec: ServiceSpec,
        pub status: ServiceStatus,
    }

    pub struct ServiceSpec {
        #[serde(rename = "type")]
        pub type_: Interned,
        pub selector: Labels,
        pub ports: SharedSlice<ServicePort>,
        #[serde(rename = "clusterIP")]
        pub cluster_ip: String,
        #[serde(rename = "clusterIPs")]
        pub cluster_ips: Vec<String>,
        #[serde(rename = "externalIPs")]
        pub external_ips: SharedSlice<String>,
        pub external_name: Interned,
        pub publish_not_ready_addresses: bool,
        pub external_traffic_policy: Interned,
        pub internal_traffic_policy: Interned,
        pub load_balancer_class: Option<Interned>,
    }

    pub struct ServicePort {
        pub name: String,
        pub port: i32,
        /// Defaults to `port`.
        pub target_port: Option<IntOrString>,
        pub node_port: i32,
        pub protocol: String,
    }

    pub struct ServiceStatus {
        pub load_balancer: LoadBalancerStatus,
        pub conditions: SharedSlice<Condition>,
    }

    pub struct LoadBalancerStatus {
        pub ingress: SharedSlice<LoadBalancerIngress>,
    }

    pub struct LoadBalancerIngress {
        pub ip: String,
        pub hostname: String,
    }

    /// discovery.k8s.io/v1
    pub struct EndpointSlice {
        pub metadata: Meta,
        pub address_type: Interned,
        pub endpoints: Box<[Endpoint]>,
        pub ports: SharedSlice<EndpointPort>,
    }

    pub struct Endpoint {
        pub addresses: Box<[Box<str>]>,
        pub conditions: EndpointConditions,
        pub target_ref: Option<TargetRef>,
        pub node_name: Interned,
        pub zone: Interned,
    }

    pub struct EndpointConditions {
        pub ready: Option<bool>,
        pub serving: Option<bool>,
        pub terminating: Option<bool>,
    }

    pub struct TargetRef {
        pub kind: Interned,
        pub namespace: Interned,
        pub name: String,
    }

    pub struct EndpointPort {
        pub name: String,
        pub port: Option<i32>,
        pub protocol: String,
    }

    /// core/v1, deprecated since 1.33; read only if EndpointSlices are not served.
    pub struct Endpoints {
        pub metadata: Meta,
        pub subsets: Vec<EndpointsSubset>,
    }

    pub struct EndpointsSubset {
        pub addresses: Vec<EndpointAddress>,
        pub not_ready_addresses: Vec<EndpointAddress>,
        pub ports: SharedSlice<EndpointPort>,
    }

    pub struct EndpointAddress {
        pub ip: String,
        pub node_name: Interned,
        pub target_ref: Option<TargetRef>,
    }
}

impl Endpoint {
    /// `ready: null` means true (discovery.k8s.io/v1, EndpointConditions).
    pub fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }

    /// `serving: null` falls back to `ready`.
    pub fn is_serving(&self) -> bool {
        self.conditions.serving.unwrap_or_else(|| self.is_ready())
    }

    pub fn is_terminating(&self) -> bool {
        self.conditions.terminating.unwrap_or(false)
    }
}

impl EndpointSlice {
    /// The Service of the slice, from its label.
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.get("kubernetes.io/service-name")
    }
}

impl Service {
    pub fn is_external_name(&self) -> bool {
        self.spec.type_ == "ExternalName"
    }

    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }

    pub fn port(&self, number: i32) -> Option<&ServicePort> {
        self.spec.ports.iter().find(|port| port.port == number)
    }

    pub fn port_named(&self, name: &str) -> Option<&ServicePort> {
        self.spec.ports.iter().find(|port| port.name == name)
    }
}

impl ServicePort {
    /// The protocol; TCP by default.
    pub fn protocol(&self) -> &str {
        if self.protocol.is_empty() { "TCP" } else { &self.protocol }
    }

    /// The port of the pods; defaults to `port`.
    pub fn target(&self) -> IntOrString {
        match &self.target_port {
            None | Some(IntOrString::Int(0)) => IntOrString::Int(self.port),
            Some(IntOrString::String(name)) if name.is_empty() => IntOrString::Int(self.port),
            Some(target) => target.clone(),
        }
    }
}

/// A port as text: the number or the name.
pub fn port_text(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}
