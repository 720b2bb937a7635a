//! Probes: their actions, whether the container declares the port, and their results.

use std::fmt;
use std::time::Duration;

use crate::kubernetes::time::{RECENT, START, age};
use crate::kubernetes::workloads::restarts::{PodContainer, SLACK};
use crate::snapshot::model::{Container, IntOrString, Pod, PodSpec, Probe, Timestamp, port_text};
use crate::snapshot::{Cluster, Object};
use crate::text::words::{list, plain, shorten};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ProbeKind::Startup => "startup",
            ProbeKind::Liveness => "liveness",
            ProbeKind::Readiness => "readiness",
        })
    }
}

impl ProbeKind {
    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_deref(),
            ProbeKind::Liveness => container.liveness_probe.as_deref(),
            ProbeKind::Readiness => container.readiness_probe.as_deref(),
        }
    }

    /// The path of its field: `spec.containers[app].readinessProbe`.
    pub(crate) fn path(self, container: &str) -> String {
        format!("spec.containers[{container}].{self}Probe")
    }
}

/// The action of a probe: `GET :8080/healthz`, `TCP :5432`, `gRPC :50051`, `exec pg_isready`.
pub(crate) fn describe(probe: &Probe) -> String {
    let port = probe.port().map(|port| port_text(&port)).unwrap_or_default();
    if let Some(http) = &probe.http_get {
        let scheme = if http.scheme == "HTTPS" { "https://" } else { "" };
        let path = if http.path.is_empty() { "/" } else { &http.path };
        format!("GET {scheme}{}:{port}{}", http.host, shorten(&plain(path), 80))
    } else if let Some(tcp) = &probe.tcp_socket {
        format!("TCP {}:{port}", tcp.host)
    } else if probe.grpc.is_some() {
        format!("gRPC :{port}")
    } else if let Some(exec) = &probe.exec {
        format!("exec {}", shorten(&plain(&exec.command.join(" ")), 80))
    } else {
        "no action".to_string()
    }
}

/// The problem with the port of a probe, if any: a name that the container does not declare, or a number that no
/// container of the pod declares although this container declares others.
///
/// Declaring ports is optional, so an undeclared number alone is not an error: it explains a probe that fails.
pub(crate) fn port_mismatch(spec: &PodSpec, container: &Container, probe: &Probe) -> Option<String> {
    let http = probe.http_get.as_ref().map(|http| http.host.as_str());
    let tcp = probe.tcp_socket.as_ref().map(|tcp| tcp.host.as_str());
    if http.or(tcp).is_some_and(|host| !host.is_empty()) {
        // The probe targets another host.
        return None;
    }
    mismatch(spec, container, &probe.port()?)
}

fn mismatch(spec: &PodSpec, container: &Container, port: &IntOrString) -> Option<String> {
    let declared: Vec<String> = container.ports.iter().map(declared_port).collect();
    let declares = match declared.len() {
        0 => format!("container {} declares no ports", container.name),
        1 => format!("container {} declares port {}", container.name, declared[0]),
        _ => format!("container {} declares ports {}", container.name, list(&declared, 4)),
    };
    match port {
        IntOrString::String(name) => match name.parse::<i32>() {
            Ok(number) => mismatch(spec, container, &IntOrString::Int(number)),
            Err(_) if container.named_port(name).is_some() => None,
            Err(_) => Some(format!("no port is named {name}: {declares}")),
        },
        IntOrString::Int(number) => {
            let is_declared = spec.running_containers().flat_map(|c| &c.ports).any(|p| p.container_port == *number);
            (!is_declared && !container.ports.is_empty()).then_some(declares)
        }
    }
}

fn declared_port(port: &crate::snapshot::model::ContainerPort) -> String {
    match port.name.as_str() {
        "" => port.container_port.to_string(),
        name => format!("{} ({name})", port.container_port),
    }
}

/// A failed probe, from the kubelet's event.
#[derive(Debug)]
pub(crate) struct Failure {
    pub kind: ProbeKind,
    /// The result in brief: `connection refused`, `HTTP 404`.
    pub answer: String,
    pub last_seen: Option<Timestamp>,
    /// How often, according to the events: the kubelet stops recording after 25 (its event rate limit).
    pub times: i64,
}

/// The failed probes of a container from the pod's `Unhealthy` events, newest first.
pub(crate) fn failures(cluster: &Cluster, pod: &Pod, container: &str) -> Vec<Failure> {
    let is_only_container = pod.spec.running_containers().count() == 1;
    let events = cluster.events(&pod.reference()).into_iter().filter(|event| {
        let same_pod = event.involved_object.uid.is_empty()
            || pod.metadata.uid.is_empty()
            || event.involved_object.uid == pod.metadata.uid;
        same_pod && event.reason == "Unhealthy" && event.container().map_or(is_only_container, |name| name == container)
    });
    events
        .filter_map(|event| {
            let (kind, answer) = parse(&event.message)?;
            Some(Failure { kind, answer, last_seen: event.last_seen(), times: i64::from(event.times()) })
        })
        .collect()
}

