//! Label selectors, exactly as the API server evaluates them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use crate::snapshot::model::{LabelSelector, LabelSelectorRequirement, LabelSet, Labels, WorkloadSelector};
use crate::text::hash::hash;

/// A compiled selector: all requirements must hold. A selector without requirements selects everything.
///
/// The meaning of an absent selector (`null`) depends on the field; mostly it selects nothing. Callers must handle it.
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>
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
    /// Also holds for objects without the key.
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    /// An unknown operator. Such a requirement never holds.
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
        Selector::both(&selector.match_labels, selector.match_expressions.as_deref().unwrap_or_default())
    }

    fn both<L: LabelSet>(match_labels: &L, match_expressions: &[LabelSelectorRequirement]) -> Selector {
        let mut compiled = Selector::equals(match_labels);
        for expression in match_expressions {
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

    /// The shortest list of candidates that the index contains for one of the requirements, sorted and without
    /// duplicates. `None` if no requirement has values.
    pub(crate) fn candidates<'i, T: Copy + Ord>(
        &self,
        namespace: &str,
        index: &'i LabelIndex<T>,
    ) -> Option<Cow<'i, [T]>> {
        let lists = self.required_labels(namespace).map(|labels| labels.filter_map(|label| index.places.get(&label)));
        let shortest = lists.min_by_key(|lists| lists.clone().map(Vec::len).sum::<usize>())?;
        let mut lists = shortest;
        let first = lists.next().map(Vec::as_slice).unwrap_or_default();
        let mut others = lists.peekable();
        if others.peek().is_none() {
            return Some(Cow::Borrowed(first));
        }
        let mut candidates: Vec<T> = first.iter().chain(others.flatten()).copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        Some(Cow::Owned(candidates))
    }

    /// For each requirement with values, the labels that meet it: hashes of namespace, key and value.
    fn required_labels<'s>(
        &'s self,
        namespace: &'s str,
    ) -> impl Iterator<Item = impl Iterator<Item = u64> + Clone + 's> {
        self.requirements.iter().filter_map(move |requirement| match &requirement.operator {
            Operator::In(values) => Some(values.iter().map(move |value| hash(&[namespace, &requirement.key, value]))),
            _ => None,
        })
    }

    /// Key and value of the requirements with exactly one value.
    pub fn equalities(&self) -> impl Iterator<Item = (&str, &str)> {
        self.requirements.iter().filter_map(|requirement| match &requirement.operator {
            Operator::In(values) if values.len() == 1 => Some((requirement.key.as_str(), values[0].as_str())),
            _ => None,
        })
    }

    /// The requirements that an object does not meet, in the notation of kubectl, each with the value of the object.
    pub fn differences<'a, L: LabelSet + ?Sized>(&'a self, labels: &'a L) -> Vec<(String, Option<&'a str>)> {
        let unmet = self.requirements.iter().filter(|requirement| !requirement.holds(labels.value(&requirement.key)));
        unmet.map(|requirement| (requirement.to_string(), labels.value(&requirement.key))).collect()
    }

    /// The keys of all requirements, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|requirement| requirement.key.as_str())
    }

    /// The number of requirements.
    pub fn len(&self) -> usize {
        self.requirements.len()
    }
}

impl From<&WorkloadSelector> for Selector {
    fn from(selector: &WorkloadSelector) -> Selector {
        Selector::both(&selector.match_labels, &selector.match_expressions)
    }
}

/// Objects by namespace, label key and label value, to find those that a selector may match. Keys are hashes:
/// candidates must still be checked.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex<T> {
    places: HashMap<u64, Vec<T>>,
}

impl<T: Copy> LabelIndex<T> {
    /// Adds an object with these labels.
    pub(crate) fn add(&mut self, namespace: &str, labels: &Labels, place: T) {
        for (key, value) in labels.iter() {
            self.places.entry(hash(&[namespace, key, value])).or_default().push(place);
        }
    }
}

