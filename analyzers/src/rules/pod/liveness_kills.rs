use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::workloads::exit::describe;
use crate::kubernetes::workloads::probe::{self, ProbeKind};
use crate::kubernetes::workloads::restarts::{Affected, affected, unsteady_groups};
use crate::rules::container::ContainerReport;
use crate::snapshot::{Cluster, Object, ObjectRef};

declare_rule! {
    /// ## What it checks
    ///
    /// Whether the kubelet kills and restarts a container because its liveness or startup probe fails, and what the probe
    /// was answered.
    ///
    /// ## Why it matters
    ///
    /// The container may be perfectly well: often the probe asks the wrong port or path, or has less patience than the
    /// program needs to start or to answer under load. Each kill cuts off the work in progress, and restarts under load make
    /// the load worse.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows events `Unhealthy: Liveness probe failed: …` and `Killing`. Ask the
    /// probe's address yourself: `kubectl -n NAMESPACE port-forward POD 8080` and `curl -i localhost:8080/PATH`.
    ///
    /// ## How to fix
    ///
    /// Let the probe ask a port and path that the program serves. For slow starts add a `startupProbe` instead of a longer
    /// `initialDelaySeconds`. A liveness probe should not depend on other services; that belongs into the readiness probe.
    ///
    /// ## Exceptions
    ///
    /// Where the container ended sooner than the probe's patience allows (then it crashed by itself), where it was killed
    /// for memory, for a single kill that is over, and where events could not be read.
    "pod/liveness-kills": Error,
    "a failing liveness or startup probe makes the kubelet kill a container again and again",
    needs: [Pod, Event],
    optional: [ReplicaSet, Job],
    explained_by: ["rbac/denied"],
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
    let answer = failure.map(|failure| failure.answer).unwrap_or_default();
    let asked = kind.of(container.spec);
    let asks = asked.map(probe::describe).unwrap_or_default();
    let mismatch = asked.and_then(|probe| probe::port_mismatch(&container.pod.spec, container.spec, probe));
    let but = mismatch.as_ref().map(|declares| format!(", but {declares}")).unwrap_or_default();
    let message = format!(
        "{}: {} is killed by its {kind} probe: {asks} fails with {answer}{but}, {}",
        owner.title(),
        container.described(),
        container.restarts()
    );
    let path = format!("{}.{kind}Probe", container.spec_path());
    let mut finding = Finding::error(owner.clone(), message)
        .container(container.name())
        .pods(affected.pods())
        .since(container.loops_since(cluster))
        .evidence(format!("the {kind} probe asks {asks}"), &pod, &path)
        .evidence(format!("its last answer: {answer}"), &pod, "");
    if let Some(declares) = mismatch {
        finding = finding.evidence(declares, &pod, &format!("{}.ports", container.spec_path()));
    }
    if let Some(end) = container.last_end() {
        let text = format!("the last run took {}s and ended with {}", container.last_run().as_secs(), describe(end));
        finding = finding.evidence(text, &pod, &container.last_end_path());
    }
    let finding = container.tell_log(cluster, finding);
    let finding = finding.fix(format!("Let {path} ask a port and path that the program answers"));
    match container.spec.startup_probe.is_none() && kind == ProbeKind::Liveness {
        true => finding.fix("If the program only needs longer to start, give it a startupProbe"),
        false => finding.fix("If the program only needs longer, raise failureThreshold or timeoutSeconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{World, check};

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
    const FOUND: &str = "error Pod shop/web: Pod web: container app is killed by its liveness probe: GET :8081/healthz fails \
                         with connection refused, but container app declares 8080, 3 restarts";

    #[test]
    fn fires_with_the_probe_its_answer_and_the_port_declared() {
        check(&RULE, &[&pod(3, KILLED, SINCE), &event(REFUSED, 9)]).finds(&[FOUND]);
        // A graceful end, or one with the program's own code, is a kill all the same.
        check(&RULE, &[&pod(3, &KILLED.replace("137", "0"), SINCE), &event(REFUSED, 9)]).finds(&[FOUND]);
        check(&RULE, &[&pod(3, &KILLED.replace("137", "2"), SINCE), &event(REFUSED, 9)]).finds(&[FOUND]);
    }

    #[test]
    fn fires_as_the_cause_of_the_crash_loop() {
        let waits = pod(3, KILLED, SINCE)
            .replace("running: {startedAt: '2026-11-21T11:59:46Z'}", "waiting: {reason: CrashLoopBackOff}");
        let said = World::new(&[&waits, &event(REFUSED, 9)]).check_all();
        let cause = said.by("pod/liveness-kills").id.clone();
        assert_eq!(said.by("pod/crash-loop").caused_by, [cause]);
    }

    #[test]
    fn quiet_when_the_container_crashed_by_itself() {
        let at_once = KILLED
            .replace("11:59:00Z", "11:59:44Z")
            .replace("periodSeconds: 5", "periodSeconds: 20")
            .replace("137", "1");
        let pod = pod(3, &at_once, SINCE).replace("periodSeconds: 5", "periodSeconds: 10");
        check(&RULE, &[&pod, &event(REFUSED, 9)]).finds_nothing();
    }

    #[test]
    fn quiet_without_the_events_or_for_another_probe() {
        check(&RULE, &[&pod(3, KILLED, SINCE)]).finds_nothing();
        check(&RULE, &[&pod(3, KILLED, SINCE), &event(&REFUSED.replace("Liveness", "Readiness"), 9)]).finds_nothing();
        check(&RULE, &[&pod(3, KILLED, SINCE), &event(REFUSED, 1)]).finds_nothing();
        let said = World::new(&[&pod(3, KILLED, SINCE)]).forbid(crate::Kind::Event).check(&RULE);
        assert_eq!(said.finds_nothing().gaps(), ["Event forbidden"]);
    }

    #[test]
    fn quiet_when_it_is_over() {
        let long = pod(1, &KILLED.replace("T11:59", "T11:30"), "2026-11-21T11:30:46Z");
        check(&RULE, &[&long, &event(REFUSED, 9).replace("11:59:50", "11:30:40")]).finds_nothing();
    }
}
