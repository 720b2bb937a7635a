use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::cloud::metadata_fix;
use crate::kubernetes::network::unreachable;
use crate::kubernetes::nodes::clock::skew;
use crate::kubernetes::scheduling::{claim_names, claim_reference};
use crate::kubernetes::workloads::exit::describe;
use crate::kubernetes::workloads::restarts::{Affected, PodContainer, affected, unsteady_groups};
use crate::kubernetes::workloads::{probe, start_error};
use crate::rules::container::{ContainerReport, tell_cause};
use crate::rules::diagnosis::diagnose;
use crate::snapshot::model::Node;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::words::{plain, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for containers and native sidecars that exit and are restarted repeatedly. A container in
    /// `CrashLoopBackOff`, one that has just exited again, and one in a short run between two crashes are the same
    /// crash loop and produce one finding.
    ///
    /// ## Why it matters
    ///
    /// The container does no work between restarts, and the kubelet waits longer before each restart, up to five
    /// minutes. In most cases the application itself exits: a setting is missing, a dependency is unreachable, or a
    /// file cannot be read. The exit code and the last log lines identify the cause. Hosts, addresses, kinds and
    /// variables in the error are resolved to Services, policies, ConfigMaps and Secrets of the cluster.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows `Last State: Terminated` with the exit code and an increasing
    /// restart count. `kubectl -n NAMESPACE logs POD -c CONTAINER --previous` shows the log of the last run.
    ///
    /// ## How to fix
    ///
    /// Fix the error in the log. If a new version introduced it, roll back:
    /// `kubectl -n NAMESPACE rollout undo deployment/NAME`; the finding lists the fields in which the failing revision
    /// differs from one whose pods are ready. If a mount, a script from a ConfigMap or the security context explains the
    /// error, the finding names the field to change. A container that exits with code 0 has completed and is
    /// restarted because `restartPolicy` is `Always`: run it as a Job, or keep the process in the foreground.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - a single crash, or two crashes of a pod that is less than two minutes old;
    /// - a container whose current run is longer than its last runs;
    /// - the first retries of a Job;
    /// - init containers (see `pod/init-stuck`) and containers that cannot start (see `pod/cannot-start`).
    "pod/crash-loop": Error,
    "a container crashes and is restarted repeatedly",
    needs: [Pod],
    optional: [Event, ReplicaSet, Job, StatefulSet, ConfigMap, Secret, Node, Lease, Service, EndpointSlice, Namespace, NetworkPolicy, PersistentVolumeClaim, CustomResourceDefinition],
    explained_by: ["pod/oom-killed", "pod/liveness-kills", "rbac/denied", "dns/corefile", "statefulset/outdated-pod", "workload/env-order", "workload/mounted-files", "pod/fs-group", "pvc/resize", "node/clock", "service/no-ready-endpoints", "service/no-endpoints", "service/target-port", "service/selector-matches-nothing", "service/peers-not-published", "network-policy/*", "dns/*", "pod/unauthorized", "configmap/tunnel-mtu", "service/silent-workload", "namespace/sidecar-injector"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        let loops = |c: &PodContainer| !c.is_init && c.loops(cluster) && !c.cannot_start(cluster);
        for affected in affected(cluster, cluster.pods_of(group), loops) {
            report.add(finding(cluster, &group.owner, &affected));
        }
    }
}

fn finding(cluster: &Cluster, owner: &ObjectRef, affected: &Affected) -> Finding {
    let container = affected.sample();
    let restarts = container.restarts();
    let end = container.last_end();
    let explained = start_error::cause(cluster, &container);
    let is_killed = probe::kills(cluster, &container).is_some();
    let cause = match end {
        None => format!("waiting in CrashLoopBackOff, {restarts}"),
        Some(end) if end.exit_code == 0 && end.signal <= 0 && !is_killed => {
            format!("{} although restartPolicy is Always, {restarts}", describe(end))
        }
        Some(end) if container.was_oom_killed() => format!("{}, {restarts}", describe(end)),
        Some(end) => match &explained {
            Some(explained) => format!("{}, {restarts}: {}", describe(end), explained.clause),
            None => format!("{}, {restarts}{}", describe(end), container.quoted(cluster)),
        },
    };
    let message = format!("{} of {} is crash-looping: {cause}", container.described(), owner.title());
    let finding = Finding::error(owner.clone(), message)
        .container(container.name())
        .pods(affected.pods())
        .since(container.loops_since(cluster));
    let mut finding = container.tell_change(cluster, container.report_end(cluster, finding));
    if end.is_some_and(|end| end.exit_code == 0) && !is_killed {
        let field = format!("{}.restartPolicy", container.spec_path());
        let path = if container.spec.is_sidecar() { &field } else { "spec.restartPolicy" };
        finding = finding
            .evidence("restartPolicy is Always", &container.pod.reference(), path)
            .fix("Run it as a Job if it is meant to complete, or keep the process in the foreground");
    }
    for volume in &container.pod.spec.volumes {
        if let Some(config_map) = &volume.config_map {
            let namespace = &container.pod.metadata.namespace;
            finding = finding.because(ObjectRef::new(Kind::ConfigMap, namespace, &config_map.name));
        }
    }
    if finding.evidence.iter().any(|evidence| is_full(&evidence.text)) {
        for claim in claim_names(container.pod) {
            finding = finding.because(claim_reference(container.pod, &claim));
        }
    }
    if let Some((node, line)) = wrong_time(cluster, &container) {
        let text = format!("log of {}: {line}", container.name());
        finding = finding.evidence(text, &container.pod.reference(), "").because(node.reference());
    }
    finding = unreachable::suspects(cluster, container.pod).into_iter().fold(finding, Finding::because);
    if let Some(fix) = metadata_fix(cluster, &container) {
        finding = finding.fix(fix);
    }
    match explained {
        Some(explained) => tell_cause(finding, &explained),
        None => {
            let finding = finding.fix_command("Check the previous container's logs", container.log_command(owner));
            diagnose(cluster, &container).apply(finding)
        }
    }
}

