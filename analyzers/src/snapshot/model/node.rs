use super::{Amounts, Condition, List, Meta, Timestamp, Word, api_types};

api_types! {
    pub struct Node {
        pub metadata: Meta,
        pub spec: NodeSpec,
        pub status: NodeStatus,
    }

    pub struct NodeSpec {
        pub unschedulable: bool,
        pub taints: List<Taint>,
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
        pub allocatable: Amounts,
        pub capacity: Amounts,
        pub conditions: Box<[Condition]>,
        pub addresses: Box<[NodeAddress]>,
        pub node_info: NodeSystemInfo,
    }

    pub struct NodeAddress {
        #[serde(rename = "type")]
        pub type_: Word,
        pub address: String,
    }

    pub struct NodeSystemInfo {
        pub kubelet_version: Word,
        pub kernel_version: Word,
        pub os_image: Word,
        pub operating_system: Word,
        pub architecture: Word,
        pub container_runtime_version: Word,
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
