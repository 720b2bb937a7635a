use super::{Condition, Interned, Meta, SharedResourceList, SharedSlice, Timestamp, api_types};

api_types! {
    pub struct Node {
        pub metadata: Meta,
        pub spec: NodeSpec,
        pub status: NodeStatus,
    }

    pub struct NodeSpec {
        pub unschedulable: bool,
        pub taints: SharedSlice<Taint>,
        #[serde(rename = "providerID")]
        pub provider_id: String,
        #[serde(rename = "podCIDRs")]
        pub pod_cidrs: SharedSlice<String>,
    }

    pub struct Taint {
        pub key: String,
        pub value: String,
        pub effect: String,
        pub time_added: Option<Timestamp>,
    }

    pub struct NodeStatus {
        pub allocatable: SharedResourceList,
        pub capacity: SharedResourceList,
        pub conditions: Box<[Condition]>,
        pub addresses: Box<[NodeAddress]>,
        pub node_info: NodeSystemInfo,
    }

    pub struct NodeAddress {
        #[serde(rename = "type")]
        pub type_: Interned,
        pub address: String,
    }

    pub struct NodeSystemInfo {
        pub kubelet_version: Interned,
        pub kernel_version: Interned,
        pub os_image: Interned,
        pub operating_system: Interned,
        pub architecture: Interned,
        pub container_runtime_version: Interned,
    }
}

impl Node {
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        super::condition(&self.status.conditions, type_)
    }

    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(Condition::is_true)
    }
}
