//! The object that a selector without matches was probably meant for, and the label that differs.

use crate::snapshot::model::{LabelSet, Namespace};
use crate::snapshot::{Cluster, Object, ObjectRef, Selector};
use crate::text::similar::likeness;
use crate::text::words;

/// The closest object to a selector without matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    pub object: ObjectRef,
    /// The part of the selector that the object does not meet: `app=carts`.
    pub asks: String,
    /// What the object has instead: `app=cart`, `no label tier`.
    pub has: String,
    /// Whether it looks like a typo: one label differs, and only by a letter or two.
    pub is_typo: bool,
}

impl Nearest {
    /// `selector app=carts, Deployment cart has app=cart`.
    pub fn difference(&self) -> String {
        format!("selector {}, {} has {}", self.asks, self.object.title(), self.has)
    }
}

/// The minimum average score per requirement, in thousandths of a full match.
const MIN_SCORE: usize = 300;

/// The candidate whose labels are closest to a selector, if any is close: it matches part of the selector, has a value
/// that looks like a typo, or has the value under another key.
pub fn nearest<'a>(
    selector: &Selector,
    candidates: impl IntoIterator<Item = (ObjectRef, &'a dyn LabelSet)>,
) -> Option<Nearest> {
    let mut candidates: Vec<(ObjectRef, &dyn LabelSet)> = candidates.into_iter().collect();
    candidates.retain(|(_, labels)| !selector.matches(*labels));
    candidates.sort_by(|a, b| a.0.cmp(&b.0));
    // A label that every object has (`part-of: shop`) hardly identifies the intended object.
    let bearers = |key: &str, value: &str| candidates.iter().filter(|(_, l)| l.value(key) == Some(value)).count();
    let weights: Vec<(&str, &str, usize)> =
        selector.equalities().map(|(key, value)| (key, value, 400 + 600 / bearers(key, value).max(1))).collect();
    let best = candidates
        .iter()
        .map(|(object, labels)| (closeness(&weights, *labels), object, labels))
        // The first of equals, for a stable result.
        .rev()
        .max_by_key(|(score, ..)| *score)?;
    let (score, object, labels) = best;
    if weights.is_empty() || score < MIN_SCORE * weights.len() {
        return None;
    }
    let differences = selector.differences(*labels);
    let asks: Vec<&str> = differences.iter().map(|(requirement, _)| requirement.as_str()).collect();
    let has: Vec<String> = differences.iter().map(|(asked, value)| instead(asked, *value, *labels)).collect();
    let is_typo = differences.len() == 1 && is_typo(selector, *labels);
    Some(Nearest { object: object.clone(), asks: asks.join(","), has: words::list(&has, 3), is_typo })
}

/// Whether the first label that differs looks like a typo. Values that differ only in digits name different objects.
fn is_typo(selector: &Selector, labels: &dyn LabelSet) -> bool {
    let letters = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let mut differing = selector.equalities().filter_map(|(key, asked)| Some((asked, labels.value(key)?)));
    let differing = differing.find(|(asked, has)| asked != has);
    differing.is_some_and(|(asked, has)| likeness(asked, has) >= 700 && letters(asked) != letters(has))
}

/// How close labels are to the requirements, in thousandths, summed over the requirements.
fn closeness(required: &[(&str, &str, usize)], labels: &dyn LabelSet) -> usize {
    let closeness_of = |(key, value, weight): &(&str, &str, usize)| match labels.value(key) {
        Some(has) if has == *value => *weight,
        Some(has) => 100 + 700 * likeness(has, value) / 1000,
        None if labels.pairs().any(|(_, has)| has == *value) => 500,
        None => 0,
    };
    required.iter().map(closeness_of).sum()
}

/// What an object has instead of a requirement that it does not meet.
fn instead(asked: &str, value: Option<&str>, labels: &dyn LabelSet) -> String {
    let (key, wanted) = asked.split_once('=').unwrap_or((asked, ""));
    match value {
        Some(value) => format!("{}={value}", key.trim_end_matches('!')),
        None => match labels.pairs().find(|(_, has)| *has == wanted && !wanted.is_empty()) {
            Some((other, _)) => format!("{other}={wanted}"),
            None => format!("no label {}", key.split_whitespace().next().unwrap_or(key)),
        },
    }
}

