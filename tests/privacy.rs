//! Requests to a language model contain no names, hosts or addresses of the cluster, and no secrets from logs: for all
//! recorded clusters, in all requests, and for all objects that `ask` can show.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kubectl_gpt::collect::files;
use kubectl_gpt::explain::mask::Masker;
use kubectl_gpt::explain::prompt::{self, Prompts};
use kubectl_gpt::explain::provider::ModelArgs;
use kubectl_gpt::explain::provider::{Configured, Settings};
use kubectl_gpt::explain::{masker, prepare};
use kubectl_gpt::problems::problems;
use kubectl_gpt_analyzers::engine::analyze;
use kubectl_gpt_analyzers::{Cluster, Kind, ObjectRef, rules};
use regex::Regex;
use serde_json::Value;

fn clusters() -> Vec<PathBuf> {
    let folders =
        ["tests/scenarios", "tests/realworld"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    assert!(paths.len() >= 25, "{paths:?}");
    paths
}

fn read(path: &Path) -> Cluster {
    let input = files::read(&[path.to_path_buf()]).unwrap();
    input.builder.build(input.now, input.origin)
}

fn settings() -> Settings {
    let arguments = ModelArgs {
        base_url: Some("https://llm.example.com/v1".into()),
        model: Some("test".into()),
        max_requests: Some(1000),
        ..ModelArgs::default()
    };
    Settings::new(&arguments, &Configured::default(), false, |_| None).unwrap()
}

/// The facts in all requests for a cluster; the rest of a request is the program's own text.
fn told(cluster: &Cluster, masker: &Masker) -> Vec<Value> {
    let settings = settings();
    let rules = rules::all();
    let analysis = analyze(cluster, &rules);
    let prompts = Prompts::new(None).unwrap();
    let problems = problems(&analysis.findings);
    let requests = prepare(&settings, &prompts, cluster, &problems, masker).unwrap();
    requests.iter().map(|prepared| facts(&prepared.request)).collect()
}

fn facts(request: &Value) -> Value {
    let user = request["messages"][1]["content"].as_str().unwrap();
    let (_, data) = user.split_once("<cluster-data ").unwrap();
    let (_, data) = data.split_once(">\n").unwrap();
    let (data, _) = data.rsplit_once("</cluster-data ").unwrap();
    serde_json::from_str(data).unwrap()
}

/// Terms of the vocabulary that contain punctuation: their parts are not names.
fn compounds() -> Vec<String> {
    let text = std::fs::read_to_string("src/explain/vocabulary/kubernetes.txt").unwrap();
    let names = std::fs::read_to_string("src/explain/vocabulary/names.txt").unwrap();
    let all = text.split_whitespace().chain(names.split_whitespace());
    let mut compounds: Vec<String> =
        all.filter(|term| term.contains(['.', '/', '-', ':'])).map(str::to_string).collect();
    compounds.sort_by_key(|term| std::cmp::Reverse(term.len()));
    compounds
}

fn public() -> BTreeSet<String> {
    let names = std::fs::read_to_string("src/explain/vocabulary/names.txt").unwrap();
    names.split_whitespace().map(str::to_string).collect()
}

/// The names, hosts and addresses in the raw recording.
#[derive(Default)]
struct Identifying {
    /// By name, with the source of the name.
    names: BTreeMap<String, String>,
}

impl Identifying {
    fn of(cluster: &Cluster) -> Identifying {
        let mut found = Identifying::default();
        let public = public();
        cluster.objects().each(&mut |kind, namespace, name, _, labels| {
            found.add(namespace, "a namespace");
            found.add(name, "a name");
            for (_, value) in labels.pairs() {
                found.add(value, "a label's value");
            }
            if let Some(json) = cluster.objects().json(kind, namespace, name) {
                found.walk(&json, "");
            }
        });
        // Numbers and names that every cluster has are not masked. One-letter names reveal nothing, and `a` is an
        // article.
        let is_number = |name: &str| !name.trim_start_matches('v').contains(|c: char| c.is_alphabetic());
        let is_term = |name: &str| name.starts_with(|c: char| c.is_ascii_uppercase()) && terms().contains(name);
        found.names.retain(|name, _| !is_number(name) && !public.contains(name) && !is_term(name) && name != "a");
        found
    }

    fn add(&mut self, name: &str, what: &str) {
        if !name.is_empty() {
            self.names.entry(name.to_string()).or_insert_with(|| what.to_string());
        }
    }

    fn walk(&mut self, value: &Value, field: &str) {
        match value {
            Value::String(text) => match field {
                "image" => {
                    let repository = text.split('@').next().unwrap().rsplit_once(':').map_or(text.as_str(), |(r, _)| r);
                    self.add(repository, "an image");
                }
                "nodeName" | "host" | "hostname" | "externalName" | "serviceName" | "claimName" | "volumeName" => {
                    self.add(text, field)
                }
                _ => {}
            },
            Value::Array(items) => items.iter().for_each(|item| self.walk(item, field)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    if matches!(name.as_str(), "containers" | "initContainers") {
                        for container in value.as_array().into_iter().flatten() {
                            self.add(container["name"].as_str().unwrap_or_default(), "a container");
                        }
                    }
                    self.walk(value, name);
                }
            }
            _ => {}
        }
    }
}

