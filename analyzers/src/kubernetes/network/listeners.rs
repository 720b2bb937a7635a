//! Which of the workloads behind a numbered target port listen on it.

use std::collections::BTreeMap;

use crate::snapshot::model::{Container, IntOrString, Labels, Pod, PodSpec, Probe, Service, ServicePort};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Origin, Selector};

/// A workload behind a Service.
#[derive(Clone, Debug)]
pub struct Side<'a> {
    pub owner: ObjectRef,
    pub labels: &'a Labels,
    spec: &'a PodSpec,
    /// How many ready pods it has; 0 in manifests.
    pub pods: usize,
}

/// A target port on which only some of the selected workloads listen.
#[derive(Clone, Debug)]
pub struct Split<'a> {
    pub number: i32,
    pub listening: Vec<Side<'a>>,
    pub silent: Vec<Side<'a>>,
    /// Whether the others certainly do not listen: they declare other ports, or run another command of the same image.
    pub is_certain: bool,
}

impl Split<'_> {
    /// A label that all listening workloads have and none of the others: what the selector lacks.
    pub fn distinguishing_label(&self) -> Option<(&str, &str)> {
        const GENERATED: [&str; 5] = [
            "pod-template-hash",
            "controller-revision-hash",
            "statefulset.kubernetes.io/pod-name",
            "apps.kubernetes.io/pod-index",
            "pod-template-generation",
        ];
        let first = self.listening.first()?;
        let is_stable = |key: &str| !GENERATED.contains(&key) && !key.contains("version") && !key.contains("chart");
        let tells = |key: &str, value: &str| {
            self.listening.iter().all(|side| side.labels.get(key) == Some(value))
                && self.silent.iter().all(|side| side.labels.get(key) != Some(value))
        };
        let found = first.labels.iter().filter(|(key, value)| is_stable(key) && tells(key, value));
        found.min_by_key(|(key, _)| *key != "app.kubernetes.io/component")
    }
}

/// Whether a name suggests metrics or administration, whose ports are seldom declared.
pub fn is_auxiliary(name: &str) -> bool {
    const WORDS: [&str; 9] = ["metric", "prom", "monitor", "admin", "debug", "prof", "health", "status", "telemetry"];
    WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word))
}

/// The workloads that a port of a Service reaches, if only some of them listen on it. `None` where that is not known:
/// `containerPort` is informational, so a workload that merely declares nothing is not enough.
pub fn split<'a>(cluster: &'a Cluster, service: &'a Service, port: &ServicePort) -> Option<Split<'a>> {
    let IntOrString::Int(number) = port.target() else { return None };
    let is_odd = service.is_headless() || service.is_external_name() || service.spec.publish_not_ready_addresses;
    if is_odd || service.spec.selector.is_empty() || is_auxiliary(service.name()) || is_auxiliary(&port.name) {
        return None;
    }
    let sides = sides(cluster, service);
    if sides.len() < 2 {
        return None;
    }
    let (listening, others): (Vec<Side>, Vec<Side>) =
        sides.into_iter().partition(|side| listens(side.spec, number, port.protocol()));
    if listening.is_empty() || others.is_empty() || others.iter().any(|side| is_opaque(side.spec)) {
        return None;
    }
    let mut is_certain = true;
    for side in &others {
        is_certain &= declares_others(side.spec) || runs_another_command(&listening, side)?;
    }
    Some(Split { number, listening, silent: others, is_certain })
}

/// The selected workloads: those with ready pods, or those of the pod templates in manifests.
fn sides<'a>(cluster: &'a Cluster, service: &'a Service) -> Vec<Side<'a>> {
    let selector = Selector::equals(&service.spec.selector);
    let is_batch = |owner: &ObjectRef| owner.is(Kind::Job) || owner.is(Kind::CronJob);
    if cluster.origin() == Origin::Manifests {
        let workloads = cluster.workloads_matching(service.namespace(), &selector).into_iter();
        let running = workloads.filter(|w| !is_batch(&w.object) && !w.is_scaled_to_zero());
        return running
            .map(|w| Side { owner: w.object, labels: &w.template.metadata.labels, spec: &w.template.spec, pods: 0 })
            .collect();
    }
    let mut by_owner: BTreeMap<ObjectRef, Side> = BTreeMap::new();
    let pods = cluster.pods_matching(service.namespace(), &selector);
    let mut ready: Vec<&Pod> = pods.into_iter().filter(|pod| pod.is_active() && pod.is_ready()).collect();
    // During a rollout the newest pods show what the workload listens on.
    ready.sort_by_key(|pod| std::cmp::Reverse(pod.metadata.creation_timestamp));
    for pod in ready {
        let owner = cluster.owner_of(pod).into_owned();
        let side = by_owner.entry(owner.clone());
        side.or_insert(Side { owner, labels: &pod.metadata.labels, spec: &pod.spec, pods: 0 }).pods += 1;
    }
    by_owner.into_values().filter(|side| !is_batch(&side.owner)).collect()
}

/// The containers of the application, without the proxy of a service mesh.
fn own_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.running_containers().filter(|c| !matches!(c.name.as_str(), "istio-proxy" | "linkerd-proxy"))
}

fn listens(spec: &PodSpec, number: i32, protocol: &str) -> bool {
    own_containers(spec).any(|container| {
        let mut ports = container.ports.iter();
        ports.any(|port| port.container_port == number && port.protocol() == protocol)
            || probed(container).any(|port| port == IntOrString::Int(number))
    })
}

fn probed(container: &Container) -> impl Iterator<Item = IntOrString> + '_ {
    let probes = [&container.readiness_probe, &container.liveness_probe, &container.startup_probe];
    probes.into_iter().flatten().filter_map(|probe| Probe::port(probe))
}

/// Whether what it listens on cannot be told: it has the ports of its node, or a proxy that declares none.
fn is_opaque(spec: &PodSpec) -> bool {
    let is_proxy = |name: &str| ["proxy", "envoy", "sidecar", "daprd"].iter().any(|word| name.contains(word));
    spec.host_network || own_containers(spec).any(|c| c.ports.is_empty() && is_proxy(&c.name))
}

fn declares_others(spec: &PodSpec) -> bool {
    let mut containers = own_containers(spec).peekable();
    containers.peek().is_some() && containers.all(|container| !container.ports.is_empty())
}

/// Whether a workload runs another command of an image that listens. `None` for one that may well listen: the same
/// command (a canary with fewer fields), or an image of its own that declares some ports or is probed.
fn runs_another_command(listening: &[Side], side: &Side) -> Option<bool> {
    let main = own_containers(side.spec).next()?;
    let mut same = listening.iter().flat_map(|l| own_containers(l.spec)).filter(|c| repository(c) == repository(main));
    match same.next() {
        Some(other) => (other.command != main.command || other.args != main.args).then_some(true),
        None => own_containers(side.spec).all(|c| c.ports.is_empty() && probed(c).next().is_none()).then_some(false),
    }
}

fn repository(container: &Container) -> &str {
    let image = container.image.split('@').next().unwrap_or_default();
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}
