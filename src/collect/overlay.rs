//! `--with-cluster`: the cluster as it would be after applying the manifests.
//!
//! Manifests replace objects of the same name; fields that they omit keep their live values. If a workload's template
//! changes, its pods, ReplicaSets and their events are dropped: rules then check the new template, as for manifests
//! alone.

use std::collections::{BTreeMap, BTreeSet};

use kubectl_gpt_analyzers::snapshot::RawObject;
use kubectl_gpt_analyzers::snapshot::decode::{Decoded, object};
use kubectl_gpt_analyzers::{Analysis, Builder, Cluster, Finding, GroupKind, Now, ObjectRef, Origin};
use serde_json::{Map, Value};

use super::recorder::{Identity, Recorded, Recorder};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Kinds with a pod template.
const WORKLOADS: [(&str, &str); 7] = [
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("apps", "ReplicaSet"),
    ("", "ReplicationController"),
    ("batch", "CronJob"),
    ("batch", "Job"),
];
/// Kinds whose status is a property of the object (a bound volume, an address) and stays valid when the spec changes.
const LASTING_STATUS: [(&str, &str); 7] = [
    ("", "Namespace"),
    ("", "Node"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "IngressClass"),
];

/// Manifests to apply to a cluster, and the live objects of the same names.
#[derive(Debug)]
pub struct Overlay {
    manifests: BTreeMap<Identity, Recorded>,
    live: Recorder,
}

impl Overlay {
    /// `manifests` are whole objects. The recorder from [`Overlay::live`] must be passed to the reader of the cluster;
    /// it also keeps objects of `kinds` for custom rules.
    pub fn new(manifests: BTreeMap<Identity, Recorded>, kinds: BTreeSet<GroupKind>) -> Overlay {
        let live = Recorder::only(manifests.keys().cloned().collect(), kinds);
        Overlay { manifests, live }
    }

    /// The recorder for live objects that the manifests replace.
    pub fn live(&self) -> Recorder {
        self.live.clone()
    }

    /// Returns the cluster with the manifests applied.
    pub fn apply(&self, cluster: Cluster) -> Cluster {
        let now = cluster.now();
        let logs = cluster.logs().clone();
        let mut builder = cluster.into_builder();
        let (mut raw, kinds) = (self.live.raw(), self.live.wanted());
        let live = self.live.take();
        for (identity, manifest) in &self.manifests {
            let change = Change::new(identity, live.get(identity), manifest);
            if let Value::Object(fields) = &change.result
                && kinds.contains(&identity.group_kind())
            {
                RawObject::new(fields.clone()).into_iter().for_each(|object| raw.add(object));
            }
            match object(&change.result.to_string()) {
                Ok(decoded) => lay_over(&mut builder, decoded, change.forgets_children),
                Err(broken) => builder.add_broken(broken),
            }
        }
        let mut cluster = builder.build(Now::At(now), Origin::Cluster);
        for ((namespace, pod, container), log) in logs {
            cluster.add_log(&namespace, &pod, &container, log);
        }
        cluster.set_raw(raw);
        cluster
    }

    /// Keeps findings about objects in the manifests, new findings, and the causes of both.
    pub fn limit(&self, analysis: &mut Analysis, before: &Analysis) {
        let old: BTreeSet<&str> = before.findings.iter().map(|finding| finding.id.as_str()).collect();
        let concerns = |finding: &Finding| {
            self.manifests.contains_key(&Identity::from(&finding.object)) || !old.contains(finding.id.as_str())
        };
        let mut kept: BTreeSet<String> =
            analysis.findings.iter().filter(|f| concerns(f)).map(|f| f.id.clone()).collect();
        loop {
            let before = kept.len();
            let causes = analysis.findings.iter().filter(|f| kept.contains(&f.id)).flat_map(|f| f.caused_by.clone());
            kept.extend(causes.collect::<Vec<_>>());
            if kept.len() == before {
                break;
            }
        }
        analysis.findings.retain(|finding| kept.contains(&finding.id));
    }
}

fn lay_over(builder: &mut Builder, decoded: Decoded, forgets_children: bool) {
    let called: Option<ObjectRef> = decoded.reference();
    if let Some(called) = called.as_ref().filter(|_| forgets_children) {
        builder.forget_children(called);
    }
    match decoded {
        // A later object replaces an earlier one of the same name.
        Decoded::Known(batch) => builder.add(batch),
        Decoded::Custom(custom) => {
            builder.remove_custom(&custom.reference());
            builder.add_custom(*custom);
        }
    }
}

/// The effect of applying a manifest to an object.
struct Change {
    result: Value,
    /// Whether its pods will be replaced.
    forgets_children: bool,
}