/// Selectors of objects in namespaces, to find those that may match given labels. Each is stored under the requirement
/// that it shares with the fewest others. Keys are hashes: candidates must still be checked.
#[derive(Debug, Default)]
pub(crate) struct SelectorIndex {
    by_label: HashMap<u64, Vec<u32>>,
    /// Selectors without required values, by namespace.
    without_label: HashMap<u64, Vec<u32>>,
}

impl SelectorIndex {
    /// From selectors with their namespaces. They are identified by their index.
    pub(crate) fn new<'s>(selectors: impl Iterator<Item = (&'s str, &'s Selector)> + Clone) -> SelectorIndex {
        let mut uses: HashMap<u64, usize> = HashMap::new();
        for (namespace, selector) in selectors.clone() {
            selector.required_labels(namespace).flatten().for_each(|label| *uses.entry(label).or_default() += 1);
        }
        let mut index = SelectorIndex::default();
        for (n, (namespace, selector)) in (0u32..).zip(selectors) {
            let rarest = selector
                .required_labels(namespace)
                .min_by_key(|labels| labels.clone().map(|l| uses[&l]).sum::<usize>());
            match rarest {
                Some(labels) => labels.for_each(|label| index.by_label.entry(label).or_default().push(n)),
                None => index.without_label.entry(hash(&[namespace])).or_default().push(n),
            }
        }
        index
    }

    /// The indexes of the selectors of a namespace that may match labels, sorted and without duplicates.
    pub(crate) fn candidates(&self, namespace: &str, labels: &Labels) -> Vec<u32> {
        let by_label = labels.iter().filter_map(|(key, value)| self.by_label.get(&hash(&[namespace, key, value])));
        let all = by_label.chain(self.without_label.get(&hash(&[namespace])));
        let mut candidates: Vec<u32> = all.flatten().copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        candidates
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

/// Parses a selector in the notation of kubectl's `-l`: `app=web,tier in (a,b),!canary`.
///
/// ```
/// # use kubectl_gpt_analyzers::Selector;
/// let selector: Selector = "app == web, tier notin (a,b), x, !y, z!=1".parse().unwrap();
/// assert_eq!(selector.to_string(), "app=web,tier notin (a,b),x,!y,z!=1");
/// assert!("app in web".parse::<Selector>().is_err());
/// ```
impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Selector, ParseSelectorError> {
        let mut requirements = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            // A comma between parentheses separates values.
            let end = match (rest.find(','), rest.find('(')) {
                (Some(comma), Some(open)) if open < comma => {
                    let close = rest.find(')').ok_or_else(|| ParseSelectorError(rest.to_string()))?;
                    rest[close..].find(',').map_or(rest.len(), |n| close + n)
                }
                (comma, _) => comma.unwrap_or(rest.len()),
            };
            requirements.push(rest[..end].trim().parse()?);
            rest = rest.get(end + 1..).unwrap_or_default().trim_start();
        }
        Ok(Selector { requirements })
    }
}

/// An invalid selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY, found {0:?}")]
pub struct ParseSelectorError(String);

impl FromStr for Requirement {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Requirement, ParseSelectorError> {
        let fail = || ParseSelectorError(text.to_string());
        let one = |value: &str| vec![value.trim().to_string()];
        let (key, operator) = if let Some((key, value)) = text.split_once("!=") {
            (key, Operator::NotIn(one(value)))
        } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            (key, Operator::In(one(value)))
        } else if let Some(key) = text.strip_prefix('!') {
            (key, Operator::DoesNotExist)
        } else if let Some((left, values)) = text.split_once('(') {
            let values = values.strip_suffix(')').ok_or_else(fail)?;
            let values = values.split(',').map(|value| value.trim().to_string()).collect();
            match left.split_whitespace().collect::<Vec<_>>()[..] {
                [key, "in"] => (key, Operator::In(values)),
                [key, "notin"] => (key, Operator::NotIn(values)),
                _ => return Err(fail()),
            }
        } else {
            (text, Operator::Exists)
        };
        let key = key.trim();
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if key.is_empty() || !key.chars().all(valid) {
            return Err(fail());
        }
        Ok(Requirement { key: key.to_string(), operator })
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

/// In the notation of kubectl: `app=web,tier in (a,b),!canary`.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::kind::Kind;
    use crate::snapshot::objects::Object;
    use crate::testing::TestCluster;

