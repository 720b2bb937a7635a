//! Follows a cluster with kube's watcher, one watch per kind, for the kinds that change often; other kinds are listed
//! again periodically.
//!
//! Memory stays flat under load: between two runs only the newest state of each object is kept.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use kubectl_gpt_analyzers::snapshot::KindVisitor;
use kubectl_gpt_analyzers::snapshot::decode::Content;
use kubectl_gpt_analyzers::{Broken, Builder, Extent, Gap, Kind, Object, Reason};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::connection::Connection;
use super::failure::Failure;
use super::live::{DNS_KINDS, DNS_NAMESPACE, Scope};
use super::page::Request;
use super::recorder::Recorder;
use super::request::{JSON, failure};
use super::served::Serving;

/// The delay before the first attempt to resume a broken watch; it doubles with each attempt.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(5);
/// The delay after the server denied the watch.
const DENIED_DELAY: Duration = Duration::from_secs(300);
/// A broken watch without errors for this long has resumed.
const RECOVERED_AFTER: Duration = Duration::from_secs(10);
/// How long a watch may be broken before its kind counts as not read.
pub const GRACE: Duration = Duration::from_secs(60);

type Name = (String, String);

/// Starts a watch of one kind.
struct Start<'a>(&'a Begin<'a>);

impl KindVisitor for Start<'_> {
    type Output = Feed;

    fn visit<T: Object>(self) -> Feed {
        start::<T>(self.0)
    }
}

/// What to watch.
struct Begin<'a> {
    connection: &'a Connection,
    version: &'static str,
    namespace: Option<String>,
    wake: &'a Arc<Notify>,
}

/// The watches of a cluster.
pub struct Watching {
    feeds: Vec<Feed>,
    /// Why only one namespace is watched, if watching the whole cluster is forbidden.
    narrowed: BTreeMap<Kind, Gap>,
    fallback: String,
    scope: Scope,
    wake: Arc<Notify>,
}

/// The health of the watches.
#[derive(Debug)]
pub struct Health {
    pub all_are_broken: bool,
    /// The known state may be stale.
    pub any_broke_lately: bool,
    /// The error of one of the broken watches.
    pub why: Option<String>,
}

/// Which of these kinds are watched; the others are listed.
pub fn watched(connection: &Connection, kinds: &BTreeSet<Kind>) -> BTreeSet<Kind> {
    let is_served = |kind: &Kind| matches!(connection.served.of(*kind), Serving::Version(_) | Serving::Unknown(_));
    kinds.iter().copied().filter(|kind| is_served(kind) && kind.is_watched()).collect()
}

impl Watching {
    /// Starts the watches, and waits until every kind has been read once or has failed.
    pub async fn start(connection: &Connection, kinds: &BTreeSet<Kind>, scope: &Scope) -> Watching {
        let wake = Arc::new(Notify::new());
        let mut watching = Watching {
            feeds: Vec::new(),
            narrowed: BTreeMap::new(),
            fallback: connection.namespace().to_string(),
            scope: scope.clone(),
            wake,
        };
        for kind in kinds {
            for namespace in namespaces(*kind, scope) {
                watching.feeds.extend(watching.begin(connection, *kind, namespace));
            }
        }
        watching.settle(connection).await;
        if *scope == Scope::Cluster {
            watching.narrow(connection);
            watching.settle(connection).await;
        }
        watching
    }

    fn begin(&self, connection: &Connection, kind: Kind, namespace: Option<String>) -> Option<Feed> {
        let (Serving::Version(version) | Serving::Unknown(version)) = connection.served.of(kind) else { return None };
        let begin = Begin { connection, version, namespace, wake: &self.wake };
        kind.is_watched().then(|| kind.visit(Start(&begin)))
    }

    /// Falls back to the context's namespace for kinds that are forbidden cluster-wide.
    fn narrow(&mut self, connection: &Connection) {
        let forbidden = |feed: &Feed| {
            let gap = feed.pending.gap()?;
            (feed.kind.api().namespaced && gap.reason == Reason::Forbidden).then_some((feed.kind, gap))
        };
        self.narrowed = self.feeds.iter().filter_map(forbidden).collect();
        self.feeds.retain(|feed| !self.narrowed.contains_key(&feed.kind));
        for kind in self.narrowed.keys().copied().collect::<Vec<_>>() {
            self.feeds.extend(self.begin(connection, kind, Some(self.fallback.clone())));
        }
    }

