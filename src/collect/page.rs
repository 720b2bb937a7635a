//! Lists objects page by page.

use kubectl_gpt_analyzers::snapshot::decode::{Content, DecodeError, Page, continue_token, list_page};
use kubectl_gpt_analyzers::{Broken, Kind, Objects, Reason};
use tokio::task::JoinHandle;

use super::connection::Connection;
use super::failure::Failure;
use super::request::JSON;
use super::served::Serving;

/// kubectl's own page size.
const LIMIT: u32 = 500;
/// Objects can be a megabyte each: after a page larger than this, the next pages are requested with a smaller limit.
const PAGE_BYTES: usize = 8 << 20;
/// How often a list is restarted after its continue token expired; after that it is requested without a limit.
const RESTARTS: u32 = 2;
/// Only this media type, never whole objects as a fallback: values of Secrets must not be transferred.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// What to list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub kind: Kind,
    pub version: &'a str,
    /// `None` for all namespaces, and for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
}

/// All pages of a list.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub objects: Objects,
    pub broken: Vec<Broken>,
}

impl Listed {
    pub fn append(&mut self, other: Listed) {
        self.objects.append(other.objects);
        self.broken.extend(other.broken);
    }
}

impl Request<'_> {
    /// `listing pods in namespace shop`.
    pub fn action(&self) -> String {
        let api = self.kind.api();
        let resource = match api.group {
            "" => api.plural.to_string(),
            group => format!("{}.{group}", api.plural),
        };
        match self.namespace {
            Some(namespace) => format!("listing {resource} in namespace {namespace}"),
            None if api.namespaced => format!("listing {resource} in all namespaces"),
            None => format!("listing {resource}"),
        }
    }

    /// Lists all objects. `progress` receives the number of objects so far.
    pub async fn list(&self, connection: &Connection, progress: &(dyn Fn(usize) + Sync)) -> Result<Listed, Failure> {
        for restarts in 0.. {
            match self.pages(connection, (restarts < RESTARTS).then_some(LIMIT), progress).await {
                // The token expired, after five to fifteen minutes or because etcd was compacted: the pages read so far
                // belong to a state that is no longer available.
                // https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
                Err(failure) if failure.status == Some(410) && restarts < RESTARTS => {
                    tracing::debug!("{}: continue token expired, restarting the list", self.action());
                    if let Some(recorder) = &connection.recorder {
                        recorder.forget(self.kind.api().group, self.kind.api().kind, self.namespace);
                    }
                }
                result => return result,
            }
        }
        unreachable!("the loop has no end")
    }

    /// One pass. The next page is requested while the previous one is decoded; at most two are in memory.
    async fn pages(
        &self,
        connection: &Connection,
        mut limit: Option<u32>,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Listed, Failure> {
        let (mut listed, mut objects) = (Listed::default(), 0);
        let content = connection.content(self.kind);
        let (mut decoding, mut token): (Option<JoinHandle<_>>, String) = (None, String::new());
        let mut keep = |page: Page| {
            objects += page.batch.len();
            progress(objects);
            listed.objects.extend(page.batch);
            listed.broken.extend(page.broken);
        };
        loop {
            let body = connection.get(&self.path(limit, &token), accept(content)).await?;
            let next = continue_token(&body).unwrap_or_default();
            limit = limit.map(|limit| smaller(limit, body.len()));
            if let Some(page) = decoding.take() {
                keep(decoded(page).await?);
            }
            let kind = self.kind;
            let (recorder, version) = (connection.recorder.clone(), self.version.to_string());
            let page = tokio::task::spawn_blocking(move || {
                if let Some(recorder) = recorder {
                    recorder.page(&kind.api().api_version(&version), kind.api().kind, &body, content);
                }
                list_page(kind, &body, content)
            });
            if next.is_empty() {
                keep(decoded(page).await?);
                return Ok(listed);
            }
            if next == token {
                let message = "the server returned the same page twice";
                return Err(Failure::new(Reason::Malformed, message));
            }
            decoding = Some(page);
            token = next;
        }
    }

    fn path(&self, limit: Option<u32>, token: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(limit) = limit {
            query.append_pair("limit", &limit.to_string());
        }
        if self.kind == Kind::Event {
            query.append_pair("fieldSelector", "type!=Normal");
        }
        if !token.is_empty() {
            query.append_pair("continue", token);
        }
        let (path, query) = (path(self.kind, self.version, self.namespace), query.finish());
        if query.is_empty() { path } else { format!("{path}?{query}") }
    }
}

fn accept(content: Content) -> &'static str {
    match content {
        Content::MetadataOnly => METADATA_LIST,
        Content::Whole => JSON,
    }
}

impl Connection {
    /// How much of the objects of a kind is requested: only metadata for Secrets, and for ConfigMaps unless a custom
    /// rule reads them.
    pub(super) fn content(&self, kind: Kind) -> Content {
        let is_wanted = || self.recorder.as_ref().is_some_and(|recorder| recorder.wants(&kind.into()));
        let has_slices = || matches!(self.served.of(Kind::EndpointSlice), Serving::Version(_));
        match kind {
            Kind::Secret => Content::MetadataOnly,
            Kind::ConfigMap if !is_wanted() => Content::MetadataOnly,
            // EndpointSlices have the same content, where they are served; then only the existence of Endpoints
            // matters.
            Kind::Endpoints if has_slices() && !is_wanted() => Content::MetadataOnly,
            _ => Content::Whole,
        }
    }
}

/// The limit for the next page after a page of this size.
fn smaller(limit: u32, bytes: usize) -> u32 {
    let times = u32::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX);
    (limit / times.max(1)).max(1)
}

async fn decoded(page: JoinHandle<Result<Page, DecodeError>>) -> Result<Page, Failure> {
    match page.await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(error)) => Err(Failure::new(Reason::Malformed, format!("malformed response: {}", error.source))),
        Err(error) => Err(Failure::new(Reason::Internal, format!("decoding failed: {error}"))),
    }
}

/// `/apis/apps/v1/namespaces/shop/deployments`.
pub(super) fn path(kind: Kind, version: &str, namespace: Option<&str>) -> String {
    let api = kind.api();
    let root = match api.group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    match namespace {
        Some(namespace) => format!("{root}/namespaces/{}/{}", segment(namespace), api.plural),
        None => format!("{root}/{}", api.plural),
    }
}

/// All characters but the unreserved ones (RFC 3986, 2.3).
const RESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escapes a name for use in a path.
pub(super) fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, RESERVED).to_string()
}