impl Change {
    fn new(identity: &Identity, live: Option<&Recorded>, manifest: &Recorded) -> Change {
        let parse =
            |recorded: &Recorded| serde_json::from_str::<Map<String, Value>>(&recorded.json).unwrap_or_default();
        let manifest = parse(manifest);
        let Some(live) = live.map(parse) else {
            return Change { result: Value::Object(manifest), forgets_children: false };
        };
        let has_spec = live.contains_key("spec");
        let is = |kinds: &[(&str, &str)]| kinds.contains(&(identity.group.as_str(), identity.kind.as_str()));
        let changed = has_spec && !holds(&live["spec"], manifest.get("spec").unwrap_or(&Value::Null));
        let replaces_pods = is(&WORKLOADS) && !is_same_template(&live, &manifest);
        let forgets_children = changed && (replaces_pods || is(&[("", "Service")]));
        let mut result = merged(live, &manifest);
        if changed && !is(&LASTING_STATUS) {
            // No controller has observed the new spec yet: treat it like any manifest, without status and without an
            // age that could make it overdue.
            result.remove("status");
            if let Some(Value::Object(metadata)) = result.get_mut("metadata") {
                metadata.retain(|field, _| field != "creationTimestamp" && field != "uid");
            }
        }
        Change { result: Value::Object(result), forgets_children }
    }
}

/// Pods are kept if their template is unchanged and the workload is not scaled to zero.
fn is_same_template(live: &Map<String, Value>, manifest: &Map<String, Value>) -> bool {
    let part =
        |object: &Map<String, Value>, path: &str| object.get("spec").and_then(|spec| spec.pointer(path)).cloned();
    let same = ["/template", "/jobTemplate", "/selector"].iter().all(|path| match part(manifest, path) {
        Some(new) => part(live, path).is_some_and(|old| holds(&old, &new)),
        None => true,
    });
    same && part(manifest, "/replicas").is_none_or(|replicas| replicas != 0)
}

/// Whether applying `wanted` changes nothing: `live` has all its fields, and possibly others set by the API server.
fn holds(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(field, value)| value.is_null() || live.get(field).is_some_and(|live| holds(live, value))),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| holds(live, wanted))
        }
        (live, wanted) => live == wanted || is_same_amount(live, wanted),
    }
}

/// Whether two quantities are equal, such as `1000m` and `1`.
fn is_same_amount(live: &Value, wanted: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let amount = |value: &Value| kubectl_gpt_analyzers::snapshot::Amount::parse(&text(value)?);
    amount(live).is_some_and(|live| amount(wanted) == Some(live))
}

/// Merges the fields of the manifest into the live object. Fields of the spec that were in the last applied manifest
/// but not in this one are removed.
fn merged(live: Map<String, Value>, manifest: &Map<String, Value>) -> Map<String, Value> {
    let mut result = live;
    let last = result.get("metadata").and_then(|metadata| metadata["annotations"][LAST_APPLIED].as_str());
    let last: Value = last.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for (field, value) in manifest.iter().filter(|(field, _)| *field != "status") {
        match (field.as_str(), result.get_mut(field), value) {
            ("metadata", Some(Value::Object(live)), Value::Object(wanted)) => merge_metadata(live, wanted),
            ("spec", Some(Value::Object(live)), Value::Object(wanted)) => {
                let was_applied = |field: &str| last["spec"].get(field).is_some();
                live.retain(|field, _| wanted.contains_key(field) || !was_applied(field));
                live.extend(wanted.clone());
            }
            _ => {
                result.insert(field.clone(), value.clone());
            }
        }
    }
    result
}

