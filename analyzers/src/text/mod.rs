//! Text: words for people, addresses in it, commands. Knows nothing of Kubernetes.

pub mod address;
pub(crate) mod hash;
mod kubectl;
pub mod similar;
pub mod words;

pub use kubectl::kubectl;
