//! Which lines of a log to show.

use crate::kubernetes::workloads::restarts::PodContainer;
use crate::snapshot::Cluster;
use crate::text::words::{plain, shorten_middle};

/// The number of log lines to show.
const SHOWN_LINES: usize = 5;
/// How many lines before the last error its reason may be: programs report the reason, then that they stop.
const REACH: usize = 10;

/// The last log lines of a container as evidence: plain text, shortened, without empty lines. If the telling line is
/// not among them, it comes first.
pub(crate) fn last_lines(cluster: &Cluster, container: &PodContainer) -> Vec<String> {
    let meta = &container.pod.metadata;
    last_lines_of(cluster, &meta.namespace, &meta.name, container.name())
}

/// Like [`last_lines`], for a container by its name.
pub(crate) fn last_lines_of(cluster: &Cluster, namespace: &str, pod: &str, container: &str) -> Vec<String> {
    let lines = lines_of(cluster, namespace, pod, container);
    let mut from = lines.len().saturating_sub(SHOWN_LINES);
    let mut shown = Vec::new();
    if let Some(at) = telling(&lines).filter(|at| *at < from) {
        shown.push(shorten_middle(&lines[at], 200));
        from += 1;
    }
    shown.extend(lines[from..].iter().map(|line| shorten_middle(line, 200)));
    shown
}

/// The log line that most likely has the cause: the deepest cause of a trace, or the last error with a reason, or else
/// the last line. Shortened in the middle, because the reason is at the end.
pub(crate) fn telling_line(cluster: &Cluster, container: &PodContainer) -> Option<String> {
    let line = whole_telling_line(cluster, container)?;
    Some(shorten_middle(&line, 160))
}

/// Like [`telling_line`], but not shortened.
pub(crate) fn whole_telling_line(cluster: &Cluster, container: &PodContainer) -> Option<String> {
    let mut lines = log_lines(cluster, container);
    let at = telling(&lines).or(lines.len().checked_sub(1))?;
    Some(lines.swap_remove(at))
}

/// The log of a container as plain text, without empty lines.
pub(crate) fn log_lines(cluster: &Cluster, container: &PodContainer) -> Vec<String> {
    let meta = &container.pod.metadata;
    lines_of(cluster, &meta.namespace, &meta.name, container.name())
}

fn lines_of(cluster: &Cluster, namespace: &str, pod: &str, container: &str) -> Vec<String> {
    let Some(log) = cluster.log(namespace, pod, container) else { return Vec::new() };
    // The kubelet's response for a log that no longer exists.
    let gone = |line: &String| line.starts_with("unable to retrieve container logs for ");
    log.lines.iter().map(|line| plain(line)).filter(|line| !line.is_empty() && !gone(line)).collect()
}

/// The index of the line that most likely has the cause; `None` if no line reports an error.
pub(crate) fn telling(lines: &[String]) -> Option<usize> {
    if let Some(panic) = lines.iter().rposition(|line| line.starts_with("panic:")) {
        return Some(panic);
    }
    let last = lines.iter().rposition(|line| is_error(line))?;
    if let Some(cause) = deepest_cause(lines) {
        return Some(cause);
    }
    if has_reason(&lines[last]) {
        return Some(last);
    }
    let from = last.saturating_sub(REACH);
    let with_reason = (from..last).rev().find(|at| is_error(&lines[*at]) && has_reason(&lines[*at]));
    Some(with_reason.unwrap_or(last))
}

/// The last `Caused by:` of a trace of Java or of Rust (where the causes are on the following lines).
fn deepest_cause(lines: &[String]) -> Option<usize> {
    let at = lines.iter().rposition(|line| line.starts_with("Caused by:") || line.starts_with("[cause]:"))?;
    if lines[at].trim_end() != "Caused by:" {
        return Some(at);
    }
    let is_cause = |line: &&String| !is_frame(line) && !line.is_empty();
    let numbered = |line: &&String| line.starts_with(|c: char| c.is_ascii_digit()) && line.contains(": ");
    let causes = &lines[at + 1..];
    let count = causes.iter().take_while(numbered).count();
    if count > 0 { Some(at + count) } else { causes.first().filter(is_cause).map(|_| at + 1) }
}

/// Whether a line reports an error, rather than a frame of a trace or progress.
pub(crate) fn is_error(line: &str) -> bool {
    const KEYWORDS: &[&str] = &[
        "panic:",
        "fatal",
        "exception",
        "error",
        "failed",
        "cannot",
        "could not",
        "can't",
        "unable to",
        "denied",
        "not found",
        "refused",
        "caused by:",
        "invalid",
        "forbidden",
        "unauthorized",
        "[emerg]",
        "not ready:",
    ];
    let lower = line.to_lowercase();
    (KEYWORDS.iter().any(|keyword| lower.contains(keyword)) || has_reason(&lower)) && !is_frame(line) && !is_info(line)
}

