//! X.509 certificates in Secrets and `caBundle` fields: their validity dates and names.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::ByteString;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::kubernetes::time;
use crate::snapshot::model::Timestamp;

#[cfg(test)]
pub(crate) mod made;

/// How long before expiry a certificate should have been renewed: cert-manager renews it 30 days before, ACME clients
/// with a third of the lifetime left.
const RENEWAL: Duration = Duration::from_secs(14 * 86_400);
/// Certificates with a shorter lifetime are renewed automatically, closer to their expiry than two weeks.
const SHORT_LIVED: Duration = Duration::from_secs(60 * 86_400);
/// Tolerated clock skew; issuers usually backdate certificates by this or more.
const SKEW: Duration = Duration::from_secs(600);
/// More than any chain or bundle of roots has.
const MAX_CERTIFICATES: usize = 1000;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The fields of a certificate that rules use.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    pub subject: String,
    pub common_name: Option<String>,
    pub issuer: String,
    pub is_self_issued: bool,
    pub is_ca: bool,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// The state of a certificate at a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Valid,
    NotYet,
    /// Valid, but overdue for renewal.
    Ending,
    Expired,
}

/// Why a value contains no certificate. The text continues a message, as in `tls.crt contains no certificate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Empty, unrecognizable or redacted.
    #[error("contains no certificate")]
    Empty,
    #[error("is base64-encoded twice")]
    EncodedTwice,
    #[error("contains a private key, not a certificate")]
    PrivateKey,
    #[error("is in DER format, not PEM")]
    Der,
    #[error("contains a damaged certificate")]
    Damaged,
    #[error("contains other text, not a certificate")]
    OtherText,
}

/// The certificates of a base64-encoded PEM file, as in `data` of a Secret.
///
/// # Errors
/// Describes the content, if it has no readable certificate.
pub fn from_base64(text: &str) -> Result<Vec<Certificate>, Unreadable> {
    from_pem(&decode(text).ok_or(Unreadable::Empty)?)
}

/// The certificates of a PEM file, in order. Ignores any other content, as TLS servers do.
///
/// # Errors
/// Describes the content, if it has no readable certificate.
pub fn from_pem(bytes: &[u8]) -> Result<Vec<Certificate>, Unreadable> {
    let text = String::from_utf8_lossy(bytes);
    let blocks: Vec<&str> =
        text.split(BEGIN).skip(1).filter_map(|block| Some(block.split_once(END)?.0)).take(MAX_CERTIFICATES).collect();
    let certificates: Vec<Certificate> =
        blocks.iter().filter_map(|block| decode(block)).filter_map(|der| Certificate::from_der(&der)).collect();
    match certificates.len() {
        0 => Err(other_content(bytes, &text)),
        _ => Ok(certificates),
    }
}

/// What a value without a readable certificate contains.
fn other_content(bytes: &[u8], text: &str) -> Unreadable {
    if text.contains(BEGIN) {
        Unreadable::Damaged
    } else if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        Unreadable::PrivateKey
    } else if text.trim_start().starts_with("LS0tLS1CRUdJT") {
        Unreadable::EncodedTwice
    } else if Certificate::from_der(bytes).is_some() {
        Unreadable::Der
    } else if is_other_text(bytes) {
        Unreadable::OtherText
    } else {
        Unreadable::Empty
    }
}

/// Whether the content is text, and not the placeholder of a redacted value.
fn is_other_text(bytes: &[u8]) -> bool {
    const PLACEHOLDERS: [&str; 8] = ["redact", "hidden", "mask", "remov", "omit", "secret", "placeholder", "***"];
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let text = text.trim().to_ascii_lowercase();
    text.chars().any(char::is_alphabetic)
        && !text.chars().any(|c| c.is_control() && !c.is_whitespace())
        && text.chars().any(|c| c != 'x')
        && !PLACEHOLDERS.iter().any(|word| text.contains(word))
}

/// Decodes base64, which may be broken into lines as in PEM files and YAML.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let ByteString(bytes) = serde_json::from_value(serde_json::Value::String(compact)).ok()?;
    Some(bytes)
}

