//! The annotation `kubectl-gpt.io/ignore`, which marks findings as accepted on the object itself.
//!
//! ```text
//! kubectl-gpt.io/ignore: "service/no-ready-endpoints=waiting for team X until 2027-01-01; pod/*=a test"
//! ```

use crate::config::{Expiry, Globs};

pub const ANNOTATION: &str = "kubectl-gpt.io/ignore";

/// One entry of the annotation.
#[derive(Debug)]
pub struct Entry {
    pub rules: Globs,
    pub reason: String,
    pub expires: Option<Expiry>,
}

/// The entries; an invalid one is an error message.
pub fn entries(value: &str) -> impl Iterator<Item = Result<Entry, String>> {
    value.split(';').map(str::trim).filter(|entry| !entry.is_empty()).map(entry)
}

fn entry(text: &str) -> Result<Entry, String> {
    let Some((rules, reason)) = text.split_once('=') else {
        return Err(format!("{text:?} has no reason; expected RULE=REASON or RULE=REASON until DATE"));
    };
    let rules = Globs::one(rules.trim()).map_err(|error| error.to_string())?;
    let (reason, expires) = until(reason.trim())?;
    if reason.is_empty() {
        return Err(format!("{text:?} has no reason; expected RULE=REASON"));
    }
    Ok(Entry { rules, reason: reason.to_string(), expires })
}

/// Splits off `until DATE`. A reason may end with `until further notice`, but an invalid date is an error: otherwise
/// the entry would never expire.
fn until(reason: &str) -> Result<(&str, Option<Expiry>), String> {
    let Some((before, word)) = reason.rsplit_once(char::is_whitespace) else { return Ok((reason, None)) };
    let before = before.trim_end();
    let Some(head) = before.strip_suffix("until").filter(|head| head.is_empty() || head.ends_with(char::is_whitespace))
    else {
        return Ok((reason, None));
    };
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok((reason, None));
    }
    Ok((head.trim_end(), Some(word.parse()?)))
}

#[cfg(test)]
mod tests {
    use super::entries;

    fn read(value: &str) -> Vec<(String, String, Option<String>)> {
        let entries = entries(value).map(Result::unwrap);
        entries.map(|e| (e.rules.to_string(), e.reason, e.expires.map(|date| date.to_string()))).collect()
    }

    fn entry(rules: &str, reason: &str, expires: Option<&str>) -> (String, String, Option<String>) {
        (rules.to_string(), reason.to_string(), expires.map(str::to_string))
    }

    #[test]
    fn entries_with_and_without_expiry() {
        assert_eq!(
            read("service/no-ready-endpoints=waiting for team X until 2027-01-01; pod/*=a = b;"),
            [
                entry("service/no-ready-endpoints", "waiting for team X", Some("2027-01-01")),
                entry("pod/*", "a = b", None)
            ]
        );
        assert_eq!(read(" ; "), []);
        assert_eq!(read("pod/lost=open until further notice"), [entry("pod/lost", "open until further notice", None)]);
        assert_eq!(read("pod/lost=since 2026-01-01"), [entry("pod/lost", "since 2026-01-01", None)]);
    }

    #[test]
    fn invalid_entries_are_reported() {
        for (value, expected) in [
            ("pod/*", "has no reason"),
            ("pod/*=", "has no reason"),
            ("pod/*= until 2027-01-01", "has no reason"),
            ("pod/[=x", "unclosed character class"),
            ("pod/*=x until 2027-13-01", "expected a date"),
            ("pod/*=x until 01.02.2027", "expected a date"),
            ("pod/*=x until 2027-01-01T10:00:00Z", "expected a date"),
        ] {
            let error = entries(value).next().unwrap().unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
