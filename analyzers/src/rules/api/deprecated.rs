use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::{LAST_APPLIED, applied_version};
use crate::snapshot::{Cluster, ObjectRef};

declare_rule! {
    /// ## What it checks
    ///
    /// Objects whose manifest, or whose last `kubectl apply`, uses an API version that Kubernetes has removed or is
    /// going to remove.
    ///
    /// ## Why it matters
    ///
    /// The API server serves the object in its current version, so the problem stays hidden. The manifest, however, can
    /// no longer be applied: the next rollout, restore or new cluster fails with `no matches for kind`.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE apply view-last-applied KIND/NAME` shows the `apiVersion`; `kubectl api-versions` lists
    /// the served versions.
    ///
    /// ## How to fix
    ///
    /// Migrate the manifest to the current version and apply it. `kubectl convert` helps;
    /// https://kubernetes.io/docs/reference/using-api/deprecation-guide/ lists the changes.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for objects that are read from a cluster and were not applied with kubectl: the API
    /// server returns every object in the requested version. Versions of custom resources are not checked.
    "api/deprecated": Warning in Strict,
    "objects in an API version that has been or will be removed",
    needs: [],
    optional: [
        Deployment, StatefulSet, DaemonSet, ReplicaSet, CronJob, HorizontalPodAutoscaler, PodDisruptionBudget, Ingress,
        IngressClass, NetworkPolicy, StorageClass, CSIDriver, PriorityClass, RuntimeClass, Role, RoleBinding, ClusterRole,
        ClusterRoleBinding, ValidatingWebhookConfiguration, MutatingWebhookConfiguration, APIService,
        CustomResourceDefinition,
    ],
    explained_by: [],
}

/// Removed versions: apiVersion, kind (empty for the whole group), the first minor version of Kubernetes that no longer
/// serves it, and the replacement.
/// <https://kubernetes.io/docs/reference/using-api/deprecation-guide/>
const REMOVED: &[(&str, &str, u32, &str)] = &[
    ("extensions/v1beta1", "Ingress", 22, "networking.k8s.io/v1"),
    ("extensions/v1beta1", "NetworkPolicy", 16, "networking.k8s.io/v1"),
    ("extensions/v1beta1", "PodSecurityPolicy", 16, ""),
    ("extensions/v1beta1", "", 16, "apps/v1"),
    ("apps/v1beta1", "", 16, "apps/v1"),
    ("apps/v1beta2", "", 16, "apps/v1"),
    ("admissionregistration.k8s.io/v1beta1", "ValidatingWebhookConfiguration", 22, "admissionregistration.k8s.io/v1"),
    ("admissionregistration.k8s.io/v1beta1", "MutatingWebhookConfiguration", 22, "admissionregistration.k8s.io/v1"),
    ("apiextensions.k8s.io/v1beta1", "", 22, "apiextensions.k8s.io/v1"),
    ("apiregistration.k8s.io/v1beta1", "", 22, "apiregistration.k8s.io/v1"),
    ("certificates.k8s.io/v1beta1", "CertificateSigningRequest", 22, "certificates.k8s.io/v1"),
    ("coordination.k8s.io/v1beta1", "Lease", 22, "coordination.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", "Ingress", 22, "networking.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", "IngressClass", 22, "networking.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1alpha1", "", 22, "rbac.authorization.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1beta1", "", 22, "rbac.authorization.k8s.io/v1"),
    ("scheduling.k8s.io/v1beta1", "PriorityClass", 22, "scheduling.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", "CSIStorageCapacity", 27, "storage.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", "CSIDriver", 22, "storage.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", "CSINode", 22, "storage.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", "StorageClass", 22, "storage.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", "VolumeAttachment", 22, "storage.k8s.io/v1"),
    ("batch/v1beta1", "CronJob", 25, "batch/v1"),
    ("discovery.k8s.io/v1beta1", "EndpointSlice", 25, "discovery.k8s.io/v1"),
    ("events.k8s.io/v1beta1", "Event", 25, "events.k8s.io/v1"),
    ("autoscaling/v2beta1", "HorizontalPodAutoscaler", 25, "autoscaling/v2"),
    ("autoscaling/v2beta2", "HorizontalPodAutoscaler", 26, "autoscaling/v2"),
    ("policy/v1beta1", "PodDisruptionBudget", 25, "policy/v1"),
    ("policy/v1beta1", "PodSecurityPolicy", 25, ""),
    ("node.k8s.io/v1beta1", "RuntimeClass", 25, "node.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta1", "", 26, "flowcontrol.apiserver.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta2", "", 29, "flowcontrol.apiserver.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta3", "", 32, "flowcontrol.apiserver.k8s.io/v1"),
];

