//! Describes TLS errors.

use jiff::Timestamp;
use kubectl_gpt_analyzers::Reason;
use kubectl_gpt_analyzers::kubernetes::certificate::day;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription as Alert, CertificateError, Error};

use super::failure::Failure;

/// A failure that a retry cannot fix: an expired certificate, or one that the server rejects.
pub(super) fn final_failure(error: &Error) -> Option<Failure> {
    match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            Some(dated("expired on", *not_after, *time))
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            Some(dated("is not valid before", *not_before, *time))
        }
        Error::AlertReceived(alert) if is_refusal(*alert) => {
            let message = format!("the server rejected the client certificate ({alert:?})");
            // An API server reports this with code 401; a proxy in front of it may do so during the handshake.
            Some(Failure { status: Some(401), ..Failure::new(Reason::Forbidden, message) })
        }
        _ => None,
    }
}

fn is_refusal(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    )
}

fn dated(what: &str, date: UnixTime, now: UnixTime) -> Failure {
    let day = |time: UnixTime| i64::try_from(time.as_secs()).ok().and_then(|s| Timestamp::from_second(s).ok()).map(day);
    let (date, now) = (day(date).unwrap_or_default(), day(now).unwrap_or_default());
    let message = format!("its certificate {what} {date}, the local clock is at {now}");
    Failure::new(Reason::Unavailable, message)
}
