//! Text: formatting, network addresses in text, shell commands. Independent of Kubernetes.

pub mod address;
pub(crate) mod hash;
mod kubectl;
mod safe;
pub mod similar;
pub mod words;

pub use kubectl::kubectl;
pub use safe::{SafeText, safe};