    /// Waits until every kind has been read once or has failed, or the user interrupts.
    async fn settle(&self, connection: &Connection) {
        while !connection.interrupt.has_come() && self.feeds.iter().any(|feed| !feed.pending.is_settled()) {
            tokio::select! {
                () = self.wake.notified() => {}
                () = connection.interrupt.wait() => {}
            }
        }
    }

    /// Waits for a change of any object.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// The health of the watches. Denied watches do not count: they do not recover.
    pub fn health(&self) -> Health {
        let outages = self.feeds.iter().map(|feed| feed.pending.outage());
        let outages: Vec<_> =
            outages.filter(|o| o.as_ref().is_none_or(|(_, gap)| gap.reason != Reason::Forbidden)).collect();
        let broken: Vec<_> = outages.iter().flatten().collect();
        Health {
            all_are_broken: !broken.is_empty() && broken.len() == outages.len(),
            any_broke_lately: broken.iter().any(|(since, _)| since.elapsed() < GRACE),
            why: broken.first().map(|(_, gap)| gap.message.clone()),
        }
    }

    /// Moves the changes into the builder, and sets the coverage of every kind.
    pub fn take(&self, builder: &mut Builder) {
        let mut extents: BTreeMap<Kind, (BTreeSet<String>, bool, Option<Gap>)> = BTreeMap::new();
        for feed in &self.feeds {
            builder.forget_broken(feed.kind);
        }
        for feed in &self.feeds {
            feed.pending.take(builder);
            let (read, everywhere, failed) = extents.entry(feed.kind).or_default();
            match (feed.pending.unread(), &feed.namespace) {
                (Some(gap), _) => drop(failed.get_or_insert(gap)),
                (None, Some(namespace)) => drop(read.insert(namespace.clone())),
                (None, None) => *everywhere = true,
            }
        }
        for (kind, (read, everywhere, failed)) in extents {
            builder.cover(kind, self.extent(kind, read, everywhere, failed));
        }
    }

    fn extent(&self, kind: Kind, read: BTreeSet<String>, everywhere: bool, failed: Option<Gap>) -> Extent {
        let narrowed = self.narrowed.get(&kind).cloned();
        match (failed, narrowed) {
            (None, None) if everywhere => Extent::Everything,
            (None, None) => Extent::Namespaces(read),
            (None, Some(gap)) => Extent::Partly(read, gap),
            (Some(gap), _) if !read.is_empty() && self.is_asked_for(&read) => Extent::Partly(read, gap),
            (Some(gap), _) => Extent::Failed(gap),
        }
    }

    /// Whether any of these namespaces was requested, as opposed to only that of cluster DNS.
    fn is_asked_for(&self, read: &BTreeSet<String>) -> bool {
        matches!(&self.scope, Scope::Namespaces(asked) if !asked.is_disjoint(read))
    }

    /// A note about a fallback to one namespace.
    pub fn note(&self) -> Option<String> {
        let namespace = &self.fallback;
        let kinds = self.narrowed.len();
        (kinds > 0).then(|| {
            format!(
                "{kinds} kinds: only namespace {namespace} is watched because watching the whole cluster is forbidden"
            )
        })
    }
}

/// The namespaces in which a kind is watched: `None` for all namespaces.
fn namespaces(kind: Kind, scope: &Scope) -> Vec<Option<String>> {
    match scope {
        Scope::Namespaces(asked) if kind.api().namespaced => {
            let dns = DNS_KINDS.contains(&kind).then(|| DNS_NAMESPACE.to_string());
            let all: BTreeSet<String> = asked.iter().cloned().chain(dns).collect();
            all.into_iter().map(Some).collect()
        }
        _ => vec![None],
    }
}

