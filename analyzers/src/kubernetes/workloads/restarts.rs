//! Container terminations: when, how often, and whether they form a crash loop. The rules about crashes share these
//! functions, so that exactly one of them reports a container.

use std::time::Duration;

use crate::kubernetes::time::{RECENT, START, age};
use crate::snapshot::model::{
    Container, ContainerStateTerminated, ContainerStatus, Event, Job, Pod, Timestamp, condition,
};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, PodGroup};
use crate::text::words::count;

/// The kubelet resets its back-off after a run of this length (2 x the longest back-off of 5 minutes):
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>
pub(crate) const FORGIVEN: Duration = Duration::from_secs(600);
/// How much longer than the previous run a run may be and still count as part of the same loop.
pub(crate) const SLACK: Duration = Duration::from_secs(10);

/// A container of a pod, with its spec and status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodContainer<'a> {
    pub pod: &'a Pod,
    pub spec: &'a Container,
    pub status: &'a ContainerStatus,
    pub is_init: bool,
}

/// One container of the pods of a group, in all pods with the same problem.
pub(crate) struct Affected<'a> {
    /// The sample comes first: a container whose log is known, with the most restarts.
    pub containers: Vec<PodContainer<'a>>,
}

impl<'a> Affected<'a> {
    pub(crate) fn sample(&self) -> PodContainer<'a> {
        self.containers[0]
    }

    pub(crate) fn pods(&self) -> usize {
        self.containers.len()
    }
}

/// The containers of a group's pods that match `is_affected`, by container in the order of the spec.
pub(crate) fn affected<'a>(
    cluster: &Cluster,
    pods: impl Iterator<Item = &'a Pod>,
    is_affected: impl Fn(&PodContainer<'a>) -> bool,
) -> Vec<Affected<'a>> {
    let mut found: Vec<Affected<'a>> = Vec::new();
    for container in pods.flat_map(containers).filter(is_affected) {
        match found.iter_mut().find(|a| a.containers.iter().any(|c| c.spec.name == container.spec.name)) {
            Some(affected) => affected.containers.push(container),
            None => found.push(Affected { containers: vec![container] }),
        }
    }
    for affected in &mut found {
        let has_log =
            |c: &PodContainer| cluster.log(&c.pod.metadata.namespace, &c.pod.metadata.name, c.name()).is_some();
        affected.containers.sort_by_key(|c| std::cmp::Reverse((has_log(c), c.status.restart_count)));
    }
    found
}

/// The containers of a pod that have a status, init containers first.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = PodContainer<'_>> {
    let find = |specs: &'_ [Container], status: &ContainerStatus| specs.iter().position(|c| c.name == status.name);
    let init = pod.status.init_container_statuses.iter().filter_map(move |status| {
        let spec = &pod.spec.init_containers[find(&pod.spec.init_containers, status)?];
        Some(PodContainer { pod, spec, status, is_init: !spec.is_sidecar() })
    });
    let main = pod.status.container_statuses.iter().filter_map(move |status| {
        let spec = &pod.spec.containers[find(&pod.spec.containers, status)?];
        Some(PodContainer { pod, spec, status, is_init: false })
    });
    init.chain(main)
}

/// Whether all containers of a group are steady, for each group of [`Cluster::pod_groups`].
struct Steady(Vec<bool>);

/// The groups with a container that is not running or was restarted. No other group can crash, hang or wait.
pub(crate) fn unsteady_groups(cluster: &Cluster) -> impl Iterator<Item = &PodGroup> {
    let Steady(steady) = cluster
        .derived(|| Steady(cluster.pod_groups().iter().map(|group| cluster.pods_of(group).all(is_steady)).collect()));
    cluster.pod_groups().iter().zip(steady).filter(|(_, is_steady)| !**is_steady).map(|(group, _)| group)
}

