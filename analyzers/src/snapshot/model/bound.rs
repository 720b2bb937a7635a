//! The specs of pods and pod templates. Equal specs are stored once: a pod differs from its siblings only by its node
//! and a random volume name, and the template of a ReplicaSet from that of its Deployment only by a label.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::shared::{Pool, Shared, pooled};
use super::{Interned, PodSpec};

/// The name of the token volume of every pod, which has a random suffix of five characters: `kube-api-access-x7k2p`.
/// The model drops the suffix, so that the specs of siblings are equal.
pub(crate) const TOKEN_VOLUME: &str = "kube-api-access";

/// All specs.
static SPECS: Pool<PodSpec> = Pool::new();

/// The pod spec of a template.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct TemplateSpec(Shared<PodSpec>);

/// The spec of a pod: the node that it is bound to, and what the pods of one template have in common.
#[derive(Clone, Default, PartialEq)]
pub struct BoundSpec {
    /// Empty until the pod is scheduled.
    pub node_name: Interned,
    rest: Shared<PodSpec>,
}

impl Deref for TemplateSpec {
    type Target = PodSpec;

    fn deref(&self) -> &PodSpec {
        &self.0
    }
}

impl<'de> Deserialize<'de> for TemplateSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TemplateSpec, D::Error> {
        Ok(TemplateSpec(pooled(<&RawValue>::deserialize(deserializer)?.get(), &SPECS)?))
    }
}

impl Deref for BoundSpec {
    type Target = PodSpec;

    fn deref(&self) -> &PodSpec {
        &self.rest
    }
}

/// The spec of a pod that is not scheduled yet.
impl From<TemplateSpec> for BoundSpec {
    fn from(template: TemplateSpec) -> BoundSpec {
        BoundSpec { node_name: Interned::default(), rest: template.0 }
    }
}

impl fmt::Debug for BoundSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundSpec").field("node_name", &self.node_name).field("rest", &*self.rest).finish()
    }
}

impl<'de> Deserialize<'de> for BoundSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BoundSpec, D::Error> {
        let Split { node_name, rest } = Split::deserialize(deserializer)?;
        Ok(BoundSpec { node_name, rest: pooled(&rest, &SPECS)? })
    }
}

impl Serialize for BoundSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec<'a> {
            node_name: &'a Interned,
            #[serde(flatten)]
            rest: &'a PodSpec,
        }
        Spec { node_name: &self.node_name, rest: self }.serialize(serializer)
    }
}

/// A spec without its node.
struct Split {
    node_name: Interned,
    /// JSON.
    rest: String,
}

impl<'de> Deserialize<'de> for Split {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Split, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Split;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a pod's spec")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Split, A::Error> {
                let (mut node_name, mut rest) = (Interned::default(), String::with_capacity(4096));
                while let Some(key) = fields.next_key::<Cow<'de, str>>()? {
                    if key == "nodeName" {
                        node_name = fields.next_value::<Option<Interned>>()?.unwrap_or_default();
                        continue;
                    }
                    let value = fields.next_value::<&RawValue>()?.get();
                    // No field of the model has a key that must be escaped.
                    if !key.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
                        rest.push(if rest.is_empty() { '{' } else { ',' });
                        rest.extend(["\"", &key, "\":"]);
                        push_without_random_names(&mut rest, value);
                    }
                }
                rest.push_str(if rest.is_empty() { "{}" } else { "}" });
                Ok(Split { node_name, rest })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn push_without_random_names(text: &mut String, mut json: &str) {
    while let Some(found) = json.find(TOKEN_VOLUME) {
        let (before, after) = json.split_at(found + TOKEN_VOLUME.len());
        text.push_str(before);
        json = after;
        if before[..found].ends_with('"') && is_random_ending(after.as_bytes()) {
            json = &after[RANDOM_ENDING..];
        }
    }
    text.push_str(json);
}

/// A hyphen and five characters.
const RANDOM_ENDING: usize = 6;