/// Encodes base64 as in kubeconfig files and Secrets.
pub fn encode(bytes: &[u8]) -> String {
    match serde_json::to_value(ByteString(bytes.to_vec())) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

impl Certificate {
    fn from_der(der: &[u8]) -> Option<Certificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let subject = certificate.subject();
        Some(Certificate {
            subject: display(subject),
            common_name: common_name(subject),
            issuer: display(certificate.issuer()),
            is_self_issued: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            is_ca: certificate.is_ca(),
            not_before: timestamp(certificate.validity().not_before.timestamp()),
            not_after: timestamp(certificate.validity().not_after.timestamp()),
            dns_names: names.iter().filter_map(dns_name).collect(),
            addresses: names.iter().filter_map(address).collect(),
        })
    }

    /// Whether clients accept it for a host: by the subjectAltName alone, where a wildcard matches exactly the left-most
    /// label (RFC 6125, 6.4.3). Clients ignore the common name (RFC 2818, Go 1.15, Chrome 58).
    pub fn covers(&self, host: &str) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => self.addresses.contains(&address),
            Err(_) => self.dns_names.iter().any(|name| name_covers(name, host)),
        }
    }

    /// All names that it is valid for, as written in it.
    pub fn names(&self) -> Vec<String> {
        self.dns_names.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string)).collect()
    }

    pub fn validity(&self, now: Timestamp) -> Validity {
        let renewal = if self.is_short_lived() { self.lifetime() / 10 } else { RENEWAL };
        self.validity_with(now, renewal)
    }

    /// The same for a certificate without known automatic renewal: a person needs two weeks to renew it, whatever its
    /// lifetime.
    pub fn validity_by_hand(&self, now: Timestamp) -> Validity {
        self.validity_with(now, RENEWAL)
    }

    /// Whether its lifetime is so short that it is expected to be renewed automatically.
    fn is_short_lived(&self) -> bool {
        self.lifetime() < SHORT_LIVED
    }

    fn lifetime(&self) -> Duration {
        time::age(self.not_after, self.not_before)
    }

    fn validity_with(&self, now: Timestamp, renewal: Duration) -> Validity {
        if now > self.not_after {
            return Validity::Expired;
        }
        if now < self.not_before && time::age(self.not_before, now) > SKEW {
            return Validity::NotYet;
        }
        if time::age(self.not_after, now) < renewal { Validity::Ending } else { Validity::Valid }
    }
}

/// Whether a name of a certificate, which may start with `*.`, covers a host. A host that is itself a wildcard is covered
/// only by the same wildcard.
fn name_covers(name: &str, host: &str) -> bool {
    let (name, host) = (name.trim_end_matches('.'), host.trim_end_matches('.'));
    if name.eq_ignore_ascii_case(host) {
        return !name.is_empty();
    }
    let (Some(parent), Some((label, rest))) = (name.strip_prefix("*."), host.split_once('.')) else { return false };
    !label.is_empty() && label != "*" && parent.eq_ignore_ascii_case(rest)
}

/// The date, without the time of day.
pub fn day(timestamp: Timestamp) -> String {
    timestamp.strftime("%Y-%m-%d").to_string()
}

fn timestamp(seconds: i64) -> Timestamp {
    // `99991231235959Z`, which means "no expiration" (RFC 5280, 4.1.2.5), is later than the maximum of jiff.
    let beyond = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(beyond)
}

fn common_name(name: &X509Name) -> Option<String> {
    let common_name = name.iter_common_name().next()?.as_str().ok()?;
    (!common_name.is_empty()).then(|| common_name.to_string())
}

/// The common name, else the organization, else the whole name: the shortest recognizable form.
fn display(name: &X509Name) -> String {
    let organization = || Some(name.iter_organization().next()?.as_str().ok()?.to_string());
    common_name(name).or_else(organization).unwrap_or_else(|| name.to_string())
}

fn dns_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_string()),
        _ => None,
    }
}

