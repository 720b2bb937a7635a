//! Custom resources: kinds known only from discovery. One paged list per kind, a few kinds concurrently, with an
//! overall deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use kubectl_gpt_analyzers::snapshot::decode::{Content, continue_token, custom_page};
use kubectl_gpt_analyzers::snapshot::model::CustomResource;
use kubectl_gpt_analyzers::{Builder, Extent, Gap, GroupKind, Kind, Reason};

use super::connection::Connection;
use super::discovery::listable;
use super::failure::Failure;
use super::live::{LISTS_AT_A_TIME, Scope};
use super::page::segment;
use super::recorder::Recorder;
use super::request::JSON;
use super::served::CustomApi;
use crate::glob::Glob;

/// kubectl's own page size.
const LIMIT: usize = 500;
/// A kind whose first objects, up to this many, have no conditions is assumed to have none at all.
const SAMPLE: usize = 1000;
/// Maximum number of objects to read per kind.
const OBJECTS: usize = 5000;
/// Maximum number of PolicyReports to read: there may be one per object, of which only failures are kept.
const REPORTS_READ: usize = 20_000;
/// How often a list is restarted after its continue token expired.
const RESTARTS: u32 = 2;
/// The deadline for all kinds combined: conversion webhooks and aggregated servers may fail slowly, one kind after the
/// other.
const DEADLINE: Duration = Duration::from_secs(60);

/// Kubernetes' own API groups. Their relevant kinds have types in the model.
const BUILT_IN: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];
/// Groups whose objects are computed on request or are views of other objects: they have no state of their own.
const VIRTUAL: &[&str] = &[
    "metrics.k8s.io",
    "custom.metrics.k8s.io",
    "external.metrics.k8s.io",
    "subresources.kubevirt.io",
    "packages.operators.coreos.com",
    "authorization.openshift.io",
    "image.openshift.io",
    "oauth.openshift.io",
    "project.openshift.io",
    "template.openshift.io",
    "user.openshift.io",
];
/// Groups of reports about other objects: numerous, large, and without conditions. PolicyReports are read, and failures
/// in them reported.
const REPORTS: &[&str] =
    &["aquasecurity.github.io", "openreports.io", "reports.kyverno.io", "spdx.softwarecomposition.kubescape.io"];

/// Which custom resources to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crds {
    All,
    None,
    /// The groups that match these patterns.
    Groups(Vec<Glob>),
}

impl Crds {
    /// Parses `--crds`.
    ///
    /// # Errors
    /// When `all` or `none` is combined with groups.
    pub fn parse(words: &[String]) -> Result<Crds, String> {
        match words {
            [] => Ok(Crds::All),
            [word] if word == "all" => Ok(Crds::All),
            [word] if word == "none" => Ok(Crds::None),
            words => match words.iter().find(|word| matches!(word.as_str(), "all" | "none" | "")) {
                Some(word) => Err(format!("--crds: {word:?} cannot be combined with groups")),
                None => {
                    let glob = |word: &String| Glob::new(word).map_err(|error| format!("--crds: {error}"));
                    Ok(Crds::Groups(words.iter().map(glob).collect::<Result<_, _>>()?))
                }
            },
        }
    }

    fn includes(&self, group: &str) -> bool {
        match self {
            Crds::All => true,
            Crds::None => false,
            Crds::Groups(patterns) => patterns.iter().any(|pattern| pattern.is_match(group)),
        }
    }
}

