//! `kubectl-gpt analyze --watch`: keeps running and reports new and resolved findings.
//!
//! Every run evaluates the whole cluster, as without `--watch`: shortly after a change, and twice a minute without one,
//! because some problems depend on elapsed time only. While watches are broken, no finding is reported as new or
//! resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use kubectl_gpt_analyzers::engine::Analysis;
use kubectl_gpt_analyzers::kubernetes::workloads::logs::{LogRequest, logs_wanted};
use kubectl_gpt_analyzers::{Builder, Cluster, Extent, Finding, Gap, Kind, Now, Origin, Reason, Severity};
use tokio::time::sleep;

use crate::collect::watch::{Watching, watched};
use crate::collect::{Connection, Crds, connect, custom, live, logs};
use crate::commands::arguments::AnalyzeArgs;
use crate::exit::{Exit, Failure};
use crate::gate::Judged;
use crate::interrupt::Interrupt;
use crate::load::InputArgs;
use crate::load::{self, Wanted, runtime};
use crate::problems::{Problem, problems};
use crate::progress::ProgressLine;
use crate::report::Format;
use crate::report::{self, Report, Run, Source, gaps, table};
use crate::terminal::{self, plain};

/// Changes come in bursts: a rollout is a hundred of them.
const SETTLE: Duration = Duration::from_secs(1);
/// The minimum time between two runs; on a large cluster it is a multiple of the duration of a run.
const MIN_INTERVAL: Duration = Duration::from_secs(2);
const INTERVAL_FACTOR: u32 = 4;
/// The maximum time between two runs: some problems depend on elapsed time only.
const MAX_INTERVAL: Duration = Duration::from_secs(30);
/// How often kinds that are not watched are listed again.
const RELIST_INTERVAL: Duration = Duration::from_secs(300);
/// The delay before an unresponsive server is probed again.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Leases are read again for every run: leader election works in seconds.
const FRESH: Kind = Kind::Lease;
const LEASES: &str = "kube-system";

/// The steps that `analyze` performs on a snapshot.
pub struct Steps<'a> {
    pub check: &'a dyn Fn(&Cluster) -> Judged,
    pub run: &'a dyn Fn(Option<Duration>) -> Run<'a>,
    pub gate: &'a dyn Fn(&Analysis) -> Exit,
}

pub fn run(arguments: &AnalyzeArgs, input: &InputArgs, wanted: &Wanted, steps: &Steps) -> Result<Exit, Failure> {
    if !matches!(arguments.output, Format::Table | Format::Wide) {
        let message = "--watch supports only -o table and -o wide; use --output-file for other formats";
        return Err(Failure::usage(anyhow!(message)));
    }
    let crds = Crds::parse(&input.crds).map_err(|error| Failure::usage(anyhow!(error)))?;
    terminal::verbosity(arguments.connection.verbosity);
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let options = load::options(&arguments.connection);
        let mut connection = connect(&options).await?;
        connection.recorder = wanted.recorder();
        let reading = Reading::new(&connection, input, wanted, crds);
        let session = Session { arguments, steps, connection: &connection };
        session.run(reading, &options.interrupt).await
    });
    // Does not wait for open watches.
    runtime.shutdown_background();
    outcome
}

/// Reads a cluster repeatedly.
struct Reading<'a> {
    connection: &'a Connection,
    scope: live::Scope,
    watched: BTreeSet<Kind>,
    /// The kinds that are listed again periodically.
    listed: BTreeSet<Kind>,
    fresh: BTreeSet<Kind>,
    /// Which custom resources are read, if any.
    crds: Option<Crds>,
    logs: bool,
    /// The logs that have been read: namespace, pod and container.
    read_logs: BTreeSet<(String, String, String)>,
    notes: Vec<String>,
}

