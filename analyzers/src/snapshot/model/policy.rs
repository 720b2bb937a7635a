use super::{LabelSelector, Meta, api_types};

api_types! {
    /// policy.networking.k8s.io/v1alpha1: takes precedence over NetworkPolicies.
    pub struct AdminNetworkPolicy {
        pub metadata: Meta,
        pub spec: AdminNetworkPolicySpec,
    }

    /// policy.networking.k8s.io/v1alpha1: applies to pods that no NetworkPolicy isolates.
    pub struct BaselineAdminNetworkPolicy {
        pub metadata: Meta,
        pub spec: AdminNetworkPolicySpec,
    }

    pub struct AdminNetworkPolicySpec {
        /// The lowest number is evaluated first. A BaselineAdminNetworkPolicy has none.
        pub priority: i32,
        pub subject: AdminNetworkPolicySubject,
        pub ingress: Vec<AdminNetworkPolicyRule>,
        pub egress: Vec<AdminNetworkPolicyRule>,
    }

    pub struct AdminNetworkPolicySubject {
        pub namespaces: Option<LabelSelector>,
        pub pods: Option<NamespacedPod>,
    }

    pub struct NamespacedPod {
        pub namespace_selector: LabelSelector,
        pub pod_selector: LabelSelector,
    }

    pub struct AdminNetworkPolicyRule {
        pub name: String,
        /// `Allow`, `Deny` or `Pass`.
        pub action: String,
        pub from: Vec<AdminNetworkPolicyPeer>,
        pub to: Vec<AdminNetworkPolicyPeer>,
        pub ports: Vec<AdminNetworkPolicyPort>,
    }

    pub struct AdminNetworkPolicyPeer {
        pub namespaces: Option<LabelSelector>,
        pub pods: Option<NamespacedPod>,
        pub nodes: Option<LabelSelector>,
        pub networks: Vec<String>,
        pub domain_names: Vec<String>,
    }

    pub struct AdminNetworkPolicyPort {
        pub port_number: Option<AdminPortNumber>,
        pub port_range: Option<AdminPortRange>,
        pub named_port: Option<String>,
    }

    pub struct AdminPortNumber {
        pub protocol: String,
        pub port: i32,
    }

    pub struct AdminPortRange {
        pub protocol: String,
        pub start: i32,
        pub end: i32,
    }

    /// policy.networking.k8s.io/v1alpha2; only its existence matters.
    pub struct ClusterNetworkPolicy {
        pub metadata: Meta,
    }

    /// cilium.io/v2; only its existence matters.
    pub struct CiliumNetworkPolicy {
        pub metadata: Meta,
    }

    /// cilium.io/v2; only its existence matters.
    pub struct CiliumClusterwideNetworkPolicy {
        pub metadata: Meta,
    }

    /// crd.projectcalico.org/v1; only its existence matters.
    pub struct GlobalNetworkPolicy {
        pub metadata: Meta,
    }
}
