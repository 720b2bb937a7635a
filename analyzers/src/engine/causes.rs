//! Links findings to their causes.
//!
//! A finding lists the objects that may explain it ([`Finding::because`]: the claim of an unschedulable pod, the
//! workload behind a Service without endpoints), and its rule lists the rules whose findings count as causes
//! (`explained_by`). The object of the finding itself is always considered, except for patterns that start with
//! `elsewhere:`: they require a finding on another object. Both conditions must hold for a link, and links never form a
//! cycle.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::finding::Finding;
use crate::engine::rule::Rule;
use crate::snapshot::ObjectRef;

/// The prefix of patterns that match only findings on other objects.
const ELSEWHERE: &str = "elsewhere:";

/// Sets `caused_by` of all findings.
pub fn link(findings: &mut [Finding], rules: &[&dyn Rule]) {
    let explained_by: BTreeMap<&str, &[&str]> =
        rules.iter().map(|rule| (rule.meta().id.as_ref(), rule.meta().explained_by)).collect();
    let mut by_object: BTreeMap<&ObjectRef, Vec<usize>> = BTreeMap::new();
    for (n, finding) in findings.iter().enumerate() {
        by_object.entry(&finding.object).or_default().push(n);
    }
    let mut graph = Graph::new(findings.len());
    let mut order: Vec<usize> = (0..findings.len()).collect();
    // A Service depends on its pods before they depend on it, as peers that look each other up do.
    order.sort_by_key(|n| (!findings[*n].rule.starts_with("service/"), findings[*n].id.clone()));
    for effect in order {
        let finding = &findings[effect];
        let patterns = explained_by.get(finding.rule.as_str()).copied().unwrap_or_default();
        let own = (!finding.is_caused_elsewhere).then_some(&finding.object);
        let objects: BTreeSet<&ObjectRef> = finding.because.iter().chain(own).collect();
        for cause in objects.iter().filter_map(|object| by_object.get(*object)).flatten() {
            let explains = |pattern: &&str| match pattern.strip_prefix(ELSEWHERE) {
                Some(pattern) => findings[*cause].object != finding.object && includes(pattern, &findings[*cause].rule),
                None => includes(pattern, &findings[*cause].rule),
            };
            if patterns.iter().any(explains) && !about_other_containers(finding, &findings[*cause]) {
                graph.link(effect, *cause);
            }
        }
    }
    let ids: Vec<String> = findings.iter().map(|finding| finding.id.clone()).collect();
    for (n, finding) in findings.iter_mut().enumerate() {
        finding.caused_by = graph.causes[n].iter().map(|cause| ids[*cause].clone()).collect();
        finding.caused_by.sort();
    }
}

/// Whether an entry of `explained_by` means this rule: `pod/oom-killed`, or `pod/*` for all of a kind.
pub(crate) fn includes(entry: &str, id: &str) -> bool {
    match entry.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => entry == id,
    }
}

/// Whether two findings on one object are about two different containers.
fn about_other_containers(a: &Finding, b: &Finding) -> bool {
    a.object == b.object && a.container.is_some() && b.container.is_some() && a.container != b.container
}

/// Effects and their causes, without cycles.
struct Graph {
    causes: Vec<BTreeSet<usize>>,
}

impl Graph {
    fn new(size: usize) -> Graph {
        Graph { causes: vec![BTreeSet::new(); size] }
    }

    /// Adds a link unless it would close a cycle.
    fn link(&mut self, effect: usize, cause: usize) {
        if !self.reaches(cause, effect) {
            self.causes[effect].insert(cause);
        }
    }

