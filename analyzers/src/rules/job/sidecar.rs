use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{age, human};
use crate::kubernetes::workloads::job::JobExt;
use crate::snapshot::model::{Container, ContainerStatus, Job, Pod, Timestamp};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for Jobs whose work is done but whose pod does not end, because a sidecar that is an ordinary container
    /// keeps running: a container that was injected into the pod (it is not in the Job's template), or one with the name
    /// or image of a known proxy or agent.
    ///
    /// ## Why it matters
    ///
    /// A pod completes only when all its containers end, so the Job stays active. A CronJob with
    /// `concurrencyPolicy: Forbid` starts no further runs.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pod POD` shows `NotReady` or `1/2` for a long time; `kubectl -n NAMESPACE describe pod
    /// POD` shows the work container as `Terminated: Completed` and the sidecar as `Running`.
    ///
    /// ## How to fix
    ///
    /// Run the sidecar as a native sidecar (an init container with `restartPolicy: Always`), which Kubernetes stops when
    /// the work is done, or disable the injection for the pods of the Job. Delete the active Job to free its CronJob: its
    /// work is done.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - in the first five minutes after the work ended;
    /// - if a work container failed or is still running;
    /// - for other containers of the template, which may do work of their own.
    "job/sidecar": Error,
    "a Job does not complete because a sidecar keeps its pod running",
    needs: [Job, Pod],
    optional: [CronJob],
    explained_by: [],
}

/// A sidecar may need this long to notice that the work is done.
const DRAIN: Duration = Duration::from_secs(300);

/// Names of sidecars, or parts of the names of their images.
const SIDECARS: [&str; 18] = [
    "istio-proxy",
    "proxyv2",
    "linkerd-proxy",
    "envoy",
    "kuma-sidecar",
    "kuma-dp",
    "consul-dataplane",
    "cloud-sql-proxy",
    "cloudsql-proxy",
    "vault-agent",
    "daprd",
    "fluent-bit",
    "fluentd",
    "filebeat",
    "otel-collector",
    "datadog-agent",
    "oauth2-proxy",
    "tailscale",
];

fn check(cluster: &Cluster, report: &mut Report) {
    for job in
        cluster.all::<Job>().iter().filter(|job| job.status.active > 0 && job.deleted().is_none() && !job.is_over())
    {
        let found = cluster.pods_of_job(job).into_iter().find_map(|pod| done(cluster, job, pod));
        if let Some(done) = found {
            report.add(finding(cluster, job, &done));
        }
    }
}

/// A pod whose work is done.
struct Done<'a> {
    pod: &'a Pod,
    work: Vec<&'a str>,
    sidecars: Vec<&'a Container>,
    since: Timestamp,
}

fn done<'a>(cluster: &Cluster, job: &Job, pod: &'a Pod) -> Option<Done<'a>> {
    if !pod.is_active() {
        return None;
    }
    let statuses = || pod.status.container_statuses.iter();
    let ended = |status: &&ContainerStatus| status.state.terminated().is_some_and(|end| end.exit_code == 0);
    let running = statuses().filter(|status| status.state.running().is_some());
    let sidecars: Vec<&Container> = running.filter_map(|status| pod.spec.container(&status.name)).collect();
    let work: Vec<&str> = statuses().filter(ended).map(|status| status.name.as_str()).collect();
    let is_complete = work.len() + sidecars.len() == pod.spec.containers.len();
    let are_sidecars = sidecars.iter().all(|container| is_injected(job, container) || is_known(container));
    if work.is_empty() || sidecars.is_empty() || !is_complete || !are_sidecars {
        return None;
    }
    let since = statuses().filter_map(|status| status.state.terminated()?.finished_at).max()?;
    (age(cluster.now(), since) >= DRAIN).then_some(Done { pod, work, sidecars, since })
}

fn is_injected(job: &Job, container: &Container) -> bool {
    job.spec.template.spec.container(&container.name).is_none()
}

fn is_known(container: &Container) -> bool {
    SIDECARS.iter().any(|name| container.name == *name || container.image.contains(name))
}

