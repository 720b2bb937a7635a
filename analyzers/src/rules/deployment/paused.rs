use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::Deployment;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for paused Deployments (`spec.paused`) whose pod template has changes that are not rolled out.
    ///
    /// ## Why it matters
    ///
    /// `kubectl rollout pause` is meant to be temporary. If the rollout is not resumed, later changes, including
    /// security fixes, appear to be applied but are not.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get deployment NAME -o jsonpath='{.spec.paused}'` prints `true`.
    /// `kubectl -n NAMESPACE get deployment NAME` shows fewer pods under UP-TO-DATE than exist.
    ///
    /// ## How to fix
    ///
    /// Run `kubectl -n NAMESPACE rollout resume deployment NAME`.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if all pods run the current template.
    "deployment/paused": Info,
    "a Deployment is paused with pending changes",
    needs: [Deployment],
    optional: [],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let paused = cluster.all::<Deployment>().iter().filter(|d| d.spec.paused && d.is_live() && d.deleted().is_none());
    for deployment in paused {
        let status = &deployment.status;
        let (wanted, name) = (deployment.spec.replicas.unwrap_or(1), deployment.name());
        let has_pending = status.updated_replicas < status.replicas;
        let never_ran = status.replicas == 0 && wanted > 0 && status.observed_generation > 0;
        if !has_pending && !never_ran {
            continue;
        }
        let object = deployment.reference();
        let message = if never_ran {
            format!("Deployment {name} is paused and has no pods")
        } else {
            let (updated, all) = (status.updated_replicas.max(0), status.replicas);
            format!(
                "Deployment {name} is paused with pending changes: {updated} of {all} pods run the current template"
            )
        };
        report.add(
            Finding::info(object.clone(), message).evidence("spec.paused is true", &object, "spec.paused").fix_command(
                "Resume the rollout",
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
    fn fires_with_pending_changes() {
        check(&RULE, &[&deployment(true, 0)]).finds(&[
            "info Deployment shop/web: Deployment web is paused with pending changes: 0 of 2 pods run the current \
             template",
        ]);
    }

    #[test]
    fn quiet_without_changes_or_pause() {
        check(&RULE, &[&deployment(true, 2)]).finds_nothing();
        check(&RULE, &[&deployment(false, 0)]).finds_nothing();
    }
}