/// `-x7k2p"`: random characters of a generated Kubernetes name, at the end of a string.
fn is_random_ending(text: &[u8]) -> bool {
    let is_random = |c: &u8| b"bcdfghjklmnpqrstvwxz2456789".contains(c);
    text.first() == Some(&b'-')
        && text.get(RANDOM_ENDING) == Some(&b'"')
        && text[1..RANDOM_ENDING].iter().all(is_random)
}

#[cfg(test)]
mod tests {
    use super::BoundSpec;
    use crate::snapshot::model::shared::sharing;
    use crate::snapshot::model::{Pod, PodSpec, PodTemplate};

    fn pod(name: &str, node: &str, token: &str, image: &str) -> String {
        format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"app","image":"{image}","volumeMounts":[{{"name":"{token}","mountPath":"/token"}}]}}],"nodeName":"{node}","volumes":[{{"name":"{token}"}}]}}}}"#
        )
    }

    fn pods(json: &[String]) -> Vec<Pod> {
        let list = format!("[{}]", json.join(","));
        sharing(|| serde_json::from_str(&list).unwrap())
    }

    #[test]
    fn siblings_share_all_but_their_node() {
        let pods = pods(&[
            pod("a", "worker-1", "kube-api-access-x7k2p", "app:1"),
            pod("b", "worker-2", "kube-api-access-bcdfg", "app:1"),
            pod("c", "worker-2", "kube-api-access-bcdfg", "app:2"),
        ]);
        let same = |a: usize, b: usize| std::ptr::eq::<PodSpec>(&*pods[a].spec, &*pods[b].spec);
        assert!(same(0, 1) && !same(1, 2));
        assert_eq!((&*pods[0].spec.node_name, &*pods[1].spec.node_name), ("worker-1", "worker-2"));
        assert_eq!(pods[2].spec.containers[0].image, "app:2");
        assert_eq!(pods[0].spec.volumes[0].name, "kube-api-access");
        assert_eq!(pods[0].spec.containers[0].volume_mounts[0].name, "kube-api-access");
    }

    #[test]
    fn a_deployment_and_its_replica_sets_share_the_spec_of_their_template() {
        let read = |labels: &str, image: &str| -> PodTemplate {
            let json = format!(
                r#"{{"metadata":{{"labels":{labels}}},"spec":{{"containers":[{{"name":"pooled","image":"{image}"}}]}}}}"#
            );
            sharing(|| serde_json::from_str(&json).unwrap())
        };
        let deployment = read(r#"{"app":"cart"}"#, "cart:2");
        let current = read(r#"{"app":"cart","pod-template-hash":"x7k2p"}"#, "cart:2");
        let old = read(r#"{"app":"cart","pod-template-hash":"bcdfg"}"#, "cart:1");
        assert!(std::ptr::eq::<PodSpec>(&*deployment.spec, &*current.spec));
        assert_ne!(deployment.spec, old.spec);
        assert_eq!(current.metadata.labels.get("pod-template-hash"), Some("x7k2p"));
    }

    #[test]
    fn other_names_stay_as_they_are() {
        for name in [
            "kube-api-access",
            "kube-api-access-",
            "kube-api-access-x7k2p9",
            "kube-api-access-aaaaa",
            "my-kube-api-access-x7k2p",
        ] {
            assert_eq!(pods(&[pod("a", "n", name, "i")])[0].spec.volumes[0].name, name);
        }
    }

    #[test]
    fn unusual_specs_are_read_or_rejected() {
        let read = |json: &str| serde_json::from_str::<BoundSpec>(json);
        assert!(read("{}").unwrap().containers.is_empty());
        assert_eq!(read(r#"{"nodeName":null,"hostNetwork":true}"#).unwrap().node_name, "");
        assert!(read(r#"{"host\u004eetwork":true,"x\"y":1}"#).unwrap().host_network);
        assert!(read("[]").is_err() && read(r#"{"containers":1}"#).is_err() && read(r#"{"nodeName":1}"#).is_err());
    }
}
