//! Which lines of a log to show.

use crate::kubernetes::workloads::restarts::PodContainer;
use crate::snapshot::Cluster;
use crate::text::words::{plain, shorten};

/// The number of log lines to show.
const SHOWN_LINES: usize = 5;

/// The last log lines of a container as evidence: plain text, shortened, without empty lines.
pub(crate) fn last_lines(cluster: &Cluster, container: &PodContainer) -> Vec<String> {
    let lines = log_lines(cluster, container);
    let from = lines.len().saturating_sub(SHOWN_LINES);
    lines[from..].iter().map(|line| shorten(line, 200)).collect()
}

/// The log line that most likely has the cause: the last one with an error, or else the last one.
pub(crate) fn telling_line(cluster: &Cluster, container: &PodContainer) -> Option<String> {
    const KEYWORDS: &[&str] =
        &["panic:", "fatal", "exception", "error", "failed", "cannot", "denied", "not found", "refused"];
    let lines = log_lines(cluster, container);
    let is_error = |line: &&String| {
        let lower = line.to_lowercase();
        KEYWORDS.iter().any(|keyword| lower.contains(keyword)) && !lower.starts_with("at ")
    };
    let panic = lines.iter().rev().find(|line| line.starts_with("panic:"));
    let line = panic.or_else(|| lines.iter().rev().find(is_error)).or(lines.last())?;
    Some(shorten(line, 160))
}

fn log_lines(cluster: &Cluster, container: &PodContainer) -> Vec<String> {
    let meta = &container.pod.metadata;
    let Some(log) = cluster.log(&meta.namespace, &meta.name, container.name()) else { return Vec::new() };
    // The kubelet's response for a log that no longer exists.
    let gone = |line: &String| line.starts_with("unable to retrieve container logs for ");
    log.lines.iter().map(|line| plain(line)).filter(|line| !line.is_empty() && !gone(line)).collect()
}
