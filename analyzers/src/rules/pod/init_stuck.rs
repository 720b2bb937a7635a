use crate::rules::container::{ContainerReport, tell_cause};
use std::time::Duration;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::time::{START, human};
use crate::kubernetes::workloads::exit::describe;
use crate::kubernetes::workloads::log_lines::last_lines;
use crate::kubernetes::workloads::restarts::{Affected, PodContainer, affected, unsteady_groups};
use crate::kubernetes::workloads::start_error;
use crate::rules::diagnosis::diagnose;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, PodGroup};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for init containers that fail repeatedly or have been running for more than two minutes. The containers
    /// of a pod start only after all its init containers have exited with code 0.
    ///
    /// ## Why it matters
    ///
    /// The pod stays in `Init:…` and does no work. An init container that does not complete is usually waiting for a
    /// dependency: a Service without endpoints, a name that does not resolve, a database migration that holds a lock.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pod POD` shows `Init:0/1` or `Init:CrashLoopBackOff`.
    /// `kubectl -n NAMESPACE logs POD -c INIT_CONTAINER` shows the error or what the init container is waiting for.
    ///
    /// ## How to fix
    ///
    /// Fix the error in the log, and check the findings about the dependency it waits for. In a service mesh whose proxy
    /// is an ordinary container, the connections of init containers are refused, because their traffic is already
    /// redirected to the proxy, which starts later: run the proxy as a native sidecar, or exempt the port.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for a single failure, for native sidecars (they run for the lifetime of the pod), or for
    /// init containers that cannot start (see `pod/cannot-start`). The severity is `warning` if the init container has
    /// been running for less than five minutes, belongs to a Job, or belongs to a workload with other ready pods.
    "pod/init-stuck": Error,
    "an init container fails repeatedly or does not complete",
    needs: [Pod],
    optional: [Event, ReplicaSet, Job, StatefulSet, ConfigMap, Secret, Node, Service, EndpointSlice, Namespace, NetworkPolicy, PersistentVolumeClaim, CustomResourceDefinition],
    explained_by: ["pod/oom-killed", "rbac/denied", "statefulset/outdated-pod", "workload/env-order", "pod/fs-group", "service/no-ready-endpoints", "service/no-endpoints", "service/target-port", "service/selector-matches-nothing", "service/peers-not-published", "network-policy/*", "dns/*", "pod/unauthorized", "configmap/tunnel-mtu"],
}

/// An init container that runs longer than this counts as failed.
const INIT_TIMEOUT: Duration = Duration::from_secs(300);

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        let stuck = |c: &PodContainer| c.is_init && (fails(cluster, c) || runs_long(cluster, group, c));
        for affected in affected(cluster, cluster.pods_of(group), stuck) {
            report.add(finding(cluster, group, &affected));
        }
    }
}

fn fails(cluster: &Cluster, container: &PodContainer) -> bool {
    container.loops(cluster) && !container.cannot_start(cluster)
}

fn runs_long(cluster: &Cluster, group: &PodGroup, container: &PodContainer) -> bool {
    let allowed = if is_batch(&group.owner) { INIT_TIMEOUT } else { START };
    container.pod.is_active() && container.runs_for(cluster).is_some_and(|run| run >= allowed)
}

/// A service mesh that redirects the traffic of a pod to a proxy container.
struct Mesh {
    proxy: &'static str,
    /// The init container that redirects, or the one that checks the redirection by a CNI plugin.
    init: &'static str,
    /// Whether the CNI plugin redirects, which happens before all init containers.
    is_cni: bool,
    user: i64,
    native: &'static str,
    exclude: &'static str,
}

const ISTIO: Mesh = Mesh {
    proxy: "istio-proxy",
    init: "istio-init",
    is_cni: false,
    user: 1337,
    native: "set ENABLE_NATIVE_SIDECARS=true in istiod, and recreate the pods",
    exclude: "annotation traffic.sidecar.istio.io/excludeOutboundPorts",
};
const LINKERD: Mesh = Mesh {
    proxy: "linkerd-proxy",
    init: "linkerd-init",
    is_cni: false,
    user: 2102,
    native: "annotate the pods with config.alpha.linkerd.io/proxy-enable-native-sidecar: \"true\"",
    exclude: "annotation config.linkerd.io/skip-outbound-ports",
};
const KUMA: Mesh = Mesh {
    proxy: "kuma-sidecar",
    init: "kuma-init",
    is_cni: false,
    user: 5678,
    native: "enable sidecar containers in the control plane",
    exclude: "annotation traffic.kuma.io/exclude-outbound-ports",
};
const MESHES: [Mesh; 6] = [
    Mesh { init: "istio-validation", is_cni: true, ..ISTIO },
    ISTIO,
    Mesh { init: "linkerd-network-validator", is_cni: true, ..LINKERD },
    LINKERD,
    Mesh { init: "kuma-validation", is_cni: true, ..KUMA },
    KUMA,
];

