//! Builds the prompts: templates, and facts about the cluster, masked and fenced.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{Cluster, Finding, Kind, ObjectRef, Rule};
use minijinja::{Environment, UndefinedBehavior, context};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::entity::EntityKind;
use super::mask::Masker;
use crate::problems::Problem;

/// The built-in templates.
const TEMPLATES: &[(&str, &str)] = &[
    ("explain.system.txt", include_str!("../../prompts/explain.system.txt")),
    ("explain.user.md", include_str!("../../prompts/explain.user.md")),
    ("ask.system.txt", include_str!("../../prompts/ask.system.txt")),
    ("ask.user.md", include_str!("../../prompts/ask.user.md")),
];

/// Limits on each part of the facts; models attend best to the beginning.
const MAX_CONSEQUENCES: usize = 10;
const MAX_EVIDENCE: usize = 12;
const MAX_OBJECTS: usize = 4;
const MAX_EVENTS: usize = 6;
const MAX_LOG_LINES: usize = 20;
const MAX_TEXT_LENGTH: usize = 500;
const MAX_OBJECT_BYTES: usize = 6_000;

/// The templates, built-in or custom.
pub struct Prompts {
    environment: Environment<'static>,
}

impl Prompts {
    /// # Errors
    /// When a custom template cannot be read or is invalid.
    pub fn new(folder: Option<&Path>) -> Result<Prompts> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        if let Some(folder) = folder
            && !TEMPLATES.iter().any(|(name, _)| folder.join(name).is_file())
        {
            let names: Vec<&str> = TEMPLATES.iter().map(|(name, _)| *name).collect();
            return Err(anyhow!(
                "--prompts {}: directory must contain at least one of {}",
                folder.display(),
                words::list(&names, 9)
            ));
        }
        for (name, included) in TEMPLATES {
            let own: Option<PathBuf> = folder.map(|folder| folder.join(name)).filter(|path| path.is_file());
            let text = match &own {
                Some(path) => fs::read_to_string(path).with_context(|| format!("reading prompt {}", path.display()))?,
                None => included.to_string(),
            };
            let what = || own.as_ref().map_or(name.to_string(), |path| path.display().to_string());
            environment.add_template_owned(*name, text).with_context(|| format!("in prompt {}", what()))?;
        }
        Ok(Prompts { environment })
    }

    /// The messages to explain one problem.
    ///
    /// # Errors
    /// When a custom template uses an undefined variable.
    pub fn explain(&self, rule: Option<&dyn Rule>, facts: &Value, language: Option<&str>) -> Result<Vec<Value>> {
        let language = language.unwrap_or("English");
        let rule = rule.map(|rule| {
            let meta = rule.meta();
            context! { summary => meta.summary.to_string(), page => meta.page() }
        });
        let (fence, facts) = fenced(facts);
        let system = self.render("explain.system.txt", context! { language })?;
        let user = self.render("explain.user.md", context! { rule, fence, facts })?;
        Ok(vec![json!({"role": "system", "content": system}), json!({"role": "user", "content": user})])
    }

    /// The initial messages of a conversation. The question is already masked.
    ///
    /// # Errors
    /// When a custom template uses an undefined variable.
    pub fn ask(&self, question: &str, facts: &Value, tools: bool, language: Option<&str>) -> Result<Vec<Value>> {
        let language = language.unwrap_or("the language of the question");
        let (fence, facts) = fenced(facts);
        let system = self.render("ask.system.txt", context! { language, tools })?;
        let user = self.render("ask.user.md", context! { question, fence, facts })?;
        Ok(vec![json!({"role": "system", "content": system}), json!({"role": "user", "content": user})])
    }

    fn render(&self, name: &str, values: minijinja::Value) -> Result<String> {
        let template = self.environment.get_template(name)?;
        let text = template.render(values).with_context(|| format!("in prompt {name}"))?;
        Ok(text.trim().to_string())
    }
}

/// The facts as text, and the number of their fence: a hash of the text, so that no text can contain its own.
fn fenced(facts: &Value) -> (String, String) {
    let text = format!("{facts:#}");
    let digest = Sha256::digest(&text);
    let fence: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    (fence, text)
}

