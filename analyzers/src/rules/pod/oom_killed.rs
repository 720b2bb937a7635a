use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::time::{RECENT, age, human};
use crate::kubernetes::workloads::mounts::{Mounted, mounts};
use crate::kubernetes::workloads::restarts::{Affected, PodContainer, affected, judged, unsteady_groups};
use crate::rules::container::ContainerReport;
use crate::snapshot::model::{ContainerStateTerminated, Quantity};
use crate::snapshot::{Amount, Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for containers that the kernel killed because they exceeded their memory limit: the reason of the current
    /// or last state is `OOMKilled`.
    ///
    /// ## Why it matters
    ///
    /// The kill happens without warning: requests in progress are lost and files may be left incomplete. It recurs
    /// whenever the container needs as much memory again, and becomes a crash loop if that happens at startup.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows `Last State: Terminated, Reason: OOMKilled` and the limit.
    /// `kubectl -n NAMESPACE top pod --containers` shows current usage.
    ///
    /// ## How to fix
    ///
    /// Raise the limit to what the application needs, or configure the application to stay within it: the heap of a JVM
    /// or of Node.js, caches and the number of workers are configured independently of the limit. Steadily growing
    /// usage indicates a memory leak. If the container has no limit, the node ran out of memory: set requests, so that
    /// fewer pods share the node. Files in an `emptyDir` with `medium: Memory` count towards the limit as well: set its
    /// `sizeLimit` well below the memory limit, or remove `medium: Memory`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if the kill is more than an hour old and the container is running again, or for a Job
    /// whose retry succeeded. The severity is `warning` if the container is running again and is not in a crash loop.
    "pod/oom-killed": Error,
    "a container is killed because it exceeds its memory limit",
    needs: [Pod],
    optional: [Event, ReplicaSet, Job, StatefulSet],
    explained_by: ["statefulset/outdated-pod"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        for affected in affected(cluster, judged(cluster, group), |c| is_now(cluster, c) || was_recently(cluster, c)) {
            report.add(finding(cluster, &group.owner, &affected));
        }
    }
}

/// The OOM kill in the current or the last state, with the name of that field.
fn kill<'a>(container: &PodContainer<'a>) -> Option<(&'a ContainerStateTerminated, &'static str)> {
    let (state, last) = (&container.status.state, &container.status.last_state);
    if state.terminated().is_some_and(|end| end.exit_code == 0 && end.reason != "OOMKilled") {
        return None;
    }
    let ends = [(state.terminated(), "state"), (last.terminated(), "lastState")];
    ends.into_iter().find_map(|(end, field)| Some((end.filter(|end| end.reason == "OOMKilled")?, field)))
}

/// Whether the container is down or crash-looping because of the kill.
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
    let memory = MemoryVolume::of(&container);
    let why = match (&limit, &memory) {
        (Some((limit, _)), Some(memory)) if memory.may_fill(limit) => format!(
            "files in emptyDir {} (medium: Memory, sizeLimit {}) count towards its memory limit of {}",
            memory.mounted.volume.name,
            memory.size.map_or("", |size| size.0.as_str()),
            limit.0
        ),
        (Some((limit, _)), _) => format!("it exceeded its memory limit of {}", limit.0),
        (None, _) => "it has no memory limit and the node ran out of memory".to_string(),
    };
    let ago = killed.map(|killed| format!(" {} ago", human(age(cluster.now(), killed)))).unwrap_or_default();
    let restarts = container.restarts();
    let (severity, problem) = match now {
        Some(_) => (Severity::Error, format!("is OOMKilled: {why}, {restarts}")),
        None => (Severity::Warning, format!("was OOMKilled{ago}: {why}, {restarts}")),
    };
    let mut finding = Finding::new(severity, owner.clone(), format!("{what} of {} {problem}", owner.title()))
        .container(container.name())
        .pods(affected.pods())
        .since(killed)
        .evidence(
            format!("{what} was OOMKilled{ago}, {restarts}"),
            &pod,
            &format!("{}.{field}.terminated", container.status_path()),
        );
    if let Some((limit, path)) = &limit {
        finding = finding.evidence(format!("memory limit is {}", limit.0), &pod, path);
    }
    if let Some(memory) = &memory {
        finding = finding.evidence(
            memory.described(),
            &pod,
            &format!("spec.volumes[{}].emptyDir", memory.mounted.volume.name),
        );
    }
    finding = container.tell_change(cluster, container.report_log(cluster, finding));
    match (memory, limit) {
        (Some(memory), Some((limit, _))) if memory.may_fill(limit) => memory.fix(finding, &container, limit),
        (_, limit) => fix(finding, owner, &container, limit.map(|(limit, _)| limit)),
    }
}

