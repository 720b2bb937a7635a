//! Runs rules on a cluster, and links their findings.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};

use crate::engine::causes;
use crate::engine::finding::{Evidence, Finding, Severity};
use crate::engine::rule::{Report, Rule, RuleMeta};
use crate::snapshot::{Cluster, Extent, Kind, NotEvaluated, ObjectRef, Origin, Reason};

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// Sorted by severity (highest first), rule and object.
    pub findings: Vec<Finding>,
    pub not_evaluated: Vec<NotEvaluated>,
    /// The number of rules that were evaluated, at least in part.
    pub rules_run: usize,
}

impl Analysis {
    /// Sorts the findings.
    pub fn sort(&mut self) {
        let findings = &mut self.findings;
        findings
            .sort_by(|a, b| (b.severity, &a.rule, &a.object, &a.key).cmp(&(a.severity, &b.rule, &b.object, &b.key)));
    }
}

/// Runs rules over a cluster and links their findings. Large clusters are checked by one thread per processor; the
/// result is the same.
pub fn analyze(cluster: &Cluster, rules: &[&dyn Rule]) -> Analysis {
    let mut analysis = Analysis::default();
    for (rule, outcome) in rules.iter().zip(check_all(cluster, rules)) {
        let meta = rule.meta();
        analysis.not_evaluated.extend(outcome.unread.into_iter().map(|gap| gap.line));
        let report = match outcome.report {
            None => continue,
            Some(Ok(report)) => report,
            Some(Err(message)) => {
                analysis.not_evaluated.push(NotEvaluated {
                    rule: meta.id.to_string(),
                    kind: String::new(),
                    reason: Reason::Internal,
                    namespace: None,
                    name: None,
                    message,
                });
                continue;
            }
        };
        analysis.rules_run += 1;
        analysis.not_evaluated.extend(report.gaps.into_iter().map(|(kind, object, reason, message)| NotEvaluated {
            rule: meta.id.to_string(),
            kind: object.as_ref().map(|o| o.kind.to_string()).or(kind).unwrap_or_default(),
            reason,
            namespace: object.as_ref().and_then(|o| o.namespace.clone()),
            name: object.map(|o| o.name),
            message,
        }));
        let findings = report.findings.into_iter().filter(|finding| matters(cluster, meta, finding));
        analysis.findings.extend(findings.map(|finding| finish(finding, meta, cluster.origin())));
    }
    analysis.not_evaluated.extend(unrecognized(cluster));
    let unreported = unreported(cluster, rules, &analysis.not_evaluated);
    analysis.not_evaluated.extend(unreported);
    merge_duplicates(&mut analysis.findings);
    causes::link(&mut analysis.findings, rules);
    analysis.sort();
    analysis.not_evaluated.sort();
    analysis.not_evaluated.dedup();
    analysis
}

/// Whether a rule with only optional kinds could read none of them.
fn is_blind(cluster: &Cluster, meta: &RuleMeta) -> bool {
    let extents = || meta.optional.iter().map(|kind| cluster.coverage().extent(*kind));
    // One that reads custom resources only.
    let has_nothing = meta.reads_custom && meta.optional.is_empty() && cluster.objects().is_empty();
    let is_unread = |kind: &Kind| matches!(cluster.coverage().extent(*kind), Extent::Failed(_));
    if has_nothing && Kind::ALL.iter().any(is_unread) {
        return true;
    }
    meta.needs.is_empty()
        && extents().any(|extent| matches!(extent, Extent::Failed(_)))
        && extents().all(|extent| matches!(extent, Extent::Failed(_) | Extent::NotServed | Extent::NotRequested))
}

/// The outcome of one rule.
struct Outcome {
    unread: Vec<Unread>,
    /// `None` if it could not be evaluated at all; the panic message if it panicked.
    report: Option<Result<Report, String>>,
}

fn check_one(cluster: &Cluster, rule: &dyn Rule) -> Outcome {
    let unread = unread(cluster, rule.meta());
    if unread.iter().any(|gap| gap.is_total) || is_blind(cluster, rule.meta()) {
        return Outcome { unread, report: None };
    }
    let mut report = Report::default();
    let checked = catch_unwind(AssertUnwindSafe(|| rule.check(cluster, &mut report)));
    Outcome { unread, report: Some(checked.map(|()| report).map_err(|panic| panic_message(panic.as_ref()))) }
}

/// The number of objects from which threads pay off.
const MANY_OBJECTS: usize = 5_000;

