use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::Deployment;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Whether a Deployment is paused (`spec.paused`) while its pod template has changes that no pod runs yet.
    ///
    /// ## Why it matters
    ///
    /// `kubectl rollout pause` is meant for a moment. If nobody resumes it, each later change, a security fix too, seems to
    /// be applied and is not.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get deployment NAME -o jsonpath='{.spec.paused}'` prints `true`, and `kubectl -n NAMESPACE get
    /// deployment NAME` shows fewer pods under UP-TO-DATE than there are.
    ///
    /// ## How to fix
    ///
    /// `kubectl -n NAMESPACE rollout resume deployment NAME`.
    ///
    /// ## Exceptions
    ///
    /// When all pods run the current template.
    "deployment/paused": Info,
    "a Deployment is paused with changes waiting",
    needs: [Deployment],
    optional: [],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let paused = cluster.all::<Deployment>().iter().filter(|d| d.spec.paused && d.is_live() && d.deleted().is_none());
    for deployment in paused {
        let status = &deployment.status;
        let (wanted, name) = (deployment.spec.replicas.unwrap_or(1), deployment.name());
        let waits = status.updated_replicas < status.replicas;
        let never_ran = status.replicas == 0 && wanted > 0 && status.observed_generation > 0;
        if !waits && !never_ran {
            continue;
        }
        let object = deployment.reference();
        let message = if never_ran {
            format!("Deployment {name} is paused and has no pods")
        } else {
            let (updated, all) = (status.updated_replicas.max(0), status.replicas);
            format!(
                "Deployment {name} is paused with changes waiting: {updated} of {all} pods run its current template"
            )
        };
        report.add(
            Finding::info(object.clone(), message).evidence("spec.paused is true", &object, "spec.paused").fix_command(
                "Resume it",
                kubectl(["-n", deployment.namespace(), "rollout", "resume", "deployment", name]),
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn deployment(paused: bool, updated: i32) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop, uid: u}}
            spec: {{replicas: 2, paused: {paused}}}
            status: {{replicas: 2, updatedReplicas: {updated}, observedGeneration: 3}}"
        )
    }

    #[test]
    fn fires_with_changes_waiting() {
        check(&RULE, &[&deployment(true, 0)]).finds(&[
            "info Deployment shop/web: Deployment web is paused with changes waiting: 0 of 2 pods run its current template",
        ]);
    }

    #[test]
    fn quiet_without_changes_or_pause() {
        check(&RULE, &[&deployment(true, 2)]).finds_nothing();
        check(&RULE, &[&deployment(false, 0)]).finds_nothing();
    }
}
