use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::time::{RECENT, age, human};
use crate::kubernetes::workloads::restarts::{Affected, PodContainer, affected, judged, unsteady_groups};
use crate::rules::container::ContainerReport;
use crate::snapshot::model::{ContainerStateTerminated, Quantity};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Whether the kernel killed a container because it used more memory than it may: its state or last state is
    /// `OOMKilled`.
    ///
    /// ## Why it matters
    ///
    /// The kill comes without warning: requests under way are lost, files may be left half written. It comes again as
    /// soon as as much memory is needed, and turns into a crash loop if that is at the start.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows `Last State: Terminated, Reason: OOMKilled` beside the limit;
    /// `kubectl -n NAMESPACE top pod --containers` how much is in use.
    ///
    /// ## How to fix
    ///
    /// Raise the limit to what the program needs, or make the program keep to it: the heap of a JVM or of Node.js, caches and
    /// the number of workers are set apart from the limit. If the use only ever grows, it is a leak. Where the
    /// container has no limit, the node itself ran out of memory: set requests, so that fewer pods share it.
    ///
    /// ## Exceptions
    ///
    /// When the kill is more than an hour ago and the container runs again. It is a warning where the container runs
    /// again and does not crash in a loop. A Job whose retry succeeded is not reported.
    "pod/oom-killed": Error,
    "a container is killed for using more memory than its limit",
    needs: [Pod],
    optional: [Event, ReplicaSet, Job],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        for affected in affected(cluster, judged(cluster, group), |c| is_now(cluster, c) || was_recently(cluster, c)) {
            report.add(finding(cluster, &group.owner, &affected));
        }
    }
}

/// The end by lack of memory, with the field that holds it: the last one, or the one before it.
fn kill<'a>(container: &PodContainer<'a>) -> Option<(&'a ContainerStateTerminated, &'static str)> {
    let (state, last) = (&container.status.state, &container.status.last_state);
    if state.terminated().is_some_and(|end| end.exit_code == 0 && end.reason != "OOMKilled") {
        return None;
    }
    let ends = [(state.terminated(), "state"), (last.terminated(), "lastState")];
    ends.into_iter().find_map(|(end, field)| Some((end.filter(|end| end.reason == "OOMKilled")?, field)))
}

/// It does not run because of that, or soon will not.
fn is_now(cluster: &Cluster, container: &PodContainer) -> bool {
    container.was_oom_killed() && kill(container).is_some() && (!container.runs() || container.loops(cluster))
}

fn was_recently(cluster: &Cluster, container: &PodContainer) -> bool {
    let killed = kill(container).and_then(|(end, _)| end.finished_at);
    killed.is_some_and(|killed| age(cluster.now(), killed) < RECENT)
}

fn finding(cluster: &Cluster, owner: &ObjectRef, affected: &Affected) -> Finding {
    let now = affected.containers.iter().find(|c| is_now(cluster, c));
    let container = now.copied().unwrap_or(affected.sample());
    let pod = container.pod.reference();
    let (killed, field) = kill(&container).map_or((None, "state"), |(end, field)| (end.finished_at, field));
    let limit = limit(&container);
    let what = container.described();
    let why = match &limit {
        Some((limit, _)) => format!("for using more memory than its limit of {}", limit.0),
        None => "for memory although it has no limit: the node ran out of it".to_string(),
    };
    let ago = killed.map(|killed| format!(" {} ago", human(age(cluster.now(), killed)))).unwrap_or_default();
    let restarts = container.restarts();
    let (severity, message) = match now {
        Some(_) => (Severity::Error, format!("{what} is killed {why} (OOMKilled), {restarts}")),
        None => (Severity::Warning, format!("{what} was killed{ago} {why} (OOMKilled), {restarts}")),
    };
    let mut finding = Finding::new(severity, owner.clone(), format!("{}: {message}", owner.title()))
        .container(container.name())
        .pods(affected.pods())
        .since(killed)
        .evidence(
            format!("{what} was OOMKilled{ago}, {restarts}"),
            &pod,
            &format!("{}.{field}.terminated", container.status_path()),
        );
    if let Some((limit, path)) = &limit {
        finding = finding.evidence(format!("the memory limit is {}", limit.0), &pod, path);
    }
    fix(container.tell_log(cluster, finding), owner, &container, limit.map(|(limit, _)| limit))
}

/// The memory limit of the container, else of its pod, and its field.
fn limit<'a>(container: &PodContainer<'a>) -> Option<(&'a Quantity, String)> {
    let own = container.spec.resources.limits.get("memory");
    let own = own.map(|limit| (limit, format!("{}.resources.limits.memory", container.spec_path())));
    let of_pod = container.pod.spec.resources.limits.get("memory");
    own.or(of_pod.map(|limit| (limit, "spec.resources.limits.memory".to_string())))
}