/// The outcomes of rules, in the order of the rules.
fn check_all(cluster: &Cluster, rules: &[&dyn Rule]) -> Vec<Outcome> {
    let threads =
        if cluster.objects().len() < MANY_OBJECTS { 1 } else { available_parallelism().map_or(1, usize::from) };
    let threads = threads.min(rules.len());
    if threads <= 1 {
        return rules.iter().map(|rule| check_one(cluster, *rule)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done: Vec<(usize, Outcome)> = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(rule) = rules.get(n) else { return done };
            done.push((n, check_one(cluster, *rule)));
        }
    };
    let mut outcomes: Vec<(usize, Outcome)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        workers.into_iter().flat_map(join).collect()
    });
    outcomes.sort_by_key(|(n, _)| *n);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

struct Unread {
    line: NotEvaluated,
    is_total: bool,
}

/// The needed kinds of a rule that were not read, or not everywhere.
fn unread(cluster: &Cluster, meta: &RuleMeta) -> Vec<Unread> {
    let mut unread = Vec::new();
    for kind in meta.needs {
        let (is_total, gap) = match cluster.coverage().extent(*kind) {
            Extent::Failed(gap) => (true, gap.clone()),
            Extent::Partly(_, gap) => (false, gap.clone()),
            Extent::Everything | Extent::Namespaces(_) | Extent::NotServed | Extent::NotRequested => continue,
        };
        unread.push(Unread {
            line: NotEvaluated {
                rule: meta.id.to_string(),
                kind: kind.to_string(),
                reason: gap.reason,
                namespace: None,
                name: None,
                message: gap.message,
            },
            is_total,
        });
    }
    // An object that could not be decoded may have had the problem.
    for broken in &cluster.coverage().broken {
        if broken.kind.is_some_and(|kind| meta.needs.contains(&kind)) {
            unread.push(Unread {
                line: NotEvaluated {
                    rule: meta.id.to_string(),
                    kind: broken.kind.map(|kind| kind.to_string()).unwrap_or_default(),
                    reason: Reason::Malformed,
                    namespace: None,
                    name: (!broken.name.is_empty()).then(|| broken.name.clone()),
                    message: broken.message.clone(),
                },
                is_total: false,
            });
        }
    }
    unread
}

/// Optional kinds that could not be read and that no rule reported. Without these lines a clean result would hide that
/// not everything was checked.
fn unreported(cluster: &Cluster, rules: &[&dyn Rule], reported: &[NotEvaluated]) -> Vec<NotEvaluated> {
    let mut kinds: Vec<Kind> = rules.iter().flat_map(|rule| rule.meta().optional.iter().copied()).collect();
    kinds.sort();
    kinds.dedup();
    let gaps = kinds.into_iter().filter_map(|kind| Some((kind.to_string(), cluster.coverage().gap(kind)?)));
    gaps.filter(|(kind, gap)| gap.reason != Reason::NotInInput && !reported.iter().any(|line| line.kind == *kind))
        .map(|(kind, gap)| NotEvaluated {
            rule: "*".to_string(),
            kind,
            reason: gap.reason,
            namespace: None,
            name: None,
            message: gap.message.clone(),
        })
        .collect()
}

/// Input of unknown kind: any rule might have needed it.
fn unrecognized(cluster: &Cluster) -> impl Iterator<Item = NotEvaluated> {
    cluster.coverage().broken.iter().filter(|broken| broken.kind.is_none()).map(|broken| NotEvaluated {
        rule: "*".to_string(),
        kind: String::new(),
        reason: Reason::Malformed,
        namespace: None,
        name: (!broken.name.is_empty()).then(|| broken.name.clone()),
        message: broken.message.clone(),
    })
}

fn finish(mut finding: Finding, meta: &RuleMeta, origin: Origin) -> Finding {
    finding = finding.identified(meta);
    if finding.rests_on_absence && origin == Origin::Manifests {
        finding.severity = Severity::Info;
    }
    finding
}

impl Finding {
    /// Sets the rule id and the fingerprint.
    pub fn identified(mut self, meta: &RuleMeta) -> Finding {
        self.rule = meta.id.to_string();
        self.docs = meta.id.to_string();
        self.id = fingerprint(&meta.id, &self.object, &self.key);
        self
    }
}

/// Twelve hexadecimal digits over rule, object and key: FNV-1a, which is stable across releases and machines (the
/// standard library's hasher guarantees neither).
fn fingerprint(rule: &str, object: &ObjectRef, key: &str) -> String {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }

        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    // The API version is not part of an object's identity.
    let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
    for part in [rule, group, &object.kind, object.namespace(), &object.name, key] {
        hasher.write(part.as_bytes());
        hasher.write(&[0]);
    }
    format!("{:012x}", hasher.finish() >> 16)
}

