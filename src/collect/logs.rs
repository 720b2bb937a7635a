//! Reads the ends of a few logs: the last output of crashing containers.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use kubectl_gpt_analyzers::kubernetes::workloads::logs::LogRequest;
use kubectl_gpt_analyzers::{ContainerLog, Kind};

use super::connection::Connection;
use super::failure::Failure;
use super::page::{path, segment};
use super::request::JSON;

/// Maximum number of logs to read.
const LOGS: usize = 20;
const LINES: usize = 50;
const BYTES: usize = 16_384;
/// The number of lines if the last fifty exceed `BYTES`: the kubelet would cut off the end, which matters most.
const LAST_LINES: usize = 5;
const AT_A_TIME: usize = 8;
/// The deadline for all logs combined: they only add detail to findings.
const DEADLINE: Duration = Duration::from_secs(10);

/// Reads the logs concurrently, at most twenty. Failures are reported as notes, not as errors.
pub async fn fetch(connection: &Connection, wanted: &[LogRequest]) -> (Vec<(LogRequest, ContainerLog)>, Vec<String>) {
    let (mut logs, mut notes) = (Vec::new(), Vec::new());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let read = |(n, request): (usize, LogRequest)| async move {
        let log = tokio::time::timeout_at(deadline, read(connection, &request)).await;
        (n, request, log)
    };
    let requests: Vec<(usize, LogRequest)> = wanted.iter().take(LOGS).cloned().enumerate().collect();
    let mut answers: Vec<_> = stream::iter(requests).map(read).buffer_unordered(AT_A_TIME).collect().await;
    answers.sort_by_key(|(n, ..)| *n);
    for (_, request, log) in answers {
        let about = |why: &str| {
            let LogRequest { namespace, pod, container, .. } = &request;
            format!("reading log of container {container} of pod {namespace}/{pod}: {why}")
        };
        match log {
            Ok(Ok(log)) if log.lines.is_empty() => {}
            Ok(Ok(log)) => logs.push((request, log)),
            Ok(Err(failure)) => notes.push(about(&failure)),
            Err(_) => notes.push(about(&format!("timed out after {DEADLINE:?}"))),
        }
    }
    if connection.interrupt.has_come() && !wanted.is_empty() {
        notes = vec!["logs of crashed containers were not read: interrupted".to_string()];
    }
    if wanted.len() > LOGS {
        notes.push(format!("only {LOGS} of {} logs were read", wanted.len()));
    }
    (logs, notes)
}

/// Reads the previous run if requested and available, else the current one.
async fn read(connection: &Connection, request: &LogRequest) -> Result<ContainerLog, String> {
    if request.previous_first
        && let Ok(lines) = read_run(connection, request, true).await
        && !lines.is_empty()
    {
        return Ok(ContainerLog { lines, previous: true });
    }
    let lines = read_run(connection, request, false).await?;
    Ok(ContainerLog { lines, previous: false })
}

async fn read_run(connection: &Connection, request: &LogRequest, previous: bool) -> Result<Vec<String>, String> {
    let message = |failure: Failure| failure.message;
    let body = connection.get_once_reached(&log_path(request, previous, LINES), JSON).await.map_err(message)?;
    let body = match body.len() {
        0..BYTES => body,
        _ => connection.get_once_reached(&log_path(request, previous, LAST_LINES), JSON).await.map_err(message)?,
    };
    let text = String::from_utf8_lossy(&body);
    // The kubelet responds with 200 and this text if the container runtime has already removed the log.
    if text.starts_with("unable to retrieve container logs for ") {
        return Err("the log is no longer available on the node".to_string());
    }
    Ok(text.lines().map(str::to_string).collect())
}

fn log_path(request: &LogRequest, previous: bool, lines: usize) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("container", &request.container);
    if previous {
        query.append_pair("previous", "true");
    }
    query.append_pair("tailLines", &lines.to_string()).append_pair("limitBytes", &BYTES.to_string());
    let pods = path(Kind::Pod, "v1", Some(&request.namespace));
    format!("{pods}/{}/log?{}", segment(&request.pod), query.finish())
}