fn fix(finding: Finding, owner: &ObjectRef, container: &PodContainer, limit: Option<&Quantity>) -> Finding {
    let Some(limit) = limit else {
        return finding.fix("Give the pods of the node memory requests that they keep to, so that fewer share it");
    };
    let text = "Raise the limit if the program needs more, for example to twice as much";
    let settable = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet].iter().any(|kind| owner.is(*kind));
    let finding = match twice(&limit.0).filter(|_| settable && !container.is_init) {
        Some(twice) => {
            let (target, limits) = (owner.target(), format!("--limits=memory={twice}"));
            let command = ["-n", owner.namespace(), "set", "resources", &target, "-c", container.name(), &limits];
            finding.fix_command(text, kubectl(command))
        }
        None => finding.fix(format!("{text} ({}.resources.limits.memory)", container.spec_path())),
    };
    finding.fix("Or make the program keep to it: heap size, caches, number of workers; a use that only grows is a leak")
}

/// `64Mi` → `128Mi`.
fn twice(quantity: &str) -> Option<String> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(digits);
    let plain = unit.chars().all(|c| c.is_ascii_alphabetic()) && unit != "m";
    let twice = number.parse::<u64>().ok()?.checked_mul(2)?;
    plain.then(|| format!("{twice}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::{RULE, twice};
    use crate::testing::{Said, World, check};

    const KILLED: &str = "{terminated: {exitCode: 137, reason: OOMKilled, startedAt: '2026-11-21T11:40:00Z', finishedAt: '2026-11-21T11:48:00Z'}}";

    fn pod(resources: &str, state: &str, last: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: web-1-x, namespace: shop, labels: {{pod-template-hash: '1'}}, creationTimestamp: '2026-11-21T09:00:00Z', ownerReferences: [
              {{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, controller: true}}]}}
            spec: {{containers: [{{name: app, resources: {resources}}}]}}
            status: {{phase: Running, containerStatuses: [{{name: app, restartCount: 2, state: {state}, lastState: {last}}}]}}"
        )
    }

    fn said(resources: &str, state: &str, last: &str) -> Said {
        check(&RULE, &[&pod(resources, state, last)])
    }

    const LIMIT: &str = "{limits: {memory: 64Mi}}";
    const RUNS: &str = "{running: {startedAt: '2026-11-21T11:48:01Z'}}";

    #[test]
    fn fires_as_an_error_while_it_does_not_run() {
        let found =
            ["error Deployment shop/web: Deployment web: container app is killed for using more memory than its \
                      limit of 64Mi (OOMKilled), 2 restarts"];
        said(LIMIT, "{waiting: {reason: CrashLoopBackOff}}", KILLED).finds(&found);
        let said = said(LIMIT, KILLED, KILLED);
        said.finds(&found);
        assert_eq!(
            said.finding().fix[0].command.as_deref(),
            Some("kubectl -n shop set resources deployment/web -c app --limits=memory=128Mi")
        );
    }

    #[test]
    fn fires_as_a_warning_once_it_runs_again() {
        said(LIMIT, RUNS, KILLED)
            .finds(&["warning Deployment shop/web: Deployment web: container app was killed 12m ago \
                      for using more memory than its limit of 64Mi (OOMKilled), 2 restarts"]);
    }

    #[test]
    fn fires_without_a_limit() {
        said("{}", RUNS, KILLED)
            .finds(&["warning Deployment shop/web: Deployment web: container app was killed 12m ago \
                      for memory although it has no limit: the node ran out of it (OOMKilled), 2 restarts"]);
    }

    #[test]
    fn fires_for_a_job_that_gave_up_and_not_for_one_that_succeeded() {
        let attempt = "
            apiVersion: v1
            kind: Pod
            metadata: {name: sum-a, namespace: shop, ownerReferences: [{apiVersion: batch/v1, kind: Job, name: sum, controller: true}]}
            spec: {restartPolicy: Never, containers: [{name: app, resources: {limits: {memory: 1Gi}}}]}
            status: {phase: Failed, containerStatuses: [{name: app, state: {terminated: {exitCode: 137, reason: OOMKilled}}}]}";
        let job = |condition: &str| {
            format!(
                "{{apiVersion: batch/v1, kind: Job, metadata: {{name: sum, namespace: shop}},
                 status: {{failed: 2, conditions: [{{type: {condition}, status: 'True'}}]}}}}"
            )
        };
        check(&RULE, &[attempt, &job("Failed")])
            .finds(&["error Job shop/sum: Job sum: container app is killed for using \
            more memory than its limit of 1Gi (OOMKilled), 0 restarts"]);
        check(&RULE, &[attempt, &job("Complete")]).finds_nothing();
    }

    #[test]
    fn quiet_when_it_was_long_ago() {
        said(LIMIT, &RUNS.replace("T11", "T10"), &KILLED.replace("T11", "T10")).finds_nothing();
    }

    #[test]
    fn quiet_for_a_sigkill_that_was_not_for_memory() {
        said(LIMIT, RUNS, &KILLED.replace("OOMKilled", "Error")).finds_nothing();
        World::new(&["{apiVersion: v1, kind: Pod, metadata: {name: a}}"]).check(&RULE).finds_nothing();
    }

    #[test]
    fn doubles_quantities() {
        assert_eq!(twice("64Mi").as_deref(), Some("128Mi"));
        assert_eq!(twice("1500M").as_deref(), Some("3000M"));
        assert_eq!(twice("1073741824").as_deref(), Some("2147483648"));
        assert_eq!(twice("1.5Gi"), None);
        assert_eq!(twice("128e6"), None);
        assert_eq!(twice("-1"), None);
    }
}
