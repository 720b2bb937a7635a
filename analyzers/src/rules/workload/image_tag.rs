use crate::engine::{Report, Severity, declare_rule};
use crate::kubernetes::workloads::image_pull::tag;
use crate::rules::authored::AuthoredExt;
use crate::snapshot::Cluster;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That every image has a tag other than `latest`, or a digest.
    ///
    /// ## Why it matters
    ///
    /// Nobody can say which version runs. The next pod may get another one than its siblings, and `kubectl rollout undo`
    /// brings back the same name.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -o jsonpath='{.items[*].status.containerStatuses[*].imageID}'` shows which digests run.
    ///
    /// ## How to fix
    ///
    /// Name a version, `registry.example.com/cart:1.4.2`, or the digest, `…@sha256:…`.
    ///
    /// ## Exceptions
    ///
    /// For any other tag, `stable` and `main` too, and for a digest beside `latest`.
    "workload/image-tag": Warning in Strict,
    "images without a tag, or with the tag latest",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.authored() {
        let moving: Vec<_> = workload.spec.all_containers().filter(|c| is_moving(&c.image)).collect();
        if moving.is_empty() {
            continue;
        }
        let names: Vec<String> = moving.iter().map(|c| format!("{} (container {})", c.image, c.name)).collect();
        let title = workload.object.title();
        let message = format!("{title} runs whatever version its image has at the moment: {}", list(&names, 2));
        let mut finding = workload.finding(Severity::Warning, message);
        for container in moving {
            let text = format!("container {} has the image {}", container.name, container.image);
            let path = workload.path(&format!("containers[{}].image", container.name));
            finding = finding.evidence(text, &workload.object, &path);
        }
        report.add(finding.fix_command("Name a version or a digest", workload.edit()));
    }
}

/// An image that is named today and another one tomorrow. A template may leave it open, for an operator to fill in.
fn is_moving(image: &str) -> bool {
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
                "warning CronJob shop/report: CronJob report runs whatever version its image has at the moment: {image} \
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
