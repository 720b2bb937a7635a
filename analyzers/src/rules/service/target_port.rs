use std::borrow::Cow;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::listeners;
use crate::snapshot::model::{Container, IntOrString, PodSpec, Probe, Service, ServicePort, port_text};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Selector};
use crate::text::similar::nearest_name;
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks the `targetPort` of each port of a Service. A name must be the name of a container port, with the same
    /// protocol, of at least one selected pod (or pod template). A number is compared with the ports that the
    /// containers declare and that their probes use.
    ///
    /// ## Why it matters
    ///
    /// Pods without a port of that name are left out of the Service's endpoints: the pods are ready, but receive no
    /// traffic. A wrong number results in "connection refused".
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get endpointslices -l kubernetes.io/service-name=NAME -o yaml` shows no port; `kubectl -n
    /// NAMESPACE get pods -l SELECTOR -o jsonpath='{.items[*].spec.containers[*].ports}'` shows the declared ports.
    ///
    /// ## How to fix
    ///
    /// Set `targetPort` to the name or number of a port that the pods listen on, or name the port in the pod template.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for a name that some pods declare and others do not: each pod receives the traffic for
    /// the ports that it has.
    ///
    /// A wrong number is only a `warning`, because `containerPort` is informational. The rule does not fire for a
    /// number:
    ///
    /// - if any container declares no ports
    /// - if the pods have a service mesh sidecar or use the host network
    /// - if the name of the port or the Service suggests metrics or administration
    /// - if any port of the Service is declared or probed
    "service/target-port": Error,
    "a targetPort matches no port of the selected pods",
    needs: [Service, Pod],
    optional: [
        Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Namespace,
    ],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for service in cluster.all::<Service>() {
        if service.is_external_name() || service.spec.selector.is_empty() || cluster.is_terminating(service) {
            continue;
        }
        let templates = templates(cluster, service);
        let specs = pods(cluster, service).unwrap_or_else(|| templates.clone());
        if specs.is_empty() {
            continue;
        }
        for port in &service.spec.ports {
            if let IntOrString::String(name) = port.target()
                // A rollout to a template with the port is replacing pods without it.
                && !specs.iter().chain(&templates).any(|(_, spec)| has_port(spec, &name, port.protocol()))
            {
                report.add(no_such_name(service, port, &name, &specs));
            }
        }
        if let Some(finding) = wrong_number(service, &specs) {
            report.add(finding);
        }
    }
}

type Spec<'a> = (Cow<'a, ObjectRef>, &'a PodSpec);

/// The pods that the Service selects, by owner; `None` if there are none.
fn pods<'a>(cluster: &'a Cluster, service: &Service) -> Option<Vec<Spec<'a>>> {
    let pods = cluster.pods_matching(service.namespace(), &Selector::equals(&service.spec.selector));
    let pods = pods.into_iter().filter(|pod| pod.is_active()).map(|pod| (cluster.owner_of(pod), &*pod.spec));
    let pods: Vec<Spec> = pods.filter(|(owner, _)| !is_batch(owner)).collect();
    (!pods.is_empty()).then_some(pods)
}

/// The pod templates that it selects.
fn templates<'a>(cluster: &'a Cluster, service: &Service) -> Vec<Spec<'a>> {
    let selector = Selector::equals(&service.spec.selector);
    let workloads = cluster.workloads_matching(service.namespace(), &selector).into_iter();
    workloads.filter(|w| !is_batch(&w.object)).map(|w| (Cow::Owned(w.object), &*w.template.spec)).collect()
}

fn is_batch(owner: &ObjectRef) -> bool {
    owner.is(Kind::Job) || owner.is(Kind::CronJob)
}

fn has_port(spec: &PodSpec, name: &str, protocol: &str) -> bool {
    let mut ports = spec.running_containers().flat_map(|container| &container.ports);
    ports.any(|port| port.name == name && port.protocol() == protocol)
}