/// The closest matches of a selector that matches nothing.
pub trait NearestExt {
    /// The workload of a namespace, or the pod without such a workload, whose labels are closest to a selector that
    /// matches none of them.
    fn nearest_workload(&self, namespace: &str, selector: &Selector) -> Option<Nearest>;
    /// The namespace whose labels are closest to a `namespaceSelector` that matches none.
    fn nearest_namespace(&self, selector: &Selector) -> Option<Nearest>;
}

impl NearestExt for Cluster {
    fn nearest_workload(&self, namespace: &str, selector: &Selector) -> Option<Nearest> {
        let workloads = self.workloads_in(namespace);
        let known: Vec<&ObjectRef> = workloads.iter().map(|workload| &workload.object).collect();
        let mut candidates: Vec<(ObjectRef, &dyn LabelSet)> =
            workloads.iter().map(|w| (w.object.clone(), &w.template.metadata.labels as &dyn LabelSet)).collect();
        for group in self.pod_groups().iter().filter(|group| group.owner.namespace() == namespace) {
            if !known.contains(&&group.owner)
                && let Some(pod) = self.pods_of(group).find(|pod| pod.is_active())
            {
                candidates.push((group.owner.clone(), pod.labels()));
            }
        }
        nearest(selector, candidates)
    }

    fn nearest_namespace(&self, selector: &Selector) -> Option<Nearest> {
        nearest(selector, self.all::<Namespace>().iter().map(|namespace| (namespace.reference(), namespace.labels())))
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;
    use crate::snapshot::model::{LabelSet, Labels};
    use crate::snapshot::{Kind, ObjectRef, Selector};

    fn difference(selector: &[(&str, &str)], candidates: &[(&str, &[(&str, &str)])]) -> Option<String> {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Labels>();
        let selector = Selector::equals(&labels(selector));
        let candidates: Vec<(&str, Labels)> = candidates.iter().map(|(name, pairs)| (*name, labels(pairs))).collect();
        let found = nearest(
            &selector,
            candidates.iter().map(|(name, l)| (ObjectRef::new(Kind::Deployment, "shop", name), l as &dyn LabelSet)),
        );
        found.map(|nearest| nearest.difference())
    }

    #[test]
    fn a_typo() {
        let text = difference(&[("app", "carts")], &[("cart", &[("app", "cart")]), ("mail", &[("app", "mail")])]);
        assert_eq!(text.as_deref(), Some("selector app=carts, Deployment cart has app=cart"));
    }

    #[test]
    fn a_stale_version() {
        let text = difference(
            &[("app", "orders"), ("version", "v1")],
            &[
                ("mail", &[("app", "mail"), ("version", "v1")]),
                ("orders", &[("app", "orders"), ("version", "v2")]),
                ("web", &[("app", "web"), ("version", "v1")]),
            ],
        );
        assert_eq!(text.as_deref(), Some("selector version=v1, Deployment orders has version=v2"));
    }

    #[test]
    fn a_missing_or_renamed_label() {
        let text = difference(&[("app", "cart"), ("tier", "back")], &[("cart", &[("app", "cart")])]);
        assert_eq!(text.as_deref(), Some("selector tier=back, Deployment cart has no label tier"));
        let text = difference(&[("app", "cart")], &[("cart", &[("app.kubernetes.io/name", "cart")])]);
        assert_eq!(text.as_deref(), Some("selector app=cart, Deployment cart has app.kubernetes.io/name=cart"));
    }

    #[test]
    fn nothing_is_near() {
        assert_eq!(difference(&[("app", "cart")], &[("mail", &[("app", "mail")])]), None);
        assert_eq!(difference(&[("app", "cart")], &[]), None);
        assert_eq!(difference(&[], &[("mail", &[("app", "mail")])]), None);
    }
}
