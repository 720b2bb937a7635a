//! The revisions of a workload's pods, and what differs between the template that fails and the last one that worked.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::snapshot::model::{Deployment, Pod, PodSpec, ReplicaSet, StatefulSet};
use crate::snapshot::{Amount, Cluster, Kind, Object, ObjectRef};
use crate::text::words::{count, list, plain, shorten};

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// `spec.containers[app].resources.limits.cpu`.
    pub path: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// How the template of a pod differs from another revision of its workload.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    /// `revision 26`.
    pub revision: String,
    /// A ready pod of that revision, or its ReplicaSet.
    pub object: ObjectRef,
    /// The ready pods of that revision.
    pub ready: usize,
    /// Whether the pod has the current template of its workload.
    pub is_current: bool,
    pub changes: Vec<Change>,
}

/// Differences beyond this number do not narrow down the cause.
const MAX_CHANGES: usize = 20;

/// The label with the revision of a pod.
pub(crate) fn label(pod: &Pod) -> Option<&str> {
    let keys = ["pod-template-hash", "controller-revision-hash", "rollouts-pod-template-hash"];
    keys.iter().find_map(|key| pod.metadata.labels.get(key))
}

/// The ReplicaSet of the current revision of a Deployment and the older ones that still have pods.
pub(crate) fn sides<'a>(
    cluster: &'a Cluster,
    deployment: &Deployment,
) -> Option<(&'a ReplicaSet, Vec<&'a ReplicaSet>)> {
    let own = replica_sets(cluster, &deployment.reference());
    let new = own.iter().copied().max_by_key(|set| (number(set), set.created()))?;
    let old = own.into_iter().filter(|set| set.name() != new.name() && set.status.replicas > 0);
    Some((new, old.collect()))
}

fn replica_sets<'a>(cluster: &'a Cluster, owner: &ObjectRef) -> Vec<&'a ReplicaSet> {
    let sets = cluster.in_namespace::<ReplicaSet>(owner.namespace()).iter();
    sets.filter(|set| set.controller().as_ref() == Some(owner)).collect()
}

fn number(set: &ReplicaSet) -> Option<u64> {
    let keys = ["deployment.kubernetes.io/revision", "rollout.argoproj.io/revision"];
    keys.iter().find_map(|key| set.annotation(key)?.parse().ok())
}

fn replica_set_of<'a>(cluster: &'a Cluster, pod: &Pod) -> Option<&'a ReplicaSet> {
    let owner = pod.controller().filter(|owner| owner.is(Kind::ReplicaSet))?;
    cluster.get::<ReplicaSet>(owner.namespace(), &owner.name).found()
}

/// The object that creates all revisions of a pod.
fn maker(cluster: &Cluster, pod: &Pod) -> Option<ObjectRef> {
    let owner = pod.controller()?;
    match replica_set_of(cluster, pod) {
        Some(set) => set.controller(),
        None => (!owner.is(Kind::ReplicaSet)).then_some(owner),
    }
}

/// Compares a pod with the newest ready pod of another revision, or else the ReplicaSet before its own.
pub(crate) fn comparison(cluster: &Cluster, pod: &Pod) -> Option<Comparison> {
    with_ready_pod(cluster, pod).or_else(|| with_previous(cluster, pod))
}

fn with_ready_pod(cluster: &Cluster, pod: &Pod) -> Option<Comparison> {
    let (mine, maker_of_pod) = (label(pod)?, maker(cluster, pod)?);
    let group = cluster.group_of_owner(&cluster.owner_of(pod))?;
    let is_other = |other: &&Pod| {
        other.is_active()
            && other.is_ready()
            && label(other).is_some_and(|revision| revision != mine)
            && maker(cluster, other).as_ref() == Some(&maker_of_pod)
    };
    let others: Vec<&Pod> = cluster.pods_of(group).filter(is_other).collect();
    let other = others.iter().copied().max_by_key(|other| (other.created(), other.name().to_string()))?;
    let revision = match replica_set_of(cluster, other).and_then(number) {
        Some(number) => format!("revision {number}"),
        None => format!("revision {}", label(other).unwrap_or_default()),
    };
    let mut changes = changes(&other.spec, &pod.spec);
    changes.retain(|change| !is_identity(change, other.name(), pod.name()));
    Some(Comparison {
        revision,
        object: other.reference(),
        ready: others.iter().filter(|pod| label(pod) == label(other)).count(),
        // A DaemonSet creates pods only from its current template.
        is_current: is_current(cluster, pod, &maker_of_pod)
            && (!maker_of_pod.is(Kind::DaemonSet) || pod.created() >= other.created()),
        changes,
    })
}

