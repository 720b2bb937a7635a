//! Decides which findings count.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use jiff::Timestamp;
use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{Analysis, Cluster, Evidence, Finding, Location, ObjectRef, Origin, Reason, Rule};

use crate::config::{Config, Expiry, Globs, Ignore};
use crate::exit::Failure;
use crate::gate::annotation::{self, ANNOTATION};
use crate::gate::{Baseline, By, Ignored, Notice};

/// The sources of ignored findings.
#[derive(Debug)]
pub struct Gate {
    /// The entries of the configuration file, each with its location.
    entries: Vec<(Ignore, Location)>,
    baseline: Option<Baseline>,
    /// The current time, for input without a timestamp.
    clock: Timestamp,
}

/// What was analyzed, which determines whether an unmatched ignore can be reported as unused.
pub struct LookedAt {
    /// The rules that were excluded.
    pub left_out: Vec<&'static dyn Rule>,
    /// Whether the analysis was limited to some namespaces.
    pub is_narrowed: bool,
}

/// The result.
#[derive(Debug, Default)]
pub struct Judged {
    /// The findings that count, and notices about ignores.
    pub analysis: Analysis,
    /// The findings that do not count, in order.
    pub ignored: Vec<Ignored>,
    /// Notes about the baseline.
    pub notes: Vec<String>,
}

/// An ignore entry that matches a finding.
struct Match {
    key: Key,
    reason: String,
    expires: Option<Expiry>,
    by: By,
}

/// Identifies an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Config(usize),
    /// The object and the index of the entry in its annotation.
    Annotation(ObjectRef, usize),
}

/// The number of findings that each entry matches.
type Matched = BTreeMap<Key, usize>;

impl Judged {
    /// The findings that are in the baseline.
    pub fn baselined(&self) -> impl Iterator<Item = &Finding> {
        self.ignored.iter().filter(|ignored| ignored.is_baselined()).map(|ignored| &ignored.finding)
    }

    /// The findings that count, without the notices about ignores.
    pub fn counted(&self) -> impl Iterator<Item = &Finding> {
        self.analysis.findings.iter().filter(|finding| !Notice::is(&finding.rule))
    }
}

impl Gate {
    /// # Errors
    /// When `SOURCE_DATE_EPOCH` is not a number of seconds.
    pub fn new(config: &Config, baseline: Option<Baseline>) -> Result<Gate, Failure> {
        Ok(Gate { entries: config.ignores(), baseline, clock: clock()? })
    }

    /// The time at which expiry dates are evaluated.
    ///
    /// For a cluster this is the cluster's time, so that a recording always gives the same result. Manifests have no
    /// time, and in a few objects the newest timestamp may be years old: for these it is the local time.
    fn now(&self, cluster: &Cluster) -> Timestamp {
        let is_cluster = cluster.origin() == Origin::Cluster && cluster.now() > Timestamp::UNIX_EPOCH;
        if is_cluster { cluster.now() } else { self.clock }
    }

    /// Removes findings that do not count, and adds notices about the ignores themselves.
    pub fn judge(&self, cluster: &Cluster, mut analysis: Analysis, looked: &LookedAt) -> Judged {
        let now = self.now(cluster);
        let notes = self.resolved(&analysis, looked);
        let mut matched = Matched::new();
        let mut kept = Vec::new();
        let mut ignored = Vec::new();
        for finding in std::mem::take(&mut analysis.findings) {
            let matches = self.matches(cluster, &finding);
            for entry in &matches {
                *matched.entry(entry.key.clone()).or_default() += 1;
            }
            match self.verdict(finding, matches, now) {
                Ok(finding) => kept.push(finding),
                Err(finding) => ignored.push(*finding),
            }
        }
        relink(&mut kept, &ignored);
        kept.extend(self.notices(cluster, &analysis, looked, &matched));
        analysis.findings = kept;
        analysis.sort();
        Judged { analysis, ignored, notes }
    }

