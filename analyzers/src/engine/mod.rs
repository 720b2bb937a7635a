//! The definition of rules and findings, how rules run, and which findings are caused by others.

pub mod causes;
mod finding;
mod rule;
mod run;

pub use finding::{Evidence, Finding, Fix, Location, Severity};
pub(crate) use rule::{BuiltIn, declare_rule};
pub use rule::{Profile, Report, Rule, RuleMeta};
pub use run::{Analysis, analyze};
