//! Reads a cluster into a [`Builder`]: one paged list per kind, a few kinds concurrently.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream;
use kubectl_gpt_analyzers::kubernetes::workloads::references::references;
use kubectl_gpt_analyzers::snapshot::decode::{Decoded, object};
use kubectl_gpt_analyzers::snapshot::model::{BackendRef, ConfigMap, Gateway, Ingress, NetworkPolicy, Pod, Secret};
use kubectl_gpt_analyzers::{Builder, Extent, Gap, Kind, Object, Reason};

use super::connection::Connection;
use super::failure::Failure;
use super::page::{Listed, Request, path, segment};
use super::recorder::Recorder;
use super::request::JSON;
use super::served::Serving;

/// Concurrent lists. API Priority and Fairness gives each user a share of the server, not the whole server.
pub(super) const LISTS_AT_A_TIME: usize = 4;
/// Concurrent requests for single objects.
const GETS_AT_A_TIME: usize = 8;
/// Maximum number of certificates to read.
const CERTIFICATES: usize = 100;
/// Maximum number of ConfigMaps to read for addresses.
const ADDRESSES: usize = 50;
/// The namespace of cluster DNS, which pods in all namespaces depend on.
pub(super) const DNS_NAMESPACE: &str = "kube-system";
/// The kinds that make up cluster DNS and kube-proxy.
pub(super) const DNS_KINDS: [Kind; 8] = [
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Deployment,
    Kind::DaemonSet,
    Kind::ReplicaSet,
    Kind::ConfigMap,
    Kind::Lease,
];
/// The ConfigMaps that configure cluster DNS, by distribution: kubeadm and most others, AKS and k3s, RKE2, the
/// node-local cache, OpenShift.
const DNS_CONFIG_MAPS: [(&str, &str); 5] = [
    (DNS_NAMESPACE, "coredns"),
    (DNS_NAMESPACE, "coredns-custom"),
    (DNS_NAMESPACE, "rke2-coredns-rke2-coredns"),
    (DNS_NAMESPACE, "node-local-dns"),
    ("openshift-dns", "dns-default"),
];
/// Kinds with many objects are listed first, so that they do not delay the end.
const LARGE_KINDS: [Kind; 9] = [
    Kind::Pod,
    Kind::Event,
    Kind::ReplicaSet,
    Kind::Secret,
    Kind::ConfigMap,
    Kind::EndpointSlice,
    Kind::CustomResourceDefinition,
    Kind::Job,
    Kind::ClusterRole,
];

/// Which namespaces to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The whole cluster; if that is forbidden, the context's namespace.
    #[default]
    Cluster,
    /// The whole cluster, without fallback.
    AllNamespaces,
    /// These namespaces and cluster-scoped kinds.
    Namespaces(BTreeSet<String>),
}

/// The result.
#[derive(Debug)]
pub struct Collected {
    pub builder: Builder,
    /// Empty if it is not accessible.
    pub server_version: String,
    /// Notes, for example about a fallback to one namespace.
    pub notes: Vec<String>,
    /// The number of requests, including those for connecting.
    pub requests: usize,
}

/// The progress of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub kind: Kind,
    /// Objects of this kind so far.
    pub objects: usize,
    /// Finished kinds, and the total.
    pub kinds_done: usize,
    pub kinds: usize,
}

/// Why nothing could be collected. Failures of single kinds are recorded in the coverage instead.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("namespace \"{namespace}\" not found in cluster {server}")]
    NoSuchNamespace { namespace: String, server: String },
    #[error("API server {server} rejected the credentials: {cause}")]
    Unauthorized { server: String, cause: String },
    #[error("{server} is not a Kubernetes API server: it serves none of the requested resources")]
    NotKubernetes { server: String },
}

