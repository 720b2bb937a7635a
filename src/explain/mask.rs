//! Masks user data before it is sent to a model. Everything is masked unless it is known to be public.
//!
//! Text is split into tokens. Public words ([`vocabulary`]) and plain numbers are kept; all other tokens, and all names
//! of the cluster even if they are words, are replaced by placeholders such as `NAME_k3x9ta`, which the model repeats
//! and [`Masker::restore`] reverts. The program's own text (prompts, rule documentation) is never masked: it is public,
//! and a placeholder in it would reveal which of its words is a name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::{Captures, Regex};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::entity::{EntityKind, repository};
use super::names::Names;
use super::vocabulary;

/// The number of characters after the type; it is fixed, so that the end of a placeholder is unambiguous.
const LENGTH: usize = 6;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    let words: Vec<&str> = EntityKind::ALL.iter().map(|kind| kind.word()).collect();
    regex(&format!("(?i)(?:{})_[a-z2-7]{{{LENGTH}}}", words.join("|")))
});

/// Patterns that are matched before tokenization because they may contain separators.
static SHAPES: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"(?P<pem>-----BEGIN [A-Z0-9 ]+-----(?s:.*?)(?:-----END [A-Z0-9 ]+-----|\z))",
        r#"|(?P<url>[A-Za-z][A-Za-z0-9+.\-]*://[^\s"'<>`]+)"#,
        r#"|(?P<email>[^\s@"'<>(),;:=|\[\]{}]+@[^\s@"'<>(),;:=|\[\]{}/]+\.[A-Za-z]{2,}\b)"#,
        r"|(?P<time>\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)",
        r#"|(?P<assign>[A-Za-z0-9_-]*(?i:passwords?|passwd|pwd|[_-]pass|passphrase|secrets?|tokens?|api[_-]?key|"#,
        r#"access[_-]?key|private[_-]?key|credentials?|authorization|cookie|session[_-]?id|signature|connection[_-]?string)"#,
        // Quotes in JSON inside a string are escaped.
        r#"\\*["']?\s*(?:=>|[:=])\s*)"#,
        r#"(?:(?P<quote>\\*"(?:(?i:bearer|basic)\s+)?)(?P<quoted>[^"\\\n]+)|(?P<tick>')(?P<ticked>[^'\n]+)"#,
        r#"|(?P<plain>["']?(?:(?i:bearer|basic)\s+)?)(?P<value>[^\s"']+))"#,
        r"|(?P<flag>--[A-Za-z0-9-]*(?i:password|passwd|passphrase|secret|token|key)\s+)",
        r#"(?P<argument>[^\s"'-][^\s"']*)"#,
        r"|(?P<scheme>\b(?i:bearer|basic)\s+)(?P<credential>[A-Za-z0-9._~+/=\-]{16,})",
    ))
});

static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"^(?:\d{1,7}(?:\.\d{1,6})?(?:m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|n|u|s|ms|us|µs|ns|h|d|min|%|x|B|[KMGT]i?B|st|nd|rd|th)?",
        r"|(?:\d{1,5}(?:\.\d{1,9})?(?:h|m|s|ms|us|µs|ns|d))+",
        r"|\d{1,7}/\d{1,7}|\d{1,5}-\d{1,5}",
        r"|v?\d{1,4}\.\d{1,4}(?:\.\d{1,4})?(?:-(?:alpha|beta|rc)\.?\d{0,3})?|v\d{1,3}(?:(?:alpha|beta)\d{1,2})?",
        r"|\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?|\d{4}[-/]\d\d[-/]\d\d|0x[0-9a-fA-F]{1,4})$",
    ))
});

static DIGEST: LazyLock<Regex> = LazyLock::new(|| regex(r"^(?:sha(?:256|512):)?[0-9a-fA-F]{16,}$"));
static UUID: LazyLock<Regex> = LazyLock::new(|| regex(r"^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"));
static ENV: LazyLock<Regex> = LazyLock::new(|| regex(r"^[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+$"));
static HOST: LazyLock<Regex> = LazyLock::new(|| regex(r"^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.[A-Za-z]{2,}$"));