fn no_such_name(service: &Service, port: &ServicePort, name: &str, specs: &[Spec]) -> Finding {
    let (namespace, object) = (service.namespace(), service.reference());
    let (owners, declare) = owners(specs);
    let declared = declared(specs);
    let other_protocol = specs.iter().find_map(|(_, spec)| {
        let mut ports = spec.running_containers().flat_map(|c| &c.ports);
        ports.find(|p| p.name == name).map(|p| p.protocol().to_string())
    });
    let has = match other_protocol {
        Some(protocol) => format!("{declare} {name} for {protocol}, not for {}", port.protocol()),
        None if declared.is_empty() => format!("{declare} no ports"),
        None => format!("{declare} no port of that name (declared: {})", words::list(&declared, 5)),
    };
    let message =
        format!("Service {} maps port {} to targetPort {name}, but {owners} {has}", service.name(), port.port);
    let index = service.spec.ports.iter().position(|p| p == port).unwrap_or_default();
    let path = format!("spec.ports[{index}].targetPort");
    let mut finding = Finding::error(object.clone(), message)
        .key(format!("{}/{}", port.port, port.protocol()))
        .evidence(format!("targetPort is {name}"), &object, &path);
    if let Some((owner, _)) = specs.first() {
        let text = if declared.is_empty() { "no ports".to_string() } else { declared.join(", ") };
        let path = if owner.is(Kind::Pod) { "spec.containers" } else { "spec.template.spec.containers" };
        finding = finding.evidence(format!("containers declare {text}"), owner, path);
    }
    let names: Vec<&str> = ports(specs).filter(|p| p.protocol() == port.protocol()).map(|p| p.name.as_str()).collect();
    let only = names.first().copied().filter(|n| names.iter().all(|other| other == n));
    match nearest_name(name, names.iter().copied()).or(only).filter(|name| !name.is_empty()) {
        Some(meant) => {
            let patch = serde_json::json!([{"op": "replace", "path": format!("/spec/ports/{index}/targetPort"), "value": meant}]);
            finding.fix_command(
                format!("Set targetPort to {meant}, if that is the intended port"),
                kubectl(["-n", namespace, "patch", "service", service.name(), "--type=json", "-p", &patch.to_string()]),
            )
        }
        None => finding.fix_command(
            "Set targetPort to a port that the pods have, or name the port in the pod template",
            kubectl(["-n", namespace, "edit", "service", service.name()]),
        ),
    }
}

/// The finding for a Service none of whose port numbers is declared or probed, where the pods declare their ports.
fn wrong_number(service: &Service, specs: &[Spec]) -> Option<Finding> {
    let targets: Option<Vec<(i32, &str)>> = service.spec.ports.iter().map(number).collect();
    let targets = targets.filter(|targets| !targets.is_empty())?;
    let informative = specs.iter().all(|(_, spec)| declares_all(spec));
    let known = |(number, protocol): &(i32, &str)| {
        specs.iter().any(|(_, spec)| {
            ports_of(spec).any(|p| p.container_port == *number && p.protocol() == *protocol) || is_probed(spec, *number)
        })
    };
    if !informative || is_auxiliary(service) || targets.iter().any(known) {
        return None;
    }
    let (object, port) = (service.reference(), service.spec.ports.first()?);
    let (number, _) = targets.first()?;
    let declared = words::list(&declared(specs), 5);
    let (owners, _) = owners(specs);
    let message = format!(
        "Service {} maps port {} to targetPort {number}, which no container of {owners} declares (declared: {declared})",
        service.name(),
        port.port,
    );
    let finding = Finding::warning(object.clone(), message)
        .evidence(format!("targetPort is {number}"), &object, "spec.ports[0].targetPort")
        .fix_command(
            "Set targetPort to the port that the process listens on",
            kubectl(["-n", service.namespace(), "edit", "service", service.name()]),
        );
    let (owner, _) = specs.first()?;
    Some(finding.evidence(format!("containers declare {declared}"), owner, ""))
}

fn number(port: &ServicePort) -> Option<(i32, &str)> {
    match port.target() {
        IntOrString::Int(number) => Some((number, port.protocol())),
        IntOrString::String(_) => None,
    }
}

/// Whether the declared ports of a pod are probably complete.
fn declares_all(spec: &PodSpec) -> bool {
    let is_proxy = |c: &Container| {
        let name = c.name.as_str();
        name.contains("proxy") || name.contains("envoy") || name.contains("sidecar") || name.contains("daprd")
    };
    !spec.host_network
        && !spec.containers.is_empty()
        && spec.running_containers().all(|container| !container.ports.is_empty() && !is_proxy(container))
}

/// Auxiliary ports are seldom declared: metrics, health, administration.
fn is_auxiliary(service: &Service) -> bool {
    listeners::is_auxiliary(service.name()) || service.spec.ports.iter().any(|p| listeners::is_auxiliary(&p.name))
}

fn is_probed(spec: &PodSpec, number: i32) -> bool {
    spec.running_containers().any(|container| {
        let probes = [&container.readiness_probe, &container.liveness_probe, &container.startup_probe];
        let probed = probes.into_iter().flatten().filter_map(|probe| Probe::port(probe));
        probed.into_iter().any(|port| port == IntOrString::Int(number))
    })
}

fn ports_of(spec: &PodSpec) -> impl Iterator<Item = &crate::snapshot::model::ContainerPort> {
    spec.running_containers().flat_map(|container| &container.ports)
}

fn ports<'a>(specs: &[Spec<'a>]) -> impl Iterator<Item = &'a crate::snapshot::model::ContainerPort> {
    specs.iter().flat_map(|(_, spec)| ports_of(spec))
}

