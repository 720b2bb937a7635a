//! A fake API server for tests: serves a recorded or synthetic cluster over HTTP on localhost, injects faults of real
//! servers, and records requests.
//!
//! ```ignore
//! let server = ApiServer::start(objects);
//! server.fail(When::listing("pods"), Then::Forbidden);
//! // … run kubectl-gpt with --kubeconfig server.kubeconfig()
//! assert_eq!(server.requests_for("pods").len(), 1);
//! ```
#![allow(dead_code, clippy::unwrap_used, clippy::result_large_err)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, USER_AGENT};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use kubectl_gpt_analyzers::Kind;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

pub mod tls;

/// Which requests a fault applies to. Unset conditions match all requests.
#[derive(Clone, Debug, Default)]
pub struct When {
    path: Option<String>,
    resource: Option<String>,
    namespace: Option<Option<String>>,
    name: Option<String>,
    lists_only: bool,
    continued: bool,
    watches_only: bool,
    times: Option<usize>,
    /// How many matching requests succeed first.
    after: usize,
}

impl When {
    pub fn everything() -> When {
        When::default()
    }

    /// Lists of a resource, in all namespaces or in one.
    pub fn listing(resource: &str) -> When {
        When { resource: Some(resource.to_string()), lists_only: true, ..When::default() }
    }

    /// Watches of a resource.
    pub fn watching(resource: &str) -> When {
        When { watches_only: true, ..When::listing(resource) }
    }

    /// Requests for a single object.
    pub fn getting(resource: &str, name: &str) -> When {
        When { resource: Some(resource.to_string()), name: Some(name.to_string()), ..When::default() }
    }

    /// Requests with this path or path prefix.
    pub fn path(path: &str) -> When {
        When { path: Some(path.to_string()), ..When::default() }
    }

    /// Only requests for one namespace.
    pub fn in_namespace(self, namespace: &str) -> When {
        When { namespace: Some(Some(namespace.to_string())), ..self }
    }

    /// Only cluster-wide requests.
    pub fn cluster_wide(self) -> When {
        When { namespace: Some(None), ..self }
    }

    /// Only requests with a continue token.
    pub fn continued(self) -> When {
        When { continued: true, ..self }
    }

    /// Only the first `n` requests.
    pub fn times(self, times: usize) -> When {
        When { times: Some(times), ..self }
    }

    /// Only after `n` requests.
    pub fn after(self, after: usize) -> When {
        When { after, ..self }
    }

    fn matches(&self, asked: &Asked) -> bool {
        let path = self.path.as_ref().is_none_or(|path| {
            asked.path == *path || asked.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'))
        });
        let target = asked.target.as_ref();
        path && self.resource.as_ref().is_none_or(|r| target.is_some_and(|t| t.resource == *r))
            && self.namespace.as_ref().is_none_or(|n| target.is_some_and(|t| t.namespace == *n))
            && self.name.as_ref().is_none_or(|n| target.is_some_and(|t| t.name.as_ref() == Some(n)))
            && (!self.lists_only || target.is_some_and(|t| t.name.is_none()))
            && (!self.watches_only || asked.is_watch())
            && (!self.continued || asked.query.contains_key("continue"))
    }
}

/// The injected fault.
#[derive(Clone, Debug)]
pub enum Then {
    Forbidden,
    Unauthorized,
    /// Unknown API: the plain-text 404 of real API servers.
    NotFound,
    /// The continue token expired.
    Gone,
    TooManyRequests {
        retry_after: u64,
    },
    Unavailable,
    InternalError,
    /// The normal response, delayed.
    Slow(Duration),
    /// No response.
    Hang,
    /// Half a response, then the connection breaks.
    Cut,
    /// Half a response, as if it were complete.
    Half,
    /// A response that is not JSON.
    Garbage,
    /// The first item of the list does not match its kind.
    BrokenItem,
    /// The same continue token on every page.
    SamePage,
    /// The normal response, but of a cluster in which these objects have been added at the front, and the given number
    /// of first objects removed.
    Meanwhile {
        come: Vec<Value>,
        go: usize,
    },
}

