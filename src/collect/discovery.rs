//! API discovery: which of the kinds that rules read are served, and in which version.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream;
use kubectl_gpt_analyzers::{Kind, Reason};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::connection::Connection;
use super::failure::Failure;
use super::request::JSON;
use super::served::{Custom, CustomApi, Served, Serving};

/// Aggregated discovery, from Kubernetes 1.26 on (KEP-3352); older servers respond in the plain format.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// The resources of one group and version.
#[derive(Debug, Default)]
struct Version {
    resources: BTreeSet<String>,
    /// It exists, but its resources could not be discovered.
    stale: bool,
}

/// The result of discovery; `Err` if the server denied it.
type Groups = Result<Found, Failure>;

#[derive(Debug, Default)]
struct Found {
    /// By group and version.
    versions: BTreeMap<(String, String), Version>,
    custom: Custom,
}

/// Discovers all groups at once, or group by group on older servers.
pub(super) async fn discover(connection: &Connection) -> Result<Served, Failure> {
    let (core, named) = tokio::join!(groups(connection, "/api"), groups(connection, "/apis"));
    let (core, named) = (tolerate(core)?, tolerate(named)?);
    let serving = |kind: Kind| {
        let groups = if kind.api().group.is_empty() { &core } else { &named };
        match groups {
            Ok(found) => serving(kind, &found.versions),
            Err(_) => Serving::Unknown(kind.api().versions[0]),
        }
    };
    let kinds = Kind::ALL.iter().map(|kind| (*kind, serving(*kind))).collect();
    let custom = named.map_or_else(|e| Custom { unknown: Some(e), ..Custom::default() }, |found| found.custom);
    Ok(Served { kinds, custom })
}

/// A server that denies discovery may still serve lists. A server that does not know `/api`, rejects the credentials,
/// or responds with something else must not be mistaken for an empty cluster.
fn tolerate(groups: Groups) -> Result<Groups, Failure> {
    match groups {
        Err(failure) if matches!(failure.status, Some(401 | 404)) || failure.reason == Reason::Malformed => {
            Err(failure)
        }
        Err(failure) if failure.status.is_none() => Err(failure),
        groups => Ok(groups),
    }
}

fn serving(kind: Kind, groups: &BTreeMap<(String, String), Version>) -> Serving {
    let api = kind.api();
    let version = |version: &str| groups.get(&(api.group.to_string(), version.to_string()));
    let serves = |v: &str| version(v).is_some_and(|found| found.resources.contains(api.plural));
    let is_stale = |v: &str| version(v).is_some_and(|found| found.stale);
    match api.versions.iter().find(|v| is_stale(v) || serves(v)) {
        Some(version) if is_stale(version) => return Serving::Stale(version),
        Some(version) => return Serving::Version(version),
        None => {}
    }
    let others: Vec<&str> = groups
        .iter()
        .filter(|((group, _), found)| group == api.group && found.resources.contains(api.plural))
        .map(|((_, version), _)| version.as_str())
        .collect();
    if others.is_empty() { Serving::NotServed } else { Serving::OtherVersions(others.join(", ")) }
}

async fn groups(connection: &Connection, root: &str) -> Groups {
    let body = connection.get(root, AGGREGATED).await?;
    match read::<Root>(root, &body)? {
        Root { kind, items, .. } if kind == "APIGroupDiscoveryList" => Ok(aggregated(items)),
        Root { kind, versions, .. } if kind == "APIVersions" => {
            let core = versions.into_iter().map(|version| (String::new(), version));
            let versions = one_by_one(connection, core.collect()).await;
            Ok(Found { versions, ..Found::default() })
        }
        Root { kind, groups, .. } if kind == "APIGroupList" => {
            let unlisted = groups.iter().filter_map(|g| Some((g.name.clone(), g.preferred()?.to_string()))).collect();
            let ours = |group: &Group| Kind::ALL.iter().any(|kind| kind.api().group == group.name);
            let versions = groups
                .into_iter()
                .filter(ours)
                .flat_map(|group| group.versions.into_iter().map(move |version| (group.name.clone(), version.version)));
            let versions = one_by_one(connection, versions.collect()).await;
            Ok(Found { versions, custom: Custom { unlisted, ..Custom::default() } })
        }
        Root { kind, .. } => Err(Failure::new(
            Reason::Malformed,
            format!("GET {root} returned kind \"{kind}\", which is not a discovery document"),
        )),
    }
}

