use super::{Condition, Meta, ResourceList, Timestamp, api_types};

api_types! {
    pub struct Node {
        pub metadata: Meta,
        pub spec: NodeSpec,
        pub status: NodeStatus,
    }

    pub struct NodeSpec {
        pub unschedulable: bool,
        pub taints: Vec<Taint>,
        #[serde(rename = "providerID")]
        pub provider_id: String,
    }

    pub struct Taint {
        pub key: String,
        pub value: String,
        pub effect: String,
        pub time_added: Option<Timestamp>,
    }

    pub struct NodeStatus {
        pub allocatable: ResourceList,
        pub capacity: ResourceList,
        pub conditions: Box<[Condition]>,
        pub addresses: Vec<NodeAddress>,
        pub node_info: NodeSystemInfo,
    }

    pub struct NodeAddress {
        #[serde(rename = "type")]
        pub type_: String,
        pub address: String,
    }

    pub struct NodeSystemInfo {
        pub kubelet_version: String,
        pub kernel_version: String,
        pub os_image: String,
        pub operating_system: String,
        pub architecture: String,
        pub container_runtime_version: String,
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
