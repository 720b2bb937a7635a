//! Text helpers for messages.

use crate::text::safe::{safe, without_escapes};

/// `1 pod`, `3 pods`; `noun` in the singular.
pub fn count(n: usize, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ if noun.ends_with('s') || noun.ends_with("ch") || noun.ends_with('x') => {
            format!("{n} {noun}es")
        }
        _ if noun.ends_with("cy") => format!("{n} {}ies", &noun[..noun.len() - 1]),
        _ => format!("{n} {noun}s"),
    }
}

/// `a`, `a and b`, `a, b and c`; beyond `most` items the rest is counted: `a, b and 5 more`.
pub fn list<S: AsRef<str>>(items: &[S], most: usize) -> String {
    let shown: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match shown.len() {
        0 => String::new(),
        1 => shown[0].to_string(),
        n if n <= most => format!("{} and {}", shown[..n - 1].join(", "), shown[n - 1]),
        n => format!("{} and {} more", shown[..most].join(", "), n - most),
    }
}

/// The first `most` characters, with an ellipsis if the text was cut.
pub fn shorten(text: &str, most: usize) -> String {
    let text = text.trim();
    match text.char_indices().nth(most) {
        None => text.to_string(),
        Some((at, _)) => format!("{}…", text[..at].trim_end()),
    }
}

/// At most `most` characters, with an ellipsis in the middle if the text was cut: the reason of an error is at its end.
pub fn shorten_middle(text: &str, most: usize) -> String {
    let text = text.trim();
    let length = text.chars().count();
    if length <= most {
        return text.to_string();
    }
    let head = most / 4;
    let tail = most.saturating_sub(head);
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{}…{}", start.trim_end(), end.trim_start())
}

/// Text from the cluster as one line that is [safe](crate::text::safe): without terminal escapes, and with white space
/// collapsed to single blanks.
pub fn plain(text: &str) -> String {
    safe(&without_escapes(text)).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(count(1, "pod"), "1 pod");
        assert_eq!(count(0, "Ingress"), "0 Ingresses");
        assert_eq!(count(2, "NetworkPolicy"), "2 NetworkPolicies");
    }

    #[test]
    fn lists() {
        assert_eq!(list(&["a", "b", "c"], 3), "a, b and c");
        assert_eq!(list(&["a", "b", "c", "d"], 2), "a, b and 2 more");
        assert_eq!(list::<&str>(&[], 2), "");
    }

    #[test]
    fn plain_text_is_one_line() {
        assert_eq!(plain("\u{1b}[1;31mfatal\u{1b}[0m:\tno \r\n way "), "fatal: no way");
    }

    #[test]
    fn shortens_in_the_middle() {
        assert_eq!(shorten_middle("äöüß and the end", 8), "äö…he end");
        assert_eq!(shorten_middle("ab", 2), "ab");
    }

    #[test]
    fn shortens_at_characters() {
        assert_eq!(shorten("äöü", 2), "äö…");
        assert_eq!(shorten("ab", 2), "ab");
    }
}
