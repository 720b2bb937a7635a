pub mod kubelet;
pub mod lease;
pub mod platform;
