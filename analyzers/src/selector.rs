//! Label selectors, exactly as the API server evaluates them.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{LabelSelector, LabelSet};

/// A compiled selector: all requirements must hold; none at all selects everything.
///
/// An absent selector (`null`) means different things in different places, mostly "nothing": that is the caller's to
/// decide. Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    /// Holds for objects without the key, too.
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    /// An operator that the API does not know; such a requirement holds for nothing.
    Unknown(String),
}

impl Selector {
    /// The selector of a Service or ReplicationController: equality only.
    pub fn equals<L: LabelSet + ?Sized>(labels: &L) -> Selector {
        let requirements = labels
            .pairs()
            .map(|(key, value)| Requirement { key: key.to_string(), operator: Operator::In(vec![value.to_string()]) })
            .collect();
        Selector { requirements }
    }

    /// `matchLabels` and `matchExpressions`.
    pub fn new(selector: &LabelSelector) -> Selector {
        let mut compiled = Selector::equals(&selector.match_labels);
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            let operator = match expression.operator.as_str() {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => Operator::Unknown(other.to_string()),
            };
            compiled.requirements.push(Requirement { key: expression.key.clone(), operator });
        }
        compiled
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches<L: LabelSet + ?Sized>(&self, labels: &L) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels.value(&requirement.key)))
    }

    /// A key with the values one of which an object must have, for looking objects up in an index.
    pub(crate) fn indexable(&self) -> Option<(&str, &[String])> {
        self.requirements.iter().find_map(|requirement| match &requirement.operator {
            Operator::In(values) => Some((requirement.key.as_str(), values.as_slice())),
            _ => None,
        })
    }

    /// Key and value of the requirements that ask for exactly one value.
    pub fn equalities(&self) -> impl Iterator<Item = (&str, &str)> {
        self.requirements.iter().filter_map(|requirement| match &requirement.operator {
            Operator::In(values) if values.len() == 1 => Some((requirement.key.as_str(), values[0].as_str())),
            _ => None,
        })
    }

    /// The requirements that an object does not meet, as kubectl writes them, each with the value the object has.
    pub fn differences<'a, L: LabelSet + ?Sized>(&'a self, labels: &'a L) -> Vec<(String, Option<&'a str>)> {
        let unmet = self.requirements.iter().filter(|requirement| !requirement.holds(labels.value(&requirement.key)));
        unmet.map(|requirement| (requirement.to_string(), labels.value(&requirement.key))).collect()
    }

    /// The keys of all requirements, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|requirement| requirement.key.as_str())
    }

    /// How many requirements there are.
    pub fn len(&self) -> usize {
        self.requirements.len()
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Operator::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Unknown(_) => false,
        }
    }
}

impl From<&BTreeMap<String, String>> for Selector {
    fn from(labels: &BTreeMap<String, String>) -> Selector {
        Selector::equals(labels)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{}={}", self.key, values[0]),
            Operator::In(values) => write!(f, "{} in ({})", self.key, values.join(",")),
            Operator::NotIn(values) if values.len() == 1 => {
                write!(f, "{}!={}", self.key, values[0])
            }
            Operator::NotIn(values) => write!(f, "{} notin ({})", self.key, values.join(",")),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::Unknown(operator) => write!(f, "{} {operator}", self.key),
        }
    }
}

/// As kubectl writes selectors: `app=web,tier in (a,b),!canary`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, requirement) in self.requirements.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}
