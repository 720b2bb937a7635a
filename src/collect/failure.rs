//! Failed requests, and the error responses that explain them.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use kube::client::AuthError;
use kubectl_gpt_analyzers::{Gap, Reason};
use serde::Deserialize;

/// A request that failed after all attempts.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Its reason in the coverage.
    pub reason: Reason,
    /// `None` if there was no response.
    pub status: Option<u16>,
    /// The message: `forbidden: User "jane" cannot list resource "pods" …`.
    pub message: String,
    /// Whether it failed because of missing credentials, before anything was sent.
    pub credentials: bool,
}

impl Failure {
    /// A failure without a response.
    pub fn new(reason: Reason, message: impl Into<String>) -> Failure {
        Failure { reason, status: None, message: message.into(), credentials: false }
    }

    /// An error response of the server.
    pub fn from_response(code: StatusCode, message: &str) -> Failure {
        let (reason, word) = match code.as_u16() {
            401 => (Reason::Forbidden, "unauthorized".to_string()),
            403 => (Reason::Forbidden, "forbidden".to_string()),
            404 => (Reason::Unavailable, "not found".to_string()),
            408 | 504 => (Reason::Timeout, "timeout".to_string()),
            429 => (Reason::Unavailable, "too many requests".to_string()),
            _ => (Reason::Unavailable, code.to_string()),
        };
        // Drops the redundant prefix of `pods is forbidden: User "jane" cannot …`.
        let detail = message.split_once(" is forbidden: ").map_or(message, |(_, detail)| detail);
        let message = match detail.trim() {
            "" => word,
            detail if detail.eq_ignore_ascii_case(&word) => word,
            detail => format!("{word}: {detail}"),
        };
        Failure { status: Some(code.as_u16()), ..Failure::new(reason, message) }
    }

    /// The resulting gap in coverage: `listing pods in namespace shop: forbidden: …`.
    pub fn during(&self, action: impl fmt::Display) -> Gap {
        Gap { reason: self.reason, message: format!("{action}: {}", self.message) }
    }

    /// Whether the object or the API does not exist (404).
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether it was rejected because of missing permissions (403), not because of missing authentication (401).
    pub fn is_forbidden(&self) -> bool {
        self.status == Some(403)
    }
}

/// The relevant fields of `v1.Status`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiStatus {
    /// Why the request failed.
    pub message: String,
    details: ApiStatusDetails,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ApiStatusDetails {
    retry_after_seconds: Option<u64>,
}

impl ApiStatus {
    /// Reads the body of an error response; a proxy may have written it, so it can be anything.
    pub fn read(body: &[u8]) -> ApiStatus {
        serde_json::from_slice(body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(&body[..body.len().min(1000)]);
            let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<'));
            ApiStatus { message: line.unwrap_or_default().chars().take(200).collect(), ..Default::default() }
        })
    }

    /// The delay before a retry that the server requests.
    pub fn retry_after(&self) -> Option<Duration> {
        self.details.retry_after_seconds.map(Duration::from_secs)
    }
}

/// Describes an error with the credentials of the kubeconfig. For a failed command (`cmd-path` of the legacy `gcp`
/// provider), standard output is omitted because it may contain a token.
pub(super) fn credentials_cause(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { out, .. } => {
            let stderr = String::from_utf8_lossy(&out.stderr);
            let last = stderr.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_string();
            format!("the credential command failed ({}): {last}", out.status)
        }
        error => error.to_string(),
    }
}
