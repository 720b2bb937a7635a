//! Removes secrets from objects for a snapshot, without removing anything that rules read.
//!
//! Removed values are replaced by [`REMOVED`], to distinguish them from empty ones. Removed are values of Secrets
//! (except certificates, which are public) and of ConfigMaps (except the configuration of cluster DNS), plain-text
//! values whose name suggests a credential, such as `DB_PASSWORD` or `--api-token`, and passwords in URLs.

use kubectl_gpt_analyzers::kubernetes::certificate::{self, Unreadable};
use kubectl_gpt_analyzers::text::address::{Address, addresses_of};
use serde_json::{Map, Value};

/// Replaces a removed value.
pub const REMOVED: &str = "removed by kubectl-gpt";
/// The same, base64-encoded for `data` of a Secret.
const REMOVED_BASE64: &str = "cmVtb3ZlZCBieSBrdWJlY3RsLWdwdA==";
/// Replaces user and password in a URL, where the marker itself would be parsed as a host.
const REMOVED_USER: &str = "removed";
/// Bookkeeping of clients: large, and full of old values.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Fields whose values select pods or nodes and are not secret.
const SELECTORS: [&str; 5] = ["labels", "matchLabels", "matchExpressions", "selector", "nodeSelector"];

/// See the module documentation.
pub(super) fn redact(object: &mut Map<String, Value>) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
            for (name, value) in annotations.iter_mut().filter(|(name, _)| is_credential(name)) {
                tracing::trace!("annotation {name} removed");
                *value = REMOVED.into();
            }
        }
    }
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "Secret") => redact_secret(object),
        ("v1", "ConfigMap") => redact_config_map(object),
        // Rules never read schemas, which make up most of the object.
        (_, "CustomResourceDefinition") => remove_schemas(object),
        _ => object.iter_mut().filter(|(field, _)| *field != "metadata").for_each(|(_, value)| walk(value)),
    }
}

fn redact_secret(secret: &mut Map<String, Value>) {
    if let Some(Value::Object(data)) = secret.get_mut("data") {
        for (key, value) in data {
            *value = match value.as_str().filter(|_| key == "tls.crt") {
                Some(certificate) => public(certificate).into(),
                None => REMOVED_BASE64.into(),
            };
        }
    }
    if let Some(Value::Object(data)) = secret.get_mut("stringData") {
        data.iter_mut().for_each(|(_, value)| *value = REMOVED.into());
    }
}

/// The certificates in a base64-encoded PEM file, without private keys in it. Anything else is replaced by a
/// placeholder of the same type.
fn public(base64: &str) -> String {
    match certificate::from_base64(base64) {
        Ok(_) | Err(Unreadable::Damaged) => encode_base64(&certificates(base64)),
        // A certificate in DER format.
        Err(Unreadable::Der) => base64.to_string(),
        Err(Unreadable::PrivateKey) => encode_base64("-----BEGIN PRIVATE KEY-----"),
        Err(Unreadable::EncodedTwice) => encode_base64("LS0tLS1CRUdJT"),
        Err(Unreadable::OtherText) => encode_base64("no certificate"),
        Err(Unreadable::Empty) if base64.is_empty() => String::new(),
        Err(Unreadable::Empty) => REMOVED_BASE64.to_string(),
    }
}

fn certificates(base64: &str) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let pem = certificate::decode(base64).unwrap_or_default();
    let pem = String::from_utf8_lossy(&pem);
    let blocks = pem.split(BEGIN).skip(1).map(|block| match block.split_once(END) {
        Some((certificate, _)) => format!("{BEGIN}{certificate}{END}\n"),
        None => format!("{BEGIN}\n"),
    });
    blocks.collect()
}

fn encode_base64(text: &str) -> String {
    certificate::encode(text.as_bytes())
}