    /// A naive implementation of the API's definition.
    fn reference(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
        for (key, value) in selector.match_labels.iter().flatten() {
            if labels.get(key) != Some(value) {
                return false;
            }
        }
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            let holds = match (expression.operator.as_str(), labels.get(&expression.key)) {
                ("In", Some(value)) => values.contains(value),
                ("In", None) => false,
                ("NotIn", Some(value)) => !values.contains(value),
                ("NotIn", None) => true,
                ("Exists", value) => value.is_some(),
                ("DoesNotExist", value) => value.is_none(),
                _ => false,
            };
            if !holds {
                return false;
            }
        }
        true
    }

    fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
        proptest::collection::btree_map("[ab]", "[xyz]", 0..3)
    }

    fn expression() -> impl Strategy<Value = LabelSelectorRequirement> {
        let operator = prop::sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist", "Like"]);
        ("[abc]", operator, proptest::collection::vec("[xyz]", 0..3)).prop_map(|(key, operator, values)| {
            let values = matches!(operator, "In" | "NotIn").then_some(values);
            LabelSelectorRequirement { key, operator: operator.to_string(), values }
        })
    }

    fn selector() -> impl Strategy<Value = LabelSelector> {
        (proptest::option::of(labels()), proptest::option::of(proptest::collection::vec(expression(), 0..3)))
            .prop_map(|(match_labels, match_expressions)| LabelSelector { match_labels, match_expressions })
    }

    proptest! {
        #[test]
        fn matches_as_the_reference_does(selector in selector(), labels in labels()) {
            prop_assert_eq!(Selector::new(&selector).matches(&labels), reference(&selector, &labels));
        }

        /// The index returns every selector that matches, without duplicates.
        #[test]
        fn the_index_finds_the_selectors_that_match(
            selectors in proptest::collection::vec(("[st]", selector()), 0..8),
            namespace in "[st]",
            labels in labels(),
        ) {
            let compiled: Vec<(&str, Selector)> =
                selectors.iter().map(|(namespace, selector)| (namespace.as_str(), Selector::new(selector))).collect();
            let index = SelectorIndex::new(compiled.iter().map(|(namespace, selector)| (*namespace, selector)));
            let pairs: Labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let candidates = index.candidates(&namespace, &pairs);
            let found: Vec<usize> =
                candidates.into_iter().map(|n| n as usize).filter(|n| compiled[*n].1.matches(&labels)).collect();
            let matches = |n: &usize| selectors[*n].0 == namespace && reference(&selectors[*n].1, &labels);
            let expected: Vec<usize> = (0..selectors.len()).filter(matches).collect();
            prop_assert_eq!(found, expected);
        }

        /// The index finds the same pods as a scan of all pods.
        #[test]
        fn the_index_finds_the_same_pods(selector in selector(), pods in proptest::collection::vec(labels(), 0..8)) {
            let documents: Vec<String> = pods.iter().enumerate().map(|(n, labels)| {
                let metadata = serde_json::json!({"name": format!("p{n}"), "namespace": "shop", "labels": labels});
                serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}).to_string()
            }).collect();
            let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
            let cluster = TestCluster::new(&documents).cover(Kind::Pod, crate::Extent::Everything).build();
            let found: Vec<&str> =
                cluster.pods_matching("shop", &Selector::new(&selector)).iter().map(|pod| pod.name()).collect();
            let expected: Vec<String> =
                (0..pods.len()).filter(|n| reference(&selector, &pods[*n])).map(|n| format!("p{n}")).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