impl<'a> Reading<'a> {
    fn new(connection: &'a Connection, input: &InputArgs, wanted: &Wanted, crds: Crds) -> Reading<'a> {
        let watched = watched(connection, &wanted.kinds);
        let is_fresh = |kind: &Kind| *kind == FRESH;
        let others = wanted.kinds.difference(&watched).copied();
        let (fresh, listed) = others.partition(is_fresh);
        Reading {
            connection,
            scope: load::scope(input),
            watched,
            listed,
            fresh,
            crds: match () {
                () if wanted.custom => Some(crds),
                () if !wanted.raw.is_empty() => Some(Crds::None),
                () => None,
            },
            logs: wanted.logs,
            read_logs: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    /// Lists the kinds that are not watched.
    async fn list(&mut self, builder: &mut Builder, line: Option<&ProgressLine>) -> Result<(), Failure> {
        let tell = |progress| {
            if let Some(line) = line {
                line.tell(progress);
            }
        };
        let collected = live::collect(self.connection, &self.listed, &self.scope, &tell).await;
        let collected = collected.map_err(Failure::unreadable)?;
        builder.forget(&self.listed);
        builder.append(collected.builder);
        self.notes = collected.notes;
        if let Some(crds) = &self.crds {
            builder.forget_custom();
            self.notes.extend(custom::collect(self.connection, crds, &self.scope, builder).await);
        }
        Ok(())
    }

    /// Takes a snapshot of the current state.
    async fn snapshot(&mut self, watching: &Watching, mut builder: Builder) -> (Cluster, Vec<String>) {
        watching.take(&mut builder);
        self.read_fresh(&mut builder).await;
        let mut notes = self.notes.clone();
        notes.extend(watching.note());
        notes.extend(live::complete(self.connection, &mut builder).await);
        notes.extend(load::how_to_permit(&builder));
        let mut cluster = builder.build(Now::At(self.connection.now()), Origin::Cluster);
        if self.logs {
            cluster = self.read_logs(cluster).await;
        }
        load::set_raw(&mut cluster, self.connection.recorder.as_ref());
        (cluster, notes)
    }

    async fn read_fresh(&self, builder: &mut Builder) {
        if self.fresh.is_empty() {
            return;
        }
        builder.forget(&self.fresh);
        let scope = live::Scope::Namespaces([LEASES.to_string()].into());
        match live::collect(self.connection, &self.fresh, &scope, &|_| {}).await {
            Ok(collected) => builder.append(collected.builder),
            Err(error) => {
                builder.cover(FRESH, Extent::Failed(Gap { reason: Reason::Unavailable, message: error.to_string() }))
            }
        }
    }

    /// Reads logs that have become relevant, and drops those that are not any more.
    async fn read_logs(&mut self, cluster: Cluster) -> Cluster {
        let key = |log: &LogRequest| (log.namespace.clone(), log.pod.clone(), log.container.clone());
        let wanted = logs_wanted(&cluster);
        let keys: BTreeSet<_> = wanted.iter().map(key).collect();
        let new: Vec<_> = wanted.into_iter().filter(|log| !self.read_logs.contains(&key(log))).collect();
        let (now, origin) = (cluster.now(), cluster.origin());
        let mut builder = cluster.into_builder();
        builder.keep_logs(|namespace, pod, container| {
            keys.contains(&(namespace.to_string(), pod.to_string(), container.to_string()))
        });
        let mut cluster = builder.build(Now::At(now), origin);
        if !new.is_empty() {
            // Failed reads are retried silently in the next run: logs only add detail to findings.
            let (fetched, _) = logs::fetch(self.connection, &new).await;
            for (of, log) in fetched {
                self.read_logs.insert(key(&of));
                cluster.add_log(&of.namespace, &of.pod, &of.container, log);
            }
        }
        self.read_logs.retain(|log| keys.contains(log));
        cluster
    }
}

/// Evaluates snapshots and prints the changes.
struct Session<'s, 'a> {
    arguments: &'s AnalyzeArgs,
    steps: &'s Steps<'a>,
    connection: &'s Connection,
}

impl<'a> Session<'_, 'a> {
    async fn run(&self, mut reading: Reading<'_>, interrupt: &Interrupt) -> Result<Exit, Failure> {
        let (start, mut shown) = (Instant::now(), Shown::default());
        let mut builder = Builder::new();
        let watching = {
            let line = ProgressLine::new(self.arguments.connection.verbosity > 0);
            line.say("starting watches");
            let (kinds, scope) = (reading.watched.clone(), reading.scope.clone());
            let (watching, listed) =
                tokio::join!(Watching::start(self.connection, &kinds, &scope), reading.list(&mut builder, Some(&line)));
            listed?;
            watching
        };
        let mut listed_at = Instant::now();
        let (cluster, notes) = reading.snapshot(&watching, builder).await;
        let mut exit = match self.first(&mut shown, &cluster, notes, start.elapsed())? {
            Some(exit) => exit,
            None => return Ok(Exit::Clean),
        };
        let (mut builder, mut took, mut lost) = (cluster.into_builder(), start.elapsed(), None);
        loop {
            let pause = took.saturating_mul(INTERVAL_FACTOR).clamp(MIN_INTERVAL, MAX_INTERVAL);
            if !interrupt.has_come() {
                tokio::select! {
                    () = interrupt.wait() => {}
                    () = async { sleep(pause).await; watching.changed().await; sleep(SETTLE).await } => {}
                    () = sleep(MAX_INTERVAL.max(pause)) => {}
                }
            }
            self.wait_for_the_server(&watching, interrupt, &mut lost).await;
            if interrupt.has_come() {
                return Ok(if lost.is_some() && exit == Exit::Clean { Exit::Incomplete } else { exit });
            }
            let start = Instant::now();
            if listed_at.elapsed() >= RELIST_INTERVAL {
                // After a failure the list is retried in the next run.
                if reading.list(&mut builder, None).await.is_ok() {
                    listed_at = Instant::now();
                }
            }
            let (cluster, notes) = reading.snapshot(&watching, builder).await;
            // A snapshot interrupted by Ctrl-C is incomplete.
            if !interrupt.has_come() {
                match self.next(&mut shown, &cluster, notes)? {
                    Some(now) => exit = now,
                    None => return Ok(exit),
                }
            }
            (builder, took) = (cluster.into_builder(), start.elapsed());
        }
    }

    /// The first run: prints the report as without `--watch`. `None` if standard output is closed.
    fn first(
        &self,
        shown: &mut Shown,
        cluster: &Cluster,
        notes: Vec<String>,
        took: Duration,
    ) -> Result<Option<Exit>, Failure> {
        let judged = tokio::task::block_in_place(|| (self.steps.check)(cluster));
        let report = self.report(cluster, notes, &judged, Some(took));
        let text = report::render(&report, self.arguments.output, terminal::width()).map_err(Failure::unreadable)?;
        self.arguments.files.write(&report).map_err(Failure::unreadable)?;
        let is_read = self.print(&text)?;
        shown.update(cluster.now(), &judged.analysis);
        Ok(is_read.then(|| (self.steps.gate)(&judged.analysis)))
    }

    /// A later run: prints new and resolved findings. `None` if standard output is closed.
    fn next(&self, shown: &mut Shown, cluster: &Cluster, notes: Vec<String>) -> Result<Option<Exit>, Failure> {
        let judged = tokio::task::block_in_place(|| (self.steps.check)(cluster));
        let report = self.report(cluster, notes, &judged, None);
        self.arguments.files.write(&report).map_err(Failure::unreadable)?;
        let news = shown.update(cluster.now(), &judged.analysis);
        let is_read = news.is_empty() || self.print(&news.text(&report, cluster.now(), terminal::width()))?;
        Ok(is_read.then(|| (self.steps.gate)(&judged.analysis)))
    }

    fn report<'r>(
        &self,
        cluster: &Cluster,
        mut notes: Vec<String>,
        judged: &'r Judged,
        took: Option<Duration>,
    ) -> Report<'r>
    where
        'a: 'r,
    {
        notes.extend(judged.notes.iter().cloned());
        let source = Source::cluster(self.connection.context().map(str::to_string), notes, cluster);
        let show_ignored = self.arguments.baseline.show_ignored;
        Report::new(source, cluster, &judged.analysis)
            .ignoring(&judged.ignored, show_ignored)
            .run((self.steps.run)(took))
    }

    fn print(&self, text: &str) -> Result<bool, Failure> {
        let text = terminal::spelled(text);
        terminal::write_while_read(&text, self.arguments.color)
            .context("writing the report")
            .map_err(Failure::unreadable)
    }

    /// Returns once the server responds and the watches have resumed, or have been broken for so long that their kinds
    /// count as not read. Logs to standard error when the connection is lost and restored.
    async fn wait_for_the_server(&self, watching: &Watching, interrupt: &Interrupt, lost: &mut Option<Timestamp>) {
        while !interrupt.has_come() {
            let health = watching.health();
            let is_lost = health.all_are_broken || !self.connection.is_alive().await;
            if !is_lost && !health.any_broke_lately {
                if let Some(since) = lost.take() {
                    eprintln!("{}  reconnected after {}", time(Timestamp::now()), duration(since, Timestamp::now()));
                }
                return;
            }
            if lost.is_none() && !interrupt.has_come() {
                let now = Timestamp::now();
                let why = health.why.unwrap_or_else(|| "the API server does not respond".to_string());
                eprintln!("{}  connection lost, results may be stale: {}", time(now), plain(&why));
                *lost = Some(now);
            }
            tokio::select! {
                () = interrupt.wait() => {}
                () = sleep(PROBE_INTERVAL) => {}
            }
        }
    }
}

/// What has been reported so far.
#[derive(Default)]
struct Shown {
    /// By id: the finding, and when it was first reported.
    findings: BTreeMap<String, (Finding, Timestamp)>,
    /// What could not be read.
    unread: Vec<String>,
}

/// The changes to report.
#[derive(Default)]
struct News {
    new: BTreeSet<String>,
    /// With the previous severity.
    changed: BTreeMap<String, Severity>,
    resolved: Vec<(Finding, Timestamp)>,
    /// Whether the set of unreadable objects has changed.
    unread: bool,
}

impl Shown {
    /// Records the current findings and returns the changes. Findings of rules that could not be evaluated are not
    /// resolved.
    fn update(&mut self, now: Timestamp, analysis: &Analysis) -> News {
        let mut news = News::default();
        for finding in &analysis.findings {
            match self.findings.get_mut(&finding.id) {
                None => {
                    news.new.insert(finding.id.clone());
                    self.findings.insert(finding.id.clone(), (finding.clone(), now));
                }
                Some((before, _)) => {
                    if before.severity != finding.severity {
                        news.changed.insert(finding.id.clone(), before.severity);
                    }
                    before.clone_from(finding);
                }
            }
        }
        let gaps: Vec<String> = gaps::unread(&analysis.not_evaluated).iter().map(ToString::to_string).collect();
        news.unread = gaps != self.unread;
        self.unread = gaps;
        let found: BTreeSet<&String> = analysis.findings.iter().map(|finding| &finding.id).collect();
        let unread: BTreeSet<&str> = analysis.not_evaluated.iter().map(|line| line.rule.as_str()).collect();
        let is_resolved = |id: &String, finding: &Finding| {
            !found.contains(id) && !unread.contains(finding.rule.as_str()) && !unread.contains("*")
        };
        let gone: Vec<String> =
            self.findings.iter().filter(|(id, (f, _))| is_resolved(id, f)).map(|(id, _)| id.clone()).collect();
        news.resolved = gone.iter().filter_map(|id| self.findings.remove(id)).collect();
        news
    }
}

impl News {
    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.changed.is_empty() && self.resolved.is_empty() && !self.unread
    }