/// Rules read the keys of ConfigMaps, the configuration of cluster DNS, and addresses in values.
fn redact_config_map(config_map: &mut Map<String, Value>) {
    let is_dns = |key: &str| key == "Corefile" || key.ends_with(".server") || key.ends_with(".override");
    if let Some(Value::Object(data)) = config_map.get_mut("data") {
        let whole = data.clone();
        let beside = |name: &str| whole.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1.as_str();
        for (key, value) in data.iter_mut().filter(|(key, _)| !is_dns(key)) {
            let text = value.as_str().filter(|_| !is_credential(key)).unwrap_or_default();
            *value = only_addresses(&addresses_of(key, text, beside)).into();
        }
    }
    if let Some(Value::Object(data)) = config_map.get_mut("binaryData") {
        data.iter_mut().for_each(|(_, value)| *value = REMOVED_BASE64.into());
    }
}

/// A text that contains these addresses and nothing else.
fn only_addresses(addresses: &[Address]) -> String {
    let words = addresses.iter().map(|address| match address.port {
        Some(_) => address.to_string(),
        None => format!("address://{address}"),
    });
    std::iter::once(REMOVED.to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

fn remove_schemas(definition: &mut Map<String, Value>) {
    let versions = definition.get_mut("spec").and_then(|spec| spec.get_mut("versions")).and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten().filter_map(Value::as_object_mut) {
        version.remove("schema");
    }
    if let Some(Value::Object(spec)) = definition.get_mut("spec") {
        spec.remove("validation");
    }
}

fn walk(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match (name.as_str(), value) {
                    (name, _) if SELECTORS.contains(&name) => {}
                    ("env", Value::Array(variables)) => variables.iter_mut().for_each(redact_variable),
                    ("args" | "command", Value::Array(words)) => redact_arguments(words),
                    (name, Value::String(text)) => {
                        if is_secret_field(name) && !text.is_empty() {
                            *text = REMOVED.to_string();
                        } else if let Some(scrubbed) = scrub_addresses(text) {
                            *text = scrubbed;
                        }
                    }
                    (_, value) => walk(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::String(text) => {
            if let Some(scrubbed) = scrub_addresses(text) {
                *text = scrubbed;
            }
        }
        _ => {}
    }
}

fn redact_variable(variable: &mut Value) {
    let is_credential = variable["name"].as_str().is_some_and(is_credential);
    if let Some(Value::String(value)) = variable.get_mut("value") {
        if is_credential && !value.is_empty() {
            *value = REMOVED.to_string();
        } else {
            *value = scrub(value);
        }
    }
}

/// Handles `--password=x`, `--password x`, and scripts that contain `PASSWORD=x`.
fn redact_arguments(words: &mut [Value]) {
    let mut follows = false;
    for word in words {
        let Value::String(text) = word else { continue };
        let is_flag = text.starts_with('-');
        if follows && !is_flag {
            *text = REMOVED.to_string();
            follows = false;
            continue;
        }
        follows = is_flag && !text.contains('=') && is_credential(text);
        *text = scrub(text);
    }
}

/// Whether the name of a variable, flag or annotation suggests a credential. False positives are acceptable.
fn is_credential(name: &str) -> bool {
    const ANYWHERE: [&str; 8] =
        ["PASSWORD", "PASSWD", "PASSPHRASE", "TOKEN", "SECRET", "CREDENTIAL", "APIKEY", "CONNECTIONSTRING"];
    const WORDS: [&str; 6] = ["PASS", "PWD", "DSN", "AUTH", "PAT", "CREDS"];
    let upper = name.to_uppercase();
    let is_key = |word: &str| word.trim_end_matches(|c: char| c.is_ascii_digit() || c == 'S').ends_with("KEY");
    let squeezed: String = upper.chars().filter(char::is_ascii_alphanumeric).collect();
    ANYWHERE.iter().any(|part| squeezed.contains(part))
        || upper.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word) || is_key(word))
}

/// Whether a field with this name contains a secret itself. Most only reference one: `secretName`, `tokenSecretRef`.
fn is_secret_field(name: &str) -> bool {
    const ENDS: [&str; 10] = [
        "password",
        "passwd",
        "passphrase",
        "token",
        "credential",
        "credentials",
        "apikey",
        "accesskey",
        "secretkey",
        "privatekey",
    ];
    const WHOLE: [&str; 3] = ["dsn", "secret", "connectionstring"];
    let name = name.to_lowercase().replace(['_', '-'], "");
    ENDS.iter().any(|end| name.ends_with(end)) || WHOLE.contains(&name.as_str())
}

/// Removes values after names that suggest a credential (`token=x`, `Authorization: Bearer x`) and passwords in URLs.
pub(super) fn scrub(text: &str) -> String {
    let mut scrubbed = String::with_capacity(text.len());
    let mut follows = false;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        let space = &word[bare.len()..];
        if follows && !bare.is_empty() {
            scrubbed.push_str(REMOVED);
            follows = false;
        } else if let Some(at) = bare.find(['=', ':']).filter(|at| is_value(bare, *at)) {
            scrubbed.push_str(&bare[..=at]);
            scrubbed.push_str(REMOVED);
        } else {
            follows = bare.eq_ignore_ascii_case("bearer") || (bare.starts_with("--") && is_credential(bare));
            scrubbed.push_str(&scrub_addresses(bare).unwrap_or_else(|| bare.to_string()));
        }
        scrubbed.push_str(space);
    }
    scrubbed
}

