use crate::kubernetes::nodes::platform::PlatformExt;
use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time;
use crate::snapshot::model::{DaemonSet, Event, Node, Service};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that a Service of type `LoadBalancer` has been assigned an address.
    ///
    /// ## Why it matters
    ///
    /// Kubernetes itself assigns no load balancer addresses. A cloud controller manager, MetalLB, kube-vip or a similar
    /// controller does; without one, `EXTERNAL-IP` stays `<pending>` and the Service is unreachable from outside the
    /// cluster.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get service NAME` shows `<pending>`; `kubectl -n NAMESPACE describe service NAME` shows
    /// the events of the responsible controller, if there is one.
    ///
    /// ## How to fix
    ///
    /// On k3s, a DaemonSet `svclb-NAME` in `kube-system` publishes the ports of the Service on the nodes; the Service gets an
    /// address when a pod of it runs, which requires that its ports are free on the node.
    ///
    /// Check the events: cloud quotas, subnets, address pools and permissions are the usual causes. If no controller is
    /// installed, install one (MetalLB on bare metal), or use `NodePort` or an Ingress.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - in the first 5 minutes, or in the first minute if a controller already reports an error or no suitable
    ///   controller was found
    /// - for Services with `externalIPs`
    /// - for manifests
    "service/load-balancer-pending": Error,
    "a LoadBalancer Service has no address",
    needs: [Service],
    optional: [Pod, Node, Event, Namespace, DaemonSet],
    explained_by: ["pod/*", "workload/*", "daemonset/*"],
}

/// How long to wait where an error or a missing controller shows that no address will be assigned.
const SHORT_WAIT: Duration = Duration::from_secs(60);

/// Parts of the images and commands of controllers that assign addresses.
const CONTROLLERS: [&str; 20] = [
    "cloud-controller-manager",
    "cloud-provider",
    "metallb",
    "kube-vip",
    "purelb",
    "openelb",
    "loxilb",
    "klipper-lb",
    "load-balancer-controller",
    "cilium",
    "servicelb",
    "porter",
    "tailscale",
    "-ccm",
    "netris",
    "kube-ovn",
    "k8s-bigip-ctlr",
    "inlets",
    "antrea",
    "calico/kube-controllers",
];

fn check(cluster: &Cluster, report: &mut Report) {
    let pending = cluster.all::<Service>().iter().filter(|service| is_pending(service));
    for service in pending.filter(|service| !cluster.is_terminating(*service)) {
        let Some(created) = service.created() else { continue };
        let age = time::age(cluster.now(), created);
        let object = service.reference();
        let events = cluster.events(&object);
        let failure = events.iter().copied().find(|event| is_failure(event));
        let unserved = failure.is_none() && no_controller(cluster, service);
        let wait = if unserved || failure.is_some() { SHORT_WAIT } else { time::PROVISION };
        if age < wait {
            continue;
        }
        let mut finding = finding(service, age, failure, unserved).since(Some(created));
        for set in service_lb(cluster, service) {
            finding = behind_service_lb(finding, set);
        }
        report.add(finding);
    }
}

/// The DaemonSets that k3s (ServiceLB) runs for a Service: their pods publish its ports on the nodes, and the Service gets
/// the addresses of the nodes where they run.
/// Source: <https://docs.k3s.io/networking/networking-services#service-load-balancer>
fn service_lb<'a>(cluster: &'a Cluster, service: &Service) -> impl Iterator<Item = &'a DaemonSet> {
    let (namespace, name) = (service.namespace().to_string(), service.name().to_string());
    cluster.all::<DaemonSet>().iter().filter(move |set| {
        let labels = &set.metadata.labels;
        labels.get("svccontroller.k3s.cattle.io/svcname") == Some(name.as_str())
            && labels.get("svccontroller.k3s.cattle.io/svcnamespace").is_none_or(|found| found == namespace)
    })
}

