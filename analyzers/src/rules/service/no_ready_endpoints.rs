use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::kubernetes::network::outage::{NotReady, Outage, OutageExt};
use crate::snapshot::model::{Pod, Service};
use crate::snapshot::{Cluster, Object, ObjectRef, Selector};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that a Service that selects pods has at least one endpoint that accepts traffic: a ready one or, if none
    /// is ready, one that is terminating but still serving.
    ///
    /// ## Why it matters
    ///
    /// Without a ready endpoint every connection to the Service fails. The Service itself is usually correct: the cause
    /// is what keeps its pods from becoming ready, and this finding is listed under that cause.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get endpointslices -l kubernetes.io/service-name=NAME -o yaml` shows no endpoint with
    /// `ready: true`; `kubectl -n NAMESPACE get pods -l SELECTOR` shows the status of the pods.
    ///
    /// ## How to fix
    ///
    /// Make the pods ready; the cause shows what is wrong with them. If pods are ready but no EndpointSlice lists them,
    /// the EndpointSlice controller of kube-controller-manager is not working.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - with `publishNotReadyAddresses`, and for `ExternalName`
    /// - for Services whose only pods belong to Jobs
    /// - for Services that Cilium shares between clusters
    /// - while pods are still within their startup time, and during deletion
    /// - where pods or EndpointSlices could not be read
    /// - for the Service of the cluster's DNS (`dns/down` covers it)
    /// - for Services whose selector matches nothing (`service/selector-matches-nothing` covers them)
    "service/no-ready-endpoints": Error,
    "a Service has no endpoint that accepts traffic",
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
    let dns = cluster.dns();
    for service in cluster.all::<Service>().iter().filter(|service| !dns.has(service)) {
        let Some(outage) = cluster.outage(service) else { continue };
        let finding = match &outage {
            Outage::NotReady(not_ready) => not_ready_finding(service, not_ready, &outage.why()),
            Outage::NoPods(workloads) => no_pods(service, workloads, &outage.why()),
            Outage::NotPublished(pods) => not_published(service, pods),
            _ => continue,
        };
        report.add(outage.causes().into_iter().fold(finding, Finding::because));
    }
}

fn not_ready_finding(service: &Service, not_ready: &NotReady, why: &str) -> Finding {
    let object = service.reference();
    let count = not_ready.pods().len();
    let message = format!("Service {} has no ready endpoints: {why}", service.name());
    let mut finding = Finding::error(object.clone(), message)
        .evidence(format!("{} not ready, 0 ready", words::count(count, "endpoint")), &object, "")
        .pods(count)
        .since(not_ready.since);
    if let Some(pod) = not_ready.pods().first() {
        finding = finding.evidence(readiness_text(pod), &pod.reference(), "status.conditions");
    }
    let selector = Selector::equals(&service.spec.selector).to_string();
    finding.fix_command(
        "Check why the pods are not ready",
        kubectl(["-n", service.namespace(), "describe", "pods", "-l", &selector]),
    )
}

fn readiness_text(pod: &Pod) -> String {
    let name = pod.name();
    match pod.condition("Ready") {
        None => format!("Pod {name} has not started"),
        Some(ready) if ready.message.is_empty() => format!("Pod {name} has condition Ready={}", ready.status),
        Some(ready) => {
            format!("Pod {name} has condition Ready={}: {}", ready.status, words::shorten(&ready.message, 200))
        }
    }
}

fn no_pods(service: &Service, workloads: &[ObjectRef], why: &str) -> Finding {
    let message = format!("Service {} has no endpoints: {why}", service.name());
    let finding = Finding::error(service.reference(), message);
    match workloads.first() {
        Some(workload) => {
            let what = format!("{}/{}", workload.kind.to_lowercase(), workload.name);
            finding
                .evidence(format!("{workload} has no pods"), workload, "")
                .fix_command("Check why no pods are created", kubectl(["-n", service.namespace(), "describe", &what]))
        }
        None => finding,
    }
}