/// Whether a log line reports that a volume is full.
fn is_full(line: &str) -> bool {
    let line = line.to_lowercase();
    ["no space left on device", "enospc", "disk quota exceeded"].iter().any(|text| line.contains(text))
}

/// The part of a log line about a certificate or token that is not valid yet or any more, if the clock of the node is
/// wrong.
fn wrong_time<'a>(cluster: &'a Cluster, container: &PodContainer) -> Option<(&'a Node, String)> {
    const SIGNS: [&str; 7] =
        ["not yet valid", "current time", "token used before", "has expired", "is expired", "clock", "skew"];
    let meta = &container.pod.metadata;
    let log = cluster.log(&meta.namespace, &meta.name, container.name())?;
    let sign = |line: &&String| SIGNS.iter().any(|sign| line.to_ascii_lowercase().contains(sign));
    let line = log.lines.iter().rev().find(sign)?;
    let node = cluster.get::<Node>("", &container.pod.spec.node_name).found()?;
    skew(cluster, node)?;
    let at = SIGNS.iter().filter_map(|sign| line.to_ascii_lowercase().find(sign)).min().unwrap_or(0);
    let from = line.char_indices().map(|(n, _)| n).take_while(|n| n + 60 <= at).last().unwrap_or(0);
    let cut = if from > 0 { "…" } else { "" };
    Some((node, format!("{cut}{}", shorten(&plain(line.get(from..).unwrap_or(line)), 250))))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, TestCluster, check};

    fn pod(spec: &str, restarts: u32, state: &str, last: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: web-0, namespace: shop, creationTimestamp: '2026-11-21T11:00:00Z', ownerReferences: [
              {{apiVersion: apps/v1, kind: StatefulSet, name: web, controller: true}}]}}
            spec: {spec}
            status: {{phase: Running, startTime: '2026-11-21T11:00:00Z', containerStatuses: [
              {{name: app, restartCount: {restarts}, state: {state}, lastState: {last}}}]}}"
        )
    }

    const ALWAYS: &str = "{restartPolicy: Always, containers: [{name: app}]}";
    const ENDED: &str = "{terminated: {exitCode: 1, reason: Error, startedAt: '2026-11-21T11:59:40Z', finishedAt: '2026-11-21T11:59:45Z'}}";
    const WAITING: &str = "{waiting: {reason: CrashLoopBackOff}}";
    const FOUND: &str = "error StatefulSet shop/web: container app of StatefulSet web is crash-looping: exit code 1 \
                         (application error), 4 restarts";

    fn running(since: &str) -> String {
        format!("{{running: {{startedAt: '{since}'}}}}")
    }

    fn said(spec: &str, restarts: u32, state: &str, last: &str) -> Findings {
        check(&RULE, &[&pod(spec, restarts, state, last)])
    }

    #[test]
    fn fires_in_every_state_of_the_loop() {
        said(ALWAYS, 4, WAITING, ENDED).finds(&[FOUND]);
        said(ALWAYS, 4, ENDED, ENDED).finds(&[FOUND]);
        said(ALWAYS, 4, &running("2026-11-21T11:59:56Z"), ENDED).finds(&[FOUND]);
    }

    #[test]
    fn fires_with_the_error_line_and_the_log_as_plain_text() {
        let said = TestCluster::new(&[&pod(ALWAYS, 4, WAITING, ENDED)])
            .log("shop", "web-0", "app", &["starting", "", "\u{1b}[31mfatal: DATABASE_URL is not set\u{1b}[0m", "bye"])
            .check(&RULE);
        said.finds(&[&format!("{FOUND}: \"fatal: DATABASE_URL is not set\"")]);
        let evidence: Vec<&str> = said.finding().evidence.iter().map(|e| e.text.as_str()).collect();
        assert_eq!(
            evidence,
            [
                "container app exited 15s ago: exit code 1 (application error), 4 restarts",
                "log of app: starting",
                "log of app: fatal: DATABASE_URL is not set",
                "log of app: bye"
            ]
        );
        assert_eq!(
            said.finding().fix[0].command.as_deref(),
            Some("kubectl -n shop logs statefulset/web -c app --previous")
        );
    }

    #[test]
    fn fires_for_a_container_that_completes_under_restart_policy_always() {
        let completed = ENDED.replace("exitCode: 1, reason: Error", "exitCode: 0, reason: Completed");
        said(ALWAYS, 4, WAITING, &completed)
            .finds(&["error StatefulSet shop/web: container app of StatefulSet web is crash-looping: \
            exit code 0 (completed) although restartPolicy is Always, 4 restarts"]);
    }

    #[test]
    fn fires_for_a_sidecar_and_without_optional_fields() {
        let pod = "
            apiVersion: v1
            kind: Pod
            metadata: {name: web, namespace: shop}
            spec: {initContainers: [{name: proxy, restartPolicy: Always}], containers: [{name: app}]}
            status: {initContainerStatuses: [{name: proxy, restartCount: 5, state: {waiting: {reason: CrashLoopBackOff}}}]}";
        check(&RULE, &[pod]).finds(&[
            "error Pod shop/web: sidecar proxy of Pod web is crash-looping: waiting in CrashLoopBackOff, 5 restarts",
        ]);
    }

    #[test]
    fn fires_for_a_crash_that_an_oom_kill_explains() {
        let killed = ENDED.replace("exitCode: 1, reason: Error", "exitCode: 137, reason: OOMKilled");
        let said = TestCluster::new(&[&pod(ALWAYS, 4, WAITING, &killed)]).check_all();
        let cause = said.by("pod/oom-killed").id.clone();
        assert_eq!(said.by("pod/crash-loop").caused_by, [cause]);
    }

    #[test]
    fn quiet_for_few_or_old_crashes() {
        said(ALWAYS, 0, ENDED, "{}").finds_nothing();
        said(ALWAYS, 1, &running("2026-11-21T11:59:46Z"), ENDED).finds_nothing();
        // The current run is longer than the last one.
        said(ALWAYS, 4, &running("2026-11-21T11:59:40Z"), &ENDED.replace("11:59", "11:58")).finds_nothing();
        // The last run lasted for days.
        let days = ENDED.replace("2026-11-21T11:59:40Z", "2026-11-18T11:59:40Z");
        said(ALWAYS, 4, &days, ENDED).finds_nothing();
        said(ALWAYS, 4, &running("2026-11-21T11:59:56Z"), &days).finds_nothing();
        // The node was restarted.
        let lost = ENDED.replace("exitCode: 1, reason: Error", "exitCode: 255, reason: Unknown");
        said(ALWAYS, 4, &running("2026-11-21T11:59:56Z"), &lost).finds_nothing();
    }

    #[test]
    fn quiet_for_a_young_pod_that_waits_for_another() {
        let young = pod(ALWAYS, 1, WAITING, ENDED).replace("11:00:00", "11:59:00");
        check(&RULE, &[&young]).finds_nothing();
    }

    #[test]
    fn quiet_for_a_retrying_job_and_for_finished_pods() {
        let job = pod("{restartPolicy: OnFailure, containers: [{name: app}]}", 2, WAITING, ENDED)
            .replace("apps/v1, kind: StatefulSet", "batch/v1, kind: Job");
        check(&RULE, &[&job]).finds_nothing();
        let finished = pod(ALWAYS, 4, WAITING, ENDED).replace("phase: Running", "phase: Failed");
        check(&RULE, &[&finished]).finds_nothing();
        said("{restartPolicy: Never, containers: [{name: app}]}", 4, ENDED, ENDED).finds_nothing();
    }

    #[test]
    fn quiet_where_another_rule_reports() {
        let start = ENDED.replace("exitCode: 1, reason: Error", "exitCode: 128, reason: StartError");
        said(ALWAYS, 4, WAITING, &start).finds_nothing();
        let init = pod("{initContainers: [{name: app}], containers: [{name: main}]}", 4, WAITING, ENDED)
            .replace("containerStatuses", "initContainerStatuses");
        check(&RULE, &[&init]).finds_nothing();
        check(&RULE, &["{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: app}]}}"])
            .finds_nothing();
    }

    #[test]
    fn fires_because_of_the_claim_whose_volume_is_full() {
        let spec = "{restartPolicy: Always, containers: [{name: app}], volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]}";
        let pod = pod(spec, 4, WAITING, ENDED);
        let because = |line: &str| {
            let said = TestCluster::new(&[&pod]).log("shop", "web-0", "app", &[line, "bye"]).check(&RULE);
            said.finding().because.iter().map(std::string::ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(because("FATAL: could not write: No space left on device"), ["PersistentVolumeClaim shop/data"]);
        assert!(because("FATAL: could not write").is_empty());
    }
}