/// The discovery format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    #[default]
    Aggregated,
    /// As in servers before Kubernetes 1.26.
    Plain,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: HashMap<String, String>,
    pub accept: String,
    pub user_agent: String,
    pub impersonate: Vec<String>,
    pub authorization: String,
    target: Option<Target>,
}

impl Asked {
    pub fn is_watch(&self) -> bool {
        self.query.get("watch").is_some_and(|watch| watch == "true" || watch == "1")
    }

    /// `/api/v1/pods?limit=500`, with sorted parameters.
    pub fn line(&self) -> String {
        let query: BTreeMap<_, _> = self.query.iter().collect();
        let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, query.join("&")) }
    }
}

#[derive(Clone, Debug)]
struct Target {
    group: String,
    version: String,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
}

impl Target {
    /// Parses `/apis/apps/v1/namespaces/shop/deployments/cart`.
    fn of(path: &str) -> Option<Target> {
        let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (group, version, at) = match *parts.first()? {
            "api" => (String::new(), parts.get(1)?.to_string(), 2),
            "apis" => (parts.get(1)?.to_string(), parts.get(2)?.to_string(), 3),
            _ => return None,
        };
        parts.drain(..at);
        let namespace = (parts.first() == Some(&"namespaces") && parts.len() > 2).then(|| parts[1].to_string());
        if namespace.is_some() {
            parts.drain(..2);
        }
        let part = |n: usize| parts.get(n).map(ToString::to_string);
        Some(Target { group, version, resource: part(0)?, namespace, name: part(1), subresource: part(2) })
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// `(group, version, resource)`.
type Resource = (String, String, String);

#[derive(Default)]
struct World {
    objects: BTreeMap<Resource, Vec<Value>>,
    kinds: BTreeMap<Resource, (String, bool)>,
    stale: BTreeSet<String>,
    discovery: Discovery,
    /// The allowed requests, if restricted: `(verb, group, resource)`.
    allowed: Option<BTreeSet<(String, String, String)>>,
    logs: HashMap<(String, String, String, bool), String>,
    /// Events for watches: resource version, resource, event type and object.
    history: Vec<(u64, Resource, &'static str, Value)>,
    version: u64,
    /// Events up to this version have been discarded.
    compacted: u64,
    /// How often all watches have been disconnected.
    cuts: usize,
    faults: Vec<(When, Then, usize)>,
    /// How far its clock is ahead of the local clock.
    ahead: SignedDuration,
    asked: Vec<Asked>,
    busy: usize,
    busiest: usize,
}

pub struct ApiServer {
    url: String,
    world: Arc<Mutex<World>>,
    runtime: Option<tokio::runtime::Runtime>,
    folder: tempfile::TempDir,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl ApiServer {
    /// Serves these objects and all built-in kinds. The context's namespace is `shop`.
    pub fn start(objects: Vec<Value>) -> ApiServer {
        ApiServer::listen(objects, None)
    }

    /// The same over TLS. Its kubeconfig trusts no authority; use [`tls::Authority`].
    pub fn start_tls(objects: Vec<Value>, acceptor: TlsAcceptor) -> ApiServer {
        ApiServer::listen(objects, Some(acceptor))
    }

    fn listen(objects: Vec<Value>, acceptor: Option<TlsAcceptor>) -> ApiServer {
        let mut world = World { version: 7, ..World::default() };
        for kind in Kind::ALL.iter().filter(|kind| kind.api().group != "gateway.networking.k8s.io") {
            world.serve(*kind, kind.api().versions[0]);
        }
        objects.into_iter().for_each(|object| world.add(object));
        let world = Arc::new(Mutex::new(world));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&world));
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            match acceptor {
                Some(acceptor) => axum::serve(tls::Encrypted { listener, acceptor }, app).await.unwrap(),
                None => axum::serve(listener, app).await.unwrap(),
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let url = format!("{scheme}://{address}");
        std::fs::write(folder.path().join("config"), kubeconfig_of(&url, "shop")).unwrap();
        ApiServer { url, world, runtime: Some(runtime), folder }
    }

    /// Serves a recording: a v1 List in JSON.
    pub fn recorded(path: impl AsRef<Path>) -> ApiServer {
        let mut list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let Value::Array(items) = list["items"].take() else { panic!("no list") };
        ApiServer::start(items)
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// A kubeconfig file for this server.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Another kubeconfig file for this server, with another namespace in its context.
    pub fn kubeconfig_with_namespace(&self, namespace: &str) -> PathBuf {
        let path = self.folder.path().join(format!("config-{namespace}"));
        std::fs::write(&path, kubeconfig_of(&self.url(), namespace)).unwrap();
        path
    }

    pub fn add(&self, object: Value) {
        self.world().add(object);
    }

    /// Creates or changes an object, and notifies watches.
    pub fn change(&self, object: Value) {
        self.world().change(object);
    }

    /// Deletes an object, and notifies watches.
    pub fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str) {
        self.world().delete(api_version, kind, namespace, name);
    }

    /// Disconnects all watches.
    pub fn cut_watches(&self) {
        self.world().cuts += 1;
    }

    /// Discards old events, like etcd compaction: older watches get 410 Gone.
    pub fn forget_history(&self) {
        let mut world = self.world();
        world.version += 1;
        world.compacted = world.version;
        world.history.clear();
    }

    /// Discards all but the latest events; current watches are not affected.
    pub fn forget_delivered_history(&self, keep: usize) {
        let mut world = self.world();
        let beyond = world.history.len().saturating_sub(keep);
        world.history.drain(..beyond);
    }

    /// Sets its clock relative to the local clock.
    pub fn clock(&self, ahead: SignedDuration) {
        self.world().ahead = ahead;
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.world().faults.clear();
    }

    /// Serves an additional kind or version.
    pub fn serve(&self, kind: Kind, version: &str) {
        self.world().serve(kind, version);
    }

    /// Removes all kinds of a group.
    pub fn drop_group(&self, group: &str) {
        self.world().kinds.retain(|(g, _, _), _| g != group);
    }

    pub fn discovery(&self, discovery: Discovery) {
        self.world().discovery = discovery;
    }

    /// Denies every resource that this ClusterRole (YAML) does not grant.
    pub fn allow_only(&self, role: &str) {
        let role: Value = serde_saphyr::from_str(role).unwrap();
        let words = |rule: &Value, field: &str| -> Vec<String> {
            let values = rule[field].as_array().cloned().unwrap_or_default();
            values.iter().map(|value| value.as_str().unwrap().to_string()).collect()
        };
        let mut allowed = BTreeSet::new();
        for rule in role["rules"].as_array().unwrap() {
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    let verbs = words(rule, "verbs").into_iter();
                    allowed.extend(verbs.map(|verb| (verb, group.clone(), resource.clone())));
                }
            }
        }
        self.world().allowed = Some(allowed);
    }

    /// Marks a group as stale: its aggregated server does not respond.
    pub fn stale(&self, group: &str) {
        self.world().stale.insert(group.to_string());
    }

    pub fn log(&self, namespace: &str, pod: &str, container: &str, previous: bool, text: &str) {
        let key = (namespace.to_string(), pod.to_string(), container.to_string(), previous);
        self.world().logs.insert(key, text.to_string());
    }

    /// Adds a fault; the newest matching fault applies.
    pub fn fail(&self, when: When, then: Then) {
        self.world().faults.push((when, then, 0));
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Asked> {
        self.world().asked.clone()
    }

    /// The requests for a resource so far, in order: `/api/v1/pods?limit=500`.
    pub fn requests_for(&self, resource: &str) -> Vec<String> {
        let requests = self.requests();
        let about = requests.iter().filter(|a| a.target.as_ref().is_some_and(|t| t.resource == resource));
        about.map(Asked::line).collect()
    }

    /// The maximum number of concurrent requests.
    pub fn most_at_a_time(&self) -> usize {
        self.world().busiest
    }

    pub fn forget_requests(&self) {
        self.world().asked.clear();
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

/// A kubeconfig with one context, `test`.
pub fn kubeconfig_of(server: &str, namespace: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    })
    .to_string()
}

impl World {
    fn serve(&mut self, kind: Kind, version: &str) {
        let api = kind.api();
        let resource = (api.group.to_string(), version.to_string(), api.plural.to_string());
        self.kinds.insert(resource, (api.kind.to_string(), api.namespaced));
    }

    fn add(&mut self, object: Value) {
        let kind = object["kind"].as_str().unwrap();
        let resource = resource_of(object["apiVersion"].as_str().unwrap(), kind);
        let namespaced = object["metadata"]["namespace"].is_string();
        self.kinds.entry(resource.clone()).or_insert((kind.to_string(), namespaced));
        self.objects.entry(resource).or_default().push(object);
    }

    fn change(&mut self, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let resource = resource_of(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let known = self.objects.entry(resource.clone()).or_default();
        let event = match known.iter_mut().find(|known| same(known, &object)) {
            Some(known) => {
                known.clone_from(&object);
                "MODIFIED"
            }
            None => {
                known.push(object.clone());
                "ADDED"
            }
        };
        self.history.push((self.version, resource, event, object));
    }

    fn delete(&mut self, api_version: &str, kind: &str, namespace: &str, name: &str) {
        let resource = resource_of(api_version, kind);
        let objects = self.objects.get_mut(&resource).unwrap();
        let is_it = |object: &Value| {
            object["metadata"]["name"] == name
                && object["metadata"]["namespace"].as_str().unwrap_or_default() == namespace
        };
        let at = objects.iter().position(is_it).unwrap();
        let mut object = objects.remove(at);
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.history.push((self.version, resource, "DELETED", object));
    }

    fn meanwhile(&mut self, target: &Target, come: &[Value], go: usize) {
        let resource = (target.group.clone(), target.version.clone(), target.resource.clone());
        let objects = self.objects.entry(resource).or_default();
        objects.drain(..go);
        objects.splice(..0, come.iter().cloned());
    }

    /// The next event after a version as a line, and its version.
    fn event_after(&self, version: u64, asked: &Asked) -> Option<(u64, String)> {
        if version < self.compacted {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version", "reason": "Expired", "code": 410});
            return Some((u64::MAX, event_line("ERROR", &status)));
        }
        let target = asked.target.as_ref()?;
        let resource = (target.group.clone(), target.version.clone(), target.resource.clone());
        let is_wanted = |(at, of, _, object): &&(u64, Resource, &str, Value)| {
            let namespace = object["metadata"]["namespace"].as_str();
            *at > version && *of == resource && (target.namespace.is_none() || target.namespace.as_deref() == namespace)
        };
        let known = self.history.partition_point(|(at, ..)| *at <= version);
        let (at, _, event, object) = self.history[known..].iter().find(is_wanted)?;
        let object = match asked.accept.contains("as=PartialObjectMetadata") {
            true => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
            }
            false => object.clone(),
        };
        Some((*at, event_line(event, &object)))
    }

    /// The newest matching fault that is not used up.
    fn fault(&mut self, asked: &Asked) -> Option<Then> {
        self.faults.iter_mut().rev().filter(|(when, ..)| when.matches(asked)).find_map(|(when, then, met)| {
            *met += 1;
            let meets = *met > when.after && when.times.is_none_or(|times| *met <= when.after + times);
            meets.then(|| then.clone())
        })
    }

    fn is_refused(&self, asked: &Asked) -> bool {
        let (Some(allowed), Some(target)) = (&self.allowed, &asked.target) else { return false };
        let verb = match target.name {
            Some(_) => "get",
            None if asked.is_watch() => "watch",
            None => "list",
        };
        let resource = match &target.subresource {
            Some(subresource) => format!("{}/{subresource}", target.resource),
            None => target.resource.clone(),
        };
        let may = |resource: &str| allowed.contains(&(verb.to_string(), target.group.clone(), resource.to_string()));
        !may(&resource) && !may("*")
    }

    fn versions_of(&self, group: &str) -> BTreeSet<&str> {
        self.kinds.keys().filter(|(g, ..)| g == group).map(|(_, version, _)| version.as_str()).collect()
    }

    fn groups(&self) -> BTreeSet<&str> {
        self.kinds.keys().map(|(group, ..)| group.as_str()).filter(|group| !group.is_empty()).collect()
    }

    fn aggregated(&self, groups: BTreeSet<&str>) -> Value {
        let version = |group: &str, version: &str| {
            let stale = self.stale.contains(group);
            let resources: Vec<Value> = self
                .kinds
                .iter()
                .filter(|((g, v, _), _)| g == group && v == version && !stale)
                .map(|((g, v, plural), (kind, namespaced))| {
                    json!({"resource": plural, "verbs": ["get", "list", "watch"],
                           "responseKind": {"group": g, "version": v, "kind": kind},
                           "scope": if *namespaced { "Namespaced" } else { "Cluster" }})
                })
                .collect();
            json!({"version": version, "freshness": if stale { "Stale" } else { "Current" }, "resources": resources})
        };
        let items: Vec<Value> = groups
            .into_iter()
            .map(|group| {
                let versions: Vec<Value> = self.versions_of(group).into_iter().map(|v| version(group, v)).collect();
                let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
                json!({"metadata": metadata, "versions": versions})
            })
            .collect();
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
    }

    fn plain_groups(&self) -> Value {
        let groups = self.groups().into_iter().map(|group| {
            let versions: Vec<Value> = (self.versions_of(group).into_iter())
                .map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v}))
                .collect();
            json!({"name": group, "versions": versions})
        });
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>()})
    }

    fn plain_resources(&self, group: &str, version: &str) -> Option<Value> {
        let resources: Vec<Value> = self
            .kinds
            .iter()
            .filter(|((g, v, _), _)| g == group && v == version)
            .map(|((_, _, plural), (kind, namespaced))| json!({"name": plural, "kind": kind, "namespaced": namespaced, "verbs": ["list"]}))
            .collect();
        (!resources.is_empty()).then(|| json!({"kind": "APIResourceList", "apiVersion": "v1", "resources": resources}))
    }

    fn respond(&self, asked: &Asked) -> Result<Value, Response> {
        let aggregated = self.discovery == Discovery::Aggregated && asked.accept.contains("as=APIGroupDiscoveryList");
        match asked.path.as_str() {
            "/version" => return Ok(json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3"})),
            "/api" if aggregated => return Ok(self.aggregated(BTreeSet::from([""]))),
            "/api" => return Ok(json!({"kind": "APIVersions", "versions": ["v1"]})),
            "/apis" if aggregated => return Ok(self.aggregated(self.groups())),
            "/apis" => return Ok(self.plain_groups()),
            _ => {}
        }
        let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
        let resources = match parts[..] {
            ["api", version] => self.plain_resources("", version),
            ["apis", group, version] if self.stale.contains(group) => {
                let _ = version;
                return Err(status(503, "the server is currently unable to handle the request"));
            }
            ["apis", group, version] => self.plain_resources(group, version),
            _ => None,
        };
        if let Some(resources) = resources {
            return Ok(resources);
        }
        let Some(target) = &asked.target else { return Err(no_such_path()) };
        if self.stale.contains(&target.group) {
            return Err(status(503, "the server is currently unable to handle the request"));
        }
        let resource = (target.group.clone(), target.version.clone(), target.resource.clone());
        let Some((kind, _)) = self.kinds.get(&resource) else { return Err(no_such_path()) };
        let objects = self.objects.get(&resource).map(Vec::as_slice).unwrap_or_default();
        match &target.name {
            None => list(asked, target, kind, objects, self.version),
            Some(name) => {
                let found = objects.iter().find(|o| {
                    o["metadata"]["name"] == name.as_str()
                        && o["metadata"]["namespace"].as_str() == target.namespace.as_deref()
                });
                found.cloned().ok_or_else(|| status(404, &format!("{} \"{name}\" not found", target.resource)))
            }
        }
    }

    fn log_of(&self, asked: &Asked, target: &Target) -> Response {
        let parameter = |name: &str| asked.query.get(name).map(String::as_str).unwrap_or_default();
        let (pod, container) = (target.name.clone().unwrap_or_default(), parameter("container").to_string());
        let previous = parameter("previous") == "true";
        let key = (target.namespace.clone().unwrap_or_default(), pod.clone(), container.clone(), previous);
        let Some(text) = self.logs.get(&key) else {
            let message = match previous {
                true => format!("previous terminated container \"{container}\" in pod \"{pod}\" not found"),
                false => format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"),
            };
            return status(400, &message);
        };
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let tail = parameter("tailLines").parse().unwrap_or(lines.len()).min(lines.len());
        let mut text = lines[lines.len() - tail..].concat();
        text.truncate(parameter("limitBytes").parse().unwrap_or(usize::MAX));
        Response::new(Body::from(text))
    }
}

