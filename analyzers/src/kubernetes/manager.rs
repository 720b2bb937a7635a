//! Who manages an object: what is changed by hand is reset by it, so changes belong there.

use crate::snapshot::{Cluster, ObjectRef};

/// The manager of an object, from the labels and annotations that Helm, Argo CD and Flux set: `Helm release ops/vault`.
pub fn manager(cluster: &Cluster, object: &ObjectRef) -> Option<String> {
    let annotation = |key: &str| cluster.annotation_of(object, key).filter(|value| !value.is_empty());
    let label =
        |key: &str| cluster.labels_of(object).and_then(|labels| labels.value(key)).filter(|value| !value.is_empty());
    if let Some(id) = annotation("argocd.argoproj.io/tracking-id") {
        let (application, _) = id.split_once(':')?;
        return Some(format!("Argo CD Application {application}"));
    }
    for (kind, group) in [("HelmRelease", "helm"), ("Kustomization", "kustomize")] {
        let part = |part: &str| label(&format!("{group}.toolkit.fluxcd.io/{part}"));
        if let (Some(namespace), Some(name)) = (part("namespace"), part("name")) {
            return Some(format!("{kind} {namespace}/{name}"));
        }
    }
    let release = annotation("meta.helm.sh/release-name")?;
    let namespace = annotation("meta.helm.sh/release-namespace").unwrap_or(object.namespace());
    Some(format!("Helm release {namespace}/{release}"))
}

#[cfg(test)]
mod tests {
    use super::manager;
    use crate::snapshot::{Kind, ObjectRef};
    use crate::testing::TestCluster;

    fn of(metadata: &str) -> Option<String> {
        let document =
            format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: conf, namespace: shop, {metadata}}}}}");
        manager(&TestCluster::new(&[&document]).build(), &ObjectRef::new(Kind::ConfigMap, "shop", "conf"))
    }

    #[test]
    fn by_labels_and_annotations() {
        assert_eq!(of("uid: u"), None);
        assert_eq!(
            of("annotations: {meta.helm.sh/release-name: vault, meta.helm.sh/release-namespace: ops}").as_deref(),
            Some("Helm release ops/vault")
        );
        assert_eq!(
            of("annotations: {argocd.argoproj.io/tracking-id: 'shop:/ConfigMap:shop/conf'}").as_deref(),
            Some("Argo CD Application shop")
        );
        assert_eq!(
            of("labels: {kustomize.toolkit.fluxcd.io/name: apps, kustomize.toolkit.fluxcd.io/namespace: flux-system}")
                .as_deref(),
            Some("Kustomization flux-system/apps")
        );
    }
}
