//! What to show of a log.

use crate::kubernetes::workloads::restarts::PodContainer;
use crate::snapshot::Cluster;
use crate::text::words::{plain, shorten};

/// So many lines are shown.
const SHOWN: usize = 5;

/// The last lines of a container's log for evidence: plain text, shortened, no empty ones.
pub(crate) fn last_lines(cluster: &Cluster, container: &PodContainer) -> Vec<String> {
    let lines = said(cluster, container);
    let from = lines.len().saturating_sub(SHOWN);
    lines[from..].iter().map(|line| shorten(line, 200)).collect()
}

/// The line that most likely says why: the last one that speaks of an error, else the last one.
pub(crate) fn telling_line(cluster: &Cluster, container: &PodContainer) -> Option<String> {
    const SIGNS: &[&str] =
        &["panic:", "fatal", "exception", "error", "failed", "cannot", "denied", "not found", "refused"];
    let lines = said(cluster, container);
    let speaks = |line: &&String| {
        let lower = line.to_lowercase();
        SIGNS.iter().any(|sign| lower.contains(sign)) && !lower.starts_with("at ")
    };
    let panic = lines.iter().rev().find(|line| line.starts_with("panic:"));
    let line = panic.or_else(|| lines.iter().rev().find(speaks)).or(lines.last())?;
    Some(shorten(line, 160))
}

fn said(cluster: &Cluster, container: &PodContainer) -> Vec<String> {
    let meta = &container.pod.metadata;
    let Some(log) = cluster.log(&meta.namespace, &meta.name, container.name()) else { return Vec::new() };
    // What the kubelet answers in place of a log that is gone.
    let gone = |line: &String| line.starts_with("unable to retrieve container logs for ");
    log.lines.iter().map(|line| plain(line)).filter(|line| !line.is_empty() && !gone(line)).collect()
}
