use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::nearest::NearestExt;
use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::kubernetes::network::outage::{Outage, OutageExt};
use crate::kubernetes::nodes::platform::PlatformExt;
use crate::snapshot::model::Service;
use crate::snapshot::{Cluster, Object, ObjectRef, Selector};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the Service of the cluster's DNS has an endpoint that accepts traffic: kube-dns in kube-system
    /// (usually backed by CoreDNS), rke2-coredns-rke2-coredns on RKE2, dns-default in openshift-dns on OpenShift.
    ///
    /// ## Why it matters
    ///
    /// Without it no pod resolves any name, inside or outside the cluster. Applications everywhere report timeouts and
    /// "no such host" at the same time, and rarely mention DNS.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n kube-system get endpointslices -l kubernetes.io/service-name=kube-dns` shows no ready address, and
    /// `kubectl run -it --rm --restart=Never --image=busybox dns-test -- nslookup kubernetes.default` times out.
    ///
    /// ## How to fix
    ///
    /// Make the DNS pods ready: check `kubectl -n kube-system get pods -l k8s-app=kube-dns` and their logs. A crash
    /// loop right after a change to ConfigMap coredns usually means a mistake in the Corefile (see `dns/corefile`). If
    /// the Deployment is scaled to zero, scale it up.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire while the pods are still within their startup time, or where pods or EndpointSlices could
    /// not be read. On GKE a kube-dns that is scaled to zero is only `info`, because Cloud DNS may serve the pods
    /// instead. A missing DNS Service is covered by `dns/missing`.
    "dns/down": Error,
    "the Service of the cluster's DNS has no endpoint that accepts traffic",
    needs: [Service, Pod, EndpointSlice],
    optional: [
        Endpoints, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Namespace, Node,
    ],
    explained_by: [
        "pod/crash-loop", "pod/oom-killed", "pod/liveness-kills", "pod/cannot-start", "pod/image-pull",
        "pod/missing-reference", "pod/volume", "pod/sandbox", "pod/unschedulable", "pod/init-stuck", "pod/not-ready",
        "pod/terminating", "pod/lost", "workload/cannot-create-pods", "workload/unavailable", "workload/rollout-stuck",
        "workload/not-observed", "node/not-ready",
    ],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let Some(service) = cluster.dns().service() else { return };
    let Some(outage) = cluster.outage(service) else { return };
    let elsewhere = matches!(outage, Outage::Parked { .. }) && cluster.is_gke();
    let (severity, what) =
        if elsewhere { (Severity::Info, "Cluster DNS is disabled") } else { (Severity::Error, "Cluster DNS is down") };
    let why = match &outage {
        Outage::SelectsNothing => selects_nothing(cluster, service),
        outage => outage.why(),
    };
    let object = service.reference();
    let message = format!("{what}, Service {} has no ready endpoints: {why}", service.name());
    let mut finding = Finding::new(severity, object.clone(), message);
    finding = finding.evidence("its EndpointSlices list no ready endpoint", &object, "");
    if let Outage::NotReady(not_ready) = &outage {
        finding = finding.pods(not_ready.pods().len()).since(not_ready.since);
        for pod in not_ready.pods().iter().take(1) {
            let text = format!("Pod {} is not ready", pod.name());
            finding = finding.evidence(text, &pod.reference(), "status.conditions");
        }
    }
    finding = fix(finding, service, &outage);
    report.add(outage.causes().into_iter().fold(finding, Finding::because));
}

fn selects_nothing(cluster: &Cluster, service: &Service) -> String {
    let selector = Selector::equals(&service.spec.selector);
    match cluster.nearest_workload(service.namespace(), &selector) {
        Some(nearest) => nearest.difference(),
        None => format!("no pod or workload has {selector}"),
    }
}

fn fix(finding: Finding, service: &Service, outage: &Outage) -> Finding {
    let namespace = service.namespace();
    match outage {
        Outage::Parked { workload, .. } => {
            finding.evidence("spec.replicas is 0", workload, "spec.replicas").fix_command(
                "Scale up the DNS workload",
                kubectl(["-n", namespace, "scale", &path(workload), "--replicas=2"]),
            )
        }
        Outage::SelectsNothing | Outage::NoLeader { .. } | Outage::NoAddress => finding.fix_command(
            "Set spec.selector to the labels of the DNS pods",
            kubectl(["-n", namespace, "edit", "service", service.name()]),
        ),
        _ => {
            let selector = Selector::equals(&service.spec.selector).to_string();
            finding.fix_command(
                "Check why the DNS pods are not ready",
                kubectl(["-n", namespace, "describe", "pods", "-l", &selector]),
            )
        }
    }
}

/// `deployment/coredns`.
fn path(workload: &ObjectRef) -> String {
    format!("{}/{}", workload.kind.to_lowercase(), workload.name)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
        spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{port: 53, protocol: UDP}]}";

    fn coredns(replicas: u32) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: coredns, namespace: kube-system}}, \
             spec: {{replicas: {replicas}, template: {{metadata: {{labels: {{k8s-app: kube-dns}}}}}}}}}}"
        )
    }

    fn pod(waiting: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: coredns-a, namespace: kube-system, uid: u, labels: {{k8s-app: \
             kube-dns, pod-template-hash: h}}, ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: \
             coredns-h, controller: true}}]}}, status: {{phase: Running, containerStatuses: [{{state: {{waiting: \
             {{reason: {waiting}}}}}}}], conditions: [{{type: Ready, status: 'False', lastTransitionTime: \
             '2026-11-21T11:59:30Z'}}]}}}}"
        )
    }

    #[test]
    fn fires_when_the_pods_cannot_start() {
        check(&RULE, &[SERVICE, &coredns(1), &pod("ImagePullBackOff")]).finds(&[
            "error Service kube-system/kube-dns: Cluster DNS is down, Service kube-dns has no ready endpoints: \
             the only pod of Deployment coredns is not ready",
        ]);
    }

    #[test]
    fn fires_when_scaled_to_zero() {
        let said = check(&RULE, &[SERVICE, &coredns(0)]);
        said.finds(&[
            "error Service kube-system/kube-dns: Cluster DNS is down, Service kube-dns has no ready endpoints: \
                      Deployment coredns is scaled to zero",
        ]);
        let fix = said.finding().fix[0].command.as_deref();
        assert_eq!(fix, Some("kubectl -n kube-system scale deployment/coredns --replicas=2"));
        let gke = "{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {cloud.google.com/gke-nodepool: p}}}";
        check(&RULE, &[SERVICE, &coredns(0), gke]).finds(&[
            "info Service kube-system/kube-dns: Cluster DNS is disabled, Service kube-dns has no ready endpoints: \
             Deployment coredns is scaled to zero",
        ]);
    }

    #[test]
    fn fires_when_the_selector_is_wrong() {
        check(&RULE, &[&SERVICE.replace("selector: {k8s-app: kube-dns}", "selector: {k8s-app: kubedns}"), &coredns(1)])
            .finds(&[
                "error Service kube-system/kube-dns: Cluster DNS is down, Service kube-dns has no ready endpoints: \
                      selector k8s-app=kubedns, Deployment coredns has k8s-app=kube-dns",
            ]);
    }

    #[test]
    fn quiet_while_the_pods_start() {
        check(&RULE, &[SERVICE, &coredns(1), &pod("ContainerCreating")]).finds_nothing();
    }

    #[test]
    fn quiet_for_other_services() {
        check(&RULE, &[&SERVICE.replace("kube-system", "shop"), &coredns(0)]).finds_nothing();
    }
}
