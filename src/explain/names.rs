//! Collects the names of a cluster's objects. They are masked even if they are plain words: a Service may be called
//! `web`.

use std::collections::HashMap;

use kubectl_gpt_analyzers::snapshot::model::Namespace;
use kubectl_gpt_analyzers::{Cluster, Kind, Object};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::entity::{EntityKind, repository};
use super::vocabulary;

/// Kinds whose objects repeat others, or contain only addresses, which are masked by format.
const REPEATED: &[Kind] = &[Kind::Pod, Kind::ReplicaSet, Kind::EndpointSlice, Kind::Endpoints, Kind::Event];

/// Fields whose values are defined by the API, or contain prose.
const NOT_NAMES: &[&str] = &[
    "accessModes",
    "addressType",
    "apiGroup",
    "apiGroups",
    "apiVersion",
    "apiVersions",
    "appProtocol",
    "args",
    "cidr",
    "command",
    "completionMode",
    "concurrencyPolicy",
    "conditionType",
    "dnsPolicy",
    "effect",
    "env",
    "except",
    "expr",
    "group",
    "kind",
    "message",
    "mode",
    "nonResourceURLs",
    "operator",
    "pathType",
    "phase",
    "policyTypes",
    "protocol",
    "reason",
    "resource",
    "resources",
    "restartPolicy",
    "schedule",
    "scheme",
    "scope",
    "scopes",
    "sideEffects",
    "status",
    "terminationMessagePolicy",
    "timeZone",
    "topologyKey",
    "type",
    "uid",
    "verbs",
    "version",
    "versions",
    "volumeMode",
    "volumeBindingMode",
    "whenUnsatisfiable",
];

/// The type of each name, in lower case, and the secret key of the placeholders.
#[derive(Debug, Default)]
pub struct Names {
    pub(super) kinds: HashMap<String, EntityKind>,
    pub(super) key: [u8; 32],
}

impl Names {
    /// Collects the names of all objects and all names in their fields. `context` is the kubeconfig's.
    pub fn of(cluster: &Cluster, context: Option<&str>) -> Names {
        let mut names = Names { key: key(cluster, context), ..Names::default() };
        cluster.objects().each(&mut |kind, namespace, name, _, labels| {
            names.add(namespace, EntityKind::Namespace);
            let entity_kind = match kind {
                Kind::Namespace => EntityKind::Namespace,
                Kind::Node => EntityKind::Node,
                _ => EntityKind::Name,
            };
            names.add(name, entity_kind);
            labels.pairs().for_each(|(_, value)| names.mention(value));
            if !REPEATED.contains(&kind)
                && let Some(json) = cluster.objects().json(kind, namespace, name)
            {
                names.walk(&json);
            }
        });
        // Pods of one owner differ in little more than their names, so one per owner is enough.
        for group in cluster.pod_groups() {
            names.add(&group.owner.name, EntityKind::Name);
            if let Some(json) = cluster.pods_of(group).next().and_then(|pod| cluster.json(&pod.reference())) {
                names.walk(&json);
            }
        }
        for custom in cluster.custom() {
            names.add(&custom.metadata.namespace, EntityKind::Namespace);
            names.add(&custom.metadata.name, EntityKind::Name);
            if let Some(json) = cluster.json(&custom.reference()) {
                names.walk(&json);
            }
        }
        names
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.mention(text),
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(fields) => {
                for (field, value) in fields {
                    match (field.as_str(), value) {
                        (field, _) if NOT_NAMES.contains(&field) => {}
                        ("annotations" | "managedFields", _) => {}
                        ("namespace", Value::String(name)) => self.add(name, EntityKind::Namespace),
                        ("nodeName", Value::String(name)) => self.add(name, EntityKind::Node),
                        ("image", Value::String(image)) => self.add(repository(image), EntityKind::Image),
                        (_, value) => self.walk(value),
                    }
                }
            }
            _ => {}
        }
    }

    /// Adds a field value: a name unless it is a number, prose or a path. A type known from elsewhere takes precedence.
    fn mention(&mut self, value: &str) {
        let is_name = value.contains(|c: char| c.is_ascii_alphabetic()) && !value.contains(char::is_whitespace);
        if is_name && !value.starts_with('/') && !self.kinds.contains_key(&value.to_lowercase()) {
            self.add(value, EntityKind::Name);
        }
    }

    fn add(&mut self, name: &str, kind: EntityKind) {
        // User objects are not named `kubernetes.io/hostname` or `tls.crt`.
        let is_compound_term = vocabulary::is_term(name) && name.contains(['/', '.']);
        if name.is_empty() || vocabulary::is_public_name(name) || vocabulary::is_proper_term(name) || is_compound_term {
            return;
        }
        let rank = |kind| match kind {
            EntityKind::Namespace => 2,
            EntityKind::Node => 1,
            _ => 0,
        };
        let known = self.kinds.entry(name.to_lowercase()).or_insert(kind);
        if rank(kind) > rank(*known) {
            *known = kind;
        }
    }
}

/// The key is the same for every run on one cluster, and cannot be derived from the placeholders: the UID of namespace
/// kube-system, else the smallest UID that was read; for manifests without UIDs, their names.
fn key(cluster: &Cluster, context: Option<&str>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"kubectl-gpt placeholders 1\0");
    let system = cluster.all::<Namespace>().iter().find(|namespace| namespace.name() == "kube-system");
    if let Some(uid) = system.map(Object::uid).filter(|uid| !uid.is_empty()) {
        hash.update(uid.as_bytes());
        return hash.finalize().into();
    }
    hash.update(context.unwrap_or_default());
    let (mut least, mut names) = (None::<String>, Sha256::new());
    cluster.objects().each(&mut |_, namespace, name, uid, _| {
        if !uid.is_empty() && least.as_deref().is_none_or(|least| uid < least) {
            least = Some(uid.to_string());
        }
        names.update(format!("{namespace}/{name}\0"));
    });
    match least {
        Some(uid) => hash.update(uid),
        None => hash.update(names.finalize()),
    }
    hash.finalize().into()
}
