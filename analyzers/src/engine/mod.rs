//! What a rule is, what it reports, how rules are run, and how findings are told from their causes.

pub mod causes;
mod finding;
mod rule;
mod run;

pub use finding::{Evidence, Finding, Fix, Location, Severity};
pub(crate) use rule::{BuiltIn, declare_rule};
pub use rule::{Profile, Report, Rule, RuleMeta, id_matches};
pub use run::{Analysis, analyze};