/// Whether `word` is a name that suggests a credential, a separator at `at`, and a value.
fn is_value(word: &str, at: usize) -> bool {
    let (name, value) = (&word[..at], &word[at + 1..]);
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.\"'{[(,".contains(c));
    is_name && is_credential(name) && !value.trim_matches(['"', '\'', ',', ';']).is_empty() && !value.starts_with("//")
}

/// Removes user and password: `postgres://removed@db:5432/shop`. `None` if there are none.
fn scrub_addresses(text: &str) -> Option<String> {
    let (mut scrubbed, mut rest, mut found) = (String::new(), text, false);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        scrubbed.push_str(before);
        let end = after.find(|c: char| c == '/' || c == '?' || c == '"' || c.is_whitespace()).unwrap_or(after.len());
        let host = after[..end].rfind('@').filter(|user| after[..*user].contains(':'));
        if let Some(user) = host {
            scrubbed.push_str(REMOVED_USER);
            found = true;
            rest = &after[user..];
        } else {
            rest = after;
        }
    }
    scrubbed.push_str(rest);
    found.then_some(scrubbed)
}

#[cfg(test)]
mod tests {
    use kubectl_gpt_analyzers::snapshot::model::ConfigMap;
    use serde_json::{Value, json};

    use super::{REMOVED, certificate, encode_base64, is_credential, is_secret_field, redact, scrub};

    fn redacted(mut object: Value) -> Value {
        redact(object.as_object_mut().unwrap());
        object
    }

    #[test]
    fn credential_names() {
        let credentials = [
            "PASSWORD",
            "DB_PASSWORD",
            "db-passwd",
            "API_TOKEN",
            "CLIENT_SECRET",
            "AWS_ACCESS_KEY_ID",
            "API_KEY",
            "APIKEY",
            "SSH_KEYS",
            "SENTRY_DSN",
            "GOOGLE_CREDENTIALS",
            "MYSQL_PWD",
            "githubToken",
            "KEY",
            "--api-key",
            "KEY2",
        ];
        for name in credentials {
            assert!(is_credential(name), "{name}");
        }
        for name in ["KEYCLOAK_URL", "MONKEYPATCH", "DB_HOST", "PATH", "COMPASS_DIR", "TOPOLOGY"] {
            assert!(!is_credential(name), "{name}");
        }
        assert!(is_secret_field("adminPassword") && is_secret_field("secret") && is_secret_field("api_key"));
        for name in ["secretName", "passwordSecretRef", "topologyKey", "key", "tokenPath"] {
            assert!(!is_secret_field(name), "{name}");
        }
    }