fn address(name: &GeneralName) -> Option<IpAddr> {
    let GeneralName::IPAddress(bytes) = name else { return None };
    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::made::Made;
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn reads_names_dates_and_issuer() {
        let chain = Made::for_names(&["shop.example.com", "*.shop.example.com"]).address([10, 0, 0, 1]).base64();
        let certificate = &from_base64(&chain).unwrap()[0];
        assert_eq!(certificate.names(), ["shop.example.com", "*.shop.example.com", "10.0.0.1"]);
        assert_eq!(certificate.not_before, at("2026-01-01T00:00:00Z"));
        assert_eq!(certificate.not_after, at("2027-01-01T00:00:00Z"));
        assert_eq!(certificate.issuer, "Example CA");
        assert!(!certificate.is_ca && !certificate.is_self_issued);
    }

    #[test]
    fn a_wildcard_is_one_left_most_label() {
        assert!(name_covers("*.example.com", "a.example.com"));
        assert!(name_covers("*.Example.com", "A.example.COM"));
        assert!(name_covers("*.example.com", "*.example.com"));
        assert!(!name_covers("*.example.com", "example.com"));
        assert!(!name_covers("*.example.com", "a.b.example.com"));
        assert!(!name_covers("*.example.com", "*.b.example.com"));
        assert!(!name_covers("a*.example.com", "ab.example.com"));
        assert!(!name_covers("a.example.com", "*.example.com"));
        assert!(!name_covers("*.com", "*.com.example"));
    }

    #[test]
    fn addresses_are_names_too() {
        let chain = from_base64(&Made::for_names(&[]).address([10, 0, 0, 1]).base64()).unwrap();
        assert!(chain[0].covers("10.0.0.1"));
        assert!(!chain[0].covers("10.0.0.2"));
    }

    #[test]
    fn validity_over_the_lifetime() {
        let certificate = &from_base64(&Made::for_names(&["a"]).base64()).unwrap()[0];
        let validity = |text| certificate.validity(at(text));
        assert_eq!(validity("2025-12-31T23:00:00Z"), Validity::NotYet);
        assert_eq!(validity("2025-12-31T23:55:00Z"), Validity::Valid);
        assert_eq!(validity("2026-12-17T23:00:00Z"), Validity::Valid);
        assert_eq!(validity("2026-12-18T01:00:00Z"), Validity::Ending);
        assert_eq!(validity("2027-01-01T00:00:01Z"), Validity::Expired);
    }

    #[test]
    fn short_lived_certificates_are_renewed_late() {
        let six_days = Made::for_names(&["a"]).valid("20261101000000Z", "20261107000000Z").base64();
        let certificate = &from_base64(&six_days).unwrap()[0];
        assert_eq!(certificate.validity(at("2026-11-06T09:00:00Z")), Validity::Valid);
        assert_eq!(certificate.validity(at("2026-11-06T10:00:00Z")), Validity::Ending);
    }

    #[test]
    fn no_expiration_does_not_overflow() {
        let endless = Made::for_names(&["a"]).valid("20261101000000Z", "99991231235959Z").base64();
        assert_eq!(from_base64(&endless).unwrap()[0].validity(at("2026-11-06T09:00:00Z")), Validity::Valid);
    }

    #[test]
    fn describes_other_content() {
        let made = Made::for_names(&["a"]);
        let encode = |text: &str| super::encode(text.as_bytes());
        assert_eq!(from_base64(""), Err(Unreadable::Empty));
        assert_eq!(from_base64("REDACTED"), Err(Unreadable::Empty));
        assert_eq!(from_base64("%%%"), Err(Unreadable::Empty));
        assert_eq!(from_base64(&encode(&made.base64())), Err(Unreadable::EncodedTwice));
        assert_eq!(
            from_base64(&encode("-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----")),
            Err(Unreadable::PrivateKey)
        );
        assert_eq!(from_base64(&encode(&format!("{BEGIN}\nMIIB\n{END}"))), Err(Unreadable::Damaged));
        assert_eq!(from_pem(&made.der()), Err(Unreadable::Der));
        assert_eq!(from_base64(&encode("not a certificate")), Err(Unreadable::OtherText));
        for redacted in ["***HIDDEN***", "<redacted>", "xxxx", " ", "0"] {
            assert_eq!(from_base64(&encode(redacted)), Err(Unreadable::Empty));
        }
    }

    #[test]
    fn a_damaged_certificate_does_not_hide_the_others() {
        let text = format!("{BEGIN}\nMIIB\n{END}\nhello\n{}", Made::for_names(&["a"]).pem());
        assert_eq!(from_pem(text.as_bytes()).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = from_pem(&bytes);
            let _ = Certificate::from_der(&bytes);
        }

        #[test]
        fn never_panics_on_a_certificate_with_a_wrong_byte(at in 0usize..300, byte: u8) {
            let mut der = Made::for_names(&["a.example.com"]).address([10, 0, 0, 1]).der();
            let at = at % der.len();
            der[at] = byte;
            if let Some(certificate) = Certificate::from_der(&der) {
                let _ = certificate.validity(Timestamp::UNIX_EPOCH);
                let _ = certificate.covers("a.example.com");
            }
        }
    }
}
