//! The public vocabulary: words of Kubernetes, its components and plain English, which are not masked.

use std::collections::HashSet;
use std::sync::LazyLock;

static WORDS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("vocabulary/words.txt").split_whitespace().collect());
static KUBERNETES: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("vocabulary/kubernetes.txt").split_whitespace().collect());
static NAMES: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("vocabulary/names.txt").split_whitespace().collect());

/// Whether the token is a plain English word of logs and events: `refused`, `Refused`, `REFUSED`.
pub fn is_word(token: &str) -> bool {
    let lower = token.to_ascii_lowercase();
    let first = token.chars().next().map_or(0, char::len_utf8);
    let regular = token == lower || token[first..] == lower[first..] || token.chars().all(|c| c.is_ascii_uppercase());
    regular && WORDS.contains(lower.as_str())
}

/// Whether the token is a kind, field, reason or other term of Kubernetes, in its exact spelling.
pub fn is_term(token: &str) -> bool {
    KUBERNETES.contains(token)
}

/// Whether the token is a term that cannot be an object name, because names are in lower case.
pub fn is_proper_term(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_uppercase()) && is_term(token)
}

/// Whether the token is a name or registry that every cluster has.
pub fn is_public_name(token: &str) -> bool {
    NAMES.contains(token)
}

#[cfg(test)]
mod tests {
    use super::{is_proper_term, is_public_name, is_term, is_word};

    #[test]
    fn public_vocabulary() {
        for word in ["refused", "Refused", "REFUSED", "a", "the"] {
            assert!(is_word(word), "{word}");
        }
        for word in ["reFused", "carts", "acme", "payments", "shop", "größe", ""] {
            assert!(!is_word(word), "{word}");
        }
        assert!(is_term("readinessProbe") && is_term("CrashLoopBackOff") && is_term("app.kubernetes.io/name"));
        assert!(is_proper_term("Gateway") && !is_proper_term("gateway"));
        assert!(is_public_name("kube-system") && !is_public_name("monitoring"));
    }
}