/// Lists the kinds. The number of requests depends on the number of kinds and pages, not of objects; only certificates
/// referenced by an Ingress or a Gateway are read one by one.
///
/// # Errors
/// See [`CollectError`].
pub async fn collect(
    connection: &Connection,
    kinds: &BTreeSet<Kind>,
    scope: &Scope,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Collected, CollectError> {
    connection.reset_retry_budget();
    if let Scope::Namespaces(namespaces) = scope {
        check_namespaces(connection, namespaces).await?;
    }
    let done = std::sync::atomic::AtomicUsize::new(0);
    let read = |kind: Kind| {
        let done = &done;
        let report = move |objects, finished| {
            let kinds_done = done.fetch_add(finished, std::sync::atomic::Ordering::Relaxed) + finished;
            progress(Progress { kind, objects, kinds_done, kinds: kinds.len() });
        };
        async move {
            let reading = Reading { connection, kind, scope };
            let outcome = reading.read(&|objects| report(objects, 0)).await;
            report(outcome.listed.objects.len(), 1);
            (kind, outcome)
        }
    };
    let outcomes: BTreeMap<Kind, Outcome> =
        stream::iter(large_first(kinds)).map(read).buffer_unordered(LISTS_AT_A_TIME).collect().await;
    refuse_what_is_no_cluster(connection, &outcomes)?;

    let mut notes = Vec::new();
    notes.extend(connection.clock.note());
    notes.extend(fallback_note(connection, &outcomes));
    let mut builder = Builder::new();
    if let Some(version) = connection.server_version() {
        builder.server_version(version);
    }
    for (kind, outcome) in outcomes {
        builder.add_all(outcome.listed.objects);
        outcome.listed.broken.into_iter().for_each(|broken| builder.add_broken(broken));
        builder.cover(kind, outcome.extent);
    }
    notes.extend(complete(connection, &mut builder).await);
    let server_version = connection.server_version().unwrap_or_default().to_string();
    Ok(Collected { builder, server_version, notes, requests: connection.requests() })
}

fn large_first(kinds: &BTreeSet<Kind>) -> Vec<Kind> {
    let mut order: Vec<Kind> = kinds.iter().copied().collect();
    order.sort_by_key(|kind| LARGE_KINDS.iter().position(|large| large == kind).unwrap_or(LARGE_KINDS.len()));
    order
}

/// A misspelled namespace would look empty and healthy.
async fn check_namespaces(connection: &Connection, namespaces: &BTreeSet<String>) -> Result<(), CollectError> {
    let server = connection.server().to_string();
    for namespace in namespaces {
        match connection.get(&format!("{}/{}", path(Kind::Namespace, "v1", None), segment(namespace)), JSON).await {
            Err(failure) if failure.is_not_found() => {
                return Err(CollectError::NoSuchNamespace { namespace: namespace.clone(), server });
            }
            Err(failure) if failure.status == Some(401) => {
                return Err(CollectError::Unauthorized { server, cause: explained(connection, failure.message) });
            }
            // A user without access to the Namespace object may still have access to objects in it.
            _ => {}
        }
    }
    Ok(())
}

fn refuse_what_is_no_cluster(connection: &Connection, outcomes: &BTreeMap<Kind, Outcome>) -> Result<(), CollectError> {
    let server = connection.server().to_string();
    let all = |what: fn(&Outcome) -> bool| !outcomes.is_empty() && outcomes.values().all(what);
    if all(|outcome| outcome.status == Some(401)) {
        let cause = outcomes.values().find_map(|o| o.gap()).map(|gap| gap.message.clone()).unwrap_or_default();
        return Err(CollectError::Unauthorized { server, cause: explained(connection, cause) });
    }
    if all(|outcome| outcome.status == Some(404)) {
        return Err(CollectError::NotKubernetes { server });
    }
    Ok(())
}

fn explained(connection: &Connection, cause: String) -> String {
    connection.certificate.explain(cause, connection.now())
}

fn fallback_note(connection: &Connection, outcomes: &BTreeMap<Kind, Outcome>) -> Option<String> {
    const NAMED: usize = 3;
    let kinds: Vec<&str> = outcomes.iter().filter(|(_, o)| o.fell_back).map(|(kind, _)| kind.api().kind).collect();
    let kinds = match kinds.len() {
        0 => return None,
        1..=NAMED => kinds.join(", "),
        all => format!("{} and {} more kinds", kinds[..NAMED].join(", "), all - NAMED),
    };
    let namespace = connection.namespace();
    Some(format!("{kinds}: only namespace {namespace} was read because listing the whole cluster is forbidden"))
}

/// The result of one kind.
#[derive(Debug)]
struct Outcome {
    listed: Listed,
    extent: Extent,
    /// Whether only the context's namespace was read because listing the whole cluster is forbidden.
    fell_back: bool,
    /// The status of the failed list, if one failed.
    status: Option<u16>,
}

impl Outcome {
    fn new(listed: Listed, extent: Extent) -> Outcome {
        Outcome { listed, extent, fell_back: false, status: None }
    }

    fn failed(failure: &Failure, action: &str) -> Outcome {
        let extent = Extent::Failed(failure.during(action));
        Outcome { status: failure.status, ..Outcome::new(Listed::default(), extent) }
    }

    fn gap(&self) -> Option<&Gap> {
        match &self.extent {
            Extent::Failed(gap) | Extent::Partly(_, gap) => Some(gap),
            _ => None,
        }
    }
}

/// Reads one kind.
struct Reading<'a> {
    connection: &'a Connection,
    kind: Kind,
    scope: &'a Scope,
}

