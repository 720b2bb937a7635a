//! Passwords that a server refuses although every reference is right.

use super::Diagnosis;
use crate::kubernetes::network::targets::service_of;
use crate::kubernetes::storage::claim_of;
use crate::kubernetes::time::{age, human};
use crate::kubernetes::workloads::references::{Usage, references};
use crate::kubernetes::workloads::restarts::{PodContainer, containers};
use crate::kubernetes::workloads::symptoms::Target;
use crate::snapshot::model::{PersistentVolumeClaim, Pod, Secret, Timestamp};
use crate::snapshot::{Cluster, Kind, Object, Selector};
use crate::text::{kubectl, words};

/// A claim this much older than its Secret was not created together with it.
const SAME_INSTALLATION_SECONDS: i64 = 3600;

/// Environment variables keep the value of a Secret from the start of the container.
pub(super) fn outdated(cluster: &Cluster, container: &PodContainer, to: &mut Diagnosis) {
    let pod = container.pod;
    let Some(started) = container.status.state.running().and_then(|state| state.started_at) else { return };
    let secrets = env_secrets(pod, container.name());
    let changed = secrets.iter().filter_map(|name| {
        let secret = cluster.get::<Secret>(pod.namespace(), name).found()?;
        Some((secret, secret.metadata.data_written.0.filter(|written| *written > started)?))
    });
    let owner = cluster.owner_of(pod);
    let ago = |time: Timestamp| human(age(cluster.now(), time));
    let newer = newer_ready_sibling(cluster, container, started);
    let Some(name) = (match changed.min_by_key(|(_, written)| *written) {
        Some((secret, written)) => {
            let text = format!("Secret {} was written {} ago", secret.name(), ago(written));
            to.evidence(text, secret.reference(), "data");
            Some(secret.name())
        }
        // Without the time of the change, a newer pod of the same template that works shows it.
        None => secrets.first().copied().filter(|_| secrets.len() == 1 && newer.is_some()),
    }) else {
        return;
    };
    to.clause(format!(
        "the container started before Secret {name} was changed and still has the old value in its environment"
    ));
    to.evidence(format!("container {} started {} ago", container.name(), ago(started)), pod.reference(), "");
    if let Some(newer) = newer {
        let created = newer.metadata.creation_timestamp.map(ago).unwrap_or_default();
        to.evidence(
            format!("{} of the same template, created {created} ago, is ready", newer.name()),
            newer.reference(),
            "",
        );
    }
    let known = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];
    if known.iter().any(|kind| owner.is(*kind)) {
        let command = kubectl(["-n", pod.namespace(), "rollout", "restart", &owner.target()]);
        to.fix_command(format!("Restart the pods, so that they read the current Secret {name}"), command);
    } else {
        to.fix(format!("Recreate the pods, so that they read the current Secret {name}"));
    }
}

/// Where nothing tells which side is wrong: the Secret that holds what the server refuses.
pub(super) fn refused(container: &PodContainer, to: &mut Diagnosis) {
    let secrets = env_secrets(container.pod, container.name());
    let Some(first) = secrets.first().filter(|_| to.fixes.is_empty()) else { return };
    let names = words::list(&secrets, 3);
    let plural = if secrets.len() == 1 { "Secret" } else { "Secrets" };
    to.fix_command(
        format!(
            "Compare the credentials in {plural} {names}, which container {} has in its environment, with those that the \
             server accepts; change one of them and restart the pods",
            container.name()
        ),
        kubectl(["-n", container.pod.namespace(), "describe", "secret", first]),
    );
}

