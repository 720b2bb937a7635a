use crate::engine::{Finding, Report, declare_rule};
use crate::rules::user_managed::UserManagedExt;
use crate::snapshot::{Cluster, Kind, ObjectRef, Origin};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That no workload is in the namespace `default`.
    ///
    /// ## Why it matters
    ///
    /// `default` is where objects end up when nobody chose a namespace. They share it with everything else and usually
    /// have no quotas, policies or permissions of their own. The namespace cannot be deleted as a whole.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n default get deployments,statefulsets,daemonsets,cronjobs,pods`.
    ///
    /// ## How to fix
    ///
    /// Create a namespace for each application or team, and apply the workloads there.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for finished Jobs and pods, for workloads that an operator created, or for manifests: an
    /// object without a namespace goes to the namespace of whoever applies it.
    "namespace/default-in-use": Info in Strict,
    "workloads in the namespace default",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if cluster.origin() == Origin::Manifests {
        return;
    }
    let all = cluster.user_managed();
    let here: Vec<_> = all.iter().filter(|workload| workload.object.namespace() == "default").collect();
    let names: Vec<String> = here.iter().map(|workload| workload.object.title()).collect();
    let is = match names.len() {
        0 => return,
        1 => "is",
        _ => "are",
    };
    let object = ObjectRef::new(Kind::Namespace, "", "default");
    let message = format!("{} {is} in namespace default", list(&names, 3));
    let mut finding = Finding::info(object, message).pods(here.iter().map(|workload| workload.pods.len()).sum());
    for workload in here.iter().take(20) {
        finding = finding.evidence("metadata.namespace is default", &workload.object, "metadata.namespace");
    }
    let command = kubectl(["create", "namespace", "NAME"]);
    report.add(finding.fix_command("Create a namespace and apply the workloads there", command));
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::testing::{TestCluster, check};

    const CART: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: default}}";

    #[test]
    fn fires_for_a_workload_in_default() {
        check(&RULE, &[CART]).finds(&["info Namespace default: Deployment cart is in namespace default"]);
    }

    #[test]
    fn quiet_for_another_namespace_and_for_manifests() {
        check(&RULE, &[&CART.replace("default", "shop")]).finds_nothing();
        TestCluster::new(&[CART]).origin(Origin::Manifests).check(&RULE).finds_nothing();
    }
}
