use crate::engine::{Report, Severity, declare_rule};
use crate::kubernetes::workloads::image_pull::tag;
use crate::rules::user_managed::UserManagedExt;
use crate::snapshot::Cluster;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for images without a tag or digest, or with the tag `latest`.
    ///
    /// ## Why it matters
    ///
    /// The running version is unknown. A new pod may run a different version than the other pods of the workload, and
    /// `kubectl rollout undo` does not restore the previous version.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -o jsonpath='{.items[*].status.containerStatuses[*].imageID}'` shows the running
    /// digests.
    ///
    /// ## How to fix
    ///
    /// Use a version tag, `registry.example.com/cart:1.4.2`, or a digest, `…@sha256:…`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for any other tag, including `stable` and `main`, or for `latest` with a digest.
    "workload/image-tag": Warning in Strict,
    "images have no tag or the tag latest",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.user_managed() {
        let unpinned: Vec<_> = workload.spec.all_containers().filter(|c| is_unpinned(&c.image)).collect();
        if unpinned.is_empty() {
            continue;
        }
        let names: Vec<String> = unpinned.iter().map(|c| format!("{} (container {})", c.image, c.name)).collect();
        let title = workload.object.title();
        let message = format!("{title} uses images without a version tag or digest: {}", list(&names, 2));
        let mut finding = workload.finding(Severity::Warning, message);
        for container in unpinned {
            let text = format!("container {} uses image {}", container.name, container.image);
            let path = workload.path(&format!("containers[{}].image", container.name));
            finding = finding.evidence(text, &workload.object, &path);
        }
        report.add(finding.fix_command("Set the image to a version tag or a digest", workload.edit()));
    }
}

/// Whether the image may change without a change of the template. Operators may fill in an empty image.
fn is_unpinned(image: &str) -> bool {
    !image.is_empty() && tag(image) == "latest"
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn cart(image: &str) -> String {
        format!(
            "
            apiVersion: batch/v1
            kind: CronJob
            metadata: {{name: report, namespace: shop}}
            spec: {{jobTemplate: {{spec: {{template: {{spec: {{containers: [{{name: web, image: '{image}'}}]}}}}}}}}}}"
        )
    }

    #[test]
    fn fires_for_latest_and_for_no_tag() {
        for image in ["registry.example.com:5000/cart", "cart:latest"] {
            check(&RULE, &[&cart(image)]).finds(&[&format!(
                "warning CronJob shop/report: CronJob report uses images without a version tag or digest: {image} \
                 (container web)"
            )]);
        }
    }

    #[test]
    fn quiet_for_a_version_or_a_digest() {
        for image in ["registry.example.com:5000/cart:1.4", "cart:latest@sha256:0a1b", "cart@sha256:0a1b", ""] {
            check(&RULE, &[&cart(image)]).finds_nothing();
        }
    }
}