/// Compares the ReplicaSet of a pod with the one before. Whether that one worked is not known.
fn with_previous(cluster: &Cluster, pod: &Pod) -> Option<Comparison> {
    let set = replica_set_of(cluster, pod)?;
    let mine = number(set)?;
    let older = replica_sets(cluster, &set.controller()?).into_iter().filter(|set| number(set) < Some(mine));
    let older = older.filter(|set| number(set).is_some()).max_by_key(|set| number(set))?;
    Some(Comparison {
        revision: format!("revision {}", number(older).unwrap_or_default()),
        object: older.reference(),
        ready: 0,
        is_current: is_current(cluster, pod, &set.controller()?),
        changes: changes(&older.spec.template.spec, &set.spec.template.spec),
    })
}

/// Whether a pod has the current template of its workload.
fn is_current(cluster: &Cluster, pod: &Pod, maker: &ObjectRef) -> bool {
    if let Some(set) = replica_set_of(cluster, pod) {
        return replica_sets(cluster, maker).into_iter().all(|other| number(other) <= number(set));
    }
    let set =
        cluster.get::<StatefulSet>(maker.namespace(), &maker.name).found().filter(|_| maker.is(Kind::StatefulSet));
    set.is_none_or(|set| label(pod) == Some(set.status.update_revision.as_str()))
}

/// Whether values differ only because they contain the name of their pod.
fn is_identity(change: &Change, old: &str, new: &str) -> bool {
    let renamed = change.before.as_ref().map(|value| value.replace(old, new));
    change.path == "spec.hostname" || (renamed.is_some() && renamed == change.after)
}

/// The fields in which two pod specs differ.
pub(crate) fn changes(old: &PodSpec, new: &PodSpec) -> Vec<Change> {
    let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) else { return Vec::new() };
    let mut found = Vec::new();
    compare("spec", &old, &new, &mut found);
    found
}

/// Fields that have their default value are not set.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_unset),
    }
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<Change>) {
    if found.len() >= MAX_CHANGES || old == new || (is_unset(old) && is_unset(new)) {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) if !is_unset(old) && !is_unset(new) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
                compare(&format!("{path}.{key}"), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) => match (by_key(path, a), by_key(path, b)) {
            (Some(a), Some(b)) => compare_named(path, &a, &b, found),
            _ => found.push(change(path, old, new)),
        },
        _ if is_same_amount(path, old, new) => {}
        _ => found.push(change(path, old, new)),
    }
}

/// `1` and `1000m` CPUs are the same.
fn is_same_amount(path: &str, old: &Value, new: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(Amount::parse);
    path.contains(".resources.") && amount(old).is_some() && amount(old) == amount(new)
}

/// The items of a list by the field that identifies them, if it does.
fn by_key<'v>(path: &str, items: &'v [Value]) -> Option<Vec<(String, &'v Value)>> {
    let field = match path.rsplit('.').next()? {
        "containers" | "initContainers" | "env" | "volumes" => "name",
        "volumeMounts" => "mountPath",
        "ports" => "containerPort",
        _ => return None,
    };
    let name = |item: &Value| match item.get(field)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let named: Option<Vec<(String, &Value)>> = items.iter().map(|item| Some((name(item)?, item))).collect();
    let named = named?;
    let unique: BTreeMap<&String, ()> = named.iter().map(|(name, _)| (name, ())).collect();
    (unique.len() == named.len()).then_some(named)
}