impl Reading<'_> {
    async fn read(&self, progress: &(dyn Fn(usize) + Sync)) -> Outcome {
        let version = match self.connection.served.of(self.kind) {
            Serving::NotServed => return Outcome::new(Listed::default(), Extent::NotServed),
            Serving::OtherVersions(versions) => {
                let message = format!("served only in {versions}, which this version of kubectl-gpt does not support");
                return Outcome::failed(&Failure::new(Reason::Unavailable, message), &self.request("", None).action());
            }
            Serving::Version(version) | Serving::Unknown(version) | Serving::Stale(version) => version,
        };
        match self.scope {
            Scope::Namespaces(namespaces) if self.kind.api().namespaced => {
                self.read_namespaces(version, namespaces, progress).await
            }
            _ => self.read_everywhere(version, progress).await,
        }
    }

    fn request<'a>(&self, version: &'a str, namespace: Option<&'a str>) -> Request<'a> {
        Request { kind: self.kind, version, namespace }
    }

    async fn read_everywhere(&self, version: &str, progress: &(dyn Fn(usize) + Sync)) -> Outcome {
        let request = self.request(version, None);
        let refused = match request.list(self.connection, progress).await {
            Ok(listed) => return Outcome::new(listed, Extent::Everything),
            Err(failure) => failure,
        };
        if self.has_no_such_api(&refused) {
            return Outcome { status: refused.status, ..Outcome::new(Listed::default(), Extent::NotServed) };
        }
        let may_fall_back = *self.scope == Scope::Cluster && self.kind.api().namespaced && refused.is_forbidden();
        if !may_fall_back {
            return Outcome::failed(&refused, &request.action());
        }
        let namespace = self.connection.namespace();
        let narrow = self.request(version, Some(namespace));
        match narrow.list(self.connection, progress).await {
            Ok(listed) => {
                let extent = Extent::Partly([namespace.to_string()].into(), refused.during(request.action()));
                Outcome { fell_back: true, ..Outcome::new(listed, extent) }
            }
            Err(failure) => Outcome::failed(&failure, &narrow.action()),
        }
    }

    async fn read_namespaces(
        &self,
        version: &str,
        namespaces: &BTreeSet<String>,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Outcome {
        let (mut listed, mut read, mut failed) = (Listed::default(), BTreeSet::new(), None);
        for namespace in namespaces {
            let request = self.request(version, Some(namespace));
            match request.list(self.connection, progress).await {
                Ok(pages) => {
                    listed.append(pages);
                    read.insert(namespace.clone());
                }
                Err(failure) if self.has_no_such_api(&failure) => {
                    return Outcome { status: failure.status, ..Outcome::new(Listed::default(), Extent::NotServed) };
                }
                Err(failure) => {
                    failed.get_or_insert((failure, request.action()));
                }
            }
        }
        if DNS_KINDS.contains(&self.kind) && !namespaces.contains(DNS_NAMESPACE) {
            // It was not requested, so a failure is not reported.
            if let Ok(pages) = self.request(version, Some(DNS_NAMESPACE)).list(self.connection, &|_| {}).await {
                listed.append(pages);
                read.insert(DNS_NAMESPACE.to_string());
            }
        }
        match failed {
            None => Outcome::new(listed, Extent::Namespaces(read)),
            Some((failure, action)) if namespaces.is_disjoint(&read) => {
                Outcome { listed, ..Outcome::failed(&failure, &action) }
            }
            Some((failure, action)) => Outcome::new(listed, Extent::Partly(read, failure.during(action))),
        }
    }

    /// Whether a list failed because the API does not exist: it was removed after discovery, or discovery was denied.
    /// For a stale API, "not found" has no meaning.
    fn has_no_such_api(&self, failure: &Failure) -> bool {
        failure.is_not_found() && !matches!(self.connection.served.of(self.kind), Serving::Stale(_))
    }
}