/// Whether no container of a pod was ever restarted and its init containers completed at the first attempt.
fn is_steady(pod: &Pod) -> bool {
    let never_ended = |status: &ContainerStatus| status.restart_count == 0 && status.last_state.terminated().is_none();
    let is_completed = |end: &ContainerStateTerminated| end.exit_code == 0 && end.reason == "Completed";
    let (init, main) = (&pod.status.init_container_statuses, &pod.status.container_statuses);
    main.iter().all(|status| never_ended(status) && status.state.running().is_some())
        && init.iter().all(|status| never_ended(status) && status.state.terminated().is_some_and(is_completed))
}

/// The pods of a group whose failures count: those that are neither finished nor terminating, and the failed attempts
/// of a Job that failed or of which no attempt has succeeded yet.
pub(crate) fn judged<'a>(cluster: &'a Cluster, group: &'a PodGroup) -> impl Iterator<Item = &'a Pod> {
    let with_failed = group.owner.is(Kind::Job) && is_failing(cluster, &group.owner);
    let bare = group.owner.is(Kind::Pod);
    cluster.pods_of(group).filter(move |pod| {
        let failed = pod.status.phase == "Failed" && !pod.is_terminating();
        pod.is_active() || (failed && (with_failed || bare && failed_recently(cluster, pod)))
    })
}

/// Whether a Job failed, or two or more of its attempts failed and none succeeded.
fn is_failing(cluster: &Cluster, job: &ObjectRef) -> bool {
    let Some(job) = cluster.get::<Job>(job.namespace(), &job.name).found() else { return false };
    let is = |type_| condition(&job.status.conditions, type_).is_some_and(crate::snapshot::model::Condition::is_true);
    is("Failed")
        || (!is("Complete") && !is("SuccessCriteriaMet") && job.status.succeeded == 0 && job.status.failed >= 2)
}

fn failed_recently(cluster: &Cluster, pod: &Pod) -> bool {
    let ended = pod.container_statuses().filter_map(|s| s.state.terminated()?.finished_at).max();
    ended.is_some_and(|ended| age(cluster.now(), ended) < RECENT)
}

/// How long a container ran. Zero if that is unknown or the container never started: the kubelet sets the start time to
/// 1970 if the runtime could not start the container.
fn length(end: &ContainerStateTerminated) -> Duration {
    match (end.started_at, end.finished_at) {
        (Some(started), Some(finished)) if started.as_second() > 0 => age(finished, started),
        _ => Duration::ZERO,
    }
}