/// `http 8080`, `9090`, `dns 53/UDP`: what the pods declare, each once.
fn declared(specs: &[Spec]) -> Vec<String> {
    let mut declared: Vec<String> = Vec::new();
    for port in ports(specs) {
        let number = IntOrString::Int(port.container_port);
        let protocol = if port.protocol() == "TCP" { String::new() } else { format!("/{}", port.protocol()) };
        let text = format!("{} {}{protocol}", port.name, port_text(&number)).trim_start().to_string();
        if !declared.contains(&text) {
            declared.push(text);
        }
    }
    declared
}

/// The owners of the pods, and the verb form for them.
fn owners(specs: &[Spec]) -> (String, &'static str) {
    let mut owners: Vec<String> = specs.iter().map(|(o, _)| format!("{} {}", o.kind, o.name)).collect();
    owners.sort();
    owners.dedup();
    (words::list(&owners, 3), if owners.len() == 1 { "declares" } else { "declare" })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn service(port: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: pay, namespace: shop}}, spec: {{selector: {{app: pay}}, \
             ports: [{port}]}}}}"
        )
    }

    fn pod(name: &str, container: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{app: pay}}}}, spec: \
             {{{container}}}, status: {{phase: Running}}}}"
        )
    }

    const HTTP: &str = "containers: [{name: app, ports: [{name: http, containerPort: 8080}]}]";

    #[test]
    fn fires_for_a_name_that_no_pod_has() {
        let said = check(&RULE, &[&service("{port: 80, targetPort: web}"), &pod("pay-0", HTTP)]);
        said.finds(&[
            "error Service shop/pay: Service pay maps port 80 to targetPort web, but Pod pay-0 declares no port of \
             that name (declared: http 8080)",
        ]);
        let fix = r#"kubectl -n shop patch service pay --type=json -p '[{"op":"replace","path":"/spec/ports/0/targetPort","value":"http"}]'"#;
        assert_eq!(said.finding().fix[0].command.as_deref(), Some(fix));
    }

    #[test]
    fn fires_for_another_protocol_and_for_templates() {
        let deployment = format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: pay, namespace: shop}}, spec: {{template: \
             {{metadata: {{labels: {{app: pay}}}}, spec: {{{HTTP}}}}}}}}}"
        );
        check(&RULE, &[&service("{port: 80, targetPort: http, protocol: UDP}"), &deployment]).finds(&[
            "error Service shop/pay: Service pay maps port 80 to targetPort http, but Deployment pay declares http for \
             TCP, not for UDP",
        ]);
    }

    #[test]
    fn fires_as_warning_for_a_number() {
        let probed = HTTP.replace("name: app,", "name: app, readinessProbe: {tcpSocket: {port: 8080}},");
        check(&RULE, &[&service("{port: 80, targetPort: 8081}"), &pod("pay-0", &probed)]).finds(&[
            "warning Service shop/pay: Service pay maps port 80 to targetPort 8081, which no container of Pod pay-0 \
             declares (declared: http 8080)",
        ]);
    }

    #[test]
    fn quiet_when_the_name_or_number_is_there() {
        check(&RULE, &[&service("{port: 80, targetPort: http}"), &pod("pay-0", HTTP)]).finds_nothing();
        check(&RULE, &[&service("{port: 80, targetPort: 8080}"), &pod("pay-0", HTTP)]).finds_nothing();
        check(&RULE, &[&service("{port: 8080}"), &pod("pay-0", HTTP)]).finds_nothing();
    }

    #[test]
    fn quiet_when_ports_differ_by_pod() {
        let other = "containers: [{name: app, ports: [{name: web, containerPort: 9090}]}]";
        let service = service("{name: a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: http}");
        check(&RULE, &[&service, &pod("pay-0", HTTP), &pod("pay-1", other)]).finds_nothing();
    }

    #[test]
    fn quiet_for_native_sidecars() {
        let sidecar = "initContainers: [{name: s, restartPolicy: Always, ports: [{name: web, containerPort: 1}]}], \
                       containers: [{name: app}]";
        check(&RULE, &[&service("{port: 80, targetPort: web}"), &pod("pay-0", sidecar)]).finds_nothing();
    }

    #[test]
    fn quiet_for_numbers_that_need_not_be_declared() {
        let eighty = service("{port: 80, targetPort: 8081}");
        check(&RULE, &[&eighty, &pod("pay-0", "containers: [{name: app}]")]).finds_nothing();
        check(&RULE, &[&eighty, &pod("pay-0", &format!("hostNetwork: true, {HTTP}"))]).finds_nothing();
        check(&RULE, &[&service("{name: metrics, port: 9100}"), &pod("pay-0", HTTP)]).finds_nothing();
        check(
            &RULE,
            &[
                &eighty,
                &pod("pay-0", &HTTP.replace("name: app,", "name: app, livenessProbe: {tcpSocket: {port: 8081}},")),
            ],
        )
        .finds_nothing();
    }

    #[test]
    fn quiet_without_pods() {
        check(&RULE, &[&service("{port: 80, targetPort: web}")]).finds_nothing();
    }
}