fn not_published(service: &Service, pods: &[&Pod]) -> Finding {
    let object = service.reference();
    let (be, them) = if pods.len() == 1 { ("is", "it") } else { ("are", "them") };
    let message = format!(
        "Service {} has no endpoints although {} {be} ready: no EndpointSlice lists {them}",
        service.name(),
        words::count(pods.len(), "pod"),
    );
    let finding = pods.first().into_iter().fold(Finding::error(object, message), |finding, pod| {
        finding.evidence(format!("Pod {} is ready", pod.name()), &pod.reference(), "status.conditions")
    });
    finding.pods(pods.len()).fix_command(
        "Check that kube-controller-manager, which runs the EndpointSlice controller, holds its lease and is healthy",
        kubectl(["-n", "kube-system", "get", "lease", "kube-controller-manager", "-o", "yaml"]),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: cart, namespace: shop, creationTimestamp: '2026-11-20T12:00:00Z'}
        spec: {selector: {app: cart}, ports: [{port: 80}]}";

    fn slice(conditions: &str) -> String {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: cart-x, namespace: shop, \
             labels: {{kubernetes.io/service-name: cart}}}}, ports: [{{port: 80}}], endpoints: [{{addresses: \
             [10.0.0.1], conditions: {conditions}, targetRef: {{kind: Pod, name: cart-a}}}}]}}"
        )
    }

    fn pod(ready: &str, since: &str, more: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: cart-a, namespace: shop, uid: u, labels: {{app: cart}}, \
             ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: cart, controller: true}}]}}, status: \
             {{phase: Running, conditions: [{{type: Ready, status: '{ready}', lastTransitionTime: '{since}'}}]{more}}}}}"
        )
    }

    const LONG_AGO: &str = "2026-11-21T11:00:00Z";
    const JUST_NOW: &str = "2026-11-21T11:59:00Z";

    #[test]
    fn fires_when_no_pod_is_ready() {
        let said = check(&RULE, &[SERVICE, &pod("False", LONG_AGO, ""), &slice("{ready: false}")]);
        said.finds(&["error Service shop/cart: Service cart has no ready endpoints: \
                      the only pod of StatefulSet cart is not ready"]);
        assert_eq!(said.finding().pods, 1);
        assert_eq!(said.finding().since.unwrap().to_string(), LONG_AGO);
    }

    #[test]
    fn fires_at_once_when_it_cannot_become_ready() {
        let waiting = ", containerStatuses: [{state: {waiting: {reason: ImagePullBackOff}}}]";
        check(&RULE, &[SERVICE, &pod("False", JUST_NOW, waiting), &slice("{ready: false}")]).finding();
    }

    #[test]
    fn fires_when_ready_pods_are_not_published() {
        check(&RULE, &[SERVICE, &pod("True", LONG_AGO, "")])
            .finds(&["error Service shop/cart: Service cart has no endpoints although 1 pod is ready: \
             no EndpointSlice lists it"]);
        check(&RULE, &[SERVICE, &pod("True", "2026-11-21T11:59:30Z", "")]).finds_nothing();
    }

    #[test]
    fn fires_when_a_workload_creates_no_pods() {
        let set = "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: cart, namespace: shop, creationTimestamp: \
                   '2026-11-21T11:00:00Z'}, spec: {template: {metadata: {labels: {app: cart}}}}}";
        check(&RULE, &[SERVICE, set])
            .finds(&["error Service shop/cart: Service cart has no endpoints: StatefulSet cart has no pods"]);
        check(&RULE, &[SERVICE, &set.replace("11:00:00", "11:59:00")]).finds_nothing();
    }

    #[test]
    fn quiet_while_the_pod_starts() {
        check(&RULE, &[SERVICE, &pod("False", JUST_NOW, ""), &slice("{ready: false}")]).finds_nothing();
    }

    #[test]
    fn fires_at_once_when_the_node_is_lost() {
        let node = "{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {conditions: [{type: Ready, status: Unknown}]}}";
        let pod = pod("False", JUST_NOW, "").replace("status: {phase", "spec: {nodeName: n1}, status: {phase");
        let said = TestCluster::new(&[SERVICE, &pod, &slice("{ready: false}"), node]).check_all();
        assert_eq!(said.by("service/no-ready-endpoints").caused_by, [said.by("pod/not-ready").id.clone()]);
        TestCluster::new(&[SERVICE, &pod, &slice("{ready: false}")]).check_all().finds_nothing();
    }

    /// The pods were read just before the control plane marked them not ready, their slice just after.
    #[test]
    fn fires_for_the_node_before_its_pods_are_marked() {
        let node = "{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {conditions: [{type: Ready, status: Unknown}]}}";
        let pod = pod("True", LONG_AGO, "").replace("status: {phase", "spec: {nodeName: n1}, status: {phase");
        let said = TestCluster::new(&[SERVICE, &pod, &slice("{ready: false}"), node]).check_all();
        assert_eq!(said.by("service/no-ready-endpoints").caused_by, [said.by("node/not-ready").id.clone()]);
        check(&RULE, &[SERVICE, &pod, &slice("{ready: true}"), node]).finds_nothing();
    }

    #[test]
    fn fires_while_replacements_of_pods_on_a_lost_node_start() {
        let node = "{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {conditions: [{type: Ready, status: Unknown}]}}";
        let new = pod("False", JUST_NOW, "");
        let evicted = pod("False", LONG_AGO, "")
            .replace("name: cart-a,", "name: cart-b, deletionTimestamp: '2026-11-21T12:00:20Z',")
            .replace("status: {phase", "spec: {nodeName: n1}, status: {phase");
        check(&RULE, &[SERVICE, &new, &evicted, &slice("{ready: false}"), node]).finding();
        let back = node.replace("Unknown", "'True'");
        check(&RULE, &[SERVICE, &new, &evicted, &slice("{ready: false}"), &back]).finds_nothing();
    }

    #[test]
    fn quiet_with_an_endpoint_that_takes_traffic() {
        let pod = pod("False", LONG_AGO, "");
        check(&RULE, &[SERVICE, &pod, &slice("{ready: true}")]).finds_nothing();
        check(&RULE, &[SERVICE, &pod, &slice("{}")]).finds_nothing();
        check(&RULE, &[SERVICE, &pod, &slice("{ready: false, serving: true, terminating: true}")]).finds_nothing();
    }

    #[test]
    fn quiet_for_finished_jobs_and_bare_manifests() {
        let done = pod("False", LONG_AGO, "").replace("Running", "Succeeded");
        check(&RULE, &[SERVICE, &done]).finds_nothing();
        let manifest = "{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop, labels: {app: cart}}}";
        check(
            &RULE,
            &[
                "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: \
                        {app: cart}}}",
                manifest,
            ],
        )
        .finds_nothing();
    }

    #[test]
    fn quiet_where_slices_were_refused() {
        let said = TestCluster::new(&[SERVICE, &pod("False", LONG_AGO, "")]).forbid(Kind::EndpointSlice).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["EndpointSlice forbidden"]);
    }
}