/// The watch of one kind, in all namespaces or in one.
struct Feed {
    kind: Kind,
    namespace: Option<String>,
    pending: Arc<dyn Pending>,
    task: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start<T: Object>(begin: &Begin) -> Feed {
    let changes = Arc::new(Changes::<T> {
        action: Request { kind: T::KIND, version: begin.version, namespace: begin.namespace.as_deref() }.action(),
        namespace: begin.namespace.clone(),
        record: begin.record(T::KIND),
        state: Mutex::default(),
    });
    begin.follow(T::KIND, changes)
}

impl Begin<'_> {
    fn follow(&self, kind: Kind, changes: Arc<dyn Pending>) -> Feed {
        let (wake, pending) = (Arc::clone(self.wake), Arc::clone(&changes));
        let task = match self.connection.content(kind) {
            Content::MetadataOnly => tokio::spawn(follow(self.api::<true>(kind), kind, changes, wake)),
            Content::Whole => tokio::spawn(follow(self.api::<false>(kind), kind, changes, wake)),
        };
        Feed { kind, namespace: self.namespace.clone(), pending, task }
    }

    /// The recorder for whole objects, if custom rules read this kind.
    fn record(&self, kind: Kind) -> Option<Record> {
        let recorder = self.connection.recorder.clone().filter(|recorder| recorder.wants(&kind.into()))?;
        Some(Record { recorder, kind, version: self.version, namespace: self.namespace.clone() })
    }

    fn api<const METADATA: bool>(&self, kind: Kind) -> Api<Watched<METADATA>> {
        let (client, of) = (self.connection.client.clone(), (kind, self.version));
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &of),
            None => Api::all_with(client, &of),
        }
    }
}

/// Follows one kind until the task is aborted.
async fn follow<const METADATA: bool>(
    api: Api<Watched<METADATA>>,
    kind: Kind,
    changes: Arc<dyn Pending>,
    wake: Arc<Notify>,
) {
    let config = match kind {
        Kind::Event => watcher::Config::default().fields("type!=Normal"),
        _ => watcher::Config::default(),
    };
    let mut stream = std::pin::pin!(watcher(api, config));
    let mut delay = FIRST_DELAY;
    while let Some(event) = stream.next().await {
        let wait = match event {
            Ok(event) => {
                delay = FIRST_DELAY;
                changes.note(into_raw(event));
                None
            }
            Err(error) => changes.fail(&error).map(|denied| if denied { DENIED_DELAY } else { delay }),
        };
        wake.notify_one();
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
            delay = (delay * 2).min(MAX_DELAY);
        }
    }
}

fn into_raw<const METADATA: bool>(event: Event<Watched<METADATA>>) -> Event<Raw> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.into_raw()),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(object.into_raw()),
        Event::Delete(object) => Event::Delete(object.into_raw()),
    }
}

/// The events of a watch since the last call of `take`.
trait Pending: Send + Sync {
    fn note(&self, event: Event<Raw>);
    /// Whether the server denied the watch; `None` if the next attempt needs no delay.
    fn fail(&self, error: &watcher::Error) -> Option<bool>;
    fn take(&self, builder: &mut Builder);
    fn is_settled(&self) -> bool;
    /// Why the kind has never been read.
    fn gap(&self) -> Option<Gap>;
    /// Since when the watch has been broken, if it is.
    fn outage(&self) -> Option<(Instant, Gap)>;
    /// Why the kind currently counts as not read.
    fn unread(&self) -> Option<Gap>;
}

/// Records whole objects of one kind.
struct Record {
    recorder: Recorder,
    kind: Kind,
    version: &'static str,
    namespace: Option<String>,
}

impl Record {
    fn keep(&self, object: &Raw) {
        let (api, content) =
            (self.kind.api(), if object.metadata_only { Content::MetadataOnly } else { Content::Whole });
        self.recorder.item(&api.api_version(self.version), api.kind, object.json.get(), content);
    }

    /// Drops objects that no longer exist.
    fn retain(&self, is_there: impl Fn(&Name) -> bool) {
        let api = self.kind.api();
        self.recorder.retain(api.group, api.kind, self.namespace.as_deref(), |identity| {
            is_there(&(identity.namespace.clone(), identity.name.clone()))
        });
    }
}

