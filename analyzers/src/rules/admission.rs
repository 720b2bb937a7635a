//! Objects that must exist before the API server admits a pod.

use crate::engine::{Finding, Severity};
use crate::kubernetes::time::{REPORTED, START, age};
use crate::kubernetes::workloads::references::{Standing, references};
use crate::snapshot::model::{CronJob, DaemonSet, Job, Namespace, Pod, PriorityClass, ServiceAccount};
use crate::snapshot::{Cluster, Kind, Object, Workload};
use crate::text::kubectl;
use crate::text::similar::nearest_name;

/// One finding per workload whose pods need an object of this kind that does not exist.
pub(crate) fn missing(cluster: &Cluster, kind: Kind) -> Vec<Finding> {
    let workloads = cluster.workloads();
    workloads.iter().filter_map(|workload| missing_of(cluster, workload, kind)).collect()
}

fn missing_of(cluster: &Cluster, workload: &Workload, kind: Kind) -> Option<Finding> {
    let namespace = workload.object.namespace();
    let needed = references(&workload.template.spec).into_iter().find(|reference| reference.kind == kind)?;
    let name = needed.name;
    if needed.standing(cluster, namespace) != Standing::ObjectMissing
        || is_created_by_kubernetes(cluster, workload, kind, name)
        || workload.metadata.deletion_timestamp.is_some()
        || workload.metadata.creation_timestamp.is_some_and(|created| age(cluster.now(), created) < REPORTED)
    {
        return None;
    }
    let demand = demand(cluster, workload);
    // The ServiceAccount controller recreates `default` whenever it is missing.
    if kind == Kind::ServiceAccount && name == "default" && !matches!(demand, Demand::Unmet { .. }) {
        return None;
    }
    let (severity, consequence) = match demand {
        Demand::Over => return None,
        Demand::None => (Severity::Info, "cannot create pods when it is scaled up"),
        Demand::Met => (Severity::Warning, "cannot create new pods"),
        Demand::Unmet { has_some: false } => (Severity::Error, "cannot create pods"),
        Demand::Unmet { has_some: true } => (Severity::Error, "cannot create more pods"),
    };
    let object = &workload.object;
    let message = format!("{} {} {consequence}: {kind} {name} does not exist", object.kind, object.name);
    let mut finding = Finding::new(severity, object.clone(), message)
        .evidence(
            format!("{} is {name}", needed.place()),
            object,
            &format!("{}.{}", template_path(object.kind.as_ref()), needed.path()),
        )
        .evidence(format!("{kind} {name} does not exist"), &needed.object(namespace), "")
        .rests_on_absence();
    let candidates: Vec<&str> = match kind {
        Kind::ServiceAccount => cluster.in_namespace::<ServiceAccount>(namespace).iter().map(Object::name).collect(),
        _ => cluster.all::<PriorityClass>().iter().map(Object::name).collect(),
    };
    if let Some(near) = nearest_name(name, candidates) {
        let text = format!("Change the name in the pod template to {near}, if that is the intended {kind}");
        finding =
            finding.fix_command(text, kubectl(["-n", namespace, "edit", &object.kind.to_lowercase(), &object.name]));
    }
    let create = match kind {
        Kind::ServiceAccount => kubectl(["-n", namespace, "create", "serviceaccount", name]),
        _ => kubectl(["create", "priorityclass", name, "--value=VALUE"]),
    };
    Some(finding.fix_command(format!("Create the {kind}"), create))
}

fn template_path(kind: &str) -> &'static str {
    if kind == "CronJob" { "spec.jobTemplate.spec.template" } else { "spec.template" }
}

/// Objects that Kubernetes creates itself, soon after the namespace or at startup.
fn is_created_by_kubernetes(cluster: &Cluster, workload: &Workload, kind: Kind, name: &str) -> bool {
    if kind == Kind::PriorityClass {
        return name.starts_with("system-");
    }
    let namespace = cluster.get::<Namespace>("", workload.object.namespace()).found();
    let is_young = |n: &Namespace| n.created().is_some_and(|created| age(cluster.now(), created) < START);
    let is_terminating = |n: &Namespace| n.deleted().is_some();
    namespace.is_some_and(|n| is_terminating(n) || (name == "default" && is_young(n)))
        || (name == "default" && !workload.metadata.is_live())
}

/// Whether a workload needs more pods.
enum Demand {
    /// It is finished and will not create pods again.
    Over,
    /// Scaled to zero, or suspended.
    None,
    /// It has all pods that it needs now.
    Met,
    Unmet {
        has_some: bool,
    },
}

fn demand(cluster: &Cluster, workload: &Workload) -> Demand {
    let object = &workload.object;
    let (namespace, name) = (object.namespace(), object.name.as_str());
    if workload.is_scaled_to_zero() {
        return Demand::None;
    }
    if !workload.metadata.is_live() {
        return Demand::Unmet { has_some: false };
    }
    let group = cluster.group_of_owner(object);
    let pods = group.map_or(0, |group| cluster.pods_of(group).filter(|pod: &&Pod| pod.is_active()).count());
    let met = |wanted: i32| match usize::try_from(wanted) {
        Ok(wanted) if wanted > pods => Demand::Unmet { has_some: pods > 0 },
        _ => Demand::Met,
    };
    if object.is(Kind::Job) {
        let Some(job) = cluster.get::<Job>(namespace, name).found() else { return Demand::Over };
        let is_done = job.status.completion_time.is_some()
            || job.status.conditions.iter().any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.is_true());
        return if is_done { Demand::Over } else { met(1) };
    }
    if object.is(Kind::CronJob) {
        let cron_job = cluster.get::<CronJob>(namespace, name).found();
        return if cron_job.is_some_and(|c| !c.status.active.is_empty()) { met(1) } else { Demand::Met };
    }
    if object.is(Kind::DaemonSet) {
        let daemon_set = cluster.get::<DaemonSet>(namespace, name).found();
        let wanted = daemon_set.map_or(0, |d| d.status.desired_number_scheduled);
        return if wanted == 0 { Demand::None } else { met(wanted) };
    }
    met(workload.replicas.unwrap_or(1))
}
