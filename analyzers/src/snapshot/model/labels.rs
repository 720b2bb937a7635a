use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::shared::{Interned, SharedSlice, once};

/// Anything that has labels or annotations to look up by key.
pub trait LabelSet {
    fn value(&self, key: &str) -> Option<&str>;
    fn pairs(&self) -> Box<dyn Iterator<Item = (&str, &str)> + '_>;
}

/// Labels or annotations, sorted by key. For the few that objects have, this takes a tenth of the memory of a
/// `BTreeMap`.
#[derive(Clone, Default, PartialEq)]
pub struct Labels(SharedSlice<(Interned, Interned)>);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Interned>, V: Into<Interned>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Labels {
        let mut pairs: Vec<(Interned, Interned)> = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        pairs.sort();
        // For duplicate keys the last value counts, as in the API server's JSON parser.
        pairs.reverse();
        pairs.dedup_by(|a, b| a.0 == b.0);
        pairs.reverse();
        Labels(pairs.into())
    }
}

impl LabelSet for Labels {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key)
    }

    fn pairs(&self) -> Box<dyn Iterator<Item = (&str, &str)> + '_> {
        Box::new(self.iter())
    }
}

impl LabelSet for BTreeMap<String, String> {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }

    fn pairs(&self) -> Box<dyn Iterator<Item = (&str, &str)> + '_> {
        Box::new(self.iter().map(|(k, v)| (k.as_str(), v.as_str())))
    }
}

impl<T: LabelSet> LabelSet for Option<T> {
    fn value(&self, key: &str) -> Option<&str> {
        self.as_ref()?.value(key)
    }

    fn pairs(&self) -> Box<dyn Iterator<Item = (&str, &str)> + '_> {
        match self {
            Some(labels) => labels.pairs(),
            None => Box::new(std::iter::empty()),
        }
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(0).min(64));
                while let Some((key, value)) = map.next_entry::<Interned, Option<Interned>>()? {
                    pairs.push((key, value.unwrap_or_default()));
                }
                Ok(pairs.into_iter().collect())
            }
        }
        once(deserializer, |text| serde_json::Deserializer::from_str(text).deserialize_map(Pairs))
    }
}

/// Annotations without large values that no rule reads: values over 4 KiB are dropped, and
/// `kubectl.kubernetes.io/last-applied-configuration` is cut to its start if it has an alpha or beta version, else
/// dropped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations(Labels);

impl Annotations {
    const MAX_VALUE: usize = 4096;

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter()
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Annotations, D::Error> {
        let labels = Labels::deserialize(deserializer)?;
        let all = labels.iter().all(|(key, value)| kept(key, value) == Some(value));
        let few = || labels.iter().filter_map(|(key, value)| Some((key, kept(key, value)?))).collect();
        Ok(Annotations(if all { labels.clone() } else { few() }))
    }
}

/// The part of an annotation's value to keep.
fn kept<'a>(key: &str, value: &'a str) -> Option<&'a str> {
    if key == LAST_APPLIED {
        let version = applied_version(value).filter(|version| version.contains("alpha") || version.contains("beta"))?;
        return Some(&value[..APPLIED_START.len() + version.len() + 1]);
    }
    (value.len() <= Annotations::MAX_VALUE).then_some(value)
}

/// The annotation in which kubectl stores the last applied configuration.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// kubectl sorts the keys.
const APPLIED_START: &str = r#"{"apiVersion":""#;

/// The `apiVersion` of the last applied configuration, from the annotation [`LAST_APPLIED`].
pub fn applied_version(last_applied: &str) -> Option<&str> {
    Some(last_applied.strip_prefix(APPLIED_START)?.split_once('"')?.0)
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl Serialize for Annotations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::{Annotations, LAST_APPLIED, Labels, applied_version};

    #[test]
    fn only_old_versions_of_the_last_applied_configuration_are_kept() {
        let read = |applied: &str| {
            let annotations = serde_json::json!({ LAST_APPLIED: applied, "a": "b" }).to_string();
            let annotations: Annotations = serde_json::from_str(&annotations).unwrap();
            assert_eq!(annotations.get("a"), Some("b"));
            annotations.get(LAST_APPLIED).map(str::to_string)
        };
        let old = read(r#"{"apiVersion":"batch/v1beta1","kind":"CronJob","spec":{}}"#).unwrap();
        assert_eq!(old, r#"{"apiVersion":"batch/v1beta1""#);
        assert_eq!(applied_version(&old), Some("batch/v1beta1"));
        assert_eq!(read(r#"{"apiVersion":"batch/v1","kind":"CronJob","spec":{}}"#), None);
        assert_eq!(read("{"), None);
    }

    #[test]
    fn sorted_and_without_duplicates() {
        let labels: Labels = serde_json::from_str(r#"{"b":"2","a":"1","b":"3","c":null}"#).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3"), ("c", "")]);
        assert_eq!(labels.get("b"), Some("3"));
        assert_eq!(labels.get("z"), None);
    }
}