struct Changes<T> {
    /// `listing pods in all namespaces`.
    action: String,
    namespace: Option<String>,
    record: Option<Record>,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Objects of a list in progress.
    listing: Vec<T>,
    /// Their names, if whole objects are recorded.
    recorded: BTreeSet<Name>,
    /// A complete list, which replaces all earlier state.
    listed: Option<Vec<T>>,
    /// By namespace and name; `None` for deleted objects.
    changed: BTreeMap<Name, Option<T>>,
    broken: BTreeMap<Name, Broken>,
    /// Whether it has been read completely at least once.
    was_read: bool,
    /// When the watch broke, and when it last failed.
    outage: Option<(Instant, Instant, Gap)>,
}

impl<T> Default for State<T> {
    fn default() -> State<T> {
        State {
            listing: Vec::new(),
            recorded: BTreeSet::new(),
            listed: None,
            changed: BTreeMap::new(),
            broken: BTreeMap::new(),
            was_read: false,
            outage: None,
        }
    }
}

impl<T: Object> Changes<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Object> State<T> {
    fn record(&mut self, record: &Record, event: &Event<Raw>) {
        match event {
            Event::Init => self.recorded.clear(),
            Event::InitApply(object) => {
                record.keep(object);
                self.recorded.insert(object.name.clone());
            }
            Event::InitDone => {
                let there = std::mem::take(&mut self.recorded);
                record.retain(|name| there.contains(name));
            }
            Event::Apply(object) => record.keep(object),
            Event::Delete(object) => record.retain(|name| *name != object.name),
        }
    }

    fn read(&mut self, object: Raw) -> Option<(Name, T)> {
        let (read, name) = (object.read(), object.name);
        match read {
            Ok(read) => {
                self.broken.remove(&name);
                Some((name, read))
            }
            Err(message) => {
                let of = if name.0.is_empty() { name.1.clone() } else { format!("{}/{}", name.0, name.1) };
                let broken = Broken { kind: Some(T::KIND), name: format!("{} {of}", T::KIND), message };
                self.changed.insert(name.clone(), None);
                self.broken.insert(name, broken);
                None
            }
        }
    }
}

impl<T: Object> Pending for Changes<T> {
    fn note(&self, event: Event<Raw>) {
        let mut state = self.state();
        if !matches!(event, Event::Init | Event::InitApply(_)) {
            state.outage = None;
        }
        if let Some(record) = &self.record {
            state.record(record, &event);
        }
        match event {
            Event::Init => {
                state.listing.clear();
                state.broken.clear();
            }
            Event::InitApply(object) => {
                let read = state.read(object);
                state.listing.extend(read.map(|(_, object)| object));
            }
            Event::InitDone => {
                let listing = std::mem::take(&mut state.listing);
                state.listed = Some(listing);
                state.changed.clear();
                state.was_read = true;
            }
            Event::Apply(object) => {
                if let Some((name, object)) = state.read(object) {
                    state.changed.insert(name, Some(object));
                }
            }
            Event::Delete(object) => {
                let name = object.name;
                state.broken.remove(&name);
                state.changed.insert(name, None);
            }
        }
    }

    fn fail(&self, error: &watcher::Error) -> Option<bool> {
        let failed = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => failure(error),
            // The resource version is too old: everything is listed again immediately.
            watcher::Error::WatchError(status) if status.code == 410 => return None,
            error => Failure::new(Reason::Unavailable, error.to_string()),
        };
        let action = match error {
            watcher::Error::InitialListFailed(_) => self.action.clone(),
            _ => self.action.replacen("listing", "watching", 1),
        };
        let gap = failed.during(action);
        tracing::debug!("{}", gap.message);
        let mut state = self.state();
        let now = Instant::now();
        let since = state.outage.as_ref().map_or(now, |(since, ..)| *since);
        state.outage = Some((since, now, gap));
        Some(failed.is_forbidden())
    }

    fn take(&self, builder: &mut Builder) {
        let mut state = self.state();
        if let Some(listed) = state.listed.take() {
            builder.replace(self.namespace.as_deref(), listed);
        }
        builder.change(std::mem::take(&mut state.changed));
        state.broken.values().for_each(|broken| builder.add_broken(broken.clone()));
    }

    fn is_settled(&self) -> bool {
        let state = self.state();
        state.was_read || state.outage.is_some()
    }

    fn gap(&self) -> Option<Gap> {
        let state = self.state();
        state.outage.as_ref().filter(|_| !state.was_read).map(|(.., gap)| gap.clone())
    }

    fn outage(&self) -> Option<(Instant, Gap)> {
        let state = self.state();
        let (since, last, gap) = state.outage.as_ref()?;
        let refused = gap.reason == Reason::Forbidden;
        (!state.was_read || refused || last.elapsed() < RECOVERED_AFTER).then(|| (*since, gap.clone()))
    }

    fn unread(&self) -> Option<Gap> {
        if let Some((since, gap)) = self.outage() {
            let lasts = since.elapsed() >= GRACE || gap.reason == Reason::Forbidden;
            return (lasts || !self.state().was_read).then_some(gap);
        }
        let message = || format!("{}: interrupted", self.action);
        (!self.state().was_read).then(|| Gap { reason: Reason::Interrupted, message: message() })
    }
}

