use std::borrow::Cow;
use std::fmt::Write;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The UID of an object. Kubernetes generates UUIDs, which take 16 bytes as a number and 48 as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uid(Form);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Absent,
    Uuid([u8; 16]),
    Other(Box<str>),
}

/// The positions of the hyphens in a UUID.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl Uid {
    pub fn is_empty(&self) -> bool {
        self.0 == Form::Absent
    }

    /// Empty if there is none.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Absent => Cow::Borrowed(""),
            Form::Other(text) => Cow::Borrowed(text),
            Form::Uuid(bytes) => {
                let mut text = String::with_capacity(36);
                for byte in bytes {
                    if HYPHENS.contains(&text.len()) {
                        text.push('-');
                    }
                    // Writing to a string does not fail.
                    let _ = write!(text, "{byte:02x}");
                }
                Cow::Owned(text)
            }
        }
    }
}

/// A UUID in the form that Kubernetes generates: lower case, with hyphens. Any other text is kept unchanged.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    let is_hyphen = |at: usize| HYPHENS.contains(&at);
    if text.len() != 36 || text.iter().enumerate().any(|(at, c)| is_hyphen(at) != (*c == b'-')) {
        return None;
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut digits = text.iter().filter(|c| **c != b'-').map(|c| digit(*c));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    Some(bytes)
}

impl From<&str> for Uid {
    fn from(text: &str) -> Uid {
        match uuid(text) {
            _ if text.is_empty() => Uid(Form::Absent),
            Some(bytes) => Uid(Form::Uuid(bytes)),
            None => Uid(Form::Other(text.into())),
        }
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Uid, D::Error> {
        Ok(Uid::from(&*Cow::<'de, str>::deserialize(deserializer)?))
    }
}

impl Serialize for Uid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Uid};

    #[test]
    fn every_uid_round_trips() {
        for text in [
            "",
            "cart",
            "0b9e3c1a-77f2-4d5e-8a16-0123456789ab",
            "0B9E3C1A-77F2-4D5E-8A16-0123456789AB",
            "0b9e3c1a-77f2-4d5e-8a16-0123456789a",
            "0b9e3c1a777f2-4d5e-8a16-0123456789ab",
            "0b9e3c1a-77f2-4d5e-8a16-0123456789ag",
            "ä0b9e3c1a77f2-4d5e-8a16-0123456789a",
        ] {
            let uid: Uid = serde_json::from_value(text.into()).unwrap();
            assert_eq!(uid.text(), text);
            assert_eq!(uid.is_empty(), text.is_empty());
        }
        assert!(matches!(Uid::from("0b9e3c1a-77f2-4d5e-8a16-0123456789ab").0, Form::Uuid(_)));
    }
}
