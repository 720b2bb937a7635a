use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::{Meta, api_types};
use crate::text::address::{Address, addresses_of};

api_types! {
    /// A ConfigMap: which keys it has, and the few values that rules read.
    pub struct ConfigMap {
        pub metadata: Meta,
        pub data: ConfigMapData,
        pub binary_data: Option<Keys>,
        pub immutable: Option<bool>,
    }

    /// A Secret: which keys it has, and `tls.crt`. No other value is kept.
    pub struct Secret {
        pub metadata: Meta,
        #[serde(rename = "type")]
        pub type_: String,
        pub data: SecretData,
        pub string_data: Option<Keys>,
    }
}

/// The keys of a map, without the values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys(pub Vec<String>);

/// `data` of a ConfigMap. `None` for the keys means that they are not known (a list of metadata only).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigMapData {
    pub keys: Option<Keys>,
    /// Values of keys that hold CoreDNS configuration: `Corefile`, `*.server`, `*.override` (AKS, k3s), and server blocks
    /// under other keys.
    pub values: BTreeMap<String, String>,
    /// The `schedulerName` of each profile in a KubeSchedulerConfiguration.
    pub schedulers: Vec<String>,
    /// The addresses in the other values, with their keys.
    pub addresses: Vec<(String, Address)>,
    /// The keys whose value has a line that starts with `#!` near its beginning.
    pub scripts: Vec<(String, Shebang)>,
}

/// Where the line `#!INTERPRETER` of a script is. The kernel only recognizes it at the very beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shebang {
    pub interpreter: String,
    /// The line, from 1.
    pub line: usize,
    /// Whether other characters precede it in its line: blanks, or a byte order mark.
    pub is_indented: bool,
    /// Whether the line ends with a carriage return, which becomes part of the interpreter's name.
    pub has_carriage_return: bool,
}

impl Shebang {
    /// The first `#!` in the first lines of a text.
    fn find(text: &str) -> Option<Shebang> {
        const MAX_LINES: usize = 20;
        text.split('\n').take(MAX_LINES).enumerate().find_map(|(n, line)| {
            let bare = line.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
            let rest = bare.strip_prefix("#!")?;
            Some(Shebang {
                interpreter: rest.split_whitespace().next().unwrap_or_default().to_string(),
                line: n + 1,
                is_indented: bare.len() != line.len(),
                has_carriage_return: rest.ends_with('\r'),
            })
        })
    }

    /// Whether the kernel finds it.
    pub fn is_first(&self) -> bool {
        self.line == 1 && !self.is_indented
    }
}

/// `data` of a Secret. `None` for the keys means that they are not known (a list of metadata only).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecretData {
    pub keys: Option<Keys>,
    /// Base64 as in the API; a public certificate chain.
    pub tls_crt: Option<String>,
}

impl ConfigMap {
    /// Whether it has the key; `None` if its keys are not known.
    pub fn has_key(&self, key: &str) -> Option<bool> {
        has_key(&self.data.keys, &self.binary_data, key)
    }

    /// Whether the key's value is a known text, not binary data.
    pub fn has_text(&self, key: &str) -> bool {
        has_key(&self.data.keys, &None, key) == Some(true)
    }

    /// The `#!` line of the key's value.
    pub fn shebang(&self, key: &str) -> Option<&Shebang> {
        self.data.scripts.iter().find(|(k, _)| k == key).map(|(_, shebang)| shebang)
    }
}

impl Secret {
    /// Whether it has the key; `None` if its keys are not known.
    pub fn has_key(&self, key: &str) -> Option<bool> {
        has_key(&self.data.keys, &self.string_data, key)
    }
}

fn has_key(data: &Option<Keys>, more: &Option<Keys>, key: &str) -> Option<bool> {
    if data.is_none() && more.is_none() {
        return None;
    }
    Some([data, more].into_iter().flatten().any(|keys| keys.0.iter().any(|k| k == key)))
}

