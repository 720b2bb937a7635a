//! The sidecars and the mutual TLS of Istio.

use serde_json::Value;

use crate::kubernetes::admission::webhooks::{Configuration, configurations};
use crate::kubernetes::network::netpol::PodEnd;
use crate::snapshot::model::{CustomResource, LabelSelector, Labels, Namespace, Pod, PodSpec};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef, Selector};

/// The label of a namespace that selects a revision of the injector.
pub const REVISION: &str = "istio.io/rev";
/// The label of a namespace that selects the default revision.
pub const INJECTION: &str = "istio-injection";
/// The namespace of Istio's configuration for the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";

/// The configurations of Istio's sidecar injectors.
pub fn injectors(cluster: &Cluster) -> Vec<Configuration<'_>> {
    let is_injector = |name: &str| name.ends_with("sidecar-injector.istio.io");
    let all = configurations(cluster).into_iter().filter(|c| c.object.is(Kind::MutatingWebhookConfiguration));
    all.filter(|c| c.webhooks.iter().any(|webhook| is_injector(webhook.name))).collect()
}

/// Whether a pod has the proxy.
pub fn has_proxy(spec: &PodSpec) -> bool {
    spec.running_containers().any(|container| container.name == "istio-proxy")
}

/// Whether a pod gets no sidecar on purpose, or cannot have one.
pub fn opts_out(pod: &Pod) -> bool {
    let key = "sidecar.istio.io/inject";
    let value = pod.metadata.labels.get(key).or_else(|| pod.metadata.annotations.get(key));
    pod.spec.host_network || value == Some("false")
}

/// The label of a namespace that requests sidecars, if no injector handles it: `istio.io/rev=1-24-6`.
pub fn unmatched_label(
    cluster: &Cluster,
    injectors: &[Configuration],
    namespace: &Namespace,
) -> Option<(&'static str, String)> {
    let label = |key: &str| namespace.labels().value(key).map(str::to_string);
    let is_ambient = label("istio.io/dataplane-mode").is_some_and(|mode| mode == "ambient");
    let requested = match (label(INJECTION), label(REVISION)) {
        (Some(value), _) if value != "enabled" => None,
        (Some(value), None) => Some((INJECTION, value)),
        (_, Some(revision)) => Some((REVISION, revision)),
        (None, None) => None,
    }?;
    let webhooks = || injectors.iter().flat_map(|configuration| &configuration.webhooks);
    // A match condition, or a webhook that needs labels of pods, cannot be judged by the namespace alone.
    let handles = webhooks().any(|w| w.sees_pods(cluster, namespace.name(), &Labels::default()));
    (!is_ambient && !injectors.is_empty() && !handles).then_some(requested)
}

/// The revisions (and revision tags) of the injectors, sorted.
pub fn revisions(injectors: &[Configuration]) -> Vec<String> {
    let of = |c: &Configuration| c.labels.value("istio.io/tag").or(c.labels.value(REVISION)).map(str::to_string);
    let mut found: Vec<String> = injectors.iter().filter_map(of).filter(|revision| !revision.is_empty()).collect();
    found.sort();
    found.dedup();
    found
}

/// The PeerAuthentication by which a pod with a sidecar refuses connections in plain text from a pod without one.
pub fn refuses_plain_text(cluster: &Cluster, from: &PodEnd, to: &PodEnd, port: i32) -> Option<ObjectRef> {
    let excludes = |pod: &Pod| {
        let ports = pod.metadata.annotations.get("traffic.sidecar.istio.io/excludeInboundPorts").unwrap_or_default();
        ports.split(',').any(|excluded| excluded.trim().parse() == Ok(port))
    };
    if has_proxy(from.spec) || is_in_ambient(cluster, from) || !has_proxy(to.spec) || to.pod.is_some_and(excludes) {
        return None;
    }
    strict(cluster, to, port).map(CustomResource::reference)
}

/// Whether ztunnel handles the traffic of a pod, so that it needs no sidecar.
fn is_in_ambient(cluster: &Cluster, end: &PodEnd) -> bool {
    let redirected =
        end.pod.is_some_and(|pod| pod.metadata.annotations.get("ambient.istio.io/redirection") == Some("enabled"));
    let namespace = cluster.get::<Namespace>("", end.namespace);
    let labelled =
        matches!(namespace, Lookup::Found(n) if n.labels().value("istio.io/dataplane-mode") == Some("ambient"));
    redirected || labelled
}

/// The PeerAuthentication that requires mutual TLS on a port of a pod. One for the pod overrides one for its namespace,
/// which overrides one for the mesh.
fn strict<'a>(cluster: &'a Cluster, to: &PodEnd, port: i32) -> Option<&'a CustomResource> {
    let all = || cluster.custom().iter().filter(|o| o.kind == "PeerAuthentication" && o.group() == "security.istio.io");
    let selector = |policy: &CustomResource| {
        let selector = policy.spec.get("selector").cloned().unwrap_or_default();
        serde_json::from_value::<LabelSelector>(selector).ok().map(|s| Selector::new(&s)).filter(|s| !s.is_empty())
    };
    let levels = [(to.namespace, true), (to.namespace, false), (ROOT_NAMESPACE, false)];
    for (namespace, for_pods) in levels {
        let policies = all().filter(|policy| policy.metadata.namespace == namespace);
        let matching = policies.filter(|policy| match selector(policy) {
            Some(selector) => for_pods && selector.matches(to.labels),
            None => !for_pods,
        });
        for policy in matching {
            match mode(policy, port) {
                Some("STRICT") => return Some(policy),
                Some("PERMISSIVE" | "DISABLE") => return None,
                _ => {}
            }
        }
    }
    None
}

fn mode(policy: &CustomResource, port: i32) -> Option<&str> {
    let mode = |settings: &'_ Value| settings.get("mode").is_some();
    let of_port = policy.spec.get("portLevelMtls").and_then(|ports| ports.get(port.to_string()));
    of_port.filter(|settings| mode(settings)).or(policy.spec.get("mtls"))?.get("mode")?.as_str()
}