impl<'a> PodContainer<'a> {
    pub(crate) fn name(&self) -> &'a str {
        &self.spec.name
    }

    /// The path of the container's status: `status.containerStatuses[app]`.
    pub(crate) fn status_path(&self) -> String {
        if self.is_init || self.spec.is_sidecar() {
            format!("status.initContainerStatuses[{}]", self.name())
        } else {
            format!("status.containerStatuses[{}]", self.name())
        }
    }

    /// `spec.initContainers[app]`.
    pub(crate) fn spec_path(&self) -> String {
        if self.is_init || self.spec.is_sidecar() {
            format!("spec.initContainers[{}]", self.name())
        } else {
            format!("spec.containers[{}]", self.name())
        }
    }

    /// `container app`, `init container setup`, `sidecar proxy`.
    pub(crate) fn described(&self) -> String {
        let what = match (self.is_init, self.spec.is_sidecar()) {
            (true, _) => "init container",
            (_, true) => "sidecar",
            _ => "container",
        };
        format!("{what} {}", self.name())
    }

    /// The last termination: of the current state, or of the last state.
    pub(crate) fn last_end(&self) -> Option<&'a ContainerStateTerminated> {
        self.status.state.terminated().or_else(|| self.status.last_state.terminated())
    }

    pub(crate) fn last_end_path(&self) -> String {
        let state = if self.status.state.terminated().is_some() { "state" } else { "lastState" };
        format!("{}.{state}.terminated", self.status_path())
    }

    pub(crate) fn waits_for(&self, reason: &str) -> bool {
        self.status.state.waiting().is_some_and(|waiting| waiting.reason == reason)
    }

    pub(crate) fn runs(&self) -> bool {
        self.status.state.running().is_some()
    }

    /// How long the container has been running.
    pub(crate) fn runs_for(&self, cluster: &Cluster) -> Option<Duration> {
        Some(age(cluster.now(), self.status.state.running()?.started_at?))
    }

    /// How long the last completed run lasted.
    pub(crate) fn last_run(&self) -> Duration {
        self.last_end().map(length).unwrap_or_default()
    }

    /// How long ago the container last terminated.
    pub(crate) fn ended_ago(&self, cluster: &Cluster) -> Option<Duration> {
        Some(age(cluster.now(), self.last_end()?.finished_at?))
    }

    /// How often the container terminated: one more than its restarts, unless it is running.
    pub(crate) fn ends(&self) -> i64 {
        let restarts = i64::from(self.status.restart_count.max(0));
        if self.runs() || self.last_end().is_none() { restarts } else { restarts + 1 }
    }

    /// Whether the kubelet restarts the container after its last termination.
    pub(crate) fn is_restarted(&self) -> bool {
        if self.spec.is_sidecar() {
            return true;
        }
        match self.pod.spec.restart_policy.as_str() {
            "Never" => false,
            // An init container that succeeded is not restarted, whatever the policy.
            "OnFailure" => self.last_end().is_none_or(|end| end.exit_code != 0),
            _ => !self.is_init || self.last_end().is_none_or(|end| end.exit_code != 0),
        }
    }

    fn pod_age(&self, cluster: &Cluster) -> Duration {
        let since = self.pod.status.start_time.or(self.pod.metadata.creation_timestamp);
        since.map(|since| age(cluster.now(), since)).unwrap_or_default()
    }

    /// Whether the container is in a crash loop. The result is the same while it is waiting for its next start, has
    /// just terminated, or is in one of its short runs.
    ///
    /// One crash is not a loop, nor are two crashes of a young pod, which is often waiting for a dependency to start.
    /// Jobs are allowed more retries. A container whose current run is longer than the last one has recovered.
    pub(crate) fn loops(&self, cluster: &Cluster) -> bool {
        if self.ends() < 2 || !self.pod.is_active() || !self.is_restarted() {
            return false;
        }
        let of_job = cluster.owner_of(self.pod).is(Kind::Job) || cluster.owner_of(self.pod).is(Kind::CronJob);
        let often = self.ends() >= if of_job { 4 } else { 3 };
        let is_loop = often || (!of_job && self.ends() >= 2 && self.pod_age(cluster) >= START);
        if self.waits_for("CrashLoopBackOff") {
            return is_loop;
        }
        let short = self.last_run() < FORGIVEN;
        let recent = self.ended_ago(cluster).is_some_and(|ago| ago < 2 * FORGIVEN);
        if self.status.state.terminated().is_some() {
            return is_loop && short && recent;
        }
        if self.runs_for(cluster).is_none() {
            return false;
        }
        // A container that the runtime lost (a reboot, a restart of the runtime) did not crash.
        let lost =
            self.last_end().is_none_or(|end| matches!(end.reason.as_str(), "Unknown" | "ContainerStatusUnknown"));
        let again = often || (self.status.restart_count >= 2 && (self.is_init || self.back_off(cluster).is_some()));
        again && short && recent && !lost && !self.has_recovered(cluster)
    }

    /// Whether the current run is longer than the last one.
    pub(crate) fn has_recovered(&self, cluster: &Cluster) -> bool {
        self.runs_for(cluster).is_some_and(|run| run > self.last_run() + self.last_run() / 2 + SLACK)
    }

    /// The kubelet's `BackOff` event for the container, if it is recent.
    fn back_off<'c>(&self, cluster: &'c Cluster) -> Option<&'c Event> {
        let recent = |event: &&Event| event.last_seen().is_some_and(|seen| age(cluster.now(), seen) < FORGIVEN);
        self.events(cluster, "BackOff").into_iter().find(recent)
    }

    /// The events of one reason about this container, newest first.
    pub(crate) fn events<'c>(&self, cluster: &'c Cluster, reason: &str) -> Vec<&'c Event> {
        let events = cluster.events(&self.pod.reference()).into_iter();
        events
            .filter(|event| {
                let of_pod = event.involved_object.uid.is_empty()
                    || self.pod.metadata.uid.is_empty()
                    || event.involved_object.uid == self.pod.metadata.uid;
                of_pod && event.reason == reason && event.container() == Some(self.name())
            })
            .collect()
    }

    /// When the crash loop started, according to events and the last states.
    pub(crate) fn loops_since(&self, cluster: &Cluster) -> Option<Timestamp> {
        let backed_off = self.events(cluster, "BackOff").into_iter().filter_map(|event| event.first_timestamp).min();
        let before = self.status.last_state.terminated().and_then(|end| end.finished_at);
        let last = self.last_end().and_then(|end| end.finished_at);
        [backed_off, before, last].into_iter().flatten().min()
    }

    /// Whether the last run was OOM-killed.
    pub(crate) fn was_oom_killed(&self) -> bool {
        self.last_end().is_some_and(|end| end.reason == "OOMKilled")
    }

    /// Whether the runtime could not start the container, or its command does not exist (126 and 127 by shell
    /// convention).
    pub(crate) fn cannot_start(&self, cluster: &Cluster) -> bool {
        let Some(trouble) = self.start_trouble(cluster) else { return false };
        let is_lasting = self.ends() >= 2 || self.pod_age(cluster) >= START || self.pod.is_finished();
        match trouble {
            StartTrouble::Waiting => is_lasting && !self.runs(),
            StartTrouble::Ended | StartTrouble::NotFound => {
                is_lasting && (self.loops(cluster) || !self.runs() && (self.pod.is_finished() || self.is_restarted()))
            }
            StartTrouble::PostStart => self.loops(cluster),
        }
    }

    /// Whether the kubelet refuses the container because of its configuration (`runAsNonRoot` and an image that runs as
    /// root, a subPath outside the volume), and not because of a ConfigMap, Secret or key that is missing or not yet
    /// cached.
    fn is_misconfigured(&self) -> bool {
        const MISSING: [&str; 5] =
            ["not found", "couldn't find key", "cache", "have not yet been read", "references non-"];
        let message = self.status.state.waiting().map_or("", |waiting| waiting.message.as_str());
        !message.is_empty() && !MISSING.iter().any(|text| message.contains(text))
    }

    pub(crate) fn start_trouble(&self, cluster: &Cluster) -> Option<StartTrouble> {
        let waiting = self.status.state.waiting().map(|waiting| waiting.reason.as_str());
        match waiting {
            Some("RunContainerError" | "CreateContainerError" | "StartError") => return Some(StartTrouble::Waiting),
            Some("PostStartHookError") => return Some(StartTrouble::PostStart),
            Some("CreateContainerConfigError") if self.is_misconfigured() => return Some(StartTrouble::Waiting),
            _ => {}
        }
        let end = self.last_end()?;
        if matches!(end.reason.as_str(), "StartError" | "ContainerCannotRun" | "CreateContainerError") {
            return Some(StartTrouble::Ended);
        }
        if matches!(end.exit_code, 126 | 127) && length(end) <= SLACK {
            return Some(StartTrouble::NotFound);
        }
        let recent = |event: &&Event| event.last_seen().is_some_and(|seen| age(cluster.now(), seen) < RECENT);
        let hook = self.events(cluster, "FailedPostStartHook").into_iter().find(recent);
        hook.map(|_| StartTrouble::PostStart)
    }
}

impl PodContainer<'_> {
    /// `4 restarts`.
    pub(crate) fn restarts(&self) -> String {
        count(usize::try_from(self.status.restart_count).unwrap_or(0), "restart")
    }
}

/// Why a container cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartTrouble {
    /// The container is waiting because the runtime could not create or start it.
    Waiting,
    /// The runtime reports the failure as a termination reason.
    Ended,
    /// Exit code 126 or 127 immediately after the start.
    NotFound,
    /// The `postStart` hook fails, and the kubelet kills the container.
    PostStart,
}
