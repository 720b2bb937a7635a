//! The objects of a snapshot in JSON.

use serde_json::Value;

use crate::snapshot::cluster::Cluster;
use crate::snapshot::json::pruned;
use crate::snapshot::kind::Kind;
use crate::snapshot::object_ref::ObjectRef;

impl Cluster {
    /// An object of the snapshot in the JSON form of the API, as far as the model holds it. Of ConfigMaps and Secrets
    /// it contains only the keys, never the values.
    pub fn json(&self, object: &ObjectRef) -> Option<Value> {
        if let Some(kind) = Kind::from_api(&object.api_version, &object.kind) {
            return self.objects().json(kind, object.namespace(), &object.name);
        }
        let custom = self.custom().iter().find(|custom| custom.reference() == *object)?;
        pruned(serde_json::to_value(custom).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::snapshot::kind::Kind;
    use crate::snapshot::object_ref::ObjectRef;
    use crate::testing::TestCluster;

    #[test]
    fn as_the_api_writes_it_but_without_the_values_of_secrets() {
        let cluster = TestCluster::new(&[
            "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: a}, data: {tls.crt: Y2VydA==, tls.key: a2V5}}",
            "
            apiVersion: v1
            kind: Pod
            metadata: {name: p, namespace: a, labels: {app: p}}
            spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}], env: [{name: E, value: v}]}]}",
        ])
        .build();
        let secret = cluster.json(&ObjectRef::new(Kind::Secret, "a", "s")).unwrap();
        assert_eq!(secret["data"], json!(["tls.crt", "tls.key"]));
        let pod = cluster.json(&ObjectRef::new(Kind::Pod, "a", "p")).unwrap();
        assert_eq!(pod["kind"], "Pod");
        assert_eq!(pod["metadata"], json!({"name": "p", "namespace": "a", "generation": 0, "labels": {"app": "p"}}));
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["containerPort"], 80);
        assert!(pod["spec"].get("volumes").is_none());
        assert_eq!(cluster.json(&ObjectRef::new(Kind::Pod, "a", "q")), None);
    }
}