fn compare_named(path: &str, old: &[(String, &Value)], new: &[(String, &Value)], found: &mut Vec<Change>) {
    let other = |items: &[(String, &Value)], name: &str| {
        items.iter().find(|(known, _)| known == name).map(|(_, value)| (*value).clone()).unwrap_or_default()
    };
    for (name, value) in old {
        compare(&format!("{path}[{name}]"), value, &other(new, name), found);
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.iter().any(|(known, _)| known == name)) {
        compare(&format!("{path}[{name}]"), &Value::Null, value, found);
    }
    let names = |items: &[(String, &Value)]| items.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let (before, after) = (names(old), names(new));
    let is_permuted = before != after && before.len() == after.len() && before.iter().all(|name| after.contains(name));
    // Only variables depend on the variables before them, and init containers run in order.
    if is_permuted && matches!(path.rsplit('.').next(), Some("env" | "initContainers")) {
        let text = |names: Vec<String>| Some(format!("order {}", shorten(&names.join(", "), 120)));
        found.push(Change { path: path.to_string(), before: text(before), after: text(after) });
    }
}

fn change(path: &str, old: &Value, new: &Value) -> Change {
    let is_hidden = is_secret(path);
    let text = |value: &Value| {
        let text = match value {
            value if is_unset(value) => return None,
            _ if is_hidden => "(hidden)".to_string(),
            Value::String(text) => plain(text),
            other => shown(other).to_string(),
        };
        Some(shorten(&text, 120))
    };
    Change { path: path.to_string(), before: text(old), after: text(new) }
}

/// A value without the fields that are not set and without what may be a credential.
fn shown(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(shown).collect()),
        Value::Object(fields) => {
            let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
            let set = fields.iter().filter(|(_, value)| !is_unset(value));
            let shown = set.map(|(key, value)| match value {
                Value::String(_) if key == "value" && names_secret(name) => (key.clone(), Value::from("(hidden)")),
                _ => (key.clone(), shown(value)),
            });
            Value::Object(shown.collect())
        }
        other => other.clone(),
    }
}

/// Whether the value of an environment variable may be a credential.
fn is_secret(path: &str) -> bool {
    let Some((_, variable)) = path.rsplit_once("env[") else { return false };
    names_secret(variable.split(']').next().unwrap_or_default())
}

fn names_secret(variable: &str) -> bool {
    let variable = variable.to_uppercase();
    ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH", "DSN"].iter().any(|word| variable.contains(word))
}

impl Change {
    /// `spec.containers[app].resources.limits.cpu changed from 2 to 150m`.
    pub(crate) fn text(&self) -> String {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) if before == after => format!("{} changed", self.path),
            (Some(before), Some(after)) => format!("{} changed from {before} to {after}", self.path),
            (None, Some(after)) => format!("{} is new: {after}", self.path),
            (Some(before), None) => format!("{} was removed (it was {before})", self.path),
            (None, None) => format!("{} changed", self.path),
        }
    }

    /// How to revert it.
    pub(crate) fn revert(&self) -> String {
        match &self.before {
            Some(before) if before != "(hidden)" => format!("Set {} back to {before}", self.template_path()),
            Some(_) => format!("Set {} back to its previous value", self.template_path()),
            None => format!("Remove {} again", self.template_path()),
        }
    }

    /// The path in the workload.
    pub(crate) fn template_path(&self) -> String {
        format!("spec.template.{}", self.path)
    }

    pub(crate) fn is_about(&self, container: &str, field: &str) -> bool {
        let rest = self.path.split_once(&format!("ontainers[{container}].")).map(|(_, rest)| rest);
        rest.is_some_and(|rest| {
            rest == field || rest.starts_with(&format!("{field}.")) || rest.starts_with(&format!("{field}["))
        })
    }

    /// Whether it lowers or adds a limit.
    pub(crate) fn lowers(&self) -> bool {
        let amount = |value: &Option<String>| value.as_deref().and_then(Amount::parse);
        amount(&self.after).is_some_and(|after| amount(&self.before).is_none_or(|before| after < before))
    }
}

impl Comparison {
    /// `differs from revision 26 (2 ready pods) in one field: …`.
    pub(crate) fn text(&self) -> String {
        let state = match self.ready {
            0 => String::new(),
            ready => format!(", which has {}", count(ready, "ready pod")),
        };
        let texts: Vec<String> = self.changes.iter().map(Change::text).collect();
        match self.changes.len() {
            1 => format!("the only difference from {}{state}: {}", self.revision, texts[0]),
            _ => format!("differences from {}{state}: {}", self.revision, list(&texts, 5)),
        }
    }

    /// The only difference from a revision that works.
    pub(crate) fn decisive(&self) -> Option<&Change> {
        match self.changes.as_slice() {
            [change] if self.ready > 0 && self.is_current => Some(change),
            _ => None,
        }
    }

