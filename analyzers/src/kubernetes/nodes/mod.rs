pub mod agents;
pub mod clock;
pub mod csr;
pub mod karpenter;
pub mod kubelet;
pub mod lease;
pub mod node_agents;
pub mod platform;