    /// The entries that match a finding, starting with those on its object.
    fn matches(&self, cluster: &Cluster, finding: &Finding) -> Vec<Match> {
        let value = cluster.annotation_of(&finding.object, ANNOTATION).unwrap_or_default();
        let own = annotation::entries(value).enumerate().filter_map(|(n, entry)| {
            let entry = entry.ok().filter(|entry| entry.rules.matches(&finding.rule))?;
            let key = Key::Annotation(finding.object.clone(), n);
            Some(Match { key, reason: entry.reason, expires: entry.expires, by: By::Annotation })
        });
        let configured = self.entries.iter().enumerate().filter(|(_, (entry, _))| entry.matches(finding));
        let configured = configured.map(|(n, (entry, place))| Match {
            key: Key::Config(n),
            reason: entry.reason.clone(),
            expires: entry.expires,
            by: By::Config(place.clone()),
        });
        own.chain(configured).collect()
    }

    /// Returns the finding if it counts.
    fn verdict(&self, mut finding: Finding, matches: Vec<Match>, now: Timestamp) -> Result<Finding, Box<Ignored>> {
        let (over, in_force): (Vec<Match>, Vec<Match>) =
            matches.into_iter().partition(|entry| entry.expires.is_some_and(|date| date.is_over(now)));
        if let Some(Match { reason, expires, by, .. }) = in_force.into_iter().next() {
            return Err(Box::new(Ignored { reason, expires, from: by, finding }));
        }
        if let Some(baseline) = self.baseline.as_ref().filter(|baseline| baseline.contains(&finding)) {
            let from = By::Baseline { file: baseline.file.clone() };
            return Err(Box::new(Ignored { reason: "in the baseline".to_string(), expires: None, from, finding }));
        }
        for entry in over {
            let until = entry.expires.map(|date| date.to_string()).unwrap_or_default();
            let text = format!("was ignored until {until}: {}", entry.reason);
            finding.evidence.push(Evidence { text, object: None, path: None });
        }
        Ok(finding)
    }

    /// The notices about the entries themselves.
    fn notices(&self, cluster: &Cluster, analysis: &Analysis, looked: &LookedAt, matched: &Matched) -> Vec<Finding> {
        let complete =
            |rules: Option<&Globs>| cluster.origin() == Origin::Cluster && is_complete(analysis, looked, rules, true);
        let mut notices = Vec::new();
        for (n, (entry, place)) in self.entries.iter().enumerate() {
            let count = matched.get(&Key::Config(n)).copied().unwrap_or_default();
            let subject = format!("{} ignores {entry}", place.file);
            let key = format!("{entry}: {}", entry.reason);
            let notice =
                self.notice(cluster, &subject, &entry.reason, entry.expires, count, complete(entry.rules.as_ref()));
            notices.extend(notice.map(|(notice, text)| {
                let mut finding = Finding::info(configuration(&place.file), text).fix(fix(notice));
                finding.location = Some(place.clone());
                notice.about(finding, &key)
            }));
        }
        for (object, value) in cluster.annotated(ANNOTATION) {
            for (n, entry) in annotation::entries(value).enumerate() {
                let title = object.title();
                let notice = match &entry {
                    Err(error) => {
                        Some((Notice::Unreadable, format!("invalid annotation {ANNOTATION} on {title}: {error}")))
                    }
                    Ok(entry) => {
                        let count = matched.get(&Key::Annotation(object.clone(), n)).copied().unwrap_or_default();
                        let subject = format!("annotation {ANNOTATION} on {title} ignores {}", entry.rules);
                        self.notice(
                            cluster,
                            &subject,
                            &entry.reason,
                            entry.expires,
                            count,
                            complete(Some(&entry.rules)),
                        )
                    }
                };
                let key = value.split(';').map(str::trim).filter(|text| !text.is_empty()).nth(n).unwrap_or_default();
                notices.extend(
                    notice
                        .map(|(notice, text)| notice.about(Finding::info(object.clone(), text).fix(fix(notice)), key)),
                );
            }
        }
        notices
    }

    /// The notice about one entry that matches `count` findings, if any.
    fn notice(
        &self,
        cluster: &Cluster,
        subject: &str,
        reason: &str,
        expires: Option<Expiry>,
        count: usize,
        is_complete: bool,
    ) -> Option<(Notice, String)> {
        match expires {
            Some(date) if date.is_over(self.now(cluster)) => {
                let again = match count {
                    0 => String::new(),
                    1 => "; 1 finding is reported again".to_string(),
                    count => format!("; {count} findings are reported again"),
                };
                Some((Notice::Expired, format!("{subject} ({reason}), but expired after {date}{again}")))
            }
            _ if count == 0 && is_complete => {
                Some((Notice::Unused, format!("{subject} ({reason}), but matches no findings")))
            }
            _ => None,
        }
    }