fn behind_service_lb(finding: Finding, set: &DaemonSet) -> Finding {
    let (object, status) = (set.reference(), &set.status);
    let containers = set.spec.template.spec.containers.iter();
    let ports: Vec<String> =
        containers.flat_map(|c| &c.ports).filter(|p| p.host_port > 0).map(|p| p.host_port.to_string()).collect();
    let ports =
        if ports.len() == 1 { format!("port {}", ports[0]) } else { format!("ports {}", words::list(&ports, 5)) };
    let text = format!(
        "{object} publishes {ports} on the nodes, {} of {} ready",
        status.number_ready,
        words::count(usize::try_from(status.desired_number_scheduled).unwrap_or(0), "pod")
    );
    finding.evidence(text, &object, "status.numberReady").because(object.clone())
}

fn is_pending(service: &Service) -> bool {
    let addresses = &service.status.load_balancer.ingress;
    service.spec.type_ == "LoadBalancer"
        && service.metadata.is_live()
        && service.spec.external_ips.is_empty()
        && addresses.iter().all(|address| address.ip.is_empty() && address.hostname.is_empty())
}

/// `SyncLoadBalancerFailed` from cloud service controllers, `AllocationFailed` from MetalLB …
fn is_failure(event: &Event) -> bool {
    let reason = event.reason.as_str();
    event.type_ == "Warning" && (reason.contains("Fail") || reason.contains("Error")) && !reason.contains("Endpoint")
}

/// Whether everything relevant was read, and no controller that assigns addresses was found.
fn no_controller(cluster: &Cluster, service: &Service) -> bool {
    let others = cluster.all::<Service>().iter().any(|other| !other.status.load_balancer.ingress.is_empty());
    // The service controller of a cloud first adds its finalizer.
    let is_claimed = service.metadata.finalizers.iter().any(|f| f.contains("load-balancer") || f.contains("service"));
    // k3s has its own controller (svclb); Docker Desktop and minikube run theirs outside the cluster.
    let built_in = cluster.all::<Node>().iter().any(|node| {
        let version = &node.status.node_info.kubelet_version;
        version.contains("+k3s") || node.name() == "docker-desktop" || node.spec.provider_id.starts_with("k3s://")
    });
    cluster.covers_all(Kind::Pod)
        && cluster.covers_all(Kind::Node)
        && !cluster.all::<Node>().is_empty()
        && !others
        && !is_claimed
        && !built_in
        && service.spec.load_balancer_class.is_none()
        && cluster.cloud().is_none()
        && !cluster.runs(&CONTROLLERS)
}