/// The facts about a problem, masked.
pub fn facts(cluster: &Cluster, problem: &Problem, masker: &Masker) -> Value {
    let consequences: Vec<Value> = problem
        .consequences
        .iter()
        .take(MAX_CONSEQUENCES)
        .map(|(distance, finding)| {
            let message = masker.mask(&words::shorten(&finding.message, MAX_TEXT_LENGTH));
            json!({"distance": distance, "object": named(&finding.object, masker), "severity": finding.severity, "message": message})
        })
        .collect();
    let objects = relevant(cluster, problem.root);
    let mut facts = Map::new();
    facts.insert("finding".to_string(), finding(problem.root, masker));
    facts.insert("consequences".to_string(), consequences.into());
    if problem.consequences.len() > MAX_CONSEQUENCES {
        facts.insert("more consequences".to_string(), (problem.consequences.len() - MAX_CONSEQUENCES).into());
    }
    let shown: Vec<Value> = objects.iter().take(MAX_OBJECTS).filter_map(|of| object(cluster, of, masker)).collect();
    facts.insert("objects".to_string(), shown.into());
    facts.insert("events".to_string(), events(cluster, &objects, masker).into());
    facts.insert("logs".to_string(), logs(cluster, &objects, masker).into());
    if let Some(version) = cluster.server_version() {
        facts.insert("Kubernetes".to_string(), masker.mask(version).into());
    }
    facts.retain(|_, value| value.as_array().is_none_or(|items| !items.is_empty()));
    Value::Object(facts)
}

/// A finding, without machine-only fields.
pub fn finding(finding: &Finding, masker: &Masker) -> Value {
    let text = |text: &str| masker.mask(&words::shorten(text, MAX_TEXT_LENGTH));
    let evidence = finding.evidence.iter().take(MAX_EVIDENCE).map(|evidence| {
        let mut fact = Map::new();
        fact.insert("text".to_string(), text(&evidence.text).into());
        if let Some(object) = &evidence.object {
            fact.insert("object".to_string(), named(object, masker));
        }
        if let Some(path) = &evidence.path {
            fact.insert("field".to_string(), text(path).into());
        }
        Value::Object(fact)
    });
    let fixes = finding.fix.iter().map(|fix| {
        let command = fix.command.as_deref().map(text).unwrap_or_default();
        json!({"text": text(&fix.text), "command": command})
    });
    json!({
        "object": named(&finding.object, masker),
        "severity": finding.severity,
        "message": text(&finding.message),
        "pods": finding.pods,
        "since": finding.since.map(|since| since.to_string()),
        "evidence": evidence.collect::<Vec<_>>(),
        "fixes": fixes.collect::<Vec<_>>(),
    })
}

/// Kind, namespace and name; the latter two are always masked as names.
pub fn named(object: &ObjectRef, masker: &Masker) -> Value {
    let kind = masker.mask(&object.kind);
    let name = masker.name(&object.name, if object.kind == "Node" { EntityKind::Node } else { EntityKind::Name });
    match object.namespace() {
        "" => json!({"kind": kind, "name": name}),
        namespace => {
            json!({"kind": kind, "namespace": masker.name(namespace, EntityKind::Namespace), "name": name})
        }
    }
}

/// The object of the finding and those of its evidence.
fn relevant(cluster: &Cluster, root: &Finding) -> Vec<ObjectRef> {
    let mut objects = vec![root.object.clone()];
    for object in root.evidence.iter().filter_map(|evidence| evidence.object.as_ref()) {
        if !objects.contains(object) {
            objects.push(object.clone());
        }
    }
    // A sample pod of a workload, if no evidence names one.
    if !objects.iter().any(|object| object.is(Kind::Pod))
        && let Some(pod) = cluster.group_of_owner(&root.object).and_then(|group| cluster.pods_of(group).next())
    {
        objects.push(kubectl_gpt_analyzers::Object::reference(pod));
    }
    objects
}

