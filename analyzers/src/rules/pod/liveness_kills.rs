use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::workloads::exit::describe;
use crate::kubernetes::workloads::probe::{self, ProbeKind};
use crate::kubernetes::workloads::restarts::{Affected, affected, unsteady_groups};
use crate::kubernetes::workloads::revision::comparison;
use crate::rules::container::ContainerReport;
use crate::snapshot::{Cluster, Object, ObjectRef};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for containers that the kubelet kills and restarts because their liveness or startup probe fails, and
    /// reports the result of the probe.
    ///
    /// ## Why it matters
    ///
    /// The container may be healthy: the probe often uses the wrong port or path, or allows too little time for the
    /// application to start or to respond under load. Each kill interrupts work in progress, and restarts under load
    /// increase the load.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows the events `Unhealthy: Liveness probe failed: …` and `Killing`.
    /// Send the probe's request manually: `kubectl -n NAMESPACE port-forward POD 8080` and
    /// `curl -i localhost:8080/PATH`.
    ///
    /// ## How to fix
    ///
    /// Point the probe at a port and path that the container serves. For slow starts add a `startupProbe` instead of
    /// increasing `initialDelaySeconds`. A liveness probe must not depend on other services; check those in the
    /// readiness probe. An `httpGet` probe that is answered with an HTTP/2 frame targets a gRPC server: use a `grpc`
    /// probe. If the pods of another revision are ready with the same probe and a higher CPU limit, restore that limit.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if:
    ///
    /// - the container exited before the probe could have reached its failure threshold (it crashed by itself);
    /// - the container was OOM-killed;
    /// - there was a single kill and the container has recovered;
    /// - events could not be read.
    "pod/liveness-kills": Error,
    "the kubelet kills a container repeatedly because its liveness or startup probe fails",
    needs: [Pod, Event],
    optional: [ReplicaSet, Job, StatefulSet],
    explained_by: ["rbac/denied", "statefulset/outdated-pod", "workload/env-order"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        for affected in affected(cluster, cluster.pods_of(group), |c| probe::kills(cluster, c).is_some()) {
            report.add(finding(cluster, &group.owner, &affected));
        }
    }
}