/// Lists custom resources of all listable kinds, and records in the coverage what could not be read. Returns notes. The
/// kinds that the connection's recorder needs are listed independent of `crds`.
pub async fn collect(connection: &Connection, crds: &Crds, scope: &Scope, builder: &mut Builder) -> Vec<String> {
    let recorded = connection.recorder.as_ref().map(Recorder::wanted).unwrap_or_default();
    if *crds == Crds::None && recorded.is_empty() {
        return Vec::new();
    }
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let Found { apis, failed } = find(connection, crds, &recorded).await;
    let fell_back = std::sync::atomic::AtomicBool::new(false);
    let read = |api: CustomApi| {
        let (fell_back, is_recorded) = (&fell_back, recorded.contains(&api.group_kind()));
        async move {
            let reading = Reading { connection, api: &api, scope, is_recorded };
            let (objects, extent) = tokio::time::timeout_at(deadline, reading.read()).await.unwrap_or_else(|_| {
                let message = format!("{}: timed out after {DEADLINE:?}", reading.action(None));
                (Vec::new(), Extent::Failed(Gap { reason: Reason::Timeout, message }))
            });
            if matches!(&extent, Extent::Partly(_, gap) if gap.reason == Reason::Forbidden) && *scope == Scope::Cluster
            {
                fell_back.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            ((GroupKind { group: api.group, kind: api.kind }, api.resource), (objects, extent))
        }
    };
    let read: BTreeMap<(GroupKind, String), _> =
        stream::iter(apis).map(read).buffer_unordered(LISTS_AT_A_TIME).collect().await;
    for ((kind, _), (objects, extent)) in read {
        if is_custom(&kind.group) && crds.includes(&kind.group) {
            objects.into_iter().for_each(|object| builder.add_custom(object));
        }
        builder.cover_custom(kind, extent);
    }
    for (kind, gap) in failed {
        builder.cover_custom(kind, Extent::Failed(gap));
    }
    let mut notes = unserved_groups(crds, builder);
    if fell_back.into_inner() {
        let namespace = connection.namespace();
        notes.push(format!(
            "custom resources: only namespace {namespace} was read because listing the whole cluster is forbidden"
        ));
    }
    notes
}

/// A misspelled group would look healthy.
fn unserved_groups(crds: &Crds, builder: &Builder) -> Vec<String> {
    let Crds::Groups(patterns) = crds else { return Vec::new() };
    let groups: BTreeSet<&str> = builder.coverage().custom().keys().map(|kind| kind.group.as_str()).collect();
    let is_unserved = |pattern: &&Glob| !groups.iter().any(|group| pattern.is_match(group));
    patterns
        .iter()
        .filter(is_unserved)
        .map(|p| format!("--crds {p}: no matching custom resources in the cluster"))
        .collect()
}

#[derive(Debug, Default)]
struct Found {
    apis: Vec<CustomApi>,
    /// What could not be discovered.
    failed: Vec<(GroupKind, Gap)>,
}

async fn find(connection: &Connection, crds: &Crds, recorded: &BTreeSet<GroupKind>) -> Found {
    let served = &connection.served.custom;
    let chosen = |group: &str| is_custom(group) && crds.includes(group);
    let wanted = |group: &str| chosen(group) || recorded.iter().any(|kind| kind.group == group);
    let mut found = Found { apis: served.apis.clone(), failed: Vec::new() };
    let nameless = |group: &str| GroupKind { group: group.to_string(), kind: String::new() };
    if let Some(failure) = &served.unknown {
        found.failed.push((nameless(""), failure.during("discovering custom resources")));
    }
    let stale: BTreeSet<&(String, String)> = served.stale.iter().filter(|(group, _)| wanted(group)).collect();
    for (group, version) in stale {
        let message = format!("discovering {group}/{version}: the aggregated API server does not respond");
        found.failed.push((nameless(group), Gap { reason: Reason::Unavailable, message }));
    }
    let ask = |(group, version): (String, String)| async move {
        let listed = listable(connection, &group, &version).await;
        (group, version, listed)
    };
    let unlisted: Vec<_> = served.unlisted.iter().filter(|(group, _)| wanted(group)).cloned().collect();
    let listed: Vec<_> = stream::iter(unlisted).map(ask).buffer_unordered(LISTS_AT_A_TIME).collect().await;
    for (group, version, listed) in listed {
        match listed {
            Ok(apis) => found.apis.extend(apis),
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => {
                let gap = failure.during(format!("discovering {group}/{version}"));
                found.failed.push((nameless(&group), gap));
            }
        }
    }
    let is_wanted = |api: &CustomApi| chosen(&api.group) || recorded.contains(&api.group_kind());
    found.apis.retain(|api| is_wanted(api) && !has_type(api) && !holds_credentials(&api.kind));
    found.apis.sort();
    found
}

fn is_custom(group: &str) -> bool {
    ![BUILT_IN, VIRTUAL, REPORTS].iter().any(|groups| groups.contains(&group))
}

/// Whether the kind has a type in the model; then it is read as that type if any rule needs it.
fn has_type(api: &CustomApi) -> bool {
    Kind::ALL.iter().any(|kind| kind.api().group == api.group && kind.api().plural == api.resource)
}

/// Kinds that contain credentials themselves. An ExternalSecret or a SealedSecret only references or encrypts them.
pub fn holds_credentials(kind: &str) -> bool {
    let ends = ["Token", "Password", "Credential", "Credentials"];
    kind == "Secret" || ends.iter().any(|end| kind.ends_with(end))
}

/// Reads one kind.
struct Reading<'a> {
    connection: &'a Connection,
    api: &'a CustomApi,
    scope: &'a Scope,
    /// Whether all objects are needed, even if none has conditions.
    is_recorded: bool,
}

