//! Problems: findings grouped by root cause.

use std::collections::BTreeMap;

use kubectl_gpt_analyzers::Finding;

/// A root cause with its consequences.
#[derive(Debug)]
pub struct Problem<'a> {
    pub root: &'a Finding,
    /// Each with its distance from the root, at least 1; nearest first.
    pub consequences: Vec<(usize, &'a Finding)>,
}

/// Groups findings by root cause, sorted by severity, then by number of consequences. A finding with several root
/// causes is listed under each.
pub fn problems(findings: &[Finding]) -> Vec<Problem<'_>> {
    let mut effects: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        for cause in &finding.caused_by {
            effects.entry(cause).or_default().push(finding);
        }
    }
    let known = |id: &String| findings.iter().any(|f| f.id == *id);
    let roots = findings.iter().filter(|finding| !finding.caused_by.iter().any(known));
    let mut problems: Vec<Problem> =
        roots.map(|root| Problem { root, consequences: reached(root, &effects) }).collect();
    // The findings are already sorted; a stable sort keeps that order among equals.
    problems.sort_by_key(|p| {
        let worst = p.consequences.iter().map(|(_, f)| f.severity).chain([p.root.severity]).max();
        std::cmp::Reverse((worst, p.root.severity, p.consequences.len()))
    });
    problems
}

fn reached<'a>(root: &'a Finding, effects: &BTreeMap<&str, Vec<&'a Finding>>) -> Vec<(usize, &'a Finding)> {
    let mut found: Vec<(usize, &Finding)> = vec![(0, root)];
    let mut next = 0;
    while next < found.len() {
        let (distance, finding) = found[next];
        for effect in effects.get(finding.id.as_str()).into_iter().flatten() {
            if !found.iter().any(|(_, f)| f.id == effect.id) {
                found.push((distance + 1, effect));
            }
        }
        next += 1;
    }
    found.remove(0);
    found
}
