//! A string or a list of strings: a single value needs no brackets.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::glob::Glob;

/// A list of strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings(Vec<String>);

/// Glob patterns, of which one must match. `*` matches any characters, `?` one, `[ab]` one of these, `{a,b}` either.
#[derive(Clone, Debug)]
pub struct Globs(Vec<Glob>);

impl Globs {
    /// # Errors
    /// When the pattern is invalid, such as `[a`.
    pub fn one(pattern: &str) -> Result<Globs, globset::Error> {
        Ok(Globs(vec![Glob::new(pattern)?]))
    }

    /// Whether any pattern matches, ignoring case: `deployment` matches `Deployment`.
    pub fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|glob| glob.is_match(text))
    }
}

impl Deref for Strings {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl FromIterator<String> for Strings {
    fn from_iter<I: IntoIterator<Item = String>>(strings: I) -> Strings {
        Strings(strings.into_iter().collect())
    }
}

impl Serialize for Globs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Glob::as_str))
    }
}

impl fmt::Display for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<&str> = self.0.iter().map(Glob::as_str).collect();
        f.write_str(&patterns.join(", "))
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Glob, D::Error> {
        Glob::new(&String::deserialize(deserializer)?).map_err(Error::custom)
    }
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strings, D::Error> {
        one_or_many(deserializer, |text| Ok(text.to_string())).map(Strings)
    }
}

impl<'de> Deserialize<'de> for Globs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Globs, D::Error> {
        one_or_many(deserializer, |text| Glob::new(text).map_err(|error| error.to_string())).map(Globs)
    }
}

/// Reads a string or a non-empty list: an empty list is ambiguous between nothing and everything.
fn one_or_many<'de, D, T>(deserializer: D, one: fn(&str) -> Result<T, String>) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct OneOrMany<T>(fn(&str) -> Result<T, String>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            Ok(vec![self.0(text).map_err(E::custom)?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            if list.is_empty() { Err(A::Error::custom("list is empty; omit the key instead")) } else { Ok(list) }
        }
    }
    deserializer.deserialize_any(OneOrMany(one))
}

fn schema(what: &str) -> Schema {
    json_schema!({
        "description": what,
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    })
}

impl JsonSchema for Strings {
    fn schema_name() -> Cow<'static, str> {
        "Strings".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema("A string or a list of strings.")
    }
}

impl JsonSchema for Globs {
    fn schema_name() -> Cow<'static, str> {
        "Globs".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema("A glob pattern or a list of patterns, of which one must match: `*` matches any characters, `?` one.")
    }
}