fn finding(service: &Service, age: Duration, failure: Option<&Event>, unserved: bool) -> Finding {
    let (namespace, name, object) = (service.namespace(), service.name(), service.reference());
    let why = match failure {
        Some(event) => format!(": {}", words::shorten(&event.message, 200)),
        None if unserved => {
            ": no load balancer controller found (cloud controller manager, MetalLB or similar)".to_string()
        }
        None => match service.spec.load_balancer_class.as_deref() {
            Some(class) => format!(": no controller of class {class} has assigned one"),
            None => String::new(),
        },
    };
    let message =
        format!("Service {name} of type LoadBalancer has had no external address for {}{why}", time::human(age));
    let mut finding = Finding::error(object.clone(), message).evidence(
        "status.loadBalancer is empty",
        &object,
        "status.loadBalancer",
    );
    if let Some(event) = failure {
        let times = usize::try_from(event.times()).unwrap_or(1);
        let text = format!("{} ({})", event.reason, words::count(times, "time"));
        finding = finding.evidence(text, &object, "");
    }
    if unserved {
        return finding
            .fix("Install a load balancer controller (MetalLB, kube-vip or your cloud's controller)")
            .fix_command(
                "Or set spec.type to NodePort, if no external address is needed",
                kubectl(["-n", namespace, "patch", "service", name, "-p", r#"{"spec":{"type":"NodePort"}}"#]),
            );
    }
    finding.fix_command("Check the controller's events", kubectl(["-n", namespace, "describe", "service", name]))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn service(created: &str, more: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: gate, namespace: shop, creationTimestamp: '{created}'}}, \
             spec: {{type: LoadBalancer{more}}}}}"
        )
    }

    fn node(provider: &str) -> String {
        format!("{{apiVersion: v1, kind: Node, metadata: {{name: node-1}}, spec: {{providerID: '{provider}'}}}}")
    }

    const TWO_MINUTES: &str = "2026-11-21T11:58:00Z";

    #[test]
    fn fires_soon_without_any_controller() {
        check(&RULE, &[&service(TWO_MINUTES, ""), &node("")]).finds(&[
            "error Service shop/gate: Service gate of type LoadBalancer has had no external address for 2m: \
             no load balancer controller found (cloud controller manager, MetalLB or similar)",
        ]);
    }

    #[test]
    fn fires_as_a_consequence_of_the_daemon_set_of_k3s() {
        let set = |service: &str| {
            format!(
                "
                apiVersion: apps/v1
                kind: DaemonSet
                metadata: {{name: svclb-x, namespace: kube-system, labels: {{svccontroller.k3s.cattle.io/svcname: {service},
                  svccontroller.k3s.cattle.io/svcnamespace: shop}}}}
                spec: {{template: {{spec: {{containers: [{{name: lb, ports: [{{hostPort: 8443, containerPort: 8443}}]}}]}}}}}}
                status: {{desiredNumberScheduled: 1}}"
            )
        };
        let said =
            |name: &str| check(&RULE, &[&service("2026-11-21T11:00:00Z", ""), &node("k3s://node-1"), &set(name)]);
        assert!(
            said("gate")
                .text()
                .contains("DaemonSet kube-system/svclb-x publishes port 8443 on the nodes, 0 of 1 pod ready")
        );
        assert_eq!(said("gate").finding().because[0].name, "svclb-x");
        assert!(said("other").finding().because.is_empty());
    }

    #[test]
    fn fires_with_the_controllers_message() {
        let event = "{apiVersion: v1, kind: Event, metadata: {name: e, namespace: shop}, type: Warning, reason: \
                     SyncLoadBalancerFailed, message: 'Error syncing load balancer: quota exceeded', involvedObject: \
                     {kind: Service, namespace: shop, name: gate}}";
        check(&RULE, &[&service(TWO_MINUTES, ""), &node("aws:///a/i-1"), event]).finds(&[
            "error Service shop/gate: Service gate of type LoadBalancer has had no external address for 2m: \
             Error syncing load balancer: quota exceeded",
        ]);
    }

    #[test]
    fn fires_after_five_minutes_on_a_cloud() {
        let old = service("2026-11-21T11:50:00Z", "");
        check(&RULE, &[&old, &node("aws:///a/i-1")])
            .finds(&["error Service shop/gate: Service gate of type LoadBalancer has had no external address for 10m"]);
    }

    #[test]
    fn quiet_while_a_cloud_works_on_it() {
        check(&RULE, &[&service(TWO_MINUTES, ""), &node("aws:///a/i-1")]).finds_nothing();
        check(&RULE, &[&service("2026-11-21T11:59:30Z", ""), &node("")]).finds_nothing();
        let metallb = "{apiVersion: v1, kind: Pod, metadata: {name: m, namespace: metallb-system}, \
                       spec: {containers: [{image: quay.io/metallb/controller:v0.16}]}}";
        check(&RULE, &[&service(TWO_MINUTES, ""), &node(""), metallb]).finds_nothing();
    }

    #[test]
    fn quiet_with_an_address_or_external_ips_and_for_manifests() {
        let old = "2026-11-21T11:00:00Z";
        let with = format!(
            "{}, status: {{loadBalancer: {{ingress: [{{hostname: lb.example.com}}]}}}}}}",
            service(old, "").trim_end_matches('}').to_owned() + "}"
        );
        check(&RULE, &[&with, &node("")]).finds_nothing();
        check(&RULE, &[&service(old, ", externalIPs: [192.0.2.1]"), &node("")]).finds_nothing();
        let manifest = "{apiVersion: v1, kind: Service, metadata: {name: gate}, spec: {type: LoadBalancer}}";
        check(&RULE, &[manifest]).finds_nothing();
    }
}