/// An object as returned by the API, masked, without irrelevant fields and possible secrets: annotations and values of
/// environment variables.
pub fn object(cluster: &Cluster, of: &ObjectRef, masker: &Masker) -> Option<Value> {
    let mut json = cluster.json(of)?;
    reduce(&mut json);
    let mut masked = masker.json(&json);
    if let Some(metadata) = masked.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("name".to_string(), named(of, masker)["name"].clone());
        if !of.namespace().is_empty() {
            metadata.insert("namespace".to_string(), named(of, masker)["namespace"].clone());
        }
    }
    if masked.to_string().len() > MAX_OBJECT_BYTES {
        // If it is too large, drop the status: findings and events cover it.
        masked.as_object_mut()?.remove("status");
    }
    if masked.to_string().len() > MAX_OBJECT_BYTES {
        let fields = masked.as_object_mut()?;
        fields.insert("spec".to_string(), "omitted because of its size".into());
        fields.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "spec"));
    }
    Some(masked)
}

/// Fields that are irrelevant to a problem, or may contain secrets.
const UNWANTED: &[&str] = &[
    "annotations",
    "uid",
    "managedFields",
    "generation",
    "caBundle",
    "timeAdded",
    "observedGeneration",
    "lastUpdateTime",
    "podIPs",
];

/// Fields that the model serializes even if they are not set.
const ZERO_BY_DEFAULT: &[&str] = &[
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "optional",
    "partition",
    "paused",
    "signal",
];

fn reduce(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(reduce),
        Value::Object(fields) => {
            fields.retain(|field, value| {
                let is_zero = *value == json!(0) || *value == json!(false);
                let is_default = is_zero && ZERO_BY_DEFAULT.contains(&field.as_str());
                !is_default && !UNWANTED.contains(&field.as_str())
            });
            if let Some(Value::Array(env)) = fields.get_mut("env") {
                env.iter_mut().filter_map(Value::as_object_mut).for_each(|variable| {
                    if variable.remove("value").is_some() {
                        variable.insert("valueFrom".to_string(), "value omitted".into());
                    }
                });
            }
            if let Some(Value::Array(tolerations)) = fields.get_mut("tolerations") {
                tolerations.retain(|toleration| !is_default_toleration(toleration));
            }
            fields.values_mut().for_each(reduce);
        }
        _ => {}
    }
}

/// Whether the admission plugin DefaultTolerationSeconds adds this toleration.
fn is_default_toleration(toleration: &Value) -> bool {
    let key = toleration["key"].as_str().unwrap_or_default();
    toleration["effect"] == "NoExecute"
        && matches!(key, "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable")
}

/// The newest Warning events about the objects.
pub fn events(cluster: &Cluster, objects: &[ObjectRef], masker: &Masker) -> Vec<Value> {
    let all = objects.iter().flat_map(|object| cluster.events(object).into_iter().map(move |event| (object, event)));
    let shown = all.take(MAX_EVENTS).map(|(object, event)| {
        json!({
            "object": named(object, masker),
            "reason": masker.mask(&event.reason),
            "message": masker.mask(&words::shorten(&event.message, MAX_TEXT_LENGTH)),
            "times": event.times(),
            "last seen": event.last_seen().map(|time| time.to_string()),
        })
    });
    shown.collect()
}

/// The ends of the logs of pods among the objects.
fn logs(cluster: &Cluster, objects: &[ObjectRef], masker: &Masker) -> Vec<Value> {
    let pods = objects.iter().filter(|object| object.is(Kind::Pod));
    let of_pod = pods.filter_map(|object| {
        let pod =
            cluster.get::<kubectl_gpt_analyzers::snapshot::model::Pod>(object.namespace(), &object.name).found()?;
        let containers = pod.spec.init_containers.iter().chain(pod.spec.containers.iter());
        let logs = containers.filter_map(|container| {
            let log = cluster.log(object.namespace(), &object.name, &container.name)?;
            let from = log.lines.len().saturating_sub(MAX_LOG_LINES);
            let lines: Vec<String> = log.lines[from..].iter().map(|line| masker.mask(&log_line(line))).collect();
            Some(json!({"pod": named(object, masker)["name"], "container": masker.name(&container.name, EntityKind::Name),
                "previous run": log.previous, "last lines": lines}))
        });
        Some(logs.collect::<Vec<_>>())
    });
    of_pod.flatten().collect()
}

pub fn log_line(line: &str) -> String {
    words::shorten(&words::plain(line), MAX_TEXT_LENGTH)
}