fn finding(cluster: &Cluster, owner: &ObjectRef, affected: &Affected) -> Finding {
    let container = affected.sample();
    let pod = container.pod.reference();
    let failure = probe::kills(cluster, &container);
    let kind = failure.as_ref().map_or(ProbeKind::Liveness, |failure| failure.kind);
    let result = failure.map(|failure| failure.answer).unwrap_or_default();
    let probe = kind.of(container.spec);
    let action = probe.map(probe::describe).unwrap_or_default();
    let mismatch = probe.and_then(|probe| probe::port_mismatch(&container.pod.spec, container.spec, probe));
    let comparison = comparison(cluster, container.pod);
    let slower = comparison
        .as_ref()
        .and_then(|c| Some((c, c.lower_cpu_limit(container.name())?)))
        .filter(|_| result != probe::HTTP2);
    let slow = slower.map(|(comparison, change)| {
        let limit = change.after.as_deref().unwrap_or_default();
        let before = change.before.as_ref().map_or("none".to_string(), String::clone);
        format!("; limits.cpu is {limit} ({before} in {}, whose pods are ready)", comparison.revision)
    });
    let but = mismatch.as_ref().map(|declares| format!(", but {declares}")).unwrap_or_default();
    let message = format!(
        "{} of {} is killed by its {kind} probe: {action} fails ({result}){but}, {}{}",
        container.described(),
        owner.title(),
        container.restarts(),
        slow.unwrap_or_default()
    );
    let path = format!("{}.{kind}Probe", container.spec_path());
    let mut finding = Finding::error(owner.clone(), message)
        .container(container.name())
        .pods(affected.pods())
        .since(container.loops_since(cluster))
        .evidence(format!("{kind} probe: {action}"), &pod, &path)
        .evidence(format!("last result: {result}"), &pod, "");
    if let Some(declares) = mismatch {
        finding = finding.evidence(declares, &pod, &format!("{}.ports", container.spec_path()));
    }
    if let Some(end) = container.last_end() {
        let text = format!("the last run lasted {}s and ended with {}", container.last_run().as_secs(), describe(end));
        finding = finding.evidence(text, &pod, &container.last_end_path());
    }
    let finding = container.report_log(cluster, finding);
    let Some(probe) = probe else { return finding };
    if result == probe::HTTP2 {
        return finding.fix(probe::grpc_fix(container.spec, probe, &path));
    }
    if let Some((_, change)) = slower {
        let limit = format!("{}.resources.limits.cpu", container.spec_path());
        let to =
            change.before.as_ref().map_or(format!("Remove {limit}"), |before| format!("Raise {limit} to {before}"));
        let finding = finding.evidence(change.text(), &pod, &limit);
        return finding.fix(format!(
            "{to}: starting needs more CPU than running, and at this limit it takes longer than the probe allows"
        ));
    }
    let is_confirmed = comparison.as_ref().is_some_and(|comparison| comparison.confirms_probe(container.name()));
    let mut finding = container.tell_change(cluster, finding);
    if !is_confirmed {
        finding = finding.fix(format!("Point {path} at a port and path that the container serves"));
    }
    if container.spec.startup_probe.is_none() && kind == ProbeKind::Liveness {
        finding.fix("If the container only needs more time to start, add a startupProbe")
    } else {
        finding.fix("If the container only needs more time, raise failureThreshold or timeoutSeconds")
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    fn pod(restarts: u32, end: &str, since: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: web, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'}}
            spec: {{containers: [{{name: app, ports: [{{containerPort: 8080}}],
              livenessProbe: {{httpGet: {{port: 8081, path: /healthz}}, periodSeconds: 5, failureThreshold: 3}}}}]}}
            status: {{phase: Running, containerStatuses: [{{name: app, restartCount: {restarts},
              state: {{running: {{startedAt: '{since}'}}}}, lastState: {{terminated: {end}}}}}]}}"
        )
    }

    fn event(message: &str, count: u32) -> String {
        format!(
            "
            apiVersion: v1
            kind: Event
            metadata: {{name: e, namespace: shop}}
            involvedObject: {{kind: Pod, namespace: shop, name: web, fieldPath: 'spec.containers{{app}}'}}
            reason: Unhealthy
            message: '{message}'
            count: {count}
            lastTimestamp: '2026-11-21T11:59:50Z'"
        )
    }

    const KILLED: &str =
        "{exitCode: 137, reason: Error, startedAt: '2026-11-21T11:59:00Z', finishedAt: '2026-11-21T11:59:45Z'}";
    const SINCE: &str = "2026-11-21T11:59:46Z";
    const REFUSED: &str = "Liveness probe failed: Get \"http://10.0.0.1:8081/healthz\": dial tcp 10.0.0.1:8081: connect: connection refused";
    const FOUND: &str = "error Pod shop/web: container app of Pod web is killed by its liveness probe: GET \
                         :8081/healthz fails (connection refused), but container app declares port 8080, 3 restarts";

    #[test]
    fn fires_with_the_probe_its_result_and_the_declared_port() {
        check(&RULE, &[&pod(3, KILLED, SINCE), &event(REFUSED, 9)]).finds(&[FOUND]);
        // A graceful exit, or one with the application's own code, is a kill as well.
        check(&RULE, &[&pod(3, &KILLED.replace("137", "0"), SINCE), &event(REFUSED, 9)]).finds(&[FOUND]);
        check(&RULE, &[&pod(3, &KILLED.replace("137", "2"), SINCE), &event(REFUSED, 9)]).finds(&[FOUND]);
    }

    #[test]
    fn fires_as_the_cause_of_the_crash_loop() {
        let waiting = pod(3, KILLED, SINCE)
            .replace("running: {startedAt: '2026-11-21T11:59:46Z'}", "waiting: {reason: CrashLoopBackOff}");
        let said = TestCluster::new(&[&waiting, &event(REFUSED, 9)]).check_all();
        let cause = said.by("pod/liveness-kills").id.clone();
        assert_eq!(said.by("pod/crash-loop").caused_by, [cause]);
    }

    #[test]
    fn quiet_when_the_container_crashed_by_itself() {
        let immediate = KILLED
            .replace("11:59:00Z", "11:59:44Z")
            .replace("periodSeconds: 5", "periodSeconds: 20")
            .replace("137", "1");
        let pod = pod(3, &immediate, SINCE).replace("periodSeconds: 5", "periodSeconds: 10");
        check(&RULE, &[&pod, &event(REFUSED, 9)]).finds_nothing();
    }

    #[test]
    fn quiet_without_the_events_or_for_another_probe() {
        check(&RULE, &[&pod(3, KILLED, SINCE)]).finds_nothing();
        check(&RULE, &[&pod(3, KILLED, SINCE), &event(&REFUSED.replace("Liveness", "Readiness"), 9)]).finds_nothing();
        check(&RULE, &[&pod(3, KILLED, SINCE), &event(REFUSED, 1)]).finds_nothing();
        let said = TestCluster::new(&[&pod(3, KILLED, SINCE)]).forbid(crate::Kind::Event).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["Event forbidden"]);
    }

    #[test]
    fn quiet_after_recovery() {
        let recovered = pod(1, &KILLED.replace("T11:59", "T11:30"), "2026-11-21T11:30:46Z");
        check(&RULE, &[&recovered, &event(REFUSED, 9).replace("11:59:50", "11:30:40")]).finds_nothing();
    }

    #[test]
    fn fires_for_a_grpc_port_with_the_probe_to_use() {
        let answer = r#"Liveness probe failed: Get "http://10.0.0.1:8081/healthz": net/http: HTTP/1.x transport connection broken: malformed HTTP response "\x00\x00\x06\x04\x00""#;
        let said = check(&RULE, &[&pod(3, KILLED, SINCE), &event(answer, 9)]);
        assert!(said.finding().message.contains("fails (HTTP/2 frame: the port serves gRPC or HTTP/2)"));
        assert_eq!(said.finding().fix.len(), 1);
        assert!(said.finding().fix[0].text.contains("livenessProbe.httpGet with grpc (port: 8081)"));
        let other = answer.replace(r"\x04", r"\x05");
        assert!(
            check(&RULE, &[&pod(3, KILLED, SINCE), &event(&other, 9)]).text().contains("(malformed HTTP response)")
        );
    }

    #[test]
    fn fires_for_a_cpu_limit_that_was_lowered() {
        let of = |name: &str, hash: &str, cpu: &str, text: &str| {
            let meta = format!(
                "name: {name}, labels: {{controller-revision-hash: {hash}}}, ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: web, controller: true}}],"
            );
            text.replace("name: web,", &meta)
                .replace("{name: app, ports", &format!("{{name: app, resources: {{limits: {{cpu: {cpu}}}}}, ports"))
        };
        let failing = of("web", "two", "100m", &pod(3, KILLED, SINCE));
        let ready = of("web-1", "one", "'2'", &pod(0, "{}", SINCE))
            .replace("status: {", "status: {conditions: [{type: Ready, status: 'True'}], ");
        let said = check(&RULE, &[&failing, &ready, &event(REFUSED, 9)]);
        assert!(said.finding().message.ends_with("; limits.cpu is 100m (2 in revision one, whose pods are ready)"));
        assert!(said.finding().fix[0].text.starts_with("Raise spec.containers[app].resources.limits.cpu to 2"));
        let said = check(&RULE, &[&failing, &ready.replace("cpu: '2'", "cpu: 100m"), &event(REFUSED, 9)]);
        assert!(said.finding().fix[0].text.starts_with("Point"));
    }
}
