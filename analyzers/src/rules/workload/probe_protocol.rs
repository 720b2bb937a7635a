use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::workloads::probe::{ProbeKind, describe, grpc_fix};
use crate::rules::user_managed::{Specified, specified};
use crate::snapshot::model::{Container, IntOrString, Probe, port_text};
use crate::snapshot::{Cluster, Origin};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks manifests for `httpGet` probes on a port that is named after gRPC (`grpc`, `grpc-api`). In a cluster
    /// `pod/liveness-kills` and `pod/not-ready` recognize the answer of an HTTP/2 server.
    ///
    /// ## Why it matters
    ///
    /// The kubelet's probes use HTTP/1. A gRPC server answers with an HTTP/2 frame, which is a failure: a liveness probe
    /// restarts a healthy container again and again.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows `malformed HTTP response "\x00\x00\x06\x04…"`.
    ///
    /// ## How to fix
    ///
    /// Use a `grpc` probe if the server implements `grpc.health.v1.Health`, or else `tcpSocket`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for other port names, for `grpc-web` and `grpc-gateway`, which serve HTTP/1, for `HTTPS`, and
    /// for objects in a cluster.
    "workload/probe-protocol": Warning,
    "an HTTP probe targets a gRPC port",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if cluster.origin() != Origin::Manifests {
        return;
    }
    for specified in specified(cluster) {
        for (container, path) in specified.containers() {
            for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
                if let Some(probe) = kind.of(container).filter(|probe| is_mistaken(container, probe)) {
                    report.add(finding(&specified, container, &path, kind, probe));
                }
            }
        }
    }
}

fn is_mistaken(container: &Container, probe: &Probe) -> bool {
    let Some(http) = probe.http_get.as_ref().filter(|http| http.host.is_empty() && http.scheme != "HTTPS") else {
        return false;
    };
    let port = match &http.port {
        Some(IntOrString::Int(number)) => container.ports.iter().find(|port| port.container_port == *number),
        Some(IntOrString::String(name)) => container.named_port(name),
        None => None,
    };
    port.is_some_and(|port| {
        let name = port.name.as_str();
        (name == "grpc" || name.starts_with("grpc-") || name.ends_with("-grpc"))
            && !["web", "gateway", "http"].iter().any(|word| name.contains(word))
    })
}

fn finding(specified: &Specified, container: &Container, path: &str, kind: ProbeKind, probe: &Probe) -> Finding {
    let port = probe.port().map(|port| port_text(&port)).unwrap_or_default();
    let path = format!("{path}.{kind}Probe");
    let message = format!(
        "{kind} probe {} of container {} of {} sends HTTP/1 requests to gRPC port {port}, which answers with HTTP/2",
        describe(probe),
        container.name,
        specified.object.title()
    );
    Finding::warning(specified.object.clone(), message)
        .key(format!("{}/{kind}", container.name))
        .evidence(format!("port {port} is named after gRPC"), &specified.object, &format!("{path}.httpGet.port"))
        .fix(grpc_fix(container, probe, &path))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{Findings, TestCluster};

    fn said(port: &str, probe: &str) -> Findings {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop}}, spec: {{containers: [{{name: app, ports: \
             [{{name: {port}, containerPort: 9000}}], livenessProbe: {probe}}}]}}}}"
        );
        TestCluster::new(&[&pod]).origin(Origin::Manifests).check(&RULE)
    }

    #[test]
    fn fires_for_an_http_probe_on_a_grpc_port() {
        let said = said("grpc", "{httpGet: {port: 9000, path: /healthz}}");
        said.finds(&[
            "warning Pod shop/web: liveness probe GET :9000/healthz of container app of Pod web sends HTTP/1 requests to gRPC \
             port 9000, which answers with HTTP/2",
        ]);
        assert!(said.finding().fix[0].text.contains("grpc (port: 9000)"));
    }

    #[test]
    fn quiet_for_other_ports_and_probes() {
        said("http", "{httpGet: {port: 9000}}").finds_nothing();
        said("grpc-web", "{httpGet: {port: 9000}}").finds_nothing();
        said("grpc", "{grpc: {port: 9000}}").finds_nothing();
        said("grpc", "{httpGet: {port: 8080}}").finds_nothing();
    }
}
