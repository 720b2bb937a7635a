//! Which finding explains which.
//!
//! A finding names the objects that would explain it ([`Finding::because`]: the claim of an unschedulable pod, the
//! workload behind a Service without endpoints), its rule names the rules whose findings count as explanations
//! (`explained_by`). The object that a finding is about is always looked at too. A link is made only where both hold, so
//! an explanation is never guessed from nearness alone; and never in a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::{Finding, ObjectRef};
use crate::rule::{Rule, id_matches};

/// Fills `caused_by` of all findings.
pub fn link(findings: &mut [Finding], rules: &[&dyn Rule]) {
    let explained_by: BTreeMap<&str, &[&str]> =
        rules.iter().map(|rule| (rule.meta().id.as_ref(), rule.meta().explained_by)).collect();
    let mut by_object: BTreeMap<&ObjectRef, Vec<usize>> = BTreeMap::new();
    for (n, finding) in findings.iter().enumerate() {
        by_object.entry(&finding.object).or_default().push(n);
    }
    let mut graph = Graph::new(findings.len());
    let mut order: Vec<usize> = (0..findings.len()).collect();
    order.sort_by(|a, b| findings[*a].id.cmp(&findings[*b].id));
    for effect in order {
        let finding = &findings[effect];
        let patterns = explained_by.get(finding.rule.as_str()).copied().unwrap_or_default();
        let objects: BTreeSet<&ObjectRef> = finding.because.iter().chain([&finding.object]).collect();
        for cause in objects.iter().filter_map(|object| by_object.get(*object)).flatten() {
            let explains = |pattern: &&str| id_matches(pattern, &findings[*cause].rule);
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

/// Whether two findings on one object are about two different containers.
fn about_other_containers(a: &Finding, b: &Finding) -> bool {
    a.object == b.object && a.container.is_some() && b.container.is_some() && a.container != b.container
}

/// Effects and their causes, without circles.
struct Graph {
    causes: Vec<BTreeSet<usize>>,
}

impl Graph {
    fn new(size: usize) -> Graph {
        Graph { causes: vec![BTreeSet::new(); size] }
    }

    /// Links unless that would close a circle.
    fn link(&mut self, effect: usize, cause: usize) {
        if !self.reaches(cause, effect) {
            self.causes[effect].insert(cause);
        }
    }

    /// Whether one gets from a finding to another by going from effects to causes.
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
    use super::Graph;

    #[test]
    fn no_circles() {
        let mut graph = Graph::new(3);
        graph.link(0, 1);
        graph.link(1, 2);
        graph.link(2, 0);
        graph.link(0, 0);
        assert!(graph.causes[2].is_empty());
        assert_eq!(graph.causes[0].len(), 1);
    }
}
