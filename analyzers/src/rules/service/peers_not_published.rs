use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::workloads::log_lines::log_lines;
use crate::kubernetes::workloads::restarts::containers;
use crate::kubernetes::workloads::symptoms::{Symptom, symptoms};
use crate::snapshot::model::{Pod, Service};
use crate::snapshot::{Cluster, Object, ObjectRef, Selector};
use crate::text::kubectl;
use crate::text::words::{count, shorten_middle};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for headless Services whose pods are all unready while their logs report that the name of one of them
    /// (`POD.SERVICE`) does not exist, and which do not set `publishNotReadyAddresses`.
    ///
    /// ## Why it matters
    ///
    /// A headless Service publishes the name of a pod only when the pod is ready. Members of a cluster that look each
    /// other up before they are ready wait for each other: none finds its peers, so none becomes ready.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get endpointslices -l kubernetes.io/service-name=NAME -o yaml` lists the pods with
    /// `ready: false`, and `nslookup POD.NAME` in a pod returns `NXDOMAIN`.
    ///
    /// ## How to fix
    ///
    /// Set `publishNotReadyAddresses: true` on the headless Service that the peers use for discovery, and not on the
    /// Service of the clients. The probes and the names are right. Change it where the Service comes from: the values of
    /// the chart, or the custom resource of the operator.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - if a pod of the Service is ready
    /// - if the pod of the missing name does not exist, or sets another `subdomain`
    /// - without the log of a pod that reports the missing name
    "service/peers-not-published": Error,
    "pods need each other's names before they are ready, but the headless Service publishes only ready pods",
    needs: [Service, Pod],
    optional: [StatefulSet],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if cluster.logs().is_empty() {
        return;
    }
    let is_candidate = |service: &&Service| {
        service.is_headless()
            && !service.spec.publish_not_ready_addresses
            && !service.spec.selector.is_empty()
            && !cluster.is_terminating(*service)
    };
    for service in cluster.all::<Service>().iter().filter(is_candidate) {
        let pods = cluster.pods_matching(service.namespace(), &Selector::equals(&service.spec.selector));
        let active: Vec<&Pod> = pods.into_iter().filter(|pod| pod.is_active()).collect();
        if active.iter().any(|pod| pod.is_ready()) {
            continue;
        }
        if let Some((pod, line)) =
            active.iter().find_map(|pod| Some((*pod, missing_peer(cluster, service, &active, pod)?)))
        {
            report.add(finding(cluster, service, &active, pod, &line));
        }
    }
}

/// The line of a pod's log that reports that the name of one of the pods does not exist.
fn missing_peer(cluster: &Cluster, service: &Service, pods: &[&Pod], pod: &Pod) -> Option<String> {
    let lines = containers(pod).flat_map(|container| {
        let lines = log_lines(cluster, &container);
        lines.into_iter().rev().take(20).collect::<Vec<_>>()
    });
    let names_peer = |host: &str| {
        let labels: Vec<&str> = host.split('.').collect();
        let [peer, name, rest @ ..] = labels.as_slice() else { return false };
        let is_peer = |pod: &&Pod| host_name(pod) == *peer && pod.spec.subdomain == service.name();
        *name == service.name()
            && rest.first().is_none_or(|namespace| *namespace == service.namespace())
            && pods.iter().any(is_peer)
    };
    let mut lines = lines.filter(|line| {
        symptoms(line).iter().any(|symptom| match symptom {
            Symptom::Lookup { host, answered: true, .. } => names_peer(host),
            _ => false,
        })
    });
    lines.next()
}

fn host_name(pod: &Pod) -> &str {
    if pod.spec.hostname.is_empty() { pod.name() } else { &pod.spec.hostname }
}

fn finding(cluster: &Cluster, service: &Service, pods: &[&Pod], pod: &Pod, line: &str) -> Finding {
    let object = service.reference();
    let owner: ObjectRef = cluster.owner_of(pod).into_owned();
    let message = format!(
        "headless Service {} publishes only ready pods (publishNotReadyAddresses is not set), but the pods of {} need \
         each other's names to become ready",
        service.name(),
        owner.title()
    );
    let patch = r#"{"spec":{"publishNotReadyAddresses":true}}"#;
    Finding::error(object.clone(), message)
        .pods(pods.len())
        .evidence("spec.publishNotReadyAddresses is false", &object, "spec.publishNotReadyAddresses")
        .evidence(format!("{}, none ready", count(pods.len(), "pod")), &object, "spec.selector")
        .evidence(format!("log of {}: {}", pod.name(), shorten_middle(line, 200)), &pod.reference(), "")
        .fix_command(
            format!("Set spec.publishNotReadyAddresses of Service {} to true, at its source", service.name()),
            kubectl(["-n", service.namespace(), "patch", "service", service.name(), "-p", patch]),
        )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, TestCluster};

    const SERVICE: &str = "
        apiVersion: v1
        kind: Service
        metadata: {name: peers, namespace: shop}
        spec: {clusterIP: None, selector: {app: db}}";

    fn pod(name: &str, ready: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{app: db}}, creationTimestamp: '2026-11-21T11:00:00Z',
               ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: db, controller: true}}]}},
               spec: {{subdomain: peers, containers: [{{name: db, readinessProbe: {{httpGet: {{port: 80}}}}}}]}},
               status: {{phase: Running, conditions: [{{type: Ready, status: '{ready}', lastTransitionTime: '2026-11-21T11:00:00Z'}}],
                 containerStatuses: [{{name: db, state: {{running: {{startedAt: '2026-11-21T11:00:00Z'}}}}}}]}}}}"
        )
    }

    fn world(service: &str, host: &str, ready: &str) -> TestCluster {
        let line = format!("dial tcp: lookup {host} on 10.96.0.10:53: no such host");
        TestCluster::new(&[service, &pod("db-0", "False"), &pod("db-1", ready)]).log("shop", "db-0", "db", &[&line])
    }

    fn said(service: &str, host: &str, ready: &str) -> Findings {
        world(service, host, ready).check(&RULE)
    }

    #[test]
    fn fires_when_unready_pods_look_each_other_up() {
        said(SERVICE, "db-1.peers.shop.svc.cluster.local", "False").finds(&[
            "error Service shop/peers: headless Service peers publishes only ready pods (publishNotReadyAddresses is \
             not set), but the pods of StatefulSet db need each other's names to become ready",
        ]);
    }

    #[test]
    fn fires_as_the_cause_of_the_unready_pods() {
        let all = world(SERVICE, "db-1.peers", "False").check_all();
        let cause = all.by("service/peers-not-published").id.clone();
        assert!(all.by("pod/not-ready").caused_by.contains(&cause));
    }

    #[test]
    fn quiet_if_the_names_are_published_or_wrong() {
        let published = SERVICE.replace("clusterIP: None", "clusterIP: None, publishNotReadyAddresses: true");
        said(&published, "db-1.peers", "False").finds_nothing();
        said(SERVICE, "db-7.peers", "False").finds_nothing();
        said(SERVICE, "db-1.peers", "True").finds_nothing();
        said(&SERVICE.replace("clusterIP: None", "clusterIP: 10.96.1.1"), "db-1.peers", "False").finds_nothing();
    }
}
