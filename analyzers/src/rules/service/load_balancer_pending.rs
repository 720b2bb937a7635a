use crate::kubernetes::nodes::platform::PlatformExt;
use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time;
use crate::snapshot::model::{Event, Node, Service};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// That a Service of type `LoadBalancer` has been given an address.
    ///
    /// ## Why it matters
    ///
    /// Kubernetes itself hands out no addresses. A cloud controller manager, MetalLB, kube-vip or the like must do it;
    /// without one `EXTERNAL-IP` stays `<pending>` and nothing outside the cluster reaches the Service.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get service NAME` shows `<pending>`, and `kubectl -n NAMESPACE describe service NAME` the
    /// events of the controller that tries, if there is one.
    ///
    /// ## How to fix
    ///
    /// Read the events: quota, subnets, address pools and permissions of the cloud are the usual reasons. If no controller
    /// is there, install one (MetalLB on bare metal), or use `NodePort` or an Ingress.
    ///
    /// ## Exceptions
    ///
    /// In the first 5 minutes, unless the controller already reports an error (1 minute), or no controller that could do it
    /// is to be seen (1 minute); for Services with `externalIPs`; for manifests.
    "service/load-balancer-pending": Error,
    "a LoadBalancer Service gets no address",
    needs: [Service],
    optional: [Pod, Node, Event, Namespace],
    explained_by: [],
}

/// How long to wait where a better sign than time says that it will not work.
const SURE: Duration = Duration::from_secs(60);

/// Parts of the images and commands of what hands out addresses.
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
    for service in pending.filter(|service| !cluster.is_going_away(*service)) {
        let Some(created) = service.created() else { continue };
        let age = time::age(cluster.now(), created);
        let object = service.reference();
        let events = cluster.events(&object);
        let failure = events.iter().copied().find(|event| is_failure(event));
        let unserved = failure.is_none() && no_controller(cluster, service);
        let patience = if unserved || failure.is_some() { SURE } else { time::PROVISION };
        if age < patience {
            continue;
        }
        report.add(finding(service, age, failure, unserved).since(Some(created)));
    }
}

fn is_pending(service: &Service) -> bool {
    let addresses = &service.status.load_balancer.ingress;
    service.spec.type_ == "LoadBalancer"
        && service.metadata.is_live()
        && service.spec.external_ips.is_empty()
        && addresses.iter().all(|address| address.ip.is_empty() && address.hostname.is_empty())
}

/// `SyncLoadBalancerFailed` of the clouds' service controller, `AllocationFailed` of MetalLB …
fn is_failure(event: &Event) -> bool {
    let reason = event.reason.as_str();
    event.type_ == "Warning" && (reason.contains("Fail") || reason.contains("Error")) && !reason.contains("Endpoint")
}

/// Whether everything that could tell was read, and nothing that gives out addresses is to be seen.
fn no_controller(cluster: &Cluster, service: &Service) -> bool {
    let others = cluster.all::<Service>().iter().any(|other| !other.status.load_balancer.ingress.is_empty());
    // The service controller of a cloud puts its finalizer on before anything else.
    let taken = service.metadata.finalizers.iter().any(|f| f.contains("load-balancer") || f.contains("service"));
    // k3s has a controller of its own (svclb), Docker Desktop and minikube have one outside.
    let built_in = cluster.all::<Node>().iter().any(|node| {
        let version = &node.status.node_info.kubelet_version;
        version.contains("+k3s") || node.name() == "docker-desktop" || node.spec.provider_id.starts_with("k3s://")
    });
    cluster.covers_all(Kind::Pod)
        && cluster.covers_all(Kind::Node)
        && !cluster.all::<Node>().is_empty()
        && !others
        && !taken
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
            ": nothing in this cluster hands out addresses (no cloud controller, MetalLB or the like)".to_string()
        }
        None => match service.spec.load_balancer_class.as_deref() {
            Some(class) => format!(": no controller of class {class} gave it one"),
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
        let text = format!("{} ({} times)", event.reason, event.times());
        finding = finding.evidence(text, &object, "");
    }
    if unserved {
        return finding
            .fix("Install a controller for load balancers (MetalLB, kube-vip, that of your cloud)")
            .fix_command(
                "Or do without an external address",
                kubectl(["-n", namespace, "patch", "service", name, "-p", r#"{"spec":{"type":"NodePort"}}"#]),
            );
    }
    finding.fix_command("Read what the controller says", kubectl(["-n", namespace, "describe", "service", name]))
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
             nothing in this cluster hands out addresses (no cloud controller, MetalLB or the like)",
        ]);
    }

    #[test]
    fn fires_with_what_the_controller_says() {
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