    /// Whether a finding is a direct or indirect cause of another, or the same.
    fn reaches(&self, from: usize, to: usize) -> bool {
        let (mut todo, mut seen) = (vec![from], BTreeSet::new());
        while let Some(n) = todo.pop() {
            if n == to {
                return true;
            }
            if seen.insert(n) {
                todo.extend(&self.causes[n]);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::{Graph, link};
    use crate::Kind;
    use crate::engine::finding::{Finding, Severity};
    use crate::engine::rule::{BuiltIn, Rule, RuleMeta};
    use crate::snapshot::ObjectRef;

    #[test]
    fn elsewhere_means_another_object() {
        let own = vec![finding(0, &(4, 0, vec![], None)), finding(1, &(0, 0, vec![], None))];
        assert!(causes(own)["00"].is_empty());
        let other = vec![finding(0, &(4, 0, vec![1], None)), finding(1, &(0, 1, vec![], None))];
        assert_eq!(causes(other)["00"], ["07"]);
    }

    #[test]
    fn no_cycles() {
        let mut graph = Graph::new(3);
        graph.link(0, 1);
        graph.link(1, 2);
        graph.link(2, 0);
        graph.link(0, 0);
        assert!(graph.causes[2].is_empty());
        assert_eq!(graph.causes[0].len(), 1);
    }

    /// Rules that explain each other in every way: themselves, in cycles, all rules.
    fn rules() -> Vec<&'static dyn Rule> {
        let rule = |id: &'static str, explained_by: &'static [&'static str]| -> &'static dyn Rule {
            let meta = RuleMeta {
                id: id.into(),
                severity: Severity::Error,
                profile: crate::engine::rule::Profile::Default,
                summary: "".into(),
                needs: &[],
                optional: &[],
                explained_by,
                reads_custom: false,
                in_terminating_namespaces: false,
                documentation: "".into(),
            };
            Box::leak(Box::new(BuiltIn { meta, check: |_, _| {} }))
        };
        vec![
            rule("pod/a", &["node/*"]),
            rule("pod/b", &["pod/a", "pod/b"]),
            rule("service/c", &["pod/*", "node/d"]),
            rule("node/d", &["*"]),
            rule("pod/e", &["elsewhere:pod/*"]),
        ]
    }

    fn object(n: usize) -> ObjectRef {
        ObjectRef::new(Kind::Pod, "shop", &format!("pod-{n}"))
    }

    /// The rule, the object, the objects in `because` and the container.
    type Sketch = (usize, usize, Vec<usize>, Option<bool>);

    fn finding(n: usize, (rule, of, because, container): &Sketch) -> Finding {
        let mut finding = Finding::error(object(*of), "");
        finding.id = format!("{:02}", (n * 7) % 31);
        finding.rule = rules()[*rule].meta().id.to_string();
        finding = because.iter().fold(finding, |finding, n| finding.because(object(*n)));
        match container {
            Some(first) => finding.container(if *first { "app" } else { "proxy" }),
            None => finding,
        }
    }

    fn causes(mut findings: Vec<Finding>) -> BTreeMap<String, Vec<String>> {
        link(&mut findings, &rules());
        findings.into_iter().map(|finding| (finding.id, finding.caused_by)).collect()
    }

    /// Repeatedly removes findings whose causes are all removed. In a graph with a cycle some findings remain.
    fn has_no_cycles(causes: &BTreeMap<String, Vec<String>>) -> bool {
        let mut gone: BTreeSet<&String> = BTreeSet::new();
        loop {
            let before = gone.len();
            gone.extend(
                causes
                    .iter()
                    .filter(|(_, of)| of.iter().all(|c| gone.contains(c)))
                    .map(|(id, _)| id)
                    .collect::<Vec<_>>(),
            );
            if gone.len() == before {
                return gone.len() == causes.len();
            }
        }
    }

    fn reaches_a_root(causes: &BTreeMap<String, Vec<String>>, id: &String) -> bool {
        let mut at = id;
        for _ in 0..=causes.len() {
            match causes[at].first() {
                Some(cause) => at = cause,
                None => return true,
            }
        }
        false
    }

    proptest! {
        #[test]
        fn every_chain_of_causes_ends_at_a_root_and_does_not_depend_on_the_order(
            (sketches, order) in prop::collection::vec(
                (0..5usize, 0..4usize, prop::collection::vec(0..4usize, 0..3), any::<Option<bool>>()), 0..14,
            ).prop_flat_map(|sketches: Vec<Sketch>| {
                let order: Vec<usize> = (0..sketches.len()).collect();
                (Just(sketches), Just(order).prop_shuffle())
            })
        ) {
            let findings: Vec<Finding> = sketches.iter().enumerate().map(|(n, sketch)| finding(n, sketch)).collect();
            let shuffled: Vec<Finding> = order.iter().map(|n| findings[*n].clone()).collect();
            let linked = causes(findings);
            prop_assert!(has_no_cycles(&linked), "{linked:?}");
            for (id, of) in &linked {
                prop_assert!(of.is_sorted() && of.iter().all(|cause| linked.contains_key(cause) && cause != id));
                prop_assert!(reaches_a_root(&linked, id));
            }
            prop_assert_eq!(linked, causes(shuffled));
        }
    }
}