/// A memory-backed volume of the container.
struct MemoryVolume<'a> {
    mounted: Mounted<'a>,
    size: Option<&'a Quantity>,
}

impl<'a> MemoryVolume<'a> {
    /// The largest one.
    fn of(container: &PodContainer<'a>) -> Option<MemoryVolume<'a>> {
        let all = mounts(&container.pod.spec, container.spec).filter_map(|mounted| {
            let dir = mounted.volume.empty_dir.as_ref().filter(|dir| dir.medium == "Memory")?;
            Some(MemoryVolume { mounted, size: dir.size_limit.as_ref() })
        });
        // Without a size limit it may grow up to the memory limit of the pod.
        all.max_by_key(|volume| (volume.size.is_none(), volume.size.and_then(Amount::of)))
    }

    /// Whether it alone may reach the memory limit: a volume without a size limit may, but often stays small, like
    /// `/dev/shm`.
    fn may_fill(&self, limit: &Quantity) -> bool {
        self.size.is_some_and(|size| Amount::of(size) >= Amount::of(limit))
    }

    fn described(&self) -> String {
        let size = self.size.map_or("no sizeLimit".to_string(), |size| format!("sizeLimit {}", size.0));
        format!(
            "files in emptyDir {} (medium: Memory, {size}), mounted at {}, count towards the memory limit and remain after a \
             restart",
            self.mounted.volume.name, self.mounted.mount.mount_path
        )
    }

    fn fix(&self, finding: Finding, container: &PodContainer, limit: &Quantity) -> Finding {
        let name = &self.mounted.volume.name;
        let sum = self.size.and_then(|size| Some(Amount::of(size)? + Amount::of(limit)?)).map(|sum| sum.text("memory"));
        let raise = sum.map_or(String::new(), |sum| {
            format!(", or raise {}.resources.limits.memory to {sum}", container.spec_path())
        });
        finding
            .fix(format!("Set sizeLimit of emptyDir {name} well below {}{raise}", limit.0))
            .fix(format!("Or remove medium: Memory from emptyDir {name}, so that its files are on disk"))
    }
}

/// The memory limit of the container, or else of its pod, with the path of the field.
fn limit<'a>(container: &PodContainer<'a>) -> Option<(&'a Quantity, String)> {
    let own = container.spec.resources.limits.get("memory");
    let own = own.map(|limit| (limit, format!("{}.resources.limits.memory", container.spec_path())));
    let of_pod = container.pod.spec.resources.limits.get("memory");
    own.or(of_pod.map(|limit| (limit, "spec.resources.limits.memory".to_string())))
}