/// Whether a finding is relevant. In a namespace that is being deleted only findings about blocked deletion are: pods
/// are deleted first, and their workloads remain without pods until all are deleted (KEP-5080).
fn matters(cluster: &Cluster, meta: &RuleMeta, finding: &Finding) -> bool {
    meta.in_terminating_namespaces || !cluster.is_namespace_terminating(finding.object.namespace())
}

/// Merges findings with the same id, because ids must be unique in a baseline. Later ones become evidence of the first.
fn merge_duplicates(findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<Finding> = Vec::with_capacity(findings.len());
    for finding in findings.drain(..) {
        match seen.get(&finding.id) {
            None => {
                seen.insert(finding.id.clone(), kept.len());
                kept.push(finding);
            }
            Some(at) => {
                let first: &mut Finding = &mut kept[*at];
                first.severity = first.severity.max(finding.severity);
                first.evidence.push(Evidence { text: finding.message, object: Some(finding.object), path: None });
                first.evidence.extend(finding.evidence);
                first.because.extend(finding.because);
            }
        }
    }
    *findings = kept;
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(std::string::ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the rule panicked; this is a bug in kubectl-gpt: {}", text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rule::{BuiltIn, Profile};
    use crate::testing::TestCluster;

    fn rule(id: &'static str, check: fn(&Cluster, &mut Report)) -> &'static BuiltIn {
        let meta = RuleMeta {
            id: id.into(),
            severity: Severity::Error,
            profile: Profile::Default,
            summary: "".into(),
            needs: &[Kind::Pod],
            optional: &[Kind::Node],
            explained_by: &[],
            reads_custom: false,
            in_terminating_namespaces: false,
            documentation: "".into(),
        };
        Box::leak(Box::new(BuiltIn { meta, check }))
    }

    fn one(_: &Cluster, report: &mut Report) {
        report.add(Finding::error(ObjectRef::new(Kind::Pod, "shop", "p"), "Pod p is wrong"));
    }

    #[test]
    fn a_panic_affects_only_its_rule() {
        let rules: [&dyn Rule; 2] = [rule("a/panics", |_, _| panic!("out of luck")), rule("b/works", one)];
        let analysis = analyze(&TestCluster::new(&[]).build(), &rules);
        assert_eq!(analysis.findings.len(), 1);
        assert_eq!(analysis.rules_run, 1);
        let gap = &analysis.not_evaluated[0];
        assert_eq!((gap.rule.as_str(), gap.reason), ("a/panics", Reason::Internal));
        assert!(gap.message.contains("out of luck"), "{}", gap.message);
    }

    #[test]
    fn an_unread_optional_kind_is_reported() {
        let rules: [&dyn Rule; 1] = [rule("b/works", one)];
        let analysis = analyze(&TestCluster::new(&[]).forbid(Kind::Node).build(), &rules);
        assert_eq!(analysis.rules_run, 1);
        assert_eq!(analysis.not_evaluated.len(), 1);
        assert_eq!(analysis.not_evaluated[0].kind, "Node");
    }

    #[test]
    fn duplicates_become_one_finding() {
        let twice = |cluster: &Cluster, report: &mut Report| {
            one(cluster, report);
            one(cluster, report);
        };
        let rules: [&dyn Rule; 1] = [rule("b/works", twice)];
        assert_eq!(analyze(&TestCluster::new(&[]).build(), &rules).findings.len(), 1);
    }

    #[test]
    fn ids_do_not_depend_on_the_api_version() {
        let mut object = ObjectRef::new(Kind::Gateway, "shop", "g");
        let before = fingerprint("gateway/class", &object, "");
        object.api_version = "gateway.networking.k8s.io/v1beta1".into();
        assert_eq!(fingerprint("gateway/class", &object, ""), before);
        // A change here would invalidate existing baselines.
        assert_eq!(before, "e02a146b53da");
    }

    #[test]
    fn only_blocked_deletion_is_reported_in_a_terminating_namespace() {
        let service =
            "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}}}";
        let rules_that_fire = |namespace: &str| -> Vec<String> {
            let analysis =
                analyze(&TestCluster::new(&[namespace, service]).build(), &crate::rules::of(Profile::Default));
            analysis.findings.into_iter().map(|finding| finding.rule.clone()).collect()
        };
        let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";
        assert_eq!(rules_that_fire(namespace), ["service/selector-matches-nothing"]);
        let deleted = namespace.replace("name: shop", "name: shop, deletionTimestamp: '2026-11-21T11:00:00Z'");
        assert_eq!(rules_that_fire(&deleted), ["namespace/terminating"]);
    }
}