/// The mesh because of which the connections of an init container are refused: its proxy does not run yet.
fn captured(cluster: &Cluster, container: &PodContainer) -> Option<&'static Mesh> {
    let spec = &container.pod.spec;
    let at = |name: &str| spec.init_containers.iter().position(|init| init.name == name);
    let mesh = MESHES.iter().find(|mesh| {
        let has_proxy = spec.containers.iter().any(|container| container.name == mesh.proxy);
        let redirects =
            at(mesh.init).is_some_and(|init| mesh.is_cni || at(container.name()).is_some_and(|own| own > init));
        has_proxy && redirects && container.name() != mesh.init
    })?;
    let user = container.spec.security_context.run_as_user.or(spec.security_context.run_as_user);
    let message = container.last_end().map(|end| end.message.clone()).unwrap_or_default();
    let is_refused = last_lines(cluster, container).into_iter().chain([message]).any(|line| {
        let line = line.to_lowercase();
        let is_local = ["127.0.0.1", "localhost", "[::1]"].iter().any(|host| line.contains(host));
        !is_local && ["connection refused", "econnrefused", "connection reset"].iter().any(|words| line.contains(words))
    });
    (is_refused && user != Some(mesh.user)).then_some(mesh)
}

/// The init containers of batch work often run for a long time.
fn is_batch(owner: &ObjectRef) -> bool {
    owner.is(Kind::Job) || owner.is(Kind::CronJob)
}