    /// New root causes in full with their consequences, other changes in one line each.
    fn text(&self, report: &Report, now: Timestamp, width: usize) -> String {
        let mut text = String::new();
        let mut reported: BTreeSet<&str> = BTreeSet::new();
        for problem in problems(report.findings) {
            let Problem { root, consequences } = &problem;
            if self.new.contains(&root.id) {
                let _ = writeln!(text, "\n{}  new", time(now));
                text.push_str(&table::block(&problem, width));
                reported.insert(&root.id);
                reported.extend(consequences.iter().map(|(_, finding)| finding.id.as_str()));
            }
        }
        let mut lines = String::new();
        for finding in report.findings.iter().filter(|finding| !reported.contains(finding.id.as_str())) {
            let what = match self.changed.get(&finding.id) {
                Some(before) => format!("{} (was {before})", finding.severity),
                None if self.new.contains(&finding.id) => format!("new {}", finding.severity),
                None => continue,
            };
            let cause = report.findings.iter().find(|cause| finding.caused_by.contains(&cause.id));
            let why = cause.map(|cause| format!(", caused by {}", cause.object)).unwrap_or_default();
            lines.push_str(&line(now, &what, table::color(finding.severity), finding, &why));
        }
        for (finding, since) in &self.resolved {
            let after = format!(", lasted {}", duration(*since, now));
            lines.push_str(&line(now, "resolved", anstyle::AnsiColor::Green.on_default(), finding, &after));
        }
        if !lines.is_empty() {
            text.push('\n');
            text.push_str(&lines);
        }
        let last_lines = table::last_lines(report);
        let shown = if self.unread { usize::MAX } else { 1 };
        for line in last_lines.lines().take(shown) {
            let _ = writeln!(text, "{}  {line}", time(now));
        }
        text
    }
}

