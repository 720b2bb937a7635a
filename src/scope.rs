//! Filters the findings by namespace, labels and severity.

use std::collections::BTreeSet;

use kubectl_gpt_analyzers::{Cluster, Finding, Selector, Severity};

/// The filters of a report.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Empty for all namespaces.
    pub namespaces: Vec<String>,
    pub selector: Option<Selector>,
    pub min_severity: Option<Severity>,
}

impl Scope {
    /// Keeps the findings in scope, and their causes wherever those are.
    pub fn apply(&self, cluster: &Cluster, findings: Vec<Finding>) -> Vec<Finding> {
        let mut kept: BTreeSet<String> =
            findings.iter().filter(|f| self.contains(cluster, f)).map(|f| f.id.clone()).collect();
        loop {
            let causes = findings.iter().filter(|f| kept.contains(&f.id)).flat_map(|f| f.caused_by.iter().cloned());
            let before = kept.len();
            kept.extend(causes.collect::<Vec<_>>());
            if kept.len() == before {
                break;
            }
        }
        let mut findings = findings;
        findings.retain(|f| kept.contains(&f.id));
        findings
    }

    /// Whether the finding matches the namespaces, the label selector and the minimum severity.
    pub fn contains(&self, cluster: &Cluster, finding: &Finding) -> bool {
        let in_namespace =
            self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == finding.object.namespace());
        let has_labels = self
            .selector
            .as_ref()
            .is_none_or(|selector| cluster.labels_of(&finding.object).is_some_and(|labels| selector.matches(labels)));
        in_namespace && has_labels && self.is_severe(finding)
    }

    /// Whether the finding has at least the minimum severity.
    pub fn is_severe(&self, finding: &Finding) -> bool {
        self.min_severity.is_none_or(|least| finding.severity >= least)
    }
}