/// The newest failure of one probe.
pub(crate) fn last_failure(cluster: &Cluster, pod: &Pod, container: &str, kind: ProbeKind) -> Option<Failure> {
    failures(cluster, pod, container).into_iter().find(|failure| failure.kind == kind)
}

/// `Readiness probe failed: …` and `Liveness probe errored: …`, the formats of the kubelet's prober.
fn parse(message: &str) -> Option<(ProbeKind, String)> {
    let message = message.strip_prefix("(combined from similar events): ").unwrap_or(message);
    let (probe, rest) = message.split_once(" probe ")?;
    let kind = match probe {
        "Startup" => ProbeKind::Startup,
        "Liveness" => ProbeKind::Liveness,
        "Readiness" => ProbeKind::Readiness,
        _ => return None,
    };
    let output = rest.strip_prefix("failed").or_else(|| rest.strip_prefix("errored"))?;
    let output = output.split_once(": ").map_or("", |(_, output)| output);
    Some((kind, result(output)))
}

/// The result of an HTTP/1 request to a server that only speaks HTTP/2, as every gRPC server does.
pub(crate) const HTTP2: &str = "HTTP/2 frame: the port serves gRPC or HTTP/2";

/// Whether the response is the SETTINGS frame with which an HTTP/2 server opens a connection: three bytes of length,
/// then type 4. Go quotes it as `"\x00\x00\x06\x04…"`.
fn is_http2(output: &str) -> bool {
    let Some((_, response)) = output.split_once("malformed HTTP response \"") else { return false };
    let Some(rest) = response.strip_prefix(r"\x00\x00") else { return false };
    let length = match rest.strip_prefix('\\') {
        Some(escaped) if escaped.starts_with('x') => 4,
        Some(_) => 2,
        None => rest.chars().next().map_or(0, char::len_utf8),
    };
    rest.get(length..).is_some_and(|rest| rest.starts_with(r"\x04"))
}

/// The result of a probe in brief.
fn result(output: &str) -> String {
    let output = plain(output);
    if is_http2(&output) {
        return HTTP2.to_string();
    }
    if let Some(code) = output.split_once("statuscode: ").map(|(_, code)| code.trim()) {
        return format!("HTTP {}", shorten(code, 40));
    }
    for (sign, core) in [
        ("connection refused", "connection refused"),
        ("connection reset by peer", "connection reset"),
        ("no route to host", "no route to host"),
        ("context deadline exceeded", "timeout"),
        ("i/o timeout", "timeout"),
        ("timed out after", "timeout"),
        ("server gave HTTP response to HTTPS client", "HTTP response to HTTPS probe"),
        ("malformed HTTP response", "malformed HTTP response"),
        ("NOT_SERVING", "NOT_SERVING"),
    ] {
        if output.contains(sign) {
            return core.to_string();
        }
    }
    if output.ends_with(": EOF") {
        return "connection closed".to_string();
    }
    match output.as_str() {
        "" => "no output".to_string(),
        other => shorten(&crate::kubernetes::workloads::exit::runtime_error(other), 120),
    }
}

/// How to change an HTTP probe that a gRPC server cannot answer.
pub(crate) fn grpc_fix(spec: &Container, probe: &Probe, path: &str) -> String {
    let port = match probe.port() {
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => match spec.named_port(&name) {
            Some(port) => port.container_port.to_string(),
            None => name,
        },
        None => "PORT".to_string(),
    };
    format!(
        "Replace {path}.httpGet with grpc (port: {port}) if the server implements grpc.health.v1.Health, or else with \
         tcpSocket (port: {port})"
    )
}

/// The startup or liveness probe because of which the kubelet kills a container repeatedly, with its last result.
///
/// The kubelet reports the kill in an event of type `Normal`, which is not read. Instead this checks that the probe
/// failed often enough and that the container ran long enough to reach the failure threshold.
pub(crate) fn kills(cluster: &Cluster, container: &PodContainer) -> Option<Failure> {
    let kinds = [ProbeKind::Startup, ProbeKind::Liveness];
    if container.ends() < 1 || !container.pod.is_active() || !kinds.iter().any(|kind| kind.of(container.spec).is_some())
    {
        return None;
    }
    let end =
        container.last_end().filter(|end| !matches!(end.reason.as_str(), "OOMKilled" | "StartError" | "Unknown"))?;
    let recent = container.ended_ago(cluster).is_some_and(|ago| ago < RECENT);
    let failures = failures(cluster, container.pod, container.name());
    let all: i64 = failures.iter().map(|failure| failure.times).sum();
    let failure = kinds.into_iter().find_map(|kind| {
        let threshold = KillThreshold::of(kind.of(container.spec)?);
        let times: i64 = failures.iter().filter(|f| f.kind == kind).map(|f| f.times).sum();
        // The kubelet's client drops events about one object after 25, so a few may represent many.
        let often = times >= threshold.failures || (times > 0 && all >= 20);
        let ran_long_enough = container.last_run() + SLACK >= threshold.min_run;
        let was_stopped = matches!(end.exit_code, 0 | 137 | 143);
        let is_kill = often && ran_long_enough && (was_stopped || times >= threshold.failures);
        failures.iter().position(|f| is_kill && f.kind == kind)
    })?;
    let failure = failures.into_iter().nth(failure)?;
    let seen = failure.last_seen.filter(|seen| age(cluster.now(), *seen) < RECENT)?;
    let running_since = container.status.state.running().and_then(|state| state.started_at);
    let failing_again = running_since.is_some_and(|since| seen > since && age(cluster.now(), seen) < START);
    let recovered = container.has_recovered(cluster) && !failing_again;
    (recent && !recovered && (container.ends() >= 2 || failing_again)).then_some(failure)
}