fn list(asked: &Asked, target: &Target, kind: &str, objects: &[Value], version: u64) -> Result<Value, Response> {
    let warnings_only = match asked.query.get("fieldSelector").map(String::as_str) {
        None => false,
        Some("type!=Normal") if target.resource == "events" => true,
        Some(other) => return Err(status(400, &format!("field selector {other} is not supported"))),
    };
    let items: Vec<&Value> = objects
        .iter()
        .filter(|o| target.namespace.is_none() || o["metadata"]["namespace"].as_str() == target.namespace.as_deref())
        .filter(|o| !warnings_only || o["type"] != "Normal")
        .collect();
    let start: usize =
        asked.query.get("continue").map_or(0, |token| token.trim_start_matches("from=").parse().unwrap());
    let limit = asked.query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
    let end = start.saturating_add(limit).min(items.len());
    let metadata_only = asked.accept.contains("as=PartialObjectMetadataList");
    let shown = |item: &Value| {
        if metadata_only {
            return json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]});
        }
        // As in lists of a real server.
        let fields =
            item.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion"));
        fields.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let page: Vec<Value> = items[start.min(end)..end].iter().map(|item| shown(item)).collect();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if end < items.len() {
        metadata["continue"] = json!(format!("from={end}"));
        metadata["remainingItemCount"] = json!(items.len() - end);
    }
    let (kind, api_version) = match metadata_only {
        true => ("PartialObjectMetadataList".to_string(), "meta.k8s.io/v1".to_string()),
        false => (format!("{kind}List"), target.api_version()),
    };
    Ok(json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": page}))
}