fn finding(cluster: &Cluster, job: &Job, done: &Done) -> Finding {
    let names: Vec<&str> = done.sidecars.iter().map(|container| container.name.as_str()).collect();
    let (sidecars, verb) = (list(&names, 3), if names.len() == 1 { "keeps" } else { "keep" });
    let ago = human(age(cluster.now(), done.since));
    let object = job.reference();
    let message = format!(
        "Job {} does not complete: container {} completed {ago} ago, but sidecar {sidecars} {verb} its pod running",
        job.name(),
        list(&done.work, 3)
    );
    let pod = done.pod.reference();
    let mut finding = Finding::error(object.clone(), message).since(Some(done.since)).pods(1).evidence(
        format!("container {} ended with exit code 0", list(&done.work, 3)),
        &pod,
        "status.containerStatuses",
    );
    for container in &done.sidecars {
        let origin =
            if is_injected(job, container) { "injected, not in the Job's template" } else { "an ordinary container" };
        let text = format!("container {} is running ({origin})", container.name);
        finding = finding.evidence(text, &pod, &format!("status.containerStatuses[{}]", container.name));
    }
    let finding = advise(finding, job, done);
    let owner = job.controller().map_or(String::new(), |owner| format!("; {} then starts its next run", owner.title()));
    finding.fix_command(
        format!("Delete the Job, whose work is done{owner}"),
        kubectl(["-n", job.namespace(), "delete", "job", job.name()]),
    )
}

fn advise(finding: Finding, job: &Job, done: &Done) -> Finding {
    let Some(sidecar) = done.sidecars.first() else { return finding };
    let name = sidecar.name.as_str();
    let template = match job.controller() {
        Some(owner) => format!("the Job template of {}", owner.title()),
        None => "the Job's pod template".to_string(),
    };
    if !is_injected(job, sidecar) {
        return finding.fix(format!(
            "Move container {name} to initContainers with restartPolicy: Always (a native sidecar) in {template}"
        ));
    }
    let (native, without) = match name {
        "istio-proxy" => (
            "set ENABLE_NATIVE_SIDECARS=true in istiod".to_string(),
            "label sidecar.istio.io/inject: \"false\"".to_string(),
        ),
        "linkerd-proxy" => (
            "annotate the pods with config.alpha.linkerd.io/proxy-enable-native-sidecar: \"true\"".to_string(),
            "annotation linkerd.io/inject: disabled".to_string(),
        ),
        _ => ("configure its injector".to_string(), "the opt-out label or annotation of its injector".to_string()),
    };
    finding
        .fix(format!("Inject {name} as a native sidecar (an init container with restartPolicy: Always): {native}"))
        .fix(format!("Or exclude the pods from injection: {without} in {template}"))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, check};

    fn said(template: &str, pod: &str, statuses: &str) -> Findings {
        let job = format!(
            "
            apiVersion: batch/v1
            kind: Job
            metadata: {{name: import, namespace: shop, creationTimestamp: '2026-11-21T10:00:00Z'}}
            spec: {{template: {{spec: {{containers: {template}}}}}}}
            status: {{active: 1}}
            ---
            apiVersion: v1
            kind: Pod
            metadata: {{name: import-x, namespace: shop, ownerReferences: [{{apiVersion: batch/v1, kind: Job, name: import, controller: true}}]}}
            spec: {{containers: {pod}}}
            status: {{phase: Running, containerStatuses: {statuses}}}"
        );
        check(&RULE, &[&job])
    }

    const DONE: &str = "{name: work, state: {terminated: {exitCode: 0, finishedAt: '2026-11-21T11:00:00Z'}}}";
    const SIDE: &str = "{name: mesh, state: {running: {startedAt: '2026-11-21T10:00:00Z'}}}";

    #[test]
    fn fires_for_an_injected_sidecar() {
        said("[{name: work}]", "[{name: work}, {name: mesh}]", &format!("[{DONE}, {SIDE}]")).finds(&[
            "error Job shop/import: Job import does not complete: container work completed 60m ago, but sidecar mesh keeps \
             its pod running",
        ]);
        let known = "[{name: work}, {name: mesh, image: 'envoyproxy/envoy:v1'}]";
        assert!(said(known, known, &format!("[{DONE}, {SIDE}]")).finding().fix[0].text.contains("Move container mesh"));
    }

    #[test]
    fn quiet_while_work_is_running_or_failed() {
        let two = "[{name: work}, {name: mesh}]";
        said(two, two, &format!("[{DONE}, {SIDE}]")).finds_nothing();
        let all = |work: &str| said("[{name: work}]", two, &format!("[{work}, {SIDE}]"));
        all(&DONE.replace("exitCode: 0", "exitCode: 1")).finds_nothing();
        all(&DONE.replace("T11:00:00", "T11:58:00")).finds_nothing();
        all(&SIDE.replace("mesh", "work")).finds_nothing();
    }
}