fn check(cluster: &Cluster, report: &mut Report) {
    let minor = cluster.server_version().and_then(minor);
    for (object, last_applied) in cluster.objects().annotated(LAST_APPLIED) {
        let Some(version) = applied_version(last_applied) else { continue };
        if let Some((gone, instead)) = removed(version, &object.kind) {
            let text = format!("last applied as {version}");
            let path = format!("metadata.annotations[{LAST_APPLIED}]");
            report.add(
                finding(&object, "was last applied as", version, gone, instead, minor).evidence(text, &object, &path),
            );
        }
    }
    // Only files can contain objects in a removed version.
    for object in cluster.custom().iter().map(crate::snapshot::model::CustomResource::reference) {
        if let Some((gone, instead)) = removed(&object.api_version, &object.kind) {
            let version = object.api_version.to_string();
            let text = format!("apiVersion is {version}");
            let finding = finding(&object, "uses", &version, gone, instead, minor);
            report.add(finding.evidence(text, &object, "apiVersion"));
        }
    }
}

fn removed(api_version: &str, kind: &str) -> Option<(u32, &'static str)> {
    let applies =
        |(version, of, _, _): &&(&str, &str, u32, &str)| *version == api_version && (of.is_empty() || *of == kind);
    REMOVED.iter().find(applies).map(|(_, _, gone, instead)| (*gone, *instead))
}

/// 36, of `v1.36.3`.
fn minor(version: &str) -> Option<u32> {
    version.trim_start_matches('v').split('.').nth(1)?.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}

fn finding(object: &ObjectRef, how: &str, version: &str, gone: u32, instead: &str, server: Option<u32>) -> Finding {
    let when = match server {
        Some(server) if server < gone => "to be removed in",
        _ => "removed in",
    };
    let message = format!("{} {how} {version}, {when} Kubernetes 1.{gone}", object.title());
    let finding = Finding::warning(object.clone(), message);
    match instead {
        "" => finding.fix("Delete the manifest: the kind no longer exists (use Pod Security admission instead)"),
        _ => finding.fix(format!("Set apiVersion to {instead} in the manifest and apply it")),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    fn ingress(applied: &str) -> String {
        format!(
            r#"
            apiVersion: networking.k8s.io/v1
            kind: Ingress
            metadata:
              name: web
              namespace: shop
              annotations:
                kubectl.kubernetes.io/last-applied-configuration: '{{"apiVersion":"{applied}","kind":"Ingress"}}'"#
        )
    }

    #[test]
    fn fires_for_an_object_applied_in_a_removed_version() {
        check(&RULE, &[&ingress("networking.k8s.io/v1beta1")]).finds(&[
            "warning Ingress shop/web: Ingress web was last applied as networking.k8s.io/v1beta1, removed in Kubernetes \
             1.22",
        ]);
        let job = ingress("batch/v1beta1")
            .replace("networking.k8s.io/v1\n", "batch/v1\n")
            .replace("kind: Ingress", "kind: CronJob");
        assert!(
            TestCluster::new(&[&job])
                .server_version("v1.24.3")
                .check(&RULE)
                .text()
                .contains("to be removed in Kubernetes 1.25")
        );
    }

    #[test]
    fn fires_for_a_manifest_in_a_removed_version() {
        let budget = "{apiVersion: policy/v1beta1, kind: PodDisruptionBudget, metadata: {name: web, namespace: shop}}";
        check(&RULE, &[budget]).finds(&[
            "warning PodDisruptionBudget shop/web: PodDisruptionBudget web uses policy/v1beta1, removed in Kubernetes \
             1.25",
        ]);
    }

    #[test]
    fn quiet_for_served_versions() {
        check(&RULE, &[&ingress("networking.k8s.io/v1")]).finds_nothing();
        check(&RULE, &["{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web, namespace: shop}}"])
            .finds_nothing();
        check(&RULE, &["{apiVersion: example.com/v1beta1, kind: Web, metadata: {name: web, namespace: shop}}"])
            .finds_nothing();
    }
}