#[allow(clippy::expect_used, reason = "the patterns are constants that a test compiles")]
fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid pattern")
}

/// Replaces user data by placeholders, and restores it.
#[derive(Debug)]
pub struct Masker {
    names: Names,
    enabled: bool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    placeholders: HashMap<String, String>,
    /// By placeholder in lower case: models change the case where names must be lower case.
    values: HashMap<String, String>,
}

impl Masker {
    pub fn new(names: Names) -> Masker {
        Masker { names, enabled: true, table: Mutex::default() }
    }

    /// A masker that changes nothing: for local endpoints, and for `--no-mask`.
    pub fn disabled() -> Masker {
        Masker { names: Names::default(), enabled: false, table: Mutex::default() }
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Masks everything that is not public.
    pub fn mask(&self, text: &str) -> String {
        if !self.enabled {
            return text.to_string();
        }
        self.around_shapes(text, |between, masked| self.tokens(between, masked))
    }

    /// Masks a question in any language: words are kept unless they are names of the cluster, contain anything but
    /// letters, or are credentials by context.
    pub fn question(&self, text: &str) -> String {
        if !self.enabled {
            return text.to_string();
        }
        self.around_shapes(text, |between, masked| {
            for word in between.split_inclusive(|c: char| !is_part_of_token(c)) {
                let core = word.trim_matches(|c: char| !c.is_alphanumeric());
                if core.chars().all(char::is_alphabetic) && self.known(core).is_none() {
                    masked.push_str(word);
                } else {
                    self.tokens(word, masked);
                }
            }
        })
    }

    /// Masks the patterns in a text, and passes the text between them to `between`.
    fn around_shapes(&self, text: &str, between: impl Fn(&str, &mut String)) -> String {
        let mut masked = String::with_capacity(text.len());
        let mut rest = 0;
        for shape in SHAPES.captures_iter(text) {
            let Some(all) = shape.get(0) else { continue };
            between(&text[rest..all.start()], &mut masked);
            self.shape(&shape, &mut masked);
            rest = all.end();
        }
        between(&text[rest..], &mut masked);
        masked
    }

    /// Masks a standalone name, even if it is a public word, unless every cluster has it.
    pub fn name(&self, name: &str, kind: EntityKind) -> String {
        if !self.enabled || name.is_empty() || vocabulary::is_public_name(name) {
            return name.to_string();
        }
        let kind = self.names.kinds.get(&name.to_lowercase()).copied().unwrap_or(kind);
        self.placeholder(name, kind)
    }

    /// Masks all strings of a JSON value, and user-defined keys.
    pub fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.mask(text)),
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(field, value)| {
                    let field = if vocabulary::is_term(field) { field.clone() } else { self.mask(field) };
                    let value =
                        if USERS_KEYS.contains(&field.as_str()) { self.users_keys(value) } else { self.json(value) };
                    (field, value)
                });
                Value::Object(fields.collect())
            }
            Value::Number(number) if number.as_f64().is_some_and(|n| n.abs() >= 1e7) => {
                Value::String(self.mask(&number.to_string()))
            }
            other => other.clone(),
        }
    }

    fn users_keys(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (self.mask(key), self.json(value)));
                Value::Object(fields.collect::<Map<String, Value>>())
            }
            other => self.json(other),
        }
    }

    /// Replaces placeholders by the original values. Placeholders invented by the model are shown as unknown.
    pub fn restore<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if !self.enabled {
            return Cow::Borrowed(text);
        }
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        PLACEHOLDER.replace_all(text, |found: &Captures| {
            let placeholder = &found[0];
            match table.values.get(&placeholder.to_ascii_lowercase()) {
                Some(value) => value.clone(),
                None => format!("<unknown {}>", placeholder[..placeholder.len() - LENGTH - 1].to_ascii_lowercase()),
            }
        })
    }

    fn shape(&self, shape: &Captures, masked: &mut String) {
        let put = |masked: &mut String, text: &str, kind| masked.push_str(&self.placeholder(text, kind));
        if let Some(pem) = shape.name("pem") {
            put(masked, pem.as_str(), EntityKind::Secret);
        } else if let Some(url) = shape.name("url") {
            self.url(url.as_str(), masked);
        } else if let Some(email) = shape.name("email") {
            put(masked, email.as_str(), EntityKind::Email);
        } else if let Some(time) = shape.name("time") {
            masked.push_str(time.as_str());
        } else {
            self.credential(shape, masked);
        }
    }

    /// Masks the value after a name that suggests a credential, even if it is a public word; in quotes, all of it.
    fn credential(&self, shape: &Captures, masked: &mut String) {
        let text = |name: &str| shape.name(name).map_or("", |part| part.as_str());
        for before in ["assign", "quote", "tick", "plain", "flag", "scheme"] {
            self.tokens(text(before), masked);
        }
        for value in ["quoted", "ticked", "credential"] {
            masked.push_str(&self.placeholder(text(value), EntityKind::Secret));
        }
        for value in ["value", "argument"] {
            let (value, end) = trimmed_end(text(value));
            masked.push_str(&self.placeholder(value, EntityKind::Secret));
            masked.push_str(end);
        }
    }

    /// Keeps scheme and port; a URL that may contain a password is replaced completely.
    fn url(&self, url: &str, masked: &mut String) {
        let (url, end) = trimmed_end(url);
        match url.split_once("://") {
            Some((scheme, rest)) if !rest.contains('@') && self.is_public(scheme) => {
                let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                masked.push_str(scheme);
                masked.push_str("://");
                self.tokens(authority, masked);
                match path {
                    "" | "/" => masked.push_str(path),
                    path if vocabulary::is_term(path) => masked.push_str(path),
                    path => masked.push_str(&self.placeholder(path, EntityKind::Path)),
                }
            }
            _ => masked.push_str(&self.placeholder(url, EntityKind::Url)),
        }
        masked.push_str(end);
    }

    fn tokens(&self, text: &str, masked: &mut String) {
        let mut start = None;
        let mut before = ' ';
        for (at, c) in text.char_indices() {
            match (is_part_of_token(c), start) {
                (true, None) => start = Some(at),
                (false, Some(from)) => {
                    self.token(&text[from..at], before, masked);
                    start = None;
                    before = c;
                    masked.push(c);
                }
                (false, None) => {
                    before = c;
                    masked.push(c);
                }
                (true, Some(_)) => {}
            }
        }
        if let Some(from) = start {
            self.token(&text[from..], before, masked);
        }
    }

    fn token(&self, token: &str, before: char, masked: &mut String) {
        let core = token.trim_start_matches(['.', ':', '-', '+', '~', '@', '%']);
        masked.push_str(&token[..token.len() - core.len()]);
        let (core, end) = trimmed_end(core);
        let is_contraction = before == '\'' && matches!(core, "s" | "t" | "d" | "m" | "ll" | "re" | "ve");
        let is_flag = core.len() == 1 && token.starts_with('-');
        if core.is_empty() || is_contraction || is_flag {
            masked.push_str(core);
        } else {
            self.core(core, masked);
        }
        masked.push_str(end);
    }

    fn core(&self, token: &str, masked: &mut String) {
        if let Some(kind) = self.known(token) {
            masked.push_str(&self.placeholder(token, kind));
        } else if self.is_public(token) {
            masked.push_str(token);
        } else if let Some(kind) = by_looks(token) {
            masked.push_str(&self.placeholder(token, kind));
        } else if !self.compound(token, masked) {
            masked.push_str(&self.placeholder(token, fallback(token)));
        }
    }

    fn known(&self, token: &str) -> Option<EntityKind> {
        if vocabulary::is_public_name(token) || vocabulary::is_proper_term(token) {
            return None;
        }
        self.names.kinds.get(&token.to_lowercase()).copied()
    }

    fn is_public(&self, token: &str) -> bool {
        let is_address = token.parse::<IpAddr>().is_ok();
        (NUMBER.is_match(token) && !is_address)
            || PUBLIC_ADDRESSES.contains(&token)
            || vocabulary::is_word(token)
            || vocabulary::is_term(token)
            || vocabulary::is_public_name(token)
    }

    /// Masks each part of a compound token separately: `deployment/cart`, `cart.shop.svc:80`, `10.0.0.1:80`. Returns
    /// false if the parts would reveal more than the whole should.
    fn compound(&self, token: &str, masked: &mut String) -> bool {
        if let Some((left, right)) = token.split_once('/') {
            return self.slashed(token, left, right, masked);
        }
        if let Some((left, right)) = before_address(token) {
            self.token(left, ' ', masked);
            masked.push(':');
            self.token(right, ' ', masked);
            return true;
        }
        if holds_address(token) {
            masked.push_str(&self.placeholder(token, EntityKind::Ip));
            return true;
        }
        if let Some((left, right)) = token.rsplit_once(':') {
            let is_image =
                fallback(left) != EntityKind::Host && is_tag(right) && !right.chars().all(|c| c.is_ascii_digit());
            if is_image && !self.is_public(left) {
                masked.push_str(&self.placeholder(left, EntityKind::Image));
            } else {
                self.token(left, ' ', masked);
            }
            masked.push(':');
            self.token(right, ' ', masked);
            return true;
        }
        self.dotted(token, masked)
    }

    fn slashed(&self, token: &str, left: &str, right: &str, masked: &mut String) -> bool {
        let is_resource = vocabulary::is_term(left) && left.chars().all(|c| c.is_ascii_lowercase());
        let is_place = self.known(left).is_some() || is_resource || vocabulary::is_public_name(left);
        let is_address = left.parse::<IpAddr>().is_ok() && NUMBER.is_match(right);
        if left.is_empty() {
            masked.push_str(&self.placeholder(token, EntityKind::Path));
        } else if NUMBER.is_match(left) && !left.contains('.') {
            masked.push_str(left);
            self.core(&token[left.len()..], masked);
        } else if is_address {
            masked.push_str(&self.placeholder(left, EntityKind::Ip));
            masked.push_str(&token[left.len()..]);
        } else if is_place && !right.is_empty() && !right.contains([':', '@']) {
            self.core(left, masked);
            masked.push('/');
            match right.split_once('/') {
                Some((middle, last)) if self.known(middle).is_some() => {
                    self.core(middle, masked);
                    masked.push('/');
                    masked.push_str(&self.part(last));
                }
                _ => masked.push_str(&self.part(right)),
            }
        } else {
            let image = repository(token);
            let is_image = image.len() < token.len() || self.known(image).is_some();
            masked.push_str(&self.placeholder(image, if is_image { EntityKind::Image } else { EntityKind::Path }));
            match token[image.len()..].split_at_checked(1) {
                Some((":", tag)) if is_tag(tag) => masked.push_str(&token[image.len()..]),
                Some((mark, rest)) => {
                    masked.push_str(mark);
                    masked.push_str(&self.placeholder(rest, EntityKind::Hash));
                }
                None => {}
            }
        }
        true
    }

    /// The part after a slash is a name, even if it is a public word.
    fn part(&self, part: &str) -> String {
        let is_number = NUMBER.is_match(part);
        if is_number || vocabulary::is_public_name(part) { part.to_string() } else { self.name(part, fallback(part)) }
    }

    /// Handles field paths, and cluster DNS names whose parts are known.
    fn dotted(&self, token: &str, masked: &mut String) -> bool {
        let parts: Vec<&str> = token.split('.').collect();
        let is_field = parts.len() > 1
            && FIELD_ROOTS.contains(&parts[0])
            && parts.iter().all(|part| vocabulary::is_term(part) && self.known(part).is_none());
        if is_field {
            masked.push_str(token);
            return true;
        }
        let is_structure = |part: &&str| DNS_PARTS.contains(part) || vocabulary::is_public_name(part);
        let all_known = parts.iter().all(|part| is_structure(part) || self.known(part).is_some());
        if parts.len() > 1 && all_known {
            for (n, part) in parts.iter().enumerate() {
                if n > 0 {
                    masked.push('.');
                }
                match self.known(part) {
                    Some(kind) => masked.push_str(&self.placeholder(part, kind)),
                    None => masked.push_str(part),
                }
            }
            return true;
        }
        false
    }

    /// The placeholder of a value: a keyed hash, which is stable across runs and reveals nothing.
    fn placeholder(&self, value: &str, kind: EntityKind) -> String {
        if value.is_empty() {
            return String::new();
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(placeholder) = table.placeholders.get(value) {
            return placeholder.clone();
        }
        for attempt in 0u32.. {
            let mut hash = Sha256::new();
            hash.update(self.names.key);
            hash.update(attempt.to_be_bytes());
            hash.update(value);
            let digits = hash
                .finalize()
                .iter()
                .take(LENGTH)
                .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
                .collect::<String>();
            let placeholder = format!("{}_{digits}", kind.word());
            // On a hash collision, try again: two values never share a placeholder.
            if let std::collections::hash_map::Entry::Vacant(free) =
                table.values.entry(placeholder.to_ascii_lowercase())
            {
                free.insert(value.to_string());
                table.placeholders.insert(value.to_string(), placeholder.clone());
                return placeholder;
            }
        }
        unreachable!("there are more placeholders than values")
    }
}