fn merge_metadata(live: &mut Map<String, Value>, wanted: &Map<String, Value>) {
    for (field, value) in wanted {
        match (live.get_mut(field), value) {
            (Some(Value::Object(live)), Value::Object(wanted)) => live.extend(wanted.clone()),
            _ => drop(live.insert(field.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kubectl_gpt_analyzers::engine::Profile;
    use kubectl_gpt_analyzers::snapshot::decode::{Decoded, object};
    use kubectl_gpt_analyzers::{Analysis, Builder, Extent, Kind, Now, Origin, analyze, rules};

    use super::{Overlay, Recorder};

    const NOW: &str = "2026-11-21T12:00:00Z";
    const DEPLOYMENT: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "cart", "namespace": "shop", "uid": "1", "generation": 1, "creationTimestamp": "2026-11-20T12:00:00Z"},
        "spec": {"replicas": 1, "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"app": "cart"}},
            "template": {"metadata": {"labels": {"app": "cart"}}, "spec": {"restartPolicy": "Always", "containers": [
                {"name": "app", "image": "i:1", "imagePullPolicy": "Always", "resources": {"limits": {"cpu": "1"}}}]}}},
        "status": {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}"#;
    const REPLICA_SET: &str = r#"{"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "cart-1", "namespace": "shop",
        "uid": "2", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "cart", "uid": "1", "controller": true}]},
        "spec": {"replicas": 1}, "status": {"replicas": 1}}"#;
    const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart-1-a", "namespace": "shop", "uid": "3",
        "creationTimestamp": "2026-11-20T12:00:00Z", "labels": {"app": "cart"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-1", "uid": "2", "controller": true}]},
        "spec": {"nodeName": "n", "containers": [{"name": "app", "image": "i:1"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "app", "ready": true, "state": {"running": {}}}]}}"#;
    const SERVICE: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop", "uid": "4",
        "creationTimestamp": "2026-11-20T12:00:00Z"},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "cart"}, "ports": [{"port": 80, "protocol": "TCP"}]}}"#;
    /// Broken before, and unrelated to the manifests.
    const OTHER: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other", "namespace": "shop", "uid": "5",
        "creationTimestamp": "2026-11-20T12:00:00Z"}, "spec": {"selector": {"app": "none"}, "ports": [{"port": 80}]}}"#;
    const SLICE: &str = r#"{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "cart-x",
        "namespace": "shop", "uid": "6", "labels": {"kubernetes.io/service-name": "cart"}}, "addressType": "IPv4",
        "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": true},
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": "cart-1-a"}}]}"#;
    const ACCOUNT: &str = r#"{"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "shop", "uid": "7", "creationTimestamp": "2026-11-20T12:00:00Z"}}"#;
    const LIVE: [&str; 7] = [DEPLOYMENT, REPLICA_SET, POD, SERVICE, OTHER, SLICE, ACCOUNT];

    fn record(recorder: &Recorder, json: &str) -> Decoded {
        let decoded = object(json).unwrap();
        recorder.object(&decoded.reference().unwrap(), json, decoded.is_live());
        decoded
    }

    /// The rules that fire after applying these manifests, with their objects, and the number of remaining pods.
    fn applied(manifests: &[&str]) -> (Vec<String>, usize) {
        let wanted = Recorder::whole();
        manifests.iter().for_each(|manifest| drop(record(&wanted, manifest)));
        let overlay = Overlay::new(wanted.take(), std::collections::BTreeSet::new());
        let mut builder = Builder::new();
        for json in LIVE {
            if let Decoded::Known(batch) = record(&overlay.live(), json) {
                builder.add(batch);
            }
        }
        Kind::ALL.iter().for_each(|kind| builder.cover(*kind, Extent::Everything));
        let cluster = builder.build(Now::At(NOW.parse().unwrap()), Origin::Cluster);
        let before = analyze(&cluster, &rules::of(Profile::Default));
        let cluster = overlay.apply(cluster);
        let mut after: Analysis = analyze(&cluster, &rules::of(Profile::Default));
        overlay.limit(&mut after, &before);
        let found = after.findings.iter().map(|f| format!("{} {}", f.rule, f.object)).collect();
        (found, cluster.objects().count(Kind::Pod))
    }

    /// The manifest of a live object: without status, uid and defaulted fields.
    fn manifest(live: &str, change: impl Fn(&mut serde_json::Value)) -> String {
        let mut object: serde_json::Value = serde_json::from_str(live).unwrap();
        object.as_object_mut().unwrap().remove("status");
        object["metadata"].as_object_mut().unwrap().retain(|field, _| field == "name" || field == "namespace");
        change(&mut object);
        object.to_string()
    }

    #[test]
    fn unchanged_manifests_have_no_findings() {
        let same = manifest(DEPLOYMENT, |object| {
            let container = &mut object["spec"]["template"]["spec"]["containers"][0];
            container.as_object_mut().unwrap().remove("imagePullPolicy");
            container["resources"]["limits"]["cpu"] = "1000m".into();
        });
        assert_eq!(applied(&[&same, &manifest(SERVICE, |_| {})]), (Vec::new(), 1));
    }

    #[test]
    fn a_changed_template_replaces_pods_and_may_break_live_objects() {
        let changed = manifest(DEPLOYMENT, |object| {
            object["spec"]["selector"]["matchLabels"]["app"] = "basket".into();
            object["spec"]["template"]["metadata"]["labels"]["app"] = "basket".into();
        });
        let (found, pods) = applied(&[&changed]);
        assert_eq!(found, ["service/selector-matches-nothing Service shop/cart"]);
        assert_eq!(pods, 0);
    }

    #[test]
    fn manifests_are_analyzed_with_live_objects() {
        let wrong = manifest(SERVICE, |object| object["spec"]["selector"]["app"] = "carts".into());
        assert_eq!(applied(&[&wrong]), (vec!["service/selector-matches-nothing Service shop/cart".to_string()], 1));
        let new = manifest(SERVICE, |object| object["metadata"]["name"] = "new".into());
        assert_eq!(applied(&[&new]), (Vec::new(), 1));
    }

    #[test]
    fn references_are_resolved_in_the_cluster() {
        let needs = manifest(DEPLOYMENT, |object| {
            object["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
                serde_json::json!([{"configMapRef": {"name": "settings"}}]);
        });
        let (found, _) = applied(&[&needs]);
        assert_eq!(found, ["pod/missing-reference Deployment shop/cart"]);
        let settings = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}, "data": {}}"#;
        assert_eq!(applied(&[&needs, settings]).0, Vec::<String>::new());
    }

    #[test]
    fn unrelated_live_objects_are_not_kept() {
        let overlay = Overlay::new(BTreeMap::new(), std::collections::BTreeSet::new());
        record(&overlay.live(), SERVICE);
        assert!(overlay.live().take().is_empty());
    }
}