/// Reads whole objects that were listed as metadata only but whose content rules need: the configuration of cluster
/// DNS, addresses in ConfigMaps, and certificates. Objects already read are not read again. Returns notes.
pub async fn complete(connection: &Connection, builder: &mut Builder) -> Vec<String> {
    let mut notes = Vec::new();
    read_dns_config(connection, builder, &mut notes).await;
    read_addresses(connection, builder, &mut notes).await;
    read_certificates(connection, builder).await;
    notes
}

/// Reads the ConfigMaps of cluster DNS, which were listed as metadata only.
async fn read_dns_config(connection: &Connection, builder: &mut Builder, notes: &mut Vec<String>) {
    let wanted: BTreeSet<(String, String)> = names::<ConfigMap>(builder, |map| map.data.keys.is_none())
        .into_iter()
        .filter(|(namespace, name)| DNS_CONFIG_MAPS.contains(&(namespace.as_str(), name.as_str())))
        .collect();
    for ((namespace, name), failure) in get_all(connection, builder, Kind::ConfigMap, wanted).await {
        notes.push(failure.during(format!("reading ConfigMap {namespace}/{name}")).message);
    }
}

/// Reads the ConfigMaps that set environment variables of pods in namespaces with NetworkPolicies: they contain the
/// addresses that the pods connect to.
async fn read_addresses(connection: &Connection, builder: &mut Builder, notes: &mut Vec<String>) {
    let known = names::<ConfigMap>(builder, |_| true);
    let unread = names::<ConfigMap>(builder, |map| map.data.keys.is_none());
    let isolated: BTreeSet<String> =
        names::<NetworkPolicy>(builder, |_| true).into_iter().map(|(namespace, _)| namespace).collect();
    let mut wanted: BTreeSet<Name> = BTreeSet::new();
    for pod in Pod::table(builder.objects()).iter().filter(|pod| isolated.contains(pod.namespace())) {
        let variables =
            references(&pod.spec).into_iter().filter(|r| r.kind == Kind::ConfigMap && r.container().is_some());
        wanted.extend(variables.map(|reference| (pod.namespace().to_string(), reference.name.to_string())));
    }
    wanted.retain(|name| known.contains(name));
    if wanted.len() > ADDRESSES {
        notes.push(format!(
            "{} ConfigMaps set variables of pods under NetworkPolicies; only the first {ADDRESSES} were read for addresses",
            wanted.len()
        ));
    }
    let failed = get_all(
        connection,
        builder,
        Kind::ConfigMap,
        wanted.into_iter().take(ADDRESSES).filter(|name| unread.contains(name)).collect(),
    )
    .await;
    if let Some(((namespace, name), failure)) = failed.into_iter().next() {
        notes.push(failure.during(format!("reading addresses in ConfigMap {namespace}/{name}")).message);
    }
}