/// Well-known addresses.
const PUBLIC_ADDRESSES: &[&str] =
    &["0.0.0.0", "0.0.0.0/0", "127.0.0.1", "127.0.0.0/8", "::", "::/0", "::1", "169.254.169.254"];

/// Fields that contain a map with user-defined keys.
const USERS_KEYS: &[&str] = &[
    "labels",
    "matchLabels",
    "selector",
    "nodeSelector",
    "limits",
    "requests",
    "capacity",
    "allocatable",
    "hard",
    "used",
];

const FIELD_ROOTS: &[&str] = &[
    "spec",
    "status",
    "metadata",
    "data",
    "template",
    "webhooks",
    "rules",
    "subjects",
    "roleRef",
    "resources",
    "state",
    "lastState",
    "valueFrom",
    "httpGet",
];

/// The public parts of cluster DNS names.
const DNS_PARTS: &[&str] = &["svc", "pod", "cluster", "local"];

/// Whether a character is part of a token. All others (whitespace, quotes, brackets, `=`, `,` …) are separators.
fn is_part_of_token(c: char) -> bool {
    c.is_alphanumeric() || "-_./:@%+~".contains(c)
}

/// Splits off trailing punctuation.
fn trimmed_end(token: &str) -> (&str, &str) {
    token.split_at(token.trim_end_matches(['.', ':', '-', '+', '~', '@', '%', '/', ',', ';', ')', ']', '}', '>']).len())
}

