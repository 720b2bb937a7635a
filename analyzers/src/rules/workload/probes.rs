use crate::engine::{Report, Severity, declare_rule};
use crate::rules::user_managed::{UserManaged, UserManagedExt, named};
use crate::snapshot::Cluster;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that a workload behind a Service has a readiness probe, and that any other long-running workload has at
    /// least one probe.
    ///
    /// ## Why it matters
    ///
    /// Without a readiness probe a pod receives requests as soon as its process starts, even if it cannot respond yet
    /// or can no longer respond, and every rollout loses requests. Without any probe an application that hangs appears
    /// healthy.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod NAME` shows no line `Readiness:` (or `Liveness:`) for the container.
    ///
    /// ## How to fix
    ///
    /// Add a `readinessProbe` that checks whether the container can serve requests. A `livenessProbe` should check only
    /// whether the process is alive: a liveness probe that depends on a database restarts all pods when the database is
    /// slow.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for Jobs and CronJobs, for workloads that are scaled to zero, or if any container of the
    /// pod has the probe. The severity is `warning` behind a Service, otherwise `info`.
    "workload/probes": Warning in Strict,
    "a workload has no readiness probe, or no probes at all",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Pod, Service],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.user_managed() {
        if !workload.is_lasting() || workload.replicas == Some(0) {
            continue;
        }
        let containers = || workload.spec.running_containers();
        let has_readiness = containers().any(|c| c.readiness_probe.is_some());
        let has_none = containers()
            .all(|c| c.readiness_probe.is_none() && c.liveness_probe.is_none() && c.startup_probe.is_none());
        let mut services = workload.services(cluster);
        // With publishNotReadyAddresses readiness does not affect the Service.
        services.retain(|service| !service.spec.publish_not_ready_addresses);
        if !has_readiness && !services.is_empty() {
            let message = format!(
                "{} has no readiness probe but receives traffic from {}",
                workload.object.title(),
                named(&services)
            );
            add(&workload, Severity::Warning, message, report);
        } else if has_none && containers().next().is_some() {
            add(&workload, Severity::Info, format!("{} has no probes", workload.object.title()), report);
        }
    }
}

fn add(workload: &UserManaged, severity: Severity, message: String, report: &mut Report) {
    let mut finding = workload.finding(severity, message);
    for container in workload.spec.running_containers() {
        let probes = [("liveness", &container.liveness_probe), ("startup", &container.startup_probe)];
        let has: Vec<&str> = probes.iter().filter(|(_, probe)| probe.is_some()).map(|(name, _)| *name).collect();
        let text = match has.as_slice() {
            [] => format!("container {} has no probes", container.name),
            has => format!("container {} has only a {} probe", container.name, has.join(" and a ")),
        };
        finding = finding.evidence(text, &workload.object, &workload.path(&format!("containers[{}]", container.name)));
    }
    report.add(
        finding
            .fix_command("Add a readinessProbe that checks whether the container can serve requests", workload.edit()),
    );
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn cart(probe: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: cart, namespace: shop}}
            spec: {{template: {{metadata: {{labels: {{app: cart}}}}, spec: {{containers: [{{name: web, {probe}}}]}}}}}}"
        )
    }

    const SERVICE: &str =
        "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: cart}}}";

    #[test]
    fn fires_behind_a_service() {
        check(&RULE, &[&cart("livenessProbe: {tcpSocket: {port: 80}}"), SERVICE]).finds(&[
            "warning Deployment shop/cart: Deployment cart has no readiness probe but receives traffic from Service \
             cart",
        ]);
    }

    #[test]
    fn fires_as_info_without_any_probe() {
        check(&RULE, &[&cart("")]).finds(&["info Deployment shop/cart: Deployment cart has no probes"]);
    }

    #[test]
    fn quiet_with_a_readiness_probe_behind_a_service_or_any_probe_elsewhere() {
        check(&RULE, &[&cart("readinessProbe: {tcpSocket: {port: 80}}"), SERVICE]).finds_nothing();
        check(&RULE, &[&cart("livenessProbe: {tcpSocket: {port: 80}}")]).finds_nothing();
        check(&RULE, &[&cart("livenessProbe: {tcpSocket: {port: 80}}"), &SERVICE.replace("{app: cart}", "{app: web}")])
            .finds_nothing();
    }

    #[test]
    fn quiet_for_jobs_and_workloads_scaled_to_zero() {
        let job = cart("").replace("apps/v1", "batch/v1").replace("Deployment", "Job");
        check(&RULE, &[&job]).finds_nothing();
        check(&RULE, &[&cart("").replace("spec: {template", "spec: {replicas: 0, template")]).finds_nothing();
    }
}