    #[test]
    fn secrets_keep_keys_and_certificates() {
        let pem = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n";
        let both = format!("-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n{pem}");
        let secret = |certificate: &str| {
            let data = json!({"tls.key": "aHVzaA==", "tls.crt": encode_base64(certificate)});
            let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": "hush", "note": "n"});
            redacted(json!({"apiVersion": "v1", "kind": "Secret", "data": data, "stringData": {"a": "hush"},
                "metadata": {"name": "s", "annotations": annotations, "managedFields": [{"manager": "hush"}]}}))
        };
        let kept = |certificate: &str| {
            let secret = secret(certificate);
            String::from_utf8(certificate::decode(secret["data"]["tls.crt"].as_str().unwrap()).unwrap()).unwrap()
        };
        assert_eq!(kept(pem), pem);
        assert_eq!(kept(&both), pem);
        // An invalid certificate stays invalid in the same way.
        for wrong in [pem, "hush", "-----BEGIN PRIVATE KEY-----\nhush", &encode_base64(&both), "", "<redacted>"] {
            let before = certificate::from_base64(&encode_base64(wrong)).unwrap_err();
            assert_eq!(certificate::from_base64(&encode_base64(&kept(wrong))).unwrap_err(), before, "{wrong}");
            assert!(!kept(wrong).contains("hush"), "{wrong}");
        }
        let text = secret(&both).to_string();
        assert!(!text.contains("hush") && !text.contains("aHVzaA") && text.contains("tls.key"), "{text}");
        assert!(text.contains("note"), "{text}");
    }

    #[test]
    fn config_maps_keep_keys_addresses_and_corefile() {
        let data = json!({"app": "hush", "Corefile": ".:53 {}", "DB_HOST": "db", "DB_PORT": "5432", "API_TOKEN": "hush:1",
            "app.yaml": "password: hush\nurl: redis://u:hush@cache/0\nother: custom://x"});
        let before: ConfigMap = serde_json::from_value(json!({"data": data})).unwrap();
        let map = redacted(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data}));
        assert!(!map.to_string().contains("hush"), "{map}");
        assert_eq!(map["data"]["app"], REMOVED);
        assert_eq!(map["data"]["Corefile"], ".:53 {}");
        let after: ConfigMap = serde_json::from_value(map).unwrap();
        assert_eq!(after.data.keys, before.data.keys);
        // Except the one whose name suggests a credential.
        assert_eq!(before.data.addresses[0].0, "API_TOKEN");
        assert_eq!(after.data.addresses, before.data.addresses[1..]);
    }

    #[test]
    fn pods_keep_what_rules_read() {
        let pod = redacted(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"token": "stays"}},
            "spec": {"nodeSelector": {"secret": "stays"}, "containers": [{
                "args": ["--token", "hush", "--password=hush", "--host=db", "redis://u:hush@db:6379"],
                "env": [{"name": "DB_PASSWORD", "value": "hush"}, {"name": "DB_HOST", "value": "db.data"},
                    {"name": "URL", "value": "postgres://u:hush@db.data:5432/x"},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}}));
        let text = pod.to_string();
        assert!(!text.contains("hush"), "{text}");
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["args"][3], "--host=db");
        assert_eq!(container["env"][1]["value"], "db.data");
        assert!(container["env"][2]["value"].as_str().unwrap().ends_with("@db.data:5432/x"));
        assert_eq!(container["env"][3]["valueFrom"]["secretKeyRef"]["key"], "k");
        assert_eq!(text.matches("stays").count(), 2);
    }

    #[test]
    fn custom_resources_lose_secret_fields() {
        let cluster = redacted(json!({"apiVersion": "db.io/v1", "kind": "Cluster",
            "spec": {"adminPassword": "hush", "secretName": "stays", "nested": [{"apiKey": "hush"}]}}));
        assert!(!cluster.to_string().contains("hush"), "{cluster}");
        assert_eq!(cluster["spec"]["secretName"], "stays");
    }

    #[test]
    fn logs() {
        for (text, expected) in [
            ("connecting to postgres://u:hush@db:5432/x failed", "connecting to postgres://removed@db:5432/x failed"),
            ("password=hush user=a", "password=removed by kubectl-gpt user=a"),
            ("Authorization: Bearer hush", "Authorization: Bearer removed by kubectl-gpt"),
            (
                "User \"a\" cannot list resource \"secrets\" in API group \"\"",
                "User \"a\" cannot list resource \"secrets\" in API group \"\"",
            ),
            ("lookup db.data: no such host", "lookup db.data: no such host"),
            ("http://cart:8080/health: 500", "http://cart:8080/health: 500"),
        ] {
            assert_eq!(scrub(text), expected);
        }
    }
}