/// When the kubelet kills a container because of a failing probe.
struct KillThreshold {
    failures: i64,
    /// The shortest run of a container that is killed.
    min_run: Duration,
}

impl KillThreshold {
    fn of(probe: &Probe) -> KillThreshold {
        let failures = i64::from(probe.failure_threshold.unwrap_or(3).max(1));
        let period = i64::from(probe.period_seconds.unwrap_or(10).max(1));
        let min_run = i64::from(probe.initial_delay_seconds.max(0)) + (failures - 1) * period;
        KillThreshold { failures, min_run: Duration::from_secs(min_run.clamp(0, 86_400) as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(yaml: &str) -> Container {
        crate::testing::part(yaml)
    }

    fn probe(yaml: &str) -> Probe {
        crate::testing::part(yaml)
    }

    #[test]
    fn describes_probes() {
        for (yaml, text) in [
            ("{httpGet: {port: 8080, path: /healthz}}", "GET :8080/healthz"),
            ("{httpGet: {port: web, scheme: HTTPS}}", "GET https://:web/"),
            ("{tcpSocket: {port: 5432}}", "TCP :5432"),
            ("{grpc: {port: 50051}}", "gRPC :50051"),
            ("{exec: {command: [pg_isready, -U, app]}}", "exec pg_isready -U app"),
            ("{}", "no action"),
        ] {
            assert_eq!(describe(&probe(yaml)), text);
        }
    }

    #[test]
    fn undeclared_ports() {
        let web = container("{name: web, ports: [{containerPort: 8080, name: http}]}");
        let side = container("{name: side, ports: [{containerPort: 9090}]}");
        let spec = PodSpec { containers: [web.clone(), side].into(), ..Default::default() };
        let of = |yaml: &str| port_mismatch(&spec, &web, &probe(yaml));
        assert_eq!(of("{httpGet: {port: 8081}}").unwrap(), "container web declares port 8080 (http)");
        assert_eq!(of("{tcpSocket: {port: 8081}}").unwrap(), "container web declares port 8080 (http)");
        assert_eq!(of("{grpc: {port: 8081}}").unwrap(), "container web declares port 8080 (http)");
        assert_eq!(
            of("{httpGet: {port: web}}").unwrap(),
            "no port is named web: container web declares port 8080 (http)"
        );
        assert_eq!(of("{httpGet: {port: http}}"), None);
        assert_eq!(of("{httpGet: {port: 9090}}"), None, "another container of the pod declares it");
        assert_eq!(of("{httpGet: {port: 8081, host: 10.0.0.1}}"), None);
        assert_eq!(of("{exec: {command: ['true']}}"), None);
        let bare = container("{name: bare}");
        assert_eq!(port_mismatch(&spec, &bare, &probe("{tcpSocket: {port: 8081}}")), None);
    }

    #[test]
    fn summarizes_results() {
        for (message, kind, expected) in [
            (
                "Readiness probe failed: Get \"http://10.244.0.30:8081/ready\": dial tcp 10.244.0.30:8081: connect: \
                 connection refused",
                ProbeKind::Readiness,
                "connection refused",
            ),
            ("Liveness probe failed: HTTP probe failed with statuscode: 404", ProbeKind::Liveness, "HTTP 404"),
            (
                "Startup probe failed: Get \"http://10.0.0.1:80/\": context deadline exceeded (Client.Timeout exceeded \
                 while awaiting headers)",
                ProbeKind::Startup,
                "timeout",
            ),
            (
                "Readiness probe failed: cat: /tmp/ready: No such file",
                ProbeKind::Readiness,
                "cat: /tmp/ready: No such file",
            ),
            ("Readiness probe failed: ", ProbeKind::Readiness, "no output"),
            (
                "Liveness probe errored and resulted in unknown state: rpc error: code = Unknown desc = failed to exec \
                 in container: failed to start exec \"a1\": OCI runtime exec failed: exec failed: unable to start \
                 container process: exec: \"curl\": executable file not found in $PATH: unknown",
                ProbeKind::Liveness,
                "executable not found in $PATH: curl",
            ),
        ] {
            assert_eq!(parse(message), Some((kind, expected.to_string())));
        }
        assert_eq!(parse("something else"), None);
    }
}