fn line(now: Timestamp, what: &str, style: anstyle::Style, finding: &Finding, end: &str) -> String {
    let text = plain(&format!("{}: {}{end} ({})", finding.object, finding.message, finding.rule));
    format!("{}  {style}{what}{style:#}  {text}\n", time(now))
}

/// To the second: `2026-11-21T12:00:05Z`.
fn time(at: Timestamp) -> String {
    at.strftime("%FT%TZ").to_string()
}

/// `40s`, `3m20s`, `1h2m`.
fn duration(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.as_second().saturating_sub(from.as_second()).max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, _) => format!("{hours}h{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kubectl_gpt_analyzers::engine::Analysis;
    use kubectl_gpt_analyzers::{Finding, Kind, NotEvaluated, ObjectRef, Reason, Severity};

    use super::{Shown, duration};

    fn finding(id: &str, rule: &str, severity: Severity) -> Finding {
        let object = ObjectRef::new(Kind::Service, "shop", id);
        let mut finding = Finding::new(severity, object, "it is broken");
        (finding.id, finding.rule) = (id.to_string(), rule.to_string());
        finding
    }

    fn analysis(findings: Vec<Finding>, unread: &[&str]) -> Analysis {
        let line = |rule: &&str| NotEvaluated {
            rule: rule.to_string(),
            kind: String::new(),
            reason: Reason::Timeout,
            namespace: None,
            name: None,
            message: String::new(),
        };
        Analysis { findings, not_evaluated: unread.iter().map(line).collect(), rules_run: 1 }
    }

    #[test]
    fn reports_new_changed_and_resolved_findings_once() {
        let (mut shown, at) = (Shown::default(), |second| Timestamp::from_second(second).unwrap());
        let (a, b) = (finding("a", "r", Severity::Error), finding("b", "r", Severity::Warning));
        assert_eq!(shown.update(at(0), &analysis(vec![a.clone(), b.clone()], &[])).new.len(), 2);
        assert!(shown.update(at(1), &analysis(vec![a.clone(), b.clone()], &[])).is_empty());
        let news = shown.update(at(2), &analysis(vec![finding("b", "r", Severity::Error)], &[]));
        assert_eq!((news.resolved[0].0.id.as_str(), news.resolved[0].1), ("a", at(0)));
        assert_eq!(news.changed["b"], Severity::Warning);
        assert_eq!(shown.update(at(3), &analysis(vec![a], &[])).new.len(), 1, "it is new again");
    }

    #[test]
    fn findings_of_incomplete_rules_are_not_resolved() {
        let (mut shown, now) = (Shown::default(), Timestamp::UNIX_EPOCH);
        shown.update(now, &analysis(vec![finding("a", "r", Severity::Error)], &[]));
        let news = shown.update(now, &analysis(vec![], &["r"]));
        assert!(news.resolved.is_empty() && news.unread, "the failure is reported");
        assert!(shown.update(now, &analysis(vec![], &["r"])).is_empty(), "only once");
        assert!(shown.update(now, &analysis(vec![], &["*"])).resolved.is_empty());
        assert_eq!(shown.update(now, &analysis(vec![], &["other"])).resolved.len(), 1);
    }

    #[test]
    fn durations_are_short() {
        let seconds = |n| duration(Timestamp::UNIX_EPOCH, Timestamp::from_second(n).unwrap());
        assert_eq!([seconds(40), seconds(200), seconds(3725)], ["40s", "3m20s", "1h2m"]);
    }
}