async fn answer(State(world): State<Arc<Mutex<World>>>, request: Request) -> Response {
    let asked = asked(&request);
    let (fault, result) = {
        let mut world = world.lock().unwrap();
        world.busy += 1;
        world.busiest = world.busiest.max(world.busy);
        world.asked.push(asked.clone());
        let fault = if world.is_refused(&asked) { Some(Then::Forbidden) } else { world.fault(&asked) };
        if let (Some(Then::Meanwhile { come, go }), Some(target)) = (&fault, &asked.target) {
            world.meanwhile(target, come, *go);
        }
        let is_log = asked.target.as_ref().filter(|t| t.subresource.as_deref() == Some("log"));
        let result = match is_log {
            Some(target) => Err(world.log_of(&asked, target)),
            None => world.respond(&asked),
        };
        (fault, result)
    };
    let mut response = match (request.method() == Method::GET, fault) {
        (true, None) if asked.is_watch() => watch(&world, asked),
        (false, _) => status(405, "this server is read-only"),
        (true, None) => normal(result),
        (true, Some(fault)) => faulty(fault, &asked, result).await,
    };
    let mut world = world.lock().unwrap();
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&(Timestamp::now() + world.ahead)).unwrap();
    response.headers_mut().insert(DATE, date.parse().unwrap());
    world.busy -= 1;
    response
}