    /// A lower CPU limit than that of a revision that works.
    pub(crate) fn lower_cpu_limit(&self, container: &str) -> Option<&Change> {
        let lowers = |change: &&Change| change.is_about(container, "resources.limits.cpu") && change.lowers();
        self.changes.iter().find(lowers).filter(|_| self.ready > 0)
    }

    /// Whether the other revision works with the same program and the same probe.
    pub(crate) fn confirms_probe(&self, container: &str) -> bool {
        let fields =
            ["image", "command", "args", "env", "envFrom", "ports", "startupProbe", "livenessProbe", "readinessProbe"];
        let touches = |change: &Change| fields.iter().any(|field| change.is_about(container, field));
        self.ready > 0 && !self.changes.is_empty() && !self.changes.iter().any(touches)
    }
}

#[cfg(test)]
mod tests {
    use super::{changes, comparison};
    use crate::snapshot::model::{Pod, PodSpec};
    use crate::testing::{TestCluster, part};

    fn texts(old: &str, new: &str) -> Vec<String> {
        changes(&part::<PodSpec>(old), &part::<PodSpec>(new)).iter().map(super::Change::text).collect()
    }

    #[test]
    fn names_the_fields_with_both_values() {
        let old = "{containers: [{name: a, image: 'x:1', resources: {limits: {cpu: '2'}}, env: [{name: A, value: '1'}, {name: B, value: '2'}]}]}";
        assert!(texts(old, old).is_empty());
        assert!(texts(old, &old.replace("cpu: '2'", "cpu: 2000m")).is_empty());
        assert_eq!(
            texts(old, &old.replace("cpu: '2'", "cpu: 150m").replace("value: '1'", "value: '3'")),
            [
                "spec.containers[a].env[A].value changed from 1 to 3",
                "spec.containers[a].resources.limits.cpu changed from 2 to 150m"
            ]
        );
        let swapped = "{containers: [{name: a, image: 'x:1', resources: {limits: {cpu: '2'}}, env: [{name: B, value: '2'}, {name: A, value: '1'}]}]}";
        assert_eq!(texts(old, swapped), ["spec.containers[a].env changed from order A, B to order B, A"]);
        let added = old.replace("image: 'x:1'", "image: 'x:1', volumeMounts: [{name: v, mountPath: /x}]");
        assert_eq!(
            texts(old, &added),
            [r#"spec.containers[a].volumeMounts[/x] is new: {"mountPath":"/x","name":"v"}"#]
        );
    }

    #[test]
    fn hides_what_may_be_a_credential() {
        let old = "{containers: [{name: a, env: [{name: DB_PASSWORD, value: one}]}]}";
        assert_eq!(texts(old, &old.replace("one", "two")), ["spec.containers[a].env[DB_PASSWORD].value changed"]);
    }

    #[test]
    fn compares_with_a_ready_pod_of_another_revision() {
        let pod = |name: &str, hash: &str, cpu: &str, ready: &str| {
            format!(
                "
                apiVersion: v1
                kind: Pod
                metadata: {{name: {name}, namespace: shop, labels: {{controller-revision-hash: {hash}}}, ownerReferences: [
                  {{apiVersion: apps/v1, kind: StatefulSet, name: web, controller: true}}]}}
                spec: {{hostname: {name}, containers: [{{name: a, resources: {{limits: {{cpu: {cpu}}}}}}}]}}
                status: {{phase: Running, conditions: [{{type: Ready, status: '{ready}'}}]}}"
            )
        };
        let cluster =
            TestCluster::new(&[&pod("web-0", "one", "'1'", "True"), &pod("web-1", "two", "50m", "False")]).build();
        let found = comparison(&cluster, &cluster.all::<Pod>()[1]).unwrap();
        assert_eq!(
            found.text(),
            "the only difference from revision one, which has 1 ready pod: spec.containers[a].resources.limits.cpu \
             changed from 1 to 50m"
        );
        assert!(found.lower_cpu_limit("a").is_some() && found.confirms_probe("a"));
        let cluster =
            TestCluster::new(&[&pod("web-0", "one", "'1'", "False"), &pod("web-1", "two", "50m", "False")]).build();
        assert!(comparison(&cluster, &cluster.all::<Pod>()[1]).is_none());
    }
}