/// The Secrets in the environment of a container.
fn env_secrets<'a>(pod: &'a Pod, container: &str) -> Vec<&'a str> {
    let of_container = |usage: Usage| match usage {
        Usage::Env { container: c, .. } | Usage::EnvFrom { container: c, .. } => c == container,
        _ => false,
    };
    let references = references(&pod.spec).into_iter();
    let mut names: Vec<&str> =
        references.filter(|r| r.kind == Kind::Secret && of_container(r.usage)).map(|r| r.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A ready pod of the same template whose container started later.
fn newer_ready_sibling<'a>(cluster: &'a Cluster, container: &PodContainer, started: Timestamp) -> Option<&'a Pod> {
    const REVISIONS: [&str; 2] = ["pod-template-hash", "controller-revision-hash"];
    let pod = container.pod;
    let owner = cluster.owner_of(pod);
    let revision = |pod: &Pod| REVISIONS.iter().find_map(|key| pod.metadata.labels.get(key).map(str::to_string));
    let own = revision(pod)?;
    let group = cluster.group_of_owner(&owner)?;
    cluster.pods_of(group).find(|other| {
        let later = containers(other).filter(|c| c.name() == container.name());
        let mut later = later.filter_map(|c| c.status.state.running()?.started_at);
        other.is_ready() && revision(other).as_deref() == Some(&*own) && later.any(|at| at > started)
    })
}

/// The server's data may be older than the Secret: databases set the password only when they initialize their data.
pub(super) fn refused_by(cluster: &Cluster, container: &PodContainer, targets: &[Target], to: &mut Diagnosis) {
    let pod = container.pod;
    let services = targets.iter().filter_map(|target| service_of(cluster, pod.namespace(), &target.host));
    for service in services.filter(|service| !service.spec.selector.is_empty()) {
        let servers = cluster.pods_matching(service.namespace(), &Selector::equals(&service.spec.selector));
        let Some(server) = servers.into_iter().find(|server| server.is_active()) else { continue };
        if let Some((claim, secret)) = older_claim(cluster, container, server) {
            return data_of_earlier_installation(cluster, server, claim, secret, to);
        }
    }
}

/// A claim of the server that is older than the Secret which both ends use.
fn older_claim<'a>(
    cluster: &'a Cluster,
    container: &PodContainer,
    server: &Pod,
) -> Option<(&'a PersistentVolumeClaim, &'a Secret)> {
    let namespace = server.namespace();
    let own = env_secrets(container.pod, container.name());
    let of_server = references(&server.spec).into_iter().filter(|r| r.kind == Kind::Secret);
    let shared = of_server.filter(|r| own.contains(&r.name) && container.pod.namespace() == namespace);
    let secret = shared.filter_map(|r| cluster.get::<Secret>(namespace, r.name).found()).next()?;
    let workload = cluster.workload(&cluster.owner_of(server))?;
    let (secret_created, workload_created) = (secret.created()?, workload.metadata.creation_timestamp?);
    let claims = server.spec.volumes.iter().filter_map(|volume| claim_of(server, volume));
    let mut claims = claims.filter_map(|name| cluster.get::<PersistentVolumeClaim>(namespace, &name).found());
    let claim = claims.find(|claim| {
        let older = |than: Timestamp| {
            claim.created().is_some_and(|created| than.as_second() - created.as_second() > SAME_INSTALLATION_SECONDS)
        };
        older(secret_created) && older(workload_created)
    })?;
    Some((claim, secret))
}

fn data_of_earlier_installation(
    cluster: &Cluster,
    server: &Pod,
    claim: &PersistentVolumeClaim,
    secret: &Secret,
    to: &mut Diagnosis,
) {
    let ago = |time: Option<Timestamp>| time.map(|time| human(age(cluster.now(), time))).unwrap_or_default();
    let owner = cluster.owner_of(server);
    let (claim_name, secret_name) = (claim.name(), secret.name());
    to.clause(format!(
        "claim {claim_name} ({} old) is older than {} and Secret {secret_name} ({} old): its data was initialized with an \
         earlier password",
        ago(claim.created()),
        owner.title(),
        ago(secret.created()),
    ));
    to.evidence(format!("created {} ago", ago(claim.created())), claim.reference(), "metadata.creationTimestamp");
    to.evidence(format!("created {} ago", ago(secret.created())), secret.reference(), "metadata.creationTimestamp");
    to.fix(format!(
        "Set the user's password in the server to that of Secret {secret_name} (ALTER ROLE or ALTER USER), or put the \
         earlier password back into the Secret"
    ));
    to.fix(format!(
        "If the data is not needed, delete claim {claim_name} and its pod, so that the server initializes a new volume"
    ));
}