impl ConfigMap {
    /// For an object that was read in full: without `data` it has no keys, rather than unknown keys.
    pub(crate) fn read_whole(&mut self) {
        self.data.keys.get_or_insert_default();
    }
}

impl Secret {
    /// For an object that was read in full: without `data` it has no keys, rather than unknown keys.
    pub(crate) fn read_whole(&mut self) {
        self.data.keys.get_or_insert_default();
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Only the keys: the JSON form of an object does not need Corefiles.
impl Serialize for ConfigMapData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.keys.serialize(serializer)
    }
}

/// Only the keys: no value of a Secret leaves the model, not even `tls.crt`.
impl Serialize for SecretData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.keys.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
        Ok(read_map(deserializer, |_| false)?.0)
    }
}

impl<'de> Deserialize<'de> for ConfigMapData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConfigMapData, D::Error> {
        let is_corefile = |key: &str| key == "Corefile" || key.ends_with(".server") || key.ends_with(".override");
        let (keys, all) = read_map(deserializer, |_| true)?;
        let beside = |name: &str| all.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let of = |(key, value): (&String, &String)| {
            let addresses = if is_corefile(key) { Vec::new() } else { addresses_of(key, value, beside) };
            addresses.into_iter().map(|address| (key.clone(), address)).collect::<Vec<_>>()
        };
        let addresses = all.iter().flat_map(of).collect();
        let scripts = all.iter().filter_map(|(key, value)| Some((key.clone(), Shebang::find(value)?))).collect();
        let schedulers = all.values().flat_map(|value| scheduler_names(value)).collect();
        let values = all.into_iter().filter(|(key, value)| is_corefile(key) || is_server_block(value)).collect();
        Ok(ConfigMapData { keys: Some(keys), values, schedulers, addresses, scripts })
    }
}

/// Whether a value looks like a server block of CoreDNS: `corp.example:53 {`, and a plugin that answers queries.
fn is_server_block(value: &str) -> bool {
    const ANSWERING: [&str; 4] = ["forward", "hosts", "template", "kubernetes"];
    if value.len() > 64 * 1024 {
        return false;
    }
    let mut lines = value.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().is_some_and(|first| first.ends_with(" {"))
        && lines.any(|line| line.split(' ').next().is_some_and(|word| ANSWERING.contains(&word)))
}

fn scheduler_names(value: &str) -> Vec<String> {
    if !value.contains("KubeSchedulerConfiguration") {
        return Vec::new();
    }
    let names = value.lines().filter_map(|line| Some(line.split_once("schedulerName:")?.1));
    let names = names.map(|name| name.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']));
    names.filter(|name| !name.is_empty()).map(str::to_string).collect()
}

impl<'de> Deserialize<'de> for SecretData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretData, D::Error> {
        let (keys, mut values) = read_map(deserializer, |key| key == "tls.crt")?;
        Ok(SecretData { keys: Some(keys), tls_crt: values.remove("tls.crt") })
    }
}

/// Reads all keys of a map but only the wanted values; the others are skipped.
fn read_map<'de, D: Deserializer<'de>>(
    deserializer: D,
    wanted: fn(&str) -> bool,
) -> Result<(Keys, BTreeMap<String, String>), D::Error> {
    struct Map(fn(&str) -> bool);
    impl<'de> Visitor<'de> for Map {
        type Value = (Keys, BTreeMap<String, String>);

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a map of strings")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Default::default())
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(Default::default())
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_map(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut keys, mut values) = (Vec::new(), BTreeMap::new());
            while let Some(key) = map.next_key::<String>()? {
                if (self.0)(&key) {
                    values.insert(key.clone(), map.next_value::<Option<String>>()?.unwrap_or_default());
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
                keys.push(key);
            }
            keys.sort();
            Ok((Keys(keys), values))
        }
    }
    deserializer.deserialize_option(Map(wanted))
}