fn fix(finding: Finding, owner: &ObjectRef, container: &PodContainer, limit: Option<&Quantity>) -> Finding {
    let Some(limit) = limit else {
        return finding
            .fix("Set memory requests that match the usage of the pods on the node, so that fewer pods share it");
    };
    let text = "Raise the memory limit if the container needs more, for example to twice the current value";
    let settable = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet].iter().any(|kind| owner.is(*kind));
    let finding = match twice(&limit.0).filter(|_| settable && !container.is_init) {
        Some(twice) => {
            let (target, limits) = (owner.target(), format!("--limits=memory={twice}"));
            let command = ["-n", owner.namespace(), "set", "resources", &target, "-c", container.name(), &limits];
            finding.fix_command(text, kubectl(command))
        }
        None => finding.fix(format!("{text} ({}.resources.limits.memory)", container.spec_path())),
    };
    finding.fix("Or reduce memory usage: heap size, caches, number of workers; steadily growing usage indicates a leak")
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
    use crate::testing::{Findings, TestCluster, check};

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

    fn said(resources: &str, state: &str, last: &str) -> Findings {
        check(&RULE, &[&pod(resources, state, last)])
    }

    const LIMIT: &str = "{limits: {memory: 64Mi}}";
    const RUNS: &str = "{running: {startedAt: '2026-11-21T11:48:01Z'}}";

    #[test]
    fn fires_as_an_error_while_the_container_is_down() {
        let found =
            ["error Deployment shop/web: container app of Deployment web is OOMKilled: it exceeded its memory \
                      limit of 64Mi, 2 restarts"];
        said(LIMIT, "{waiting: {reason: CrashLoopBackOff}}", KILLED).finds(&found);
        let said = said(LIMIT, KILLED, KILLED);
        said.finds(&found);
        assert_eq!(
            said.finding().fix[0].command.as_deref(),
            Some("kubectl -n shop set resources deployment/web -c app --limits=memory=128Mi")
        );
    }

    #[test]
    fn fires_as_a_warning_once_the_container_is_running_again() {
        said(LIMIT, RUNS, KILLED)
            .finds(&["warning Deployment shop/web: container app of Deployment web was OOMKilled 12m ago: \
                      it exceeded its memory limit of 64Mi, 2 restarts"]);
    }

    #[test]
    fn fires_without_a_limit() {
        said("{}", RUNS, KILLED)
            .finds(&["warning Deployment shop/web: container app of Deployment web was OOMKilled 12m ago: \
                      it has no memory limit and the node ran out of memory, 2 restarts"]);
    }

    #[test]
    fn fires_for_a_failed_job_and_not_for_a_complete_one() {
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
            .finds(&["error Job shop/sum: container app of Job sum is OOMKilled: \
            it exceeded its memory limit of 1Gi, 0 restarts"]);
        check(&RULE, &[attempt, &job("Complete")]).finds_nothing();
    }

    #[test]
    fn quiet_for_an_old_kill() {
        said(LIMIT, &RUNS.replace("T11", "T10"), &KILLED.replace("T11", "T10")).finds_nothing();
    }

    #[test]
    fn quiet_for_a_sigkill_without_oom() {
        said(LIMIT, RUNS, &KILLED.replace("OOMKilled", "Error")).finds_nothing();
        TestCluster::new(&["{apiVersion: v1, kind: Pod, metadata: {name: a}}"]).check(&RULE).finds_nothing();
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

    #[test]
    fn fires_because_of_files_in_memory_and_quiet_about_small_ones() {
        let with = |size: &str| {
            let pod = pod(LIMIT, RUNS, KILLED).replace(
                "containers: [{name: app,",
                &format!(
                    "volumes: [{{name: c, emptyDir: {{medium: Memory{size}}}}}], containers: [{{name: app, volumeMounts: \
                     [{{name: c, mountPath: /c}}],"
                ),
            );
            check(&RULE, &[&pod])
        };
        let large = with(", sizeLimit: 1Gi");
        assert!(large.finding().message.contains("files in emptyDir c (medium: Memory, sizeLimit 1Gi) count"));
        assert!(!large.text().contains("--limits=memory=128Mi") && !large.text().contains("leak"));
        for small in [with(", sizeLimit: 16Mi"), with("")] {
            assert!(small.finding().message.contains("it exceeded its memory limit"));
            assert!(small.text().contains("mounted at /c, count towards the memory limit"));
        }
    }
}
