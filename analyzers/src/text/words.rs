//! Text helpers for messages.

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

/// Text from the cluster as one line that is safe to print: without terminal escapes, control characters and
/// bidirectional marks. White space is collapsed to single blanks.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            // ESC [ … letter (colours, cursor), ESC ] … BEL or ESC \ (titles, links), ESC and one character.
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']' | 'P' | '^' | '_') => {
                    while chars.next().is_some_and(|c| !matches!(c, '\u{7}' | '\u{1b}' | '\u{9c}')) {}
                }
                _ => {}
            },
            c if c.is_whitespace() => {
                if !plain.ends_with(' ') {
                    plain.push(' ');
                }
            }
            c if c.is_control() => {}
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {}
            c => plain.push(c),
        }
    }
    plain.trim().to_string()
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
    fn plain_text_has_no_escapes() {
        assert_eq!(plain("\u{1b}[1;31mfatal\u{1b}[0m:\tno\u{0} \r\n way\u{202e}"), "fatal: no way");
        assert_eq!(plain("\u{1b}]0;title\u{7}x\u{1b}"), "x");
    }

    #[test]
    fn shortens_at_characters() {
        assert_eq!(shorten("äöü", 2), "äö…");
        assert_eq!(shorten("ab", 2), "ab");
    }
}
