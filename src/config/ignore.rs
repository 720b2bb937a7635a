//! `ignore`: accepted findings, with a reason and an optional expiry date.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use kubectl_gpt_analyzers::{Finding, Kind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use crate::config::Globs;

/// Accepted findings. A finding must match all given fields; at least one of rules, kinds, namespaces and names is
/// required.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ignore {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Globs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Globs>,
    /// Cluster-scoped objects match no namespace; a Namespace object matches its own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Globs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Globs>,
    /// Why the findings are accepted.
    pub reason: String,
    /// The last day on which the entry applies, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Expiry>,
}

/// The last day, in UTC, on which a finding is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry(pub Date);

impl Ignore {
    /// # Errors
    /// When the entry would ignore everything, or has no reason.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if [&self.rules, &self.kinds, &self.namespaces, &self.names].into_iter().all(Option::is_none) {
            return Err("entry ignores every finding: set at least one of rules, kinds, namespaces and names");
        }
        if self.reason.trim().is_empty() {
            return Err("reason must not be empty");
        }
        Ok(())
    }

    /// Whether the entry matches a finding.
    pub fn matches(&self, finding: &Finding) -> bool {
        let object = &finding.object;
        let namespace = if object.is(Kind::Namespace) { object.name.as_str() } else { object.namespace() };
        let any = |globs: &Option<Globs>, text: &str| globs.as_ref().is_none_or(|globs| globs.matches(text));
        any(&self.rules, &finding.rule)
            && any(&self.kinds, &object.kind)
            && any(&self.names, &object.name)
            && self.namespaces.as_ref().is_none_or(|globs| !namespace.is_empty() && globs.matches(namespace))
    }
}

/// The conditions: `rules pod/*, namespaces shop`.
impl fmt::Display for Ignore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [("rules", &self.rules), ("kinds", &self.kinds), ("namespaces", &self.namespaces), ("names", &self.names)];
        let parts = parts.iter().filter_map(|(name, globs)| Some(format!("{name} {}", globs.as_ref()?)));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

impl Expiry {
    /// Whether the day has passed.
    pub fn is_over(self, now: jiff::Timestamp) -> bool {
        now.to_zoned(TimeZone::UTC).date() > self.0
    }
}

impl FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Expiry, String> {
        // jiff also parses a date with a time of day, and drops the time.
        let is_date = text.len() == "2027-01-01".len();
        let date = text.parse().ok().filter(|_| is_date).map(Expiry);
        date.ok_or_else(|| format!("expected a date such as 2027-01-01, found {text:?}"))
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Expiry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Expiry, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Expiry {
    fn schema_name() -> Cow<'static, str> {
        "Expiry".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date"})
    }
}