    /// A note about entries of the baseline that are no longer found.
    fn resolved(&self, analysis: &Analysis, looked: &LookedAt) -> Vec<String> {
        let Some(baseline) = &self.baseline else { return Vec::new() };
        let found: BTreeSet<&str> = analysis.findings.iter().map(|finding| finding.id.as_str()).collect();
        let gone = baseline.entries().filter(|entry| {
            let rule = Globs::one(&entry.rule).ok();
            !found.contains(entry.id.as_str()) && is_complete(analysis, looked, rule.as_ref(), false)
        });
        let mut gone: Vec<String> = gone.map(|entry| format!("{} {}", entry.rule, entry.object)).collect();
        gone.sort();
        if gone.is_empty() {
            return Vec::new();
        }
        let count = match gone.len() {
            1 => "1 baseline finding is resolved".to_string(),
            count => format!("{count} baseline findings are resolved"),
        };
        vec![format!("{count}, update {}: {}", baseline.file, words::list(&gone, 5))]
    }
}

/// The local time, or `SOURCE_DATE_EPOCH` if set, the convention of reproducible builds.
fn clock() -> Result<Timestamp, Failure> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(Timestamp::now()) };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.ok_or_else(|| Failure::usage(anyhow!("SOURCE_DATE_EPOCH is {text:?}, not a number of seconds since 1970")))
}

/// Whether these rules (all, if none are named) were evaluated completely. `not_in_input` is whether a kind that does
/// not occur in the files counts as unread.
fn is_complete(analysis: &Analysis, looked: &LookedAt, rules: Option<&Globs>, not_in_input: bool) -> bool {
    let named = |id: &str| id == "*" || rules.is_none_or(|rules| rules.matches(id));
    let gap =
        analysis.not_evaluated.iter().any(|gap| named(&gap.rule) && (not_in_input || gap.reason != Reason::NotInInput));
    !looked.is_narrowed && !gap && !looked.left_out.iter().any(|rule| named(&rule.meta().id))
}

fn fix(notice: Notice) -> &'static str {
    match notice {
        Notice::Expired => "Remove the entry, or extend its date and state the reason",
        Notice::Unused => "Remove the entry",
        Notice::Unreadable => "Use RULE=REASON or RULE=REASON until YYYY-MM-DD, with entries separated by ;",
    }
}

/// The object kind of notices about kubectl-gpt.yaml.
pub const CONFIGURATION: &str = "Configuration";

/// The configuration file, as the object of a finding.
fn configuration(file: &str) -> ObjectRef {
    ObjectRef {
        api_version: "kubectl-gpt.io/v1".into(),
        kind: CONFIGURATION.into(),
        namespace: None,
        name: file.to_string(),
    }
}

/// A finding whose cause is ignored is kept: accepting a crashing pod does not mean accepting the outage that it
/// causes. It is linked to the causes of the ignored finding; if none are left, it becomes a root cause and its
/// evidence names the ignored one.
fn relink(kept: &mut [Finding], ignored: &[Ignored]) {
    let ignored: BTreeMap<&str, &Ignored> =
        ignored.iter().map(|ignored| (ignored.finding.id.as_str(), ignored)).collect();
    for finding in kept {
        let mut causes = BTreeSet::new();
        let mut roots: BTreeMap<&str, &Ignored> = BTreeMap::new();
        let mut open: Vec<&str> = finding.caused_by.iter().map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            match ignored.get(id) {
                _ if !seen.insert(id) => {}
                None => {
                    causes.insert(id.to_string());
                }
                Some(cause) if cause.finding.caused_by.is_empty() => {
                    roots.insert(id, cause);
                }
                Some(cause) => open.extend(cause.finding.caused_by.iter().map(String::as_str)),
            }
        }
        finding.evidence.splice(0..0, roots.into_values().map(cause));
        finding.caused_by = causes.into_iter().collect();
    }
}

fn cause(ignored: &Ignored) -> Evidence {
    let text = if ignored.is_baselined() {
        format!("caused by a finding in the baseline: {}", ignored.finding.message)
    } else {
        format!("caused by an ignored finding ({}): {}", ignored.reason, ignored.finding.message)
    };
    Evidence { text, object: Some(ignored.finding.object.clone()), path: None }
}