fn terms() -> BTreeSet<String> {
    let text = std::fs::read_to_string("src/explain/vocabulary/kubernetes.txt").unwrap();
    text.split_whitespace().map(str::to_string).collect()
}

/// The strings of a JSON value, without field names.
fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// The identifying data of a cluster that is readable in a text.
fn leaks(text: &str, identifying: &Identifying, compounds: &[String]) -> Vec<String> {
    let mut rest = text.to_string();
    for compound in compounds.iter().filter(|_| text.contains(['.', '/', '-', ':'])) {
        if rest.contains(compound.as_str()) {
            rest = rest.replace(compound.as_str(), " ");
        }
    }
    let is_part = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let tokens = rest.split(|c: char| !is_part(c)).flat_map(|token| {
        let trimmed = token.trim_matches(['.', '-']);
        std::iter::once(trimmed).chain(trimmed.split('.'))
    });
    let mut leaks: Vec<String> =
        tokens.filter(|token| identifying.names.contains_key(*token)).map(str::to_string).collect();
    if rest.contains(['/', ':']) {
        let long = identifying.names.keys().filter(|name| name.contains(['/', ':']) && rest.contains(name.as_str()));
        leaks.extend(long.cloned());
    }
    static ADDRESS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(?:\d{1,3}\.){3}\d{1,3}\b").unwrap());
    let everybodys = ["127.0.0.1", "0.0.0.0", "127.0.0.0", "169.254.169.254"];
    leaks.extend(
        ADDRESS.find_iter(&rest).map(|found| found.as_str().to_string()).filter(|a| !everybodys.contains(&a.as_str())),
    );
    leaks
}

#[test]
fn requests_contain_no_names() {
    let compounds = compounds();
    let mut requests = 0;
    for path in clusters() {
        let cluster = read(&path);
        let masker = masker(&settings(), &cluster, None);
        let identifying = Identifying::of(&cluster);
        for facts in told(&cluster, &masker) {
            requests += 1;
            let mut found = Vec::new();
            texts(&facts, &mut found);
            for text in found {
                let leaks = leaks(text, &identifying, &compounds);
                assert!(leaks.is_empty(), "{}: {leaks:?} in {text}", path.display());
                assert_eq!(masker.mask(&masker.restore(text)).len(), text.len(), "{text}");
            }
        }
    }
    assert!(requests >= 20, "{requests}");
}

/// Also for objects without findings: `ask` can show every object.
#[test]
fn objects_are_masked() {
    let compounds = compounds();
    let mut objects = 0;
    for path in clusters() {
        let cluster = read(&path);
        let masker = masker(&settings(), &cluster, None);
        let identifying = Identifying::of(&cluster);
        let mut seen: BTreeMap<Kind, usize> = BTreeMap::new();
        let mut chosen = Vec::new();
        cluster.objects().each(&mut |kind, namespace, name, _, _| {
            // A sample, if there are many of a kind.
            let n = seen.entry(kind).or_default();
            *n += 1;
            if *n <= 3 {
                chosen.push(ObjectRef::new(kind, namespace, name));
            }
        });
        for object in chosen {
            let json = prompt::object(&cluster, &object, &masker).unwrap();
            objects += 1;
            let mut found = Vec::new();
            texts(&json, &mut found);
            for text in found {
                let leaks = leaks(text, &identifying, &compounds);
                assert!(leaks.is_empty(), "{}: {object}: {leaks:?} in {text}", path.display());
            }
        }
    }
    assert!(objects >= 500, "{objects}");
}

