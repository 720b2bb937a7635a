//! What could not be evaluated, grouped by the object or kind that could not be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{NotEvaluated, Reason};

/// How many affected rules are named per gap.
const MAX_RULES: usize = 4;

/// An object or kind that could not be read, and the rules that need it.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread<'a> {
    /// `Pod`, `Pod shop/cart-0`, or `a rule`.
    pub what: String,
    /// The reason and the error in full.
    pub why: String,
    /// `*` alone for all of them.
    pub rules: Vec<&'a str>,
}

/// `Pod (forbidden: …); rules: pod/crash-loop, pod/not-ready and 12 more`.
impl fmt::Display for Unread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.why)?;
        match self.rules.as_slice() {
            ["*"] => Ok(()),
            rules => write!(f, "; rules: {}", words::list(rules, MAX_RULES)),
        }
    }
}

/// The gaps that affect the exit code, sorted; excludes kinds that merely do not occur in the files.
pub fn unread(lines: &[NotEvaluated]) -> Vec<Unread<'_>> {
    let mut by_cause: BTreeMap<(String, String), BTreeSet<&str>> = BTreeMap::new();
    let interrupted: Vec<&NotEvaluated> = lines.iter().filter(|line| line.reason == Reason::Interrupted).collect();
    let what_was_interrupted = whole(&interrupted);
    for line in lines.iter().filter(|line| line.reason != Reason::NotInInput) {
        let cause = match line.reason {
            Reason::Interrupted => (what_was_interrupted.clone(), line.reason.to_string()),
            _ => (what(line), why(line)),
        };
        by_cause.entry(cause).or_default().insert(&line.rule);
    }
    let rules = |rules: BTreeSet<_>| rules.into_iter().collect();
    by_cause.into_iter().map(|((what, why), missing)| Unread { what, why, rules: rules(missing) }).collect()
}

/// After an interrupt, all unread kinds are summarized in one line.
fn whole(lines: &[&NotEvaluated]) -> String {
    const MAX_KINDS: usize = 8;
    let kinds: BTreeSet<String> = lines.iter().map(|line| what(line)).collect();
    words::list(&kinds.into_iter().collect::<Vec<_>>(), MAX_KINDS)
}

/// The kinds that do not occur in the files.
pub fn not_in_the_input(lines: &[NotEvaluated]) -> Vec<&str> {
    let absent = lines.iter().filter(|line| line.reason == Reason::NotInInput).map(|line| line.kind.as_str());
    absent.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A human-readable name of what could not be read.
pub fn what(line: &NotEvaluated) -> String {
    match (&line.name, line.kind.as_str(), &line.namespace) {
        (Some(name), "", _) => name.clone(),
        (Some(name), kind, Some(namespace)) => format!("{kind} {namespace}/{name}"),
        // The name already includes the kind: `Pod shop/cart-0`, `item 3 of the list of Pod`.
        (Some(name), _, None) if name.contains(' ') => name.clone(),
        (Some(name), kind, None) => format!("{kind} {name}"),
        (None, "", _) => "a rule".to_string(),
        (None, kind, _) => kind.to_string(),
    }
}

/// The reason: `forbidden: listing pods in all namespaces: forbidden: …`.
pub fn why(line: &NotEvaluated) -> String {
    match line.message.as_str() {
        "" => line.reason.to_string(),
        message => format!("{}: {message}", line.reason),
    }
}
