use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::{LAST_APPLIED, applied_version};
use crate::snapshot::{Cluster, ObjectRef};

declare_rule! {
    /// ## What it checks
    ///
    /// Objects that are written, or were last applied by kubectl, in a version of the API that Kubernetes no longer serves or
    /// is going to remove.
    ///
    /// ## Why it matters
    ///
    /// The cluster goes on serving the object in its new version, so nothing seems wrong, but the manifest that it came from
    /// cannot be applied again: the next rollout, restore or new cluster fails with `no matches for kind`.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE apply view-last-applied KIND/NAME` shows the `apiVersion`; `kubectl api-versions` what is served.
    ///
    /// ## How to fix
    ///
    /// Write the manifest in the new version (`kubectl convert` helps, and
    /// https://kubernetes.io/docs/reference/using-api/deprecation-guide/ says what changed), and apply it.
    ///
    /// ## Exceptions
    ///
    /// For objects that were not applied by kubectl and are read from a cluster: the API server gives every object in the
    /// version that it is asked for. Custom resources have versions of their own, which are not looked at.
    "api/deprecated": Warning in Strict,
    "objects written in a version of the API that is removed, or will be",
    needs: [],
    optional: [
        Deployment, StatefulSet, DaemonSet, ReplicaSet, CronJob, HorizontalPodAutoscaler, PodDisruptionBudget, Ingress,
        IngressClass, NetworkPolicy, StorageClass, CSIDriver, PriorityClass, RuntimeClass, Role, RoleBinding, ClusterRole,
        ClusterRoleBinding, ValidatingWebhookConfiguration, MutatingWebhookConfiguration, APIService,
        CustomResourceDefinition,
    ],
    explained_by: [],
}

/// Versions that are gone: apiVersion, kind (empty for all of the group), the minor version of Kubernetes that no longer
/// serves it, and what to write instead.
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
            let text = format!("kubectl applied it as {version}");
            let path = format!("metadata.annotations[{LAST_APPLIED}]");
            report.add(
                finding(&object, "was last applied as", version, gone, instead, minor).evidence(text, &object, &path),
            );
        }
    }
    // Only files hold objects in a version that is gone.
    for object in cluster.custom().iter().map(crate::snapshot::model::CustomResource::reference) {
        if let Some((gone, instead)) = removed(&object.api_version, &object.kind) {
            let version = object.api_version.to_string();
            let text = format!("apiVersion is {version}");
            let finding = finding(&object, "is written in", &version, gone, instead, minor);
            report.add(finding.evidence(text, &object, "apiVersion"));
        }
    }
}

fn removed(api_version: &str, kind: &str) -> Option<(u32, &'static str)> {
    let is_meant =
        |(version, of, _, _): &&(&str, &str, u32, &str)| *version == api_version && (of.is_empty() || *of == kind);
    REMOVED.iter().find(is_meant).map(|(_, _, gone, instead)| (*gone, *instead))
}

/// 36, of `v1.36.3`.
fn minor(version: &str) -> Option<u32> {
    version.trim_start_matches('v').split('.').nth(1)?.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}

fn finding(object: &ObjectRef, how: &str, version: &str, gone: u32, instead: &str, server: Option<u32>) -> Finding {
    let when = match server {
        Some(server) if server < gone => "will not serve any more",
        _ => "does not serve any more",
    };
    let message = format!("{} {how} {version}, which Kubernetes 1.{gone} {when}", object.title());
    let finding = Finding::warning(object.clone(), message);
    match instead {
        "" => finding.fix("Delete it: there is no such kind any more (Pod Security admission took its place)"),
        _ => finding.fix(format!("Write its manifest as {instead} and apply that")),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{World, check};

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
    fn fires_for_what_was_applied_in_an_old_version() {
        check(&RULE, &[&ingress("networking.k8s.io/v1beta1")]).finds(&[
            "warning Ingress shop/web: Ingress web was last applied as networking.k8s.io/v1beta1, which Kubernetes 1.22 does \
             not serve any more",
        ]);
        let job = ingress("batch/v1beta1")
            .replace("networking.k8s.io/v1\n", "batch/v1\n")
            .replace("kind: Ingress", "kind: CronJob");
        assert!(World::new(&[&job]).server_version("v1.24.3").check(&RULE).text().contains("1.25 will not serve"));
    }

    #[test]
    fn fires_for_a_manifest_in_an_old_version() {
        let budget = "{apiVersion: policy/v1beta1, kind: PodDisruptionBudget, metadata: {name: web, namespace: shop}}";
        check(&RULE, &[budget]).finds(&[
            "warning PodDisruptionBudget shop/web: PodDisruptionBudget web is written in policy/v1beta1, which Kubernetes 1.25 \
             does not serve any more",
        ]);
    }

    #[test]
    fn quiet_for_versions_that_are_served() {
        check(&RULE, &[&ingress("networking.k8s.io/v1")]).finds_nothing();
        check(&RULE, &["{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web, namespace: shop}}"])
            .finds_nothing();
        check(&RULE, &["{apiVersion: example.com/v1beta1, kind: Web, metadata: {name: web, namespace: shop}}"])
            .finds_nothing();
    }
}