/// Splits `host:fd00::1` at the colon before the address.
fn before_address(token: &str) -> Option<(&str, &str)> {
    let mut colons = token.match_indices(':').map(|(at, _)| (&token[..at], &token[at + 1..]));
    colons.find(|(_, right)| right.parse::<Ipv6Addr>().is_ok())
}

/// Whether the token contains an IPv6 or MAC address: three consecutive parts between colons that could belong to one.
/// Each part alone may be a number, which would be kept.
fn holds_address(token: &str) -> bool {
    let is_part = |part: &&str| part.len() <= 4 && part.chars().all(|c| c.is_ascii_hexdigit());
    let parts: Vec<&str> = token.split(':').collect();
    parts.windows(3).any(|parts| parts.iter().all(is_part))
}

fn is_tag(tag: &str) -> bool {
    tag == "latest" || NUMBER.is_match(tag)
}

/// Detects the type of a token by its format.
fn by_looks(token: &str) -> Option<EntityKind> {
    let is_jwt = token.starts_with("eyJ") && token.contains('.');
    if token.parse::<IpAddr>().is_ok() {
        Some(EntityKind::Ip)
    } else if UUID.is_match(token) || DIGEST.is_match(token) {
        Some(EntityKind::Hash)
    } else if is_jwt {
        Some(EntityKind::Secret)
    } else if token.chars().all(|c| c.is_ascii_digit()) {
        Some(EntityKind::Number)
    } else {
        None
    }
}

