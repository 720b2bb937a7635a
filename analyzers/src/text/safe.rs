//! Text that came from a cluster or a file, made harmless for whatever shows it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::{Serialize, Serializer};

/// One line of text that can be shown anywhere. Formats escape only their own markup.
///
/// Line breaks and tabs are blanks. All other control characters, C1 included, and characters that are invisible or reorder
/// the text around them (Unicode UAX #9, "Trojan Source") are written as `\u{202e}`: they are evidence, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafeText(String);

impl SafeText {
    pub fn new(text: impl AsRef<str>) -> SafeText {
        SafeText(safe(text.as_ref()).into_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What [`SafeText`] says of a text.
pub fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c.is_control() || is_deceptive(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => safe.push(' '),
            c if c.is_control() || is_deceptive(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Without terminal escape sequences: colors, cursor movements, titles, links.
pub(super) fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            // ESC [ … letter (colors, cursor), ESC ] … BEL or ESC \ (titles, links), ESC and one character.
            Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
            Some(']' | 'P' | '^' | '_') => {
                while chars.next().is_some_and(|c| !matches!(c, '\u{7}' | '\u{1b}' | '\u{9c}')) {}
            }
            _ => {}
        }
    }
    plain
}

/// Characters that show nothing, or change how the text around them is shown.
fn is_deceptive(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

impl Deref for SafeText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for SafeText {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SafeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for SafeText {
    fn from(text: &str) -> SafeText {
        SafeText::new(text)
    }
}

impl From<String> for SafeText {
    fn from(text: String) -> SafeText {
        match safe(&text) {
            Cow::Borrowed(_) => SafeText(text),
            Cow::Owned(safe) => SafeText(safe),
        }
    }
}

impl From<&String> for SafeText {
    fn from(text: &String) -> SafeText {
        SafeText::new(text)
    }
}

impl From<SafeText> for String {
    fn from(text: SafeText) -> String {
        text.0
    }
}

impl PartialEq<str> for SafeText {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for SafeText {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl Serialize for SafeText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "schemars")]
impl schemars::JsonSchema for SafeText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SafeText".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::{SafeText, without_escapes};

    #[test]
    fn what_deceives_is_shown_or_removed() {
        let safe = |text: &str| SafeText::new(text).to_string();
        assert_eq!(safe("a\u{1b}[31mred:\tno\u{0}\nway\u{202e}"), "a\\u{1b}[31mred: no\\u{0} way\\u{202e}");
        assert_eq!(without_escapes("\u{1b}[1;31mfatal\u{1b}[0m \u{1b}]0;title\u{7}x\u{1b}"), "fatal x");
        assert_eq!(safe("\u{9b}2J"), "\\u{9b}2J");
        for c in ['\u{61c}', '\u{ad}', '\u{180e}', '\u{206a}', '\u{206f}', '\u{fff9}', '\u{e0041}', '\u{200b}'] {
            assert_eq!(safe(&c.to_string()), c.escape_unicode().to_string());
        }
        assert_eq!(safe("größe 東京 …"), "größe 東京 …");
    }
}
