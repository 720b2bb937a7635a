use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::listeners::{Side, Split, split};
use crate::snapshot::model::{Service, ServicePort};
use crate::snapshot::{Cluster, Object, Origin};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for Services with a numeric `targetPort` whose selector matches several workloads, of which only some
    /// listen on that port: the others declare other ports, or run another command of the same image and declare none.
    ///
    /// ## Why it matters
    ///
    /// All of these pods are endpoints, and a pod without a readiness probe is ready immediately. Connections to those
    /// that do not listen are refused, at random, in between connections that work.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get pods -l SELECTOR -o wide` lists pods of both workloads; `kubectl -n NAMESPACE get
    /// endpointslices -l kubernetes.io/service-name=NAME -o yaml` lists their addresses.
    ///
    /// ## How to fix
    ///
    /// Add a label to the Service's selector that only the intended workload's pods have, in the chart or manifest that
    /// creates the Service. If there is none, add such a label to the pod template first.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for a named `targetPort`: pods without a port of that name do not become endpoints of that port
    /// - for headless Services, and Services that publish pods that are not ready
    /// - for Services and ports whose name suggests metrics or administration
    /// - for workloads that run the same image and command, such as a canary
    /// - for pods of Jobs, on the host network, or with a proxy that declares no ports
    ///
    /// The finding is a `warning` for a workload with an image of its own, without declared ports and probes.
    "service/silent-workload": Error,
    "a Service also selects a workload that does not listen on its target port",
    needs: [Service, Pod],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Namespace],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for service in cluster.all::<Service>().iter().filter(|service| !cluster.is_terminating(*service)) {
        let found = service.spec.ports.iter().find_map(|port| Some((port, split(cluster, service, port)?)));
        if let Some((port, found)) = found {
            report.add(finding(cluster, service, port, &found));
        }
    }
}

fn finding(cluster: &Cluster, service: &Service, port: &ServicePort, found: &Split) -> Finding {
    let (object, number) = (service.reference(), found.number);
    let titles = |sides: &[Side]| words::list(&sides.iter().map(|side| side.owner.title()).collect::<Vec<_>>(), 3);
    let pods = |sides: &[Side]| sides.iter().map(|side| side.pods).sum::<usize>();
    let (silent, all) = (pods(&found.silent), pods(&found.silent) + pods(&found.listening));
    let share = match cluster.origin() {
        Origin::Manifests => String::new(),
        _ => format!(" ({silent} of {all} ready pods)"),
    };
    let (others, intended) = (titles(&found.silent), titles(&found.listening));
    let do_not = if found.silent.len() == 1 { "does not" } else { "do not" };
    let message = format!(
        "selector of Service {} matches not only {intended} but also {others}, which {do_not} listen on target port \
         {number}{share}",
        service.name()
    );
    let severity = if found.is_certain { Severity::Error } else { Severity::Warning };
    let mut finding = Finding::new(severity, object.clone(), message)
        .key(format!("{}/{}", port.port, port.protocol()))
        .pods(silent)
        .evidence(format!("port {} is sent to port {number} of every selected pod", port.port), &object, "spec.ports");
    for side in found.silent.iter().take(3) {
        let text = format!("no container of {} declares or probes port {number}", side.owner.title());
        finding = finding.evidence(text, &side.owner, "spec.template.spec.containers");
    }
    let by = match service.annotation("meta.helm.sh/release-name") {
        Some(release) => format!(", in the templates or values of Helm release {release}"),
        None => String::new(),
    };
    match found.distinguishing_label() {
        Some((key, value)) => {
            let patch = serde_json::json!({"spec": {"selector": {key: value}}}).to_string();
            finding.fix_command(
                format!("Narrow the selector to {intended}: add the label {key}={value} to it{by}"),
                kubectl(["-n", service.namespace(), "patch", "service", service.name(), "--type=merge", "-p", &patch]),
            )
        }
        None => finding.fix(format!(
            "Add a label to the pod template of {intended} that {others} lacks, then add this label to the selector{by}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::Origin;
    use crate::testing::{TestCluster, check};

    fn service(port: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: bill, namespace: shop}}, spec: {{selector: {{app: bill}}, \
             ports: [{{name: http, port: 80, targetPort: {port}}}]}}}}"
        )
    }

    fn pod(owner: &str, container: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {owner}-0, namespace: shop, labels: {{app: bill, part: \
             {owner}}}, ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: {owner}, controller: true}}]}}, \
             spec: {{containers: [{{name: app, {container}}}]}}, status: {{phase: Running, conditions: [{{type: Ready, \
             status: 'True'}}]}}}}"
        )
    }

    fn template(owner: &str, container: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {owner}, namespace: shop}}, spec: {{template: \
             {{metadata: {{labels: {{app: bill, part: {owner}}}}}, spec: {{containers: [{{name: app, {container}}}]}}}}}}}}"
        )
    }

    const WEB: &str = "image: 'bill:1', ports: [{name: http, containerPort: 8000}]";

    #[test]
    fn fires_for_a_worker_of_the_same_image_and_for_other_ports() {
        let worker = pod("worker", "image: 'bill:1', args: [worker]");
        let said = check(&RULE, &[&service("8000"), &pod("web", WEB), &worker]);
        said.finds(&["error Service shop/bill: selector of Service bill matches not only StatefulSet web but also \
                      StatefulSet worker, which does not listen on target port 8000 (1 of 2 ready pods)"]);
        let fix = r#"kubectl -n shop patch service bill --type=merge -p '{"spec":{"selector":{"part":"web"}}}'"#;
        assert_eq!(said.finding().fix[0].command.as_deref(), Some(fix));
        let other = pod("admin", "image: 'other:1', ports: [{containerPort: 9000}]");
        check(&RULE, &[&service("8000"), &pod("web", WEB), &other]).finding();
    }

    #[test]
    fn fires_in_manifests() {
        let worker = template("worker", "image: 'bill:1', args: [worker]");
        let world = TestCluster::new(&[&service("8000"), &template("web", WEB), &worker]).origin(Origin::Manifests);
        world
            .check(&RULE)
            .finds(&["error Service shop/bill: selector of Service bill matches not only Deployment web \
                                    but also Deployment worker, which does not listen on target port 8000"]);
    }

    #[test]
    fn quiet_for_named_ports_canaries_and_workloads_that_listen() {
        let worker = pod("worker", "image: 'bill:1', args: [worker]");
        check(&RULE, &[&service("http"), &pod("web", WEB), &worker]).finds_nothing();
        let canary = pod("canary", "image: 'bill:2'");
        check(&RULE, &[&service("8000"), &pod("web", WEB), &canary]).finds_nothing();
        let blue = pod("blue", "image: 'other:2', readinessProbe: {tcpSocket: {port: 8000}}");
        check(&RULE, &[&service("8000"), &pod("web", WEB), &blue]).finds_nothing();
        let unready = worker.replace("'True'", "'False'");
        check(&RULE, &[&service("8000"), &pod("web", WEB), &unready]).finds_nothing();
    }
}