/// All events from the requested version on, until the watches are disconnected.
fn watch(world: &Arc<Mutex<World>>, asked: Asked) -> Response {
    let from = asked.query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or_default();
    let cuts = world.lock().unwrap().cuts;
    let events = futures::stream::unfold((Arc::clone(world), from), move |(world, version): (_, u64)| {
        let asked = asked.clone();
        async move {
            loop {
                if version == u64::MAX {
                    return None;
                }
                {
                    let now = world.lock().unwrap();
                    if now.cuts != cuts {
                        drop(now);
                        return Some((Err(std::io::Error::other("cut")), (world, u64::MAX)));
                    }
                    if let Some((version, line)) = now.event_after(version, &asked) {
                        drop(now);
                        return Some((Ok(line), (world, version)));
                    }
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    });
    Response::builder().header(CONTENT_TYPE, "application/json").body(Body::from_stream(events)).unwrap()
}

/// The type comes first, as in real API servers.
fn event_line(event: &str, object: &Value) -> String {
    format!("{{\"type\":\"{event}\",\"object\":{object}}}\n")
}

fn resource_of(api_version: &str, kind: &str) -> Resource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let plural = match Kind::from_api(api_version, kind) {
        Some(known) => known.api().plural.to_string(),
        None => format!("{}s", kind.to_lowercase()),
    };
    (group.to_string(), version.to_string(), plural)
}

fn same(a: &Value, b: &Value) -> bool {
    a["metadata"]["name"] == b["metadata"]["name"] && a["metadata"]["namespace"] == b["metadata"]["namespace"]
}

fn asked(request: &Request) -> Asked {
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
    let query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    let path = request.uri().path().to_string();
    let impersonated = ["impersonate-user", "impersonate-group"];
    let impersonate = impersonated.iter().flat_map(|name| request.headers().get_all(*name));
    Asked {
        method: request.method().to_string(),
        query: query.into_owned().collect(),
        accept: header(ACCEPT),
        user_agent: header(USER_AGENT),
        impersonate: impersonate.map(|v| v.to_str().unwrap().to_string()).collect(),
        authorization: header(AUTHORIZATION),
        target: Target::of(&path),
        path,
    }
}

fn normal(result: Result<Value, Response>) -> Response {
    match result {
        Ok(body) => json_response(200, body.to_string()),
        Err(response) => response,
    }
}

async fn faulty(fault: Then, asked: &Asked, result: Result<Value, Response>) -> Response {
    match fault {
        Then::Forbidden => status(403, &forbidden(asked)),
        Then::Unauthorized => status(401, "Unauthorized"),
        Then::NotFound => no_such_path(),
        Then::Gone => status(410, "The provided continue parameter is too old to display a consistent list result."),
        Then::TooManyRequests { retry_after } => {
            let mut response = status(429, "Too many requests, please try again later.");
            response.headers_mut().insert("retry-after", retry_after.to_string().parse().unwrap());
            response
        }
        Then::Unavailable => status(503, "the server is currently unable to handle the request"),
        Then::InternalError => status(500, "etcdserver: leader changed"),
        Then::Slow(delay) => {
            tokio::time::sleep(delay).await;
            normal(result)
        }
        Then::Hang => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            normal(result)
        }
        Then::Cut => cut(&result.map(|body| body.to_string()).unwrap_or_else(|_| "half an answer".repeat(100))),
        Then::Half => {
            let mut body = result.map(|body| body.to_string()).unwrap_or_default();
            let half = (0..=body.len() / 2).rfind(|at| body.is_char_boundary(*at));
            body.truncate(half.unwrap_or_default());
            json_response(200, body)
        }
        Then::Garbage => json_response(200, "<html><body>It works!</body></html>".to_string()),
        Then::BrokenItem => {
            let mut body = result.unwrap();
            body["items"][0]["spec"] = json!(7);
            json_response(200, body.to_string())
        }
        Then::SamePage => {
            let mut body = result.unwrap();
            body["metadata"]["continue"] = json!("from=0");
            json_response(200, body.to_string())
        }
        Then::Meanwhile { .. } => normal(result),
    }
}

fn forbidden(asked: &Asked) -> String {
    match &asked.target {
        None => format!("forbidden: User \"test\" cannot get path \"{}\"", asked.path),
        Some(target) => {
            let (verb, place) = match (&target.name, &target.namespace) {
                (Some(_), Some(namespace)) => ("get", format!("in the namespace \"{namespace}\"")),
                (None, Some(namespace)) => ("list", format!("in the namespace \"{namespace}\"")),
                (Some(_), None) => ("get", "at the cluster scope".to_string()),
                (None, None) => ("list", "at the cluster scope".to_string()),
            };
            let Target { resource, group, .. } = target;
            format!(
                "{resource} is forbidden: User \"test\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}"
            )
        }
    }
}

/// Half of the body, then the connection breaks.
fn cut(body: &str) -> Response {
    let half = body.as_bytes()[..body.len() / 2].to_vec();
    let pieces = futures::stream::iter([Ok(half), Err(std::io::Error::other("cut"))]);
    Response::builder().header(CONTENT_TYPE, "application/json").body(Body::from_stream(pieces)).unwrap()
}

fn no_such_path() -> Response {
    Response::builder().status(StatusCode::NOT_FOUND).body(Body::from("404 page not found\n")).unwrap()
}

fn status(code: u16, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code});
    json_response(code, body.to_string())
}

fn json_response(code: u16, body: String) -> Response {
    Response::builder().status(code).header(CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap()
}