#[cfg(test)]
mod tests {
    use super::{ConfigMap, Secret};

    #[test]
    fn keeps_keys_and_no_secret_value() {
        let secret: Secret = serde_json::from_str(
            r#"{"metadata":{"name":"s"},"data":{"tls.key":"c2VjcmV0","tls.crt":"Y2VydA==","empty":null}}"#,
        )
        .unwrap();
        assert_eq!(secret.has_key("tls.key"), Some(true));
        assert_eq!(secret.has_key("other"), Some(false));
        assert!(!format!("{secret:?}").contains("c2VjcmV0"));
        assert_eq!(secret.data.tls_crt.as_deref(), Some("Y2VydA=="));
    }

    #[test]
    fn keeps_of_a_config_map_the_addresses_and_no_other_value() {
        let map: ConfigMap = serde_json::from_str(
            r#"{"metadata":{"name":"c"},"data":{"DB_HOST":"db","DB_PORT":"5432","URL":"http://u:secret@api/v1","x":"y"}}"#,
        )
        .unwrap();
        let addresses: Vec<String> = map.data.addresses.iter().map(|(key, a)| format!("{key} {a}")).collect();
        assert_eq!(addresses, ["DB_HOST db:5432", "URL api:80"]);
        assert!(!format!("{map:?}").contains("secret"));
    }

    #[test]
    fn keeps_of_a_script_only_its_interpreter() {
        let map: ConfigMap = serde_json::from_str(
            r##"{"metadata":{"name":"c"},"data":{"a":"#!/bin/sh\nx","b":"\n#!/bin/bash -e\n","c":"#!/bin/sh\r\n","d":"x","e":"\ufeff#!/bin/sh"}}"##,
        )
        .unwrap();
        let of = |key: &str| map.shebang(key).map(|s| (s.interpreter.as_str(), s.line, s.is_first()));
        assert_eq!(of("a"), Some(("/bin/sh", 1, true)));
        assert_eq!(of("b"), Some(("/bin/bash", 2, false)));
        assert!(map.shebang("c").unwrap().has_carriage_return);
        assert_eq!(of("d"), None);
        assert_eq!(of("e"), Some(("/bin/sh", 1, false)));
    }

    #[test]
    fn keeps_server_blocks_and_names_of_schedulers() {
        let map: ConfigMap = serde_json::from_value(serde_json::json!({"metadata": {"name": "c"}, "data": {
            "corp.conf": "# x\ncorp.example:53 {\n  forward . 10.0.0.1\n}\n",
            "nginx.conf": "server {\n  listen 80;\n}\n",
            "s.yaml": "kind: KubeSchedulerConfiguration\nprofiles:\n- schedulerName: gang\n",
        }}))
        .unwrap();
        assert_eq!(map.data.values.keys().collect::<Vec<_>>(), ["corp.conf"]);
        assert_eq!(map.data.schedulers, ["gang"]);
    }

    #[test]
    fn knows_when_the_data_was_written() {
        let secret: Secret = serde_json::from_value(serde_json::json!({"metadata": {"name": "s", "managedFields": [
            {"time": "2026-11-21T10:00:00Z", "fieldsV1": {"f:data": {".": {}}}},
            {"time": "2026-11-21T11:00:00Z", "fieldsV1": {"f:metadata": {}}}, {"time": null, "fieldsV1": null}]}}))
        .unwrap();
        assert_eq!(secret.metadata.data_written.0.unwrap().to_string(), "2026-11-21T10:00:00Z");
    }

    #[test]
    fn keys_are_unknown_until_read_in_full() {
        let mut map: ConfigMap = serde_json::from_str(r#"{"metadata":{"name":"c"},"data":null}"#).unwrap();
        assert_eq!(map.has_key("a"), None);
        map.read_whole();
        assert_eq!(map.has_key("a"), Some(false));
    }
}
