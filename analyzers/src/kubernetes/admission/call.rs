//! Why the API server could not call a webhook whose Service has ready endpoints: from the errors of rejected requests.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kubernetes::admission::refusal::Refusal;
use crate::kubernetes::time::{RECENT, age};
use crate::snapshot::model::{Event, Timestamp};
use crate::snapshot::{Cluster, Object, ObjectRef};

/// The failure of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallFailure {
    /// The API server refuses to connect to the address (managed control planes).
    NotAllowed,
    Timeout,
    /// Refused, reset, or no route.
    NoConnection,
    /// The certificate is not signed by the `caBundle`.
    UnknownAuthority,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// The certificate is valid for other names.
    WrongName,
    /// The server has no such path.
    NoPath,
    /// The Service has no endpoints, or does not exist: other checks report that.
    NoBackend,
    Other,
}

impl CallFailure {
    /// From the error of the API server, in the wording of Go.
    pub fn of(message: &str) -> CallFailure {
        let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if has(&["no endpoints available", "service \"", "no service port"]) {
            CallFailure::NoBackend
        } else if has(&["ddress is not allowed"]) {
            CallFailure::NotAllowed
        } else if has(&["unknown authority", "cannot verify", "no trusted certificate"]) {
            CallFailure::UnknownAuthority
        } else if has(&["certificate has expired", "not yet valid"]) {
            CallFailure::Expired
        } else if has(&[
            "certificate is valid for",
            "certificate is not valid for",
            "doesn't contain any IP SANs",
            "legacy Common Name",
        ]) {
            CallFailure::WrongName
        } else if has(&[
            "deadline exceeded",
            "i/o timeout",
            "Client.Timeout",
            "TLS handshake timeout",
            "net/http: request canceled",
        ]) {
            CallFailure::Timeout
        } else if has(&["connection refused", "no route to host", "connection reset", "network is unreachable"]) {
            CallFailure::NoConnection
        } else if has(&["could not find the requested resource", "404"]) {
            CallFailure::NoPath
        } else {
            CallFailure::Other
        }
    }
}

/// The newest failed call of a webhook.
pub struct FailedCall {
    pub failure: CallFailure,
    /// The error, without the URL.
    pub message: String,
    pub event: ObjectRef,
    pub first_seen: Option<Timestamp>,
    seen: Option<Timestamp>,
    times: i32,
}

impl FailedCall {
    /// Whether calls have failed repeatedly, the last one not longer ago than this.
    pub fn is_current(&self, cluster: &Cluster, within: Duration) -> bool {
        self.times > 1 && self.seen.is_some_and(|seen| age(cluster.now(), seen) <= within)
    }
}

/// The failed calls that Warning events of the last hour report, by the name of the webhook.
pub fn failed_calls(cluster: &Cluster) -> BTreeMap<String, FailedCall> {
    let mut found: BTreeMap<String, FailedCall> = BTreeMap::new();
    let events = cluster.all::<Event>().iter().filter(|event| event.message.contains("failed calling webhook \""));
    for event in events {
        let seen = event.last_seen();
        if seen.is_some_and(|seen| age(cluster.now(), seen) > RECENT) {
            continue;
        }
        let Refusal::WebhookFailed { webhook, message } = Refusal::read(&event.message) else { continue };
        let first_seen = event.first_timestamp.or(event.event_time).or(seen);
        let failure = CallFailure::of(&message);
        let call = FailedCall { failure, message, event: event.reference(), first_seen, seen, times: event.times() };
        match found.get_mut(&webhook) {
            Some(known) => {
                let first_seen = known.first_seen.min(call.first_seen);
                let times = known.times.saturating_add(call.times);
                if known.seen < call.seen {
                    *known = call;
                }
                (known.first_seen, known.times) = (first_seen, times);
            }
            None => drop(found.insert(webhook, call)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::CallFailure;

    #[test]
    fn errors_of_the_api_server() {
        let cases = [
            ("Address is not allowed", CallFailure::NotAllowed),
            ("context deadline exceeded", CallFailure::Timeout),
            ("dial tcp 10.0.0.1:443: i/o timeout", CallFailure::Timeout),
            ("dial tcp 10.0.0.1:443: connect: connection refused", CallFailure::NoConnection),
            (
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
                CallFailure::UnknownAuthority,
            ),
            ("x509: certificate has expired or is not yet valid: current time", CallFailure::Expired),
            ("x509: certificate is valid for a.b.svc, not c.b.svc", CallFailure::WrongName),
            ("the server could not find the requested resource", CallFailure::NoPath),
            ("no endpoints available for service \"istiod\"", CallFailure::NoBackend),
            ("service \"policy\" not found", CallFailure::NoBackend),
            ("", CallFailure::Other),
        ];
        for (message, failure) in cases {
            assert_eq!(CallFailure::of(message), failure, "{message}");
        }
    }
}