fn fallback(token: &str) -> EntityKind {
    if ENV.is_match(token) {
        EntityKind::Env
    } else if token.contains('/') {
        EntityKind::Path
    } else if HOST.is_match(token) {
        EntityKind::Host
    } else {
        EntityKind::Name
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::{EntityKind, Masker, Names};

    fn masker() -> Masker {
        let mut names = Names::default();
        for (name, kind) in [
            ("cart", EntityKind::Name),
            ("web", EntityKind::Name),
            ("api", EntityKind::Name),
            ("gateway", EntityKind::Name),
            ("shop", EntityKind::Namespace),
            ("worker-1", EntityKind::Node),
            ("registry.acme.io/shop/cart", EntityKind::Image),
        ] {
            names.kinds.insert(name.to_string(), kind);
        }
        Masker::new(names)
    }

    /// Masks a text and replaces the hash of each placeholder by `…`.
    fn masked(text: &str) -> String {
        let masker = masker();
        let masked = masker.mask(text);
        assert_eq!(masker.restore(&masked), text);
        super::PLACEHOLDER
            .replace_all(&masked, |found: &regex::Captures| found[0][..found[0].len() - 6].to_string() + "…")
            .into_owned()
    }

    #[test]
    fn rule_messages_stay_readable() {
        let cases = [
            (
                "Service cart selects no pods: selector app=carts, Deployment cart has app=cart",
                "Service NAME_… selects no pods: selector app=NAME_…, Deployment NAME_… has app=NAME_…",
            ),
            ("Deployment shop/cart on Node worker-1", "Deployment NAMESPACE_…/NAME_… on Node NODE_…"),
            ("kubectl -n shop describe deployment cart", "kubectl -n NAMESPACE_… describe deployment NAME_…"),
            ("readiness probe GET :8081/ready failed", "readiness probe GET :8081/ready failed"),
            ("readiness probe GET :8081/internal/up failed", "readiness probe GET :8081PATH_… failed"),
            ("spec.containers[cart].readinessProbe", "spec.containers[NAME_…].readinessProbe"),
            ("log of cart: fatal: DATABASE_URL is not set", "log of NAME_…: fatal: ENV_… is not set"),
            ("0/3 nodes are available: 3 Insufficient cpu.", "0/3 nodes are available: 3 Insufficient cpu."),
            ("deployment/cart, svc/web and pod/other-5d9f", "deployment/NAME_…, svc/NAME_… and pod/NAME_…"),
            ("kube-system/coredns uses cluster.local", "kube-system/coredns uses cluster.local"),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn names_that_are_words_are_masked_and_kinds_are_not() {
        assert_eq!(
            masked("Service web, Deployment api, Web server"),
            "Service NAME_…, Deployment NAME_…, NAME_… server"
        );
        assert_eq!(masked("Gateway gateway"), "Gateway NAME_…");
    }

    #[test]
    fn identifying_data_is_masked_by_format() {
        let cases = [
            ("dial tcp 10.1.2.3:5432: connection refused", "dial tcp IP_…:5432: connection refused"),
            ("fd00::12 and 10.0.0.0/8 but 127.0.0.1", "IP_… and IP_…/8 but 127.0.0.1"),
            ("mail to jane.doe@acme.io failed", "mail to EMAIL_… failed"),
            ("lookup db.prod.acme.internal on 10.96.0.10:53: no such host", "lookup HOST_… on IP_…:53: no such host"),
            ("lookup cart.shop.svc.cluster.local", "lookup NAME_….NAMESPACE_….svc.cluster.local"),
            ("postgres://app:s3cr3t@db:5432/orders?x=y", "URL_…"),
            ("https://hooks.acme.io/T00/B00", "https://HOST_…PATH_…"),
            ("http://cart.shop:8080/", "http://NAME_….NAMESPACE_…:8080/"),
            ("image registry.acme.io/shop/cart:1.2.3 not found", "image IMAGE_…:1.2.3 not found"),
            ("acme/worker@sha256:0123456789abcdef0123456789abcdef", "IMAGE_…@HASH_…"),
            ("open /srv/acme/config: no such file or directory", "open PATH_…: no such file or directory"),
            ("uid 1b4e28ba-2fa1-11d2-883f-0016d3cca427", "uid HASH_…"),
            ("password=correct", "password=SECRET_…"),
            ("Authorization: Bearer abc", "Authorization: Bearer SECRET_…"),
            (r#"{"token": "the"}"#, r#"{"token": "SECRET_…"}"#),
            ("user 4111111111111111 of Erika 12345678", "user HASH_… of NAME_… NUMBER_…"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "SECRET_…"),
            (
                "2026-11-21T12:05:00Z took 1m30s, 512Mi, 95%, v1.36.3",
                "2026-11-21T12:05:00Z took 1m30s, 512Mi, 95%, v1.36.3",
            ),
            ("ACME-internal größe", "NAME_… NAME_…"),
            // Found by `fuzz`: numbers that together form an address.
            ("failed:2001:470:1:2:3:4:5:6 from", "failed:IP_… from"),
            ("ssh root@2001:470:1:2:3:4:5:6", "ssh IP_…"),
            ("from 00:1b:44:11:32:37", "from IP_…"),
            ("at 12:30:45, main:12:5", "at 12:30:45, main:12:5"),
            // Words that are secrets by context.
            (r#"password: "the connection of node""#, r#"password: "SECRET_…""#),
            (r#"{\"password\":\"correct\"}"#, r#"{\"password\":\"SECRET_…\"}"#),
            ("passphrase='error in port'", "NAME_…='SECRET_…'"),
            ("DB_PASS=correct", "ENV_…=SECRET_…"),
            ("mysql --password correct --host db", "mysql --password SECRET_… --host NAME_…"),
            ("Secret => \"ready", "Secret => \"SECRET_…"),
            ("a@b.io|failed.password=correct", "EMAIL_…|failed.password=SECRET_…"),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(text), expected);
        }
        let key = "x\n-----BEGIN RSA PRIVATE KEY-----\nMIIB the key\n-----END RSA PRIVATE KEY-----\ny";
        assert_eq!(masked(key), "NAME_…\nSECRET_…\nNAME_…");
    }

    #[test]
    fn placeholders_are_stable_and_keyed() {
        assert_eq!(masker().mask("cart"), masker().mask("cart"));
        let mut other = masker();
        other.names.key = [1; 32];
        assert_ne!(masker().mask("cart"), other.mask("cart"));
    }

    #[test]
    fn answers_are_restored_and_unknown_placeholders_shown() {
        let masker = masker();
        let cart = masker.mask("cart");
        let answer = format!("kubectl logs {}-0; ({cart}'s) NAME_zzzzzz IP_222222", cart.to_lowercase());
        assert_eq!(masker.restore(&answer), "kubectl logs cart-0; (cart's) <unknown name> <unknown ip>");
    }

    #[test]
    fn literal_placeholders_are_masked() {
        let masker = masker();
        let cart = masker.mask("cart");
        let hostile = format!("{cart} NAME_abcdef");
        let twice = masker.mask(&hostile);
        assert!(!twice.contains(&cart), "{twice}");
        assert_eq!(masker.restore(&twice), hostile);
    }

    #[test]
    fn json_keeps_api_fields_and_masks_user_keys() {
        let value = json!({"metadata": {"labels": {"acme.io/team": "blue", "app": "cart"}},
            "spec": {"replicas": 2, "containers": [{"name": "web", "image": "registry.acme.io/shop/cart:1.2"}]}});
        let masker = masker();
        let text = masker.json(&value).to_string();
        for wrong in ["acme", "blue", "cart", "web"] {
            assert!(!text.contains(wrong), "{wrong} in {text}");
        }
        assert!(text.contains("\"containers\"") && text.contains("\"replicas\":2") && text.contains(":1.2"), "{text}");
    }

    #[test]
    fn questions_keep_words_but_not_names() {
        let masker = masker();
        let asked = "Warum ist cart in shop (10.0.0.7, my-db) so langsam?";
        let masked = masker.question(asked);
        assert!(masked.starts_with("Warum ist NAME_") && masked.ends_with(" so langsam?"), "{masked}");
        for wrong in ["cart", "shop", "10.0.0.7", "my-db"] {
            assert!(!masked.contains(wrong), "{masked}");
        }
        assert_eq!(masker.restore(&masked), asked);
    }

    #[test]
    fn passwords_in_questions_are_masked() {
        let masker = masker();
        let masked = masker.question("Why is password=correct refused, or token: \"open sesame\"?");
        assert!(
            masked.starts_with("Why is password=SECRET_") && masked.contains(" refused, or token: \"SECRET_"),
            "{masked}"
        );
        assert!(!masked.contains("correct") && !masked.contains("sesame"), "{masked}");
    }

    #[test]
    fn disabled_masking_changes_nothing() {
        let masker = Masker::disabled();
        assert_eq!(masker.question("Is my-db at 10.0.0.1?"), "Is my-db at 10.0.0.1?");
        assert_eq!(masker.mask("cart 10.0.0.1"), "cart 10.0.0.1");
        assert_eq!(masker.restore("NAME_abcdef"), "NAME_abcdef");
    }

    proptest! {
        #[test]
        fn restoring_reverts_masking(text in "\\PC{0,80}") {
            let masker = masker();
            let masked = masker.mask(&text);
            prop_assert_eq!(masker.restore(&masked), text);
        }

        #[test]
        fn restoring_reverts_masking_of_punctuation(text in "([a-zA-Z]{1,3}|cart|shop|NAME_abcdef|[0-9]{1,4}|[-_./:@%+~='\"(), ]){0,24}") {
            let masker = masker();
            let masked = masker.mask(&text);
            prop_assert_eq!(masker.restore(&masked), text);
        }

        #[test]
        fn no_two_values_share_a_placeholder(values in proptest::collection::hash_set("[a-z]{1,4}[0-9]{1,3}[a-z]", 1..200)) {
            let masker = masker();
            let placeholders: HashSet<String> = values.iter().map(|value| masker.mask(value)).collect();
            prop_assert_eq!(placeholders.len(), values.len());
        }

        /// Tokens that are not public are masked in any position.
        #[test]
        fn unknown_words_are_masked(word in "[a-z]{4}[0-9][a-z]{3}", before in "[ ='\"(,:/@.-]", after in "[ ='\"),:/@.-]") {
            let text = format!("failed{before}{word}{after}refused");
            prop_assert!(!masker().mask(&text).contains(&word), "{}", masker().mask(&text));
        }
    }
}