fn read<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::new(Reason::Malformed, format!("invalid response to GET {path}: {error}")))
}

fn aggregated(groups: Vec<GroupDiscovery>) -> Found {
    let mut found = Found::default();
    for group in groups {
        let name = group.metadata.name;
        let mut seen = BTreeSet::new();
        // The preferred version comes first.
        for version in group.versions {
            let stale = version.freshness == "Stale";
            if stale {
                found.custom.stale.push((name.clone(), version.version.clone()));
            }
            for resource in version.resources.iter().filter(|r| r.verbs.iter().any(|verb| verb == "list")) {
                if seen.insert(resource.resource.clone()) {
                    found.custom.apis.push(resource.api(&name, &version.version));
                }
            }
            let resources = version.resources.into_iter().map(|r| r.resource).collect();
            found.versions.insert((name.clone(), version.version), Version { resources, stale });
        }
    }
    found
}

/// The listable kinds of one group and version, from a server without aggregated discovery.
pub(super) async fn listable(connection: &Connection, group: &str, version: &str) -> Result<Vec<CustomApi>, Failure> {
    let path = format!("/apis/{group}/{version}");
    let list: ResourceList = read(&path, &connection.get(&path, JSON).await?)?;
    let listable = list.resources.into_iter().filter(|r| !r.name.contains('/') && r.verbs.iter().any(|v| v == "list"));
    let api = |r: Resource| CustomApi {
        group: group.to_string(),
        version: version.to_string(),
        resource: r.name,
        kind: r.kind,
        namespaced: r.namespaced,
    };
    Ok(listable.map(api).collect())
}

/// Plain discovery: one request per version of each group that rules read.
async fn one_by_one(connection: &Connection, versions: Vec<(String, String)>) -> BTreeMap<(String, String), Version> {
    let ask = |(group, version): (String, String)| async move {
        let path = match group.as_str() {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        let found = match connection.get(&path, JSON).await.and_then(|body| read::<ResourceList>(&path, &body)) {
            Ok(list) => Version { resources: list.resources.into_iter().map(|r| r.name).collect(), stale: false },
            Err(failure) => Version { resources: BTreeSet::new(), stale: !failure.is_not_found() },
        };
        ((group, version), found)
    };
    stream::iter(versions).map(ask).buffer_unordered(4).collect().await
}

#[derive(Deserialize)]
struct Root {
    kind: String,
    #[serde(default)]
    items: Vec<GroupDiscovery>,
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GroupDiscovery {
    metadata: GroupMeta,
    versions: Vec<VersionDiscovery>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GroupMeta {
    /// Absent for the core group.
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VersionDiscovery {
    version: String,
    resources: Vec<ResourceDiscovery>,
    /// `Stale` if the aggregated API server did not respond to the last discovery request.
    freshness: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceDiscovery {
    resource: String,
    response_kind: ResponseKind,
    scope: String,
    verbs: Vec<String>,
}

impl ResourceDiscovery {
    fn api(&self, group: &str, version: &str) -> CustomApi {
        CustomApi {
            group: group.to_string(),
            version: version.to_string(),
            resource: self.resource.clone(),
            kind: self.response_kind.kind.clone(),
            namespaced: self.scope == "Namespaced",
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseKind {
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    #[serde(default)]
    versions: Vec<GroupVersion>,
    #[serde(default)]
    preferred_version: Option<GroupVersion>,
}

impl Group {
    fn preferred(&self) -> Option<&str> {
        self.preferred_version.as_ref().or(self.versions.first()).map(|version| version.version.as_str())
    }
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct ResourceList {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}
