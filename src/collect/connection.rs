//! The connection to an API server and its state: who is connected, what is served, how many requests were sent.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;

use super::client_certificate::ClientCertificate;
use super::clock::Clock;
use super::recorder::Recorder;
use super::served::Served;
use crate::interrupt::Interrupt;

/// A connection to an API server.
pub struct Connection {
    /// Sends requests, with the credentials of the user.
    pub(super) client: Client,
    /// Timeout of a single request; `None` for no limit.
    pub(super) timeout: Option<Duration>,
    /// The APIs that discovery found.
    pub(super) served: Served,
    /// The number of requests sent so far.
    pub(super) requests: AtomicUsize,
    /// The number of consecutive requests without any response.
    pub(super) unanswered: AtomicU32,
    /// The remaining retry budget of all requests combined, in milliseconds.
    pub(super) retry_budget: AtomicU64,
    /// Once it fires, all current and later requests fail.
    pub(super) interrupt: Interrupt,
    /// The difference between the server's clock and the local one.
    pub(super) clock: Clock,
    /// Explains why the server rejects the client certificate.
    pub(super) certificate: ClientCertificate,
    /// Records objects as they are read, if requested.
    pub recorder: Option<Recorder>,
    pub(super) server: String,
    pub(super) context: Option<String>,
    pub(super) namespace: String,
    pub(super) server_version: Option<String>,
}

impl Connection {
    /// The API server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The context's name; `None` in a cluster and if only `--cluster` was given.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// The context's namespace, or `default` if it has none; in a cluster, the service account's.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The API server's version: `v1.36.3`. `None` if it is not accessible.
    pub fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    /// The time according to the API server's clock, which also sets object timestamps.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The number of requests sent so far, including retries.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}