/// An object that is not decoded yet: kube's watcher is instantiated for this single type instead of once per kind.
struct Raw {
    name: Name,
    json: Box<RawValue>,
    metadata_only: bool,
}

impl Raw {
    /// # Errors
    /// When the object does not match the kind.
    fn read<T: Object>(&self) -> Result<T, String> {
        let mut object: T = serde_json::from_str(self.json.get()).map_err(|error| error.to_string())?;
        if !self.metadata_only {
            object.read_whole();
        }
        Ok(object)
    }
}

/// An object as kube's watcher requires it. For Secrets and ConfigMaps only metadata is transferred.
#[derive(Clone)]
struct Watched<const METADATA: bool> {
    /// Name, namespace and resource version.
    metadata: ObjectMeta,
    json: Box<RawValue>,
}

impl<const METADATA: bool> Watched<METADATA> {
    fn into_raw(self) -> Raw {
        let name = (self.namespace().unwrap_or_default(), self.name_any());
        Raw { name, json: self.json, metadata_only: METADATA }
    }
}

impl<'de, const METADATA: bool> Deserialize<'de> for Watched<METADATA> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Watched<METADATA>, D::Error> {
        #[derive(Deserialize)]
        struct Head {
            metadata: Identity,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Identity {
            name: Option<String>,
            namespace: Option<String>,
            resource_version: Option<String>,
        }
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let Head { metadata } = serde_json::from_str(json.get()).map_err(serde::de::Error::custom)?;
        let Identity { name, namespace, resource_version } = metadata;
        Ok(Watched { metadata: ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() }, json })
    }
}

impl<const METADATA: bool> fmt::Debug for Watched<METADATA> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.metadata.name)
    }
}

impl<const METADATA: bool> Resource for Watched<METADATA> {
    /// The kind and its version.
    type DynamicType = (Kind, &'static str);
    type Scope = DynamicResourceScope;

    fn kind<'a>((kind, _): &'a (Kind, &'static str)) -> Cow<'a, str> {
        kind.api().kind.into()
    }

    fn group<'a>((kind, _): &'a (Kind, &'static str)) -> Cow<'a, str> {
        kind.api().group.into()
    }

    fn version<'a>((_, version): &'a (Kind, &'static str)) -> Cow<'a, str> {
        (*version).into()
    }

    fn plural<'a>((kind, _): &'a (Kind, &'static str)) -> Cow<'a, str> {
        kind.api().plural.into()
    }

    fn metadata_api() -> bool {
        METADATA
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Connection {
    /// Whether the API server responds, with any status.
    pub(crate) async fn is_alive(&self) -> bool {
        match self.get_once_reached("/version", JSON).await {
            Ok(_) => true,
            Err(failure) => failure.status.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kubectl_gpt_analyzers::snapshot::model::Pod;

    use super::Watched;

    #[test]
    fn undecodable_objects_are_named() {
        let json = r#"{"metadata": {"name": "p", "namespace": "shop", "resourceVersion": "7"}, "spec": 7}"#;
        let pod = serde_json::from_str::<Watched<false>>(json).unwrap().into_raw();
        assert_eq!(pod.name, ("shop".to_string(), "p".to_string()));
        assert!(pod.read::<Pod>().unwrap_err().contains("expected"));
    }
}
