use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::kubernetes::network::outage::{Outage, OutageExt};
use crate::snapshot::model::Service;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that a Service without a selector has an EndpointSlice (or Endpoints).
    ///
    /// ## Why it matters
    ///
    /// Kubernetes creates no EndpointSlices for a Service without a selector. If nobody else creates them, every
    /// connection to the Service fails. Often the selector was forgotten, or the EndpointSlice lacks the label that
    /// links it to the Service.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get endpointslices -l kubernetes.io/service-name=NAME` finds no resources.
    ///
    /// ## How to fix
    ///
    /// Add a selector, or an EndpointSlice with the label `kubernetes.io/service-name: NAME`, or delete the Service.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - for `ExternalName`, and for headless Services without ports
    /// - for Services that a controller owns
    /// - for Services with EndpointSlices or Endpoints, even empty ones (some operators keep their state there)
    /// - in the first 2 minutes
    /// - where EndpointSlices could not be read
    "service/no-endpoints": Warning,
    "a Service without a selector has no EndpointSlice",
    needs: [Service, EndpointSlice],
    optional: [Endpoints, Namespace],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let dns = cluster.dns();
    for service in cluster.all::<Service>().iter().filter(|service| !dns.has(service)) {
        if matches!(cluster.outage(service), Some(Outage::NoAddress)) {
            report.add(finding(cluster, service));
        }
    }
}

fn finding(cluster: &Cluster, service: &Service) -> Finding {
    let (namespace, name, object) = (service.namespace(), service.name(), service.reference());
    let message = format!("Service {name} has no endpoints: it has no selector and no EndpointSlice");
    // A slice belongs to the Service by its label, not by its name.
    let slices = cluster.in_namespace::<crate::snapshot::model::EndpointSlice>(namespace).iter();
    let stray = slices.filter(|slice| slice.service().is_none_or(str::is_empty)).find(|s| s.name().starts_with(name));
    let finding = Finding::warning(object.clone(), message)
        .evidence("spec.selector is empty", &object, "spec.selector")
        .rests_on_absence();
    match stray {
        Some(slice) => {
            let label = format!("kubernetes.io/service-name={name}");
            let text = format!("EndpointSlice {} lacks the label {label}", slice.name());
            finding.evidence(text, &slice.reference(), "metadata.labels").fix_command(
                "Add the Service's label to the EndpointSlice",
                kubectl(["-n", namespace, "label", "endpointslice", slice.name(), &label]),
            )
        }
        None => finding.fix_command(
            "Add a selector or an EndpointSlice, or delete the Service",
            kubectl(["-n", namespace, "edit", "service", name]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: legacy, namespace: shop}, \
                           spec: {ports: [{port: 5432}]}}";

    #[test]
    fn fires_without_any_slice() {
        check(&RULE, &[SERVICE]).finds(&[
            "warning Service shop/legacy: Service legacy has no endpoints: it has no selector and no EndpointSlice",
        ]);
    }

    #[test]
    fn fires_when_the_slice_lacks_its_label() {
        let slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: legacy-1, namespace: shop}, \
                     endpoints: [{addresses: [192.0.2.1]}]}";
        let said = check(&RULE, &[SERVICE, slice]);
        let fix = said.finding().fix[0].command.as_deref();
        assert_eq!(fix, Some("kubectl -n shop label endpointslice legacy-1 kubernetes.io/service-name=legacy"));
    }

    #[test]
    fn quiet_with_a_manual_slice() {
        let slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: legacy-1, namespace: shop, \
                     labels: {kubernetes.io/service-name: legacy}}, endpoints: [{addresses: [192.0.2.1]}]}";
        check(&RULE, &[SERVICE, slice]).finds_nothing();
        let endpoints = "{apiVersion: v1, kind: Endpoints, metadata: {name: legacy, namespace: shop}}";
        check(&RULE, &[SERVICE, endpoints]).finds_nothing();
    }

    #[test]
    fn quiet_for_external_names_owned_and_young_ones() {
        check(&RULE, &[&SERVICE.replace("ports:", "type: ExternalName, externalName: a.example.com, ports:")])
            .finds_nothing();
        let owned = "namespace: shop, ownerReferences: [{kind: Thing, name: t, controller: true}]";
        check(&RULE, &[&SERVICE.replace("namespace: shop", owned)]).finds_nothing();
        let young = "namespace: shop, creationTimestamp: '2026-11-21T11:59:00Z'";
        check(&RULE, &[&SERVICE.replace("namespace: shop", young)]).finds_nothing();
        TestCluster::new(&[SERVICE]).forbid(Kind::EndpointSlice).check(&RULE).finds_nothing();
    }
}