type Objects = Vec<CustomResource>;

impl Reading<'_> {
    async fn read(&self) -> (Objects, Extent) {
        match self.scope {
            Scope::Namespaces(namespaces) if self.api.namespaced => self.read_namespaces(namespaces).await,
            _ => self.read_everywhere().await,
        }
    }

    async fn read_everywhere(&self) -> (Objects, Extent) {
        let refused = match self.list(None).await {
            Ok((objects, None)) => return (objects, Extent::Everything),
            Ok((objects, Some(gap))) => return (objects, Extent::Partly(BTreeSet::new(), gap)),
            Err(failure) if failure.is_not_found() => return (Vec::new(), Extent::NotServed),
            Err(failure) => failure,
        };
        let gap = refused.during(self.action(None));
        if *self.scope != Scope::Cluster || !self.api.namespaced || !refused.is_forbidden() {
            return (Vec::new(), Extent::Failed(gap));
        }
        let namespace = self.connection.namespace();
        match self.list(Some(namespace)).await {
            Ok((objects, None)) => (objects, Extent::Partly([namespace.to_string()].into(), gap)),
            Ok((objects, Some(_))) => (objects, Extent::Partly(BTreeSet::new(), gap)),
            Err(_) => (Vec::new(), Extent::Failed(gap)),
        }
    }

    async fn read_namespaces(&self, namespaces: &BTreeSet<String>) -> (Objects, Extent) {
        let (mut objects, mut read, mut gaps) = (Vec::new(), BTreeSet::new(), Vec::new());
        for namespace in namespaces {
            match self.list(Some(namespace)).await {
                Ok((listed, gap)) => {
                    objects.extend(listed);
                    if gap.is_none() {
                        read.insert(namespace.clone());
                    }
                    gaps.extend(gap);
                }
                Err(failure) if failure.is_not_found() => return (Vec::new(), Extent::NotServed),
                Err(failure) => gaps.push(failure.during(self.action(Some(namespace)))),
            }
        }
        match gaps.into_iter().next() {
            None => (objects, Extent::Namespaces(read)),
            Some(gap) if objects.is_empty() && read.is_empty() => (objects, Extent::Failed(gap)),
            Some(gap) => (objects, Extent::Partly(read, gap)),
        }
    }

    /// All objects, or as many as the limit allows and a gap for the rest.
    async fn list(&self, namespace: Option<&str>) -> Result<(Objects, Option<Gap>), Failure> {
        for restarts in 0.. {
            match self.pages(namespace).await {
                Err(failure) if failure.status == Some(410) && restarts < RESTARTS => {
                    tracing::debug!("{}: continue token expired, restarting the list", self.action(namespace));
                    if let Some(recorder) = &self.connection.recorder {
                        recorder.forget(&self.api.group, &self.api.kind, namespace);
                    }
                }
                result => return result,
            }
        }
        unreachable!("the loop has no end")
    }

    async fn pages(&self, namespace: Option<&str>) -> Result<(Objects, Option<Gap>), Failure> {
        let (mut objects, mut broken, mut token) = (Objects::new(), 0, String::new());
        let gap = |reason, why: String| Gap { reason, message: format!("{}: {why}", self.action(namespace)) };
        let mut rest = None;
        loop {
            let body = self.connection.get(&self.path(namespace, &token), JSON).await?;
            let next = continue_token(&body).unwrap_or_default();
            let (page, lost) = self.decode(body).await?;
            objects.extend(page);
            broken += lost;
            if next.is_empty() {
                break;
            }
            if next == token {
                return Err(Failure::new(Reason::Malformed, "the server returned the same page twice"));
            }
            if !self.is_recorded && objects.len() >= SAMPLE && !objects.iter().any(CustomResource::tells_conditions) {
                break;
            }
            let max = if self.api.group == "wgpolicyk8s.io" { REPORTS_READ } else { OBJECTS };
            if objects.len() >= max {
                rest = Some(gap(Reason::TooMany, format!("only the first {} were read", objects.len())));
                break;
            }
            token = next;
        }
        if broken > 0 {
            rest = Some(gap(Reason::Malformed, format!("{broken} objects could not be decoded")));
        }
        Ok((objects, rest))
    }

    async fn decode(&self, body: Vec<u8>) -> Result<(Objects, usize), Failure> {
        let (api_version, kind) = (format!("{}/{}", self.api.group, self.api.version), self.api.kind.clone());
        let recorder = self.connection.recorder.clone();
        let page = tokio::task::spawn_blocking(move || {
            if let Some(recorder) = recorder {
                recorder.page(&api_version, &kind, &body, Content::Whole);
            }
            custom_page(&api_version, &kind, &body)
        });
        match page.await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(Failure::new(Reason::Malformed, format!("malformed response: {error}"))),
            Err(error) => Err(Failure::new(Reason::Internal, format!("decoding failed: {error}"))),
        }
    }

    fn path(&self, namespace: Option<&str>, token: &str) -> String {
        let CustomApi { group, version, resource, .. } = self.api;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &LIMIT.to_string());
        if !token.is_empty() {
            query.append_pair("continue", token);
        }
        let place = namespace.map(|namespace| format!("namespaces/{}/", segment(namespace))).unwrap_or_default();
        format!("/apis/{group}/{version}/{place}{resource}?{}", query.finish())
    }

    /// `listing certificates.cert-manager.io in all namespaces`.
    fn action(&self, namespace: Option<&str>) -> String {
        let CustomApi { group, resource, namespaced, .. } = self.api;
        match namespace {
            Some(namespace) => format!("listing {resource}.{group} in namespace {namespace}"),
            None if *namespaced => format!("listing {resource}.{group} in all namespaces"),
            None => format!("listing {resource}.{group}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Crds, holds_credentials, is_custom};

    #[test]
    fn chooses_groups() {
        let parse = |words: &[&str]| Crds::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(parse(&["all"]), Ok(Crds::All));
        assert_eq!(parse(&["none"]), Ok(Crds::None));
        assert!(parse(&["none", "a.io"]).is_err());
        let groups = parse(&["*.example.com", "cert-manager.io"]).unwrap();
        assert!(groups.includes("shop.example.com") && groups.includes("cert-manager.io"));
        assert!(!groups.includes("acme.cert-manager.io"));
    }

    #[test]
    fn skips_other_groups() {
        for group in ["", "apps", "metrics.k8s.io", "events.k8s.io", "reports.kyverno.io"] {
            assert!(!is_custom(group), "{group}");
        }
        assert!(is_custom("snapshot.storage.k8s.io") && is_custom("argoproj.io"));
        assert!(holds_credentials("GithubAccessToken") && !holds_credentials("ExternalSecret"));
    }
}