/// A frame of a trace: `at com.example.Main.main(Main.java:14)`, `File "/app/main.py", line 3, in main`.
fn is_frame(line: &str) -> bool {
    line.starts_with("at ")
        || line.starts_with("File \"")
        || (line.starts_with("... ") && line.ends_with(" common frames omitted"))
        || (line.starts_with("... ") && line.ends_with(" more"))
        || line.starts_with("The above exception was the direct cause")
        || line.starts_with("During handling of the above exception")
        || line.starts_with("Traceback (most recent call last)")
        || line.starts_with("stack backtrace:")
        || line.starts_with("npm error A complete log of this run")
}

/// Whether a line has the level of a message about progress.
fn is_info(line: &str) -> bool {
    const LEVELS: &[&str] = &[
        " INFO ",
        " DEBUG ",
        " TRACE ",
        "[INFO]",
        "[DEBUG]",
        "level=info",
        "level=INFO",
        "level=debug",
        "\"level\":\"info\"",
        "\"level\":\"debug\"",
        "[notice]",
    ];
    let start: String = line.chars().take(80).collect();
    let is_klog = line.starts_with('I') && line[1..].chars().take(4).filter(char::is_ascii_digit).count() == 4;
    is_klog || line.starts_with("INFO ") || LEVELS.iter().any(|level| start.contains(level))
}

/// Whether a line has a concrete reason, as the system calls, the resolver, TLS and the API server report it.
fn has_reason(line: &str) -> bool {
    const REASONS: &[&str] = &[
        "no such host",
        "name or service not known",
        "name resolution",
        "bad address",
        "unknownhostexception",
        "enotfound",
        "eai_again",
        "getaddrinfo",
        "could not translate host name",
        "could not resolve host",
        "host not found in upstream",
        "connection refused",
        "econnrefused",
        "econnreset",
        "etimedout",
        "connection reset",
        "no route to host",
        "i/o timeout",
        "timed out",
        "handshake timeout",
        "deadline exceeded",
        "x509:",
        "certificate",
        "permission denied",
        "eacces",
        "no such file",
        "enoent",
        "no space left",
        "read-only file system",
        "address already in use",
        "eaddrinuse",
        "is forbidden",
        "no matches for kind",
        "is registered for version",
        "authentication failed",
        "access denied",
        "invalid header",
        "too many colons",
    ];
    let lower = line.to_lowercase();
    REASONS.iter().any(|reason| lower.contains(reason))
}

#[cfg(test)]
mod tests {
    use super::telling;

    fn told(lines: &[&str]) -> String {
        let lines: Vec<String> = lines.iter().map(std::string::ToString::to_string).collect();
        telling(&lines).map(|at| lines[at].clone()).unwrap_or_default()
    }

    #[test]
    fn the_deepest_cause_of_a_trace() {
        assert_eq!(
            told(&[
                "org.example.StartException: cannot start",
                "at org.example.Main.main(Main.java:1)",
                "Caused by: java.io.IOException: failed",
                "... 3 common frames omitted",
                "Caused by: java.net.UnknownHostException: db",
                "at java.base/x.y(Z.java:1)",
                "2026-11-24T08:57:59Z INFO stopping after an error",
            ]),
            "Caused by: java.net.UnknownHostException: db"
        );
        assert_eq!(
            told(&["Error: cannot start", "Caused by:", "0: reading config", "1: No such file or directory"]),
            "1: No such file or directory"
        );
        assert_eq!(
            told(&["Traceback (most recent call last):", "File \"/app/x.py\", line 1, in <module>", "OSError: x"]),
            "OSError: x"
        );
    }

    #[test]
    fn the_error_with_a_reason_before_the_one_that_only_stops() {
        assert_eq!(
            told(&[
                "level=error msg=\"cannot start\" error=\"dial tcp 10.0.0.1:443: i/o timeout\"",
                "level=fatal msg=\"stopped\"",
            ]),
            "level=error msg=\"cannot start\" error=\"dial tcp 10.0.0.1:443: i/o timeout\""
        );
        assert_eq!(told(&["fatal: DATABASE_URL is not set", "bye"]), "fatal: DATABASE_URL is not set");
        assert_eq!(told(&["error: first", "fatal: second"]), "fatal: second");
    }

    #[test]
    fn not_a_line_about_progress() {
        assert_eq!(told(&["ERROR cannot bind", "2026-11-24 INFO shutdown after error"]), "ERROR cannot bind");
        assert_eq!(told(&["started", "I1124 08:00:00 server.go:1] no error"]), "");
        assert_eq!(told(&["é", "I", "Ä1"]), "");
    }
}