/// Secrets as they appear in logs, settings and messages, each with the part that must be masked.
const CANARIES: &[(&str, &str)] = &[
    ("using key AKIAIOSFODNN7CANARY", "AKIAIOSFODNN7CANARY"),
    ("token ghp_16C7e42F292c6912E7710c838347Ae17canary", "ghp_16C7e42F"),
    ("password=hunter", "hunter"),
    ("PGPASSWORD: correct", "correct"),
    ("{\"client_secret\":\"the\"}", "\"the\""),
    ("Authorization: Bearer abc.def-canary", "abc.def"),
    ("Authorization: Basic dXNlcjpwYXNzd29yZC1jYW5hcnk=", "dXNlcjpwYXNz"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl", "eyJzdWIi"),
    ("connecting to postgres://app:Pa55-canary@db.corp.example:5432/orders?sslmode=off", "canary"),
    ("Server=db.corp.example;User Id=sa;Password=Sup3r-canary;", "Sup3r"),
    ("mongodb+srv://u:p@cluster0.corp.example/x", "corp"),
    ("mail from jane.canary@corp.example refused", "jane"),
    ("lookup vault.corp.example: no such host", "vault"),
    ("open /srv/canary/tenant: permission denied", "/srv"),
    ("dial tcp 203.0.113.77:443: i/o timeout", "203.0.113"),
    ("dial tcp [2001:db8::77]:443: i/o timeout", "2001:db8"),
    ("-----BEGIN PRIVATE KEY-----\\nMIIEcanary\\n-----END PRIVATE KEY-----", "MIIE"),
    ("AccountKey=Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Cg==;EndpointSuffix=x", "Y2FuYXJ5"),
    ("customer 4111-1111-1111-1111 called +49 170 1234567890", "4111-1111"),
    ("order of Erika Mustermann failed", "Mustermann"),
    ("tenant ACME_CANARY is over its limit", "ACME"),
    ("see https://hooks.corp.example/services/T000/B000/XXXX", "T000"),
    ("arn:aws:iam::123456789012:role/canary-role", "123456789012"),
    ("uid 9f1c2d3e-4b5a-4c6d-8e7f-0a1b2c3d4e5f", "9f1c2d3e"),
    ("xoxb-canary-123456789012-abcdefghijkl", "xoxb"),
];

/// A recorded cluster with a secret in every free-text field.
fn planted(canary: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string("tests/scenarios/crash-loop/cluster.json").unwrap();
    let mut list: Value = serde_json::from_str(&text).unwrap();
    for item in list["items"].as_array_mut().unwrap() {
        plant(item, canary);
    }
    std::fs::write(folder.path().join("cluster.json"), list.to_string()).unwrap();
    let logs = folder.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    for entry in std::fs::read_dir("tests/scenarios/crash-loop/logs").unwrap() {
        std::fs::write(logs.join(entry.unwrap().file_name()), format!("error: {canary}\n")).unwrap();
    }
    folder
}

fn plant(item: &mut Value, canary: &str) {
    item["metadata"]["annotations"]["example.com/note"] = canary.into();
    if item["kind"] == "Event" {
        item["message"] = format!("Back-off restarting failed container: {canary}").into();
    }
    for containers in ["/spec/containers", "/spec/template/spec/containers"] {
        for container in item.pointer_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            container["env"] = serde_json::json!([{"name": "CANARY", "value": canary}]);
            container["args"] = serde_json::json!(["sh", "-c", canary]);
        }
    }
    for conditions in ["/status/conditions", "/status/containerStatuses"] {
        for status in item.pointer_mut(conditions).and_then(Value::as_array_mut).into_iter().flatten() {
            if status.get("message").is_some() {
                status["message"] = canary.into();
            }
            for state in ["/state/terminated/message", "/lastState/terminated/message", "/state/waiting/message"] {
                if let Some(message) = status.pointer_mut(state) {
                    *message = canary.into();
                }
            }
        }
    }
}

#[test]
fn requests_contain_no_secrets() {
    for (canary, secret) in CANARIES {
        let folder = planted(canary);
        let cluster = read(folder.path());
        let masker = masker(&settings(), &cluster, None);
        let told = told(&cluster, &masker);
        assert!(!told.is_empty());
        let mut shown = told.iter().map(Value::to_string).collect::<String>();
        cluster.objects().each(&mut |kind, namespace, name, _, _| {
            let object = ObjectRef::new(kind, namespace, name);
            if namespace == "crash-loop" {
                shown += &prompt::object(&cluster, &object, &masker).unwrap_or_default().to_string();
            }
        });
        let logged = cluster.objects().len() > 100 && shown.contains("\"logs\"");
        assert!(logged, "the log is included");
        assert!(!shown.replace("\\\"", "\"").contains(secret), "{secret} of {canary} in {shown}");
    }
}

/// Placeholders are stable across runs on one cluster, so that answers can be cached, and differ between clusters.
#[test]
fn placeholders_depend_on_the_cluster() {
    let path = Path::new("tests/scenarios/crash-loop");
    let told_once: Vec<Value> = {
        let cluster = read(path);
        told(&cluster, &masker(&settings(), &cluster, None))
    };
    let cluster = read(path);
    assert_eq!(told(&cluster, &masker(&settings(), &cluster, Some("another-context"))), told_once);
    let other = read(Path::new("tests/realworld/guestbook"));
    let of_other = masker(&settings(), &other, None).mask("worker-under-test");
    assert_ne!(masker(&settings(), &cluster, None).mask("worker-under-test"), of_other);
}
