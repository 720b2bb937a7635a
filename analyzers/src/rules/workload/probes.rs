use crate::engine::{Report, Severity, declare_rule};
use crate::rules::authored::{Authored, AuthoredExt, named};
use crate::snapshot::Cluster;

declare_rule! {
    /// ## What it checks
    ///
    /// That a workload behind a Service has a readiness probe, and any other lasting workload a probe of some kind.
    ///
    /// ## Why it matters
    ///
    /// Without a readiness probe a pod gets requests as soon as its process is started, also when it is not able to answer
    /// yet or any more, and every rollout loses some of them. Without any probe a program that hangs looks healthy.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod NAME` shows no line `Readiness:` (or `Liveness:`) for the container.
    ///
    /// ## How to fix
    ///
    /// Give the container a `readinessProbe` that asks for what the program needs to answer. A `livenessProbe` should only
    /// ask whether the process is alive: one that asks for a database restarts all pods when the database is slow.
    ///
    /// ## Exceptions
    ///
    /// For Jobs and CronJobs, for what is scaled to zero, and where one container of several has the probe. It is `warning`
    /// behind a Service, else `info`.
    "workload/probes": Warning in Strict,
    "a workload without a readiness probe, or without any probe",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Pod, Service],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.authored() {
        if !workload.is_lasting() || workload.replicas == Some(0) {
            continue;
        }
        let containers = || workload.spec.running_containers();
        let is_ready_known = containers().any(|c| c.readiness_probe.is_some());
        let has_none = containers()
            .all(|c| c.readiness_probe.is_none() && c.liveness_probe.is_none() && c.startup_probe.is_none());
        let mut services = workload.services(cluster);
        // Whoever publishes addresses that are not ready does not care.
        services.retain(|service| !service.spec.publish_not_ready_addresses);
        if !is_ready_known && !services.is_empty() {
            let sends = if services.len() == 1 { "sends" } else { "send" };
            let message = format!(
                "{} has no readiness probe, and {} {sends} it requests as soon as it is started",
                workload.object.title(),
                named(&services)
            );
            add(&workload, Severity::Warning, message, report);
        } else if has_none && containers().next().is_some() {
            add(&workload, Severity::Info, format!("{} has no probe of any kind", workload.object.title()), report);
        }
    }
}

fn add(workload: &Authored, severity: Severity, message: String, report: &mut Report) {
    let mut finding = workload.finding(severity, message);
    for container in workload.spec.running_containers() {
        let probes = [("liveness", &container.liveness_probe), ("startup", &container.startup_probe)];
        let has: Vec<&str> = probes.iter().filter(|(_, probe)| probe.is_some()).map(|(name, _)| *name).collect();
        let text = match has.as_slice() {
            [] => format!("container {} has no probe", container.name),
            has => format!("container {} has only a {} probe", container.name, has.join(" and a ")),
        };
        finding = finding.evidence(text, &workload.object, &workload.path(&format!("containers[{}]", container.name)));
    }
    report.add(finding.fix_command("Give it a readinessProbe that asks for what it needs to answer", workload.edit()));
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
            "warning Deployment shop/cart: Deployment cart has no readiness probe, and Service cart sends it requests as \
             soon as it is started",
        ]);
    }

    #[test]
    fn fires_mildly_without_any_probe() {
        check(&RULE, &[&cart("")]).finds(&["info Deployment shop/cart: Deployment cart has no probe of any kind"]);
    }

    #[test]
    fn quiet_with_a_readiness_probe_behind_a_service_or_any_probe_elsewhere() {
        check(&RULE, &[&cart("readinessProbe: {tcpSocket: {port: 80}}"), SERVICE]).finds_nothing();
        check(&RULE, &[&cart("livenessProbe: {tcpSocket: {port: 80}}")]).finds_nothing();
        check(&RULE, &[&cart("livenessProbe: {tcpSocket: {port: 80}}"), &SERVICE.replace("{app: cart}", "{app: web}")])
            .finds_nothing();
    }

    #[test]
    fn quiet_for_jobs_and_what_is_switched_off() {
        let job = cart("").replace("apps/v1", "batch/v1").replace("Deployment", "Job");
        check(&RULE, &[&job]).finds_nothing();
        check(&RULE, &[&cart("").replace("spec: {template", "spec: {replicas: 0, template")]).finds_nothing();
    }
}