fn finding(cluster: &Cluster, group: &PodGroup, affected: &Affected) -> Finding {
    let owner = &group.owner;
    let failing = affected.containers.iter().find(|c| fails(cluster, c));
    let container = failing.copied().unwrap_or(affected.sample());
    let any_ready = cluster.pods_of(group).any(|pod| pod.is_active() && pod.is_ready());
    let (severity, problem) = match failing {
        Some(container) => {
            let end = container.last_end().map(describe).unwrap_or_else(|| "an unknown exit code".to_string());
            let output = container.quoted(cluster);
            (Severity::Error, format!("fails repeatedly: {end}, {}{output}", container.restarts()))
        }
        None => {
            let run = container.runs_for(cluster).unwrap_or_default();
            let is_tolerable = run < INIT_TIMEOUT || any_ready || is_batch(owner);
            let output = last_lines(cluster, &container).pop().map(|line| format!(": \"{line}\""));
            let severity = if is_tolerable { Severity::Warning } else { Severity::Error };
            (severity, format!("has been running for {}{}", human(run), output.unwrap_or_default()))
        }
    };
    let since = match failing {
        Some(container) => container.loops_since(cluster),
        None => container.status.state.running().and_then(|state| state.started_at),
    };
    let captured = failing.and_then(|container| captured(cluster, container));
    let problem = match &captured {
        Some(mesh) => format!(
            "{problem}; its traffic is redirected to {}, which has not started: it is an ordinary container, and starts only \
             after the init containers",
            mesh.proxy
        ),
        None => problem,
    };
    let message = format!("{} of {} {problem}", container.described(), owner.title());
    let finding =
        Finding::new(severity, owner.clone(), message).container(container.name()).pods(affected.pods()).since(since);
    let finding = match failing {
        Some(container) => container.tell_change(cluster, container.report_end(cluster, finding)),
        None => {
            let start = since.map(|t| t.to_string()).unwrap_or_default();
            let text = format!("{} has been running since {start}", container.described());
            let path = format!("{}.state.running", container.status_path());
            container.report_log(cluster, finding.evidence(text, &container.pod.reference(), &path))
        }
    };
    if let Some(mesh) = captured {
        let pod = container.pod.reference();
        let text = format!("init container {} redirects the pod's traffic, or checks that it is redirected", mesh.init);
        let finding = finding.evidence(text, &pod, &format!("spec.initContainers[{}]", mesh.init)).evidence(
            format!("{} has no restartPolicy: Always", mesh.proxy),
            &pod,
            &format!("spec.containers[{}]", mesh.proxy),
        );
        return finding
            .fix(format!(
                "Run {} as a native sidecar, which starts before {}: {}",
                mesh.proxy,
                container.name(),
                mesh.native
            ))
            .fix(format!("Or exempt the port from the redirection in the pod template: {}", mesh.exclude))
            .fix(format!(
                "Or run {} with securityContext.runAsUser: {}, the user of the proxy, whose traffic is not redirected",
                container.name(),
                mesh.user
            ));
    }
    if let Some(explained) = failing.and_then(|container| start_error::cause(cluster, container)) {
        return tell_cause(finding, &explained);
    }
    let finding = finding.fix_command(
        "Check the init container's logs, and fix the error or the dependency it waits for",
        container.log_command(owner),
    );
    diagnose(cluster, &container).apply(finding)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    fn pod(init: &str, restarts: u32, state: &str, last: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: db-0, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z', ownerReferences: [
              {{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}}]}}
            spec: {{initContainers: [{init}], containers: [{{name: db}}]}}
            status: {{phase: Pending, initContainerStatuses: [{{name: setup, restartCount: {restarts}, state: {state}, lastState: {last}}}],
              containerStatuses: [{{name: db, state: {{waiting: {{reason: PodInitializing}}}}}}]}}"
        )
    }

    const SETUP: &str = "{name: setup}";
    const WAITING: &str = "{waiting: {reason: CrashLoopBackOff}}";
    const ENDED: &str = "{terminated: {exitCode: 2, reason: Error, startedAt: '2026-11-21T11:59:40Z', finishedAt: '2026-11-21T11:59:45Z'}}";

    #[test]
    fn fires_for_repeated_failures_in_every_state() {
        let found =
            ["error StatefulSet shop/db: init container setup of StatefulSet db fails repeatedly: exit code 2 \
                      (incorrect usage or Go panic), 3 restarts"];
        let runs = "{running: {startedAt: '2026-11-21T11:59:58Z'}}";
        for state in [WAITING, ENDED, runs] {
            check(&RULE, &[&pod(SETUP, 3, state, ENDED)]).finds(&found);
        }
    }

    #[test]
    fn fires_when_it_does_not_complete() {
        let runs = pod(SETUP, 0, "{running: {startedAt: '2026-11-21T11:50:00Z'}}", "{}");
        let said = TestCluster::new(&[&runs]).log("shop", "db-0", "setup", &["waiting for redis", ""]).check(&RULE);
        said.finds(&["error StatefulSet shop/db: init container setup of StatefulSet db has been running for \
                      10m: \"waiting for redis\""]);
        assert_eq!(said.finding().fix[0].command.as_deref(), Some("kubectl -n shop logs statefulset/db -c setup"));
        check(&RULE, &[&runs.replace("startedAt: '2026-11-21T11:50:00Z'", "startedAt: '2026-11-21T11:57:00Z'")])
            .finds(&["warning StatefulSet shop/db: init container setup of StatefulSet db has been running for 3m"]);
    }

    #[test]
    fn quiet_within_the_startup_time() {
        check(&RULE, &[&pod(SETUP, 0, "{running: {startedAt: '2026-11-21T11:58:30Z'}}", "{}")]).finds_nothing();
        check(&RULE, &[&pod(SETUP, 0, ENDED, "{}")]).finds_nothing();
    }

    #[test]
    fn quiet_after_success_and_for_sidecars() {
        let done = "{terminated: {exitCode: 0, reason: Completed, finishedAt: '2026-11-21T11:59:59Z'}}";
        check(&RULE, &[&pod(SETUP, 3, done, ENDED)]).finds_nothing();
        check(
            &RULE,
            &[&pod("{name: setup, restartPolicy: Always}", 0, "{running: {startedAt: '2026-11-21T11:50:00Z'}}", "{}")],
        )
        .finds_nothing();
    }

    #[test]
    fn quiet_for_a_long_preparation_of_a_job_and_for_bare_manifests() {
        let job = pod(SETUP, 0, "{running: {startedAt: '2026-11-21T11:57:00Z'}}", "{}")
            .replace("apps/v1, kind: StatefulSet", "batch/v1, kind: Job");
        check(&RULE, &[&job]).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {initContainers: [{name: setup}]}}"])
            .finds_nothing();
    }

    #[test]
    fn fires_for_traffic_to_a_proxy_that_starts_later() {
        let pod = |before: &str, proxy: &str| {
            pod(&format!("{before}{SETUP}"), 9, WAITING, ENDED)
                .replace("[{name: db}]", &format!("[{{name: db}}{proxy}]"))
        };
        let said = |pod: &str, line: &str| TestCluster::new(&[pod]).log("shop", "db-0", "setup", &[line]).check(&RULE);
        let refused = "dial tcp 10.96.0.9:5432: connect: connection refused";
        let captured = pod("{name: istio-validation}, ", ", {name: istio-proxy}");
        let finding = said(&captured, refused);
        assert!(finding.finding().message.contains("its traffic is redirected to istio-proxy, which has not started"));
        assert!(finding.text().contains("excludeOutboundPorts") && finding.text().contains("runAsUser: 1337"));
        for (pod, line) in [
            (pod("{name: istio-validation}, {name: istio-proxy, restartPolicy: Always}, ", ""), refused),
            (pod("", ", {name: istio-proxy}"), refused),
            (captured.clone(), "dial tcp 127.0.0.1:5432: connect: connection refused"),
            (captured.clone(), "password authentication failed"),
        ] {
            assert!(!said(&pod, line).text().contains("redirected"), "{line}");
        }
    }
}