/// Reads the TLS Secrets of Ingresses and Gateways, which were listed as metadata only. The model keeps only the type,
/// the keys and `tls.crt`.
async fn read_certificates(connection: &Connection, builder: &mut Builder) {
    builder.forget_unread_secrets();
    let unread = names::<Secret>(builder, |secret| secret.data.keys.is_none());
    let mut wanted: BTreeSet<(String, String)> =
        certificates(builder).into_iter().filter(|s| unread.contains(s)).collect();
    let beyond: Vec<(String, String)> = wanted.iter().skip(CERTIFICATES).cloned().collect();
    for secret in beyond {
        let message =
            format!("reading Secret {}/{}: skipped after the first {CERTIFICATES} certificates", secret.0, secret.1);
        builder.unread_secret(&secret.0, &secret.1, Gap { reason: Reason::TooMany, message });
        wanted.remove(&secret);
    }
    for ((namespace, name), failure) in get_all(connection, builder, Kind::Secret, wanted).await {
        builder.unread_secret(&namespace, &name, failure.during(format!("reading Secret {namespace}/{name}")));
    }
}

fn names<T: Object>(builder: &Builder, wanted: fn(&T) -> bool) -> BTreeSet<(String, String)> {
    let objects = T::table(builder.objects()).iter().filter(|object| wanted(object));
    objects.map(|o| (o.namespace().to_string(), o.name().to_string())).collect()
}

/// The TLS Secrets that Ingresses and Gateways reference.
fn certificates(builder: &Builder) -> BTreeSet<(String, String)> {
    let mut named = BTreeSet::new();
    for ingress in Ingress::table(builder.objects()).iter() {
        let tls = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
        let secrets = tls.filter_map(|tls| tls.secret_name.clone()).filter(|name| !name.is_empty());
        named.extend(secrets.map(|name| (ingress.namespace().to_string(), name)));
    }
    for gateway in Gateway::table(builder.objects()).iter() {
        let references =
            gateway.spec.listeners.iter().filter_map(|l| l.tls.as_ref()).flat_map(|tls| &tls.certificate_refs);
        let is_secret = |reference: &&BackendRef| {
            reference.group.as_deref().unwrap_or_default().is_empty()
                && reference.kind.as_deref().is_none_or(|kind| kind == "Secret")
        };
        for reference in references.filter(is_secret) {
            let namespace = reference.namespace.clone().filter(|n| !n.is_empty());
            named.insert((namespace.unwrap_or_else(|| gateway.namespace().to_string()), reference.name.clone()));
        }
    }
    named
}

type Name = (String, String);

/// Reads single objects and adds them; a later one replaces an earlier one of the same name. Returns the failures in
/// order. An object that has been deleted since is not a failure.
async fn get_all(
    connection: &Connection,
    builder: &mut Builder,
    kind: Kind,
    wanted: BTreeSet<Name>,
) -> Vec<(Name, Failure)> {
    let get = |(namespace, name): Name| async move {
        let path = format!("{}/{}", path(kind, kind.api().versions[0], Some(&namespace)), segment(&name));
        let read = connection.get(&path, JSON).await.and_then(|body| whole(&body, connection.recorder.as_ref()));
        ((namespace, name), read)
    };
    let answers: BTreeMap<Name, _> = stream::iter(wanted).map(get).buffer_unordered(GETS_AT_A_TIME).collect().await;
    let mut failed = Vec::new();
    for (name, answer) in answers {
        match answer {
            Ok(Decoded::Known(batch)) => builder.add(batch),
            Ok(Decoded::Custom(_)) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => failed.push((name, failure)),
        }
    }
    failed
}

fn whole(body: &[u8], recorder: Option<&Recorder>) -> Result<Decoded, Failure> {
    let malformed = |message: String| Failure::new(Reason::Malformed, format!("malformed response: {message}"));
    let text = std::str::from_utf8(body).map_err(|error| malformed(error.to_string()))?;
    let decoded = object(text).map_err(|broken| malformed(broken.message))?;
    if let (Some(recorder), Some(object)) = (recorder, decoded.reference()) {
        recorder.object(&object, text, true);
    }
    Ok(decoded)
}
