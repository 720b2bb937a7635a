use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::{Service, StatefulSet};
use crate::snapshot::{Cluster, Lookup, Object, Selector};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the Service in `spec.serviceName` of a StatefulSet exists, and that it is headless if the
    /// StatefulSet has more than one replica.
    ///
    /// ## Why it matters
    ///
    /// The DNS names of the pods (`web-0.NAME.NAMESPACE.svc`) are derived from that Service. If it does not exist they
    /// do not resolve, and the members of a database or queue cannot find each other. A Service that is not headless
    /// provides no DNS names for individual pods.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get statefulset NAME -o jsonpath='{.spec.serviceName}'` prints the name.
    /// `kubectl -n NAMESPACE get service` must show that Service with CLUSTER-IP `None`.
    ///
    /// ## How to fix
    ///
    /// Create the Service with `clusterIP: None` and the pods' labels as selector. `spec.serviceName` is immutable: to
    /// use another name delete the StatefulSet with `--cascade=orphan` and recreate it.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if `serviceName` is empty, if the StatefulSet is scaled to zero, or if Services could not
    /// be read.
    "statefulset/service": Warning,
    "the governing Service of a StatefulSet is missing or not headless",
    needs: [StatefulSet, Service],
    optional: [],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for set in cluster.all::<StatefulSet>() {
        let name = set.spec.service_name.as_str();
        let replicas = set.spec.replicas.unwrap_or(1);
        if name.is_empty() || replicas == 0 || set.deleted().is_some() {
            continue;
        }
        match cluster.get::<Service>(set.namespace(), name) {
            Lookup::Missing => report.add(missing(cluster, set)),
            Lookup::Found(service) if !service.is_headless() && replicas > 1 => report.add(not_headless(set, service)),
            _ => {}
        }
    }
}

fn missing(cluster: &Cluster, set: &StatefulSet) -> Finding {
    let (namespace, name) = (set.namespace(), set.spec.service_name.as_str());
    let object = set.reference();
    let message = format!(
        "StatefulSet {} references Service {name}, which does not exist: its pods have no individual DNS names",
        set.name()
    );
    let mut finding = Finding::warning(object.clone(), message)
        .evidence(format!("spec.serviceName is {name}"), &object, "spec.serviceName")
        .rests_on_absence();
    let labels = &set.spec.template.metadata.labels;
    let others = cluster.in_namespace::<Service>(namespace).iter().filter(|service| service.is_headless());
    let mut others = others.filter(|service| {
        !service.spec.selector.is_empty() && Selector::equals(&service.spec.selector).matches(labels)
    });
    if let Some(other) = others.next() {
        let text = format!("headless Service {} selects its pods", other.name());
        finding = finding.evidence(text, &other.reference(), "spec.selector");
    }
    finding.fix_command(
        "Create the headless Service, then set its selector to the labels of the pods",
        kubectl(["-n", namespace, "create", "service", "clusterip", name, "--clusterip=None"]),
    )
}

fn not_headless(set: &StatefulSet, service: &Service) -> Finding {
    let object = set.reference();
    let message = format!(
        "StatefulSet {} has more than one replica, but its Service {} is not headless: its pods have no individual \
         DNS names",
        set.name(),
        service.name()
    );
    Finding::info(object.clone(), message)
        .evidence(format!("spec.serviceName is {}", service.name()), &object, "spec.serviceName")
        .evidence(format!("spec.clusterIP is {}", service.spec.cluster_ip), &service.reference(), "spec.clusterIP")
        .fix("If the pods address each other by name, recreate the Service with clusterIP: None")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::{Kind, Origin};
    use crate::testing::{TestCluster, check};

    fn set(service: &str, replicas: i32) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: StatefulSet
            metadata: {{name: queue, namespace: shop}}
            spec:
              serviceName: '{service}'
              replicas: {replicas}
              template: {{metadata: {{labels: {{app: queue}}}}}}"
        )
    }

    fn service(name: &str, ip: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Service
            metadata: {{name: {name}, namespace: shop}}
            spec: {{clusterIP: {ip}, selector: {{app: queue}}}}"
        )
    }

    #[test]
    fn fires_when_the_service_does_not_exist() {
        let said = check(&RULE, &[&set("queue-headless", 1), &service("queue-peers", "None")]);
        said.finds(&[
            "warning StatefulSet shop/queue: StatefulSet queue references Service queue-headless, which does not \
             exist: its pods have no individual DNS names",
        ]);
        assert!(said.text().contains("headless Service queue-peers selects its pods"));
    }

    #[test]
    fn fires_as_info_when_it_is_not_headless() {
        check(&RULE, &[&set("queue", 2), &service("queue", "10.96.0.9")]).finds(&[
            "info StatefulSet shop/queue: StatefulSet queue has more than one replica, but its Service queue is not \
             headless: its pods have no individual DNS names",
        ]);
        TestCluster::new(&[&set("queue", 2)]).origin(Origin::Manifests).check(&RULE).finds(&[
            "info StatefulSet shop/queue: StatefulSet queue references Service queue, which does not exist: its pods \
             have no individual DNS names",
        ]);
    }

    #[test]
    fn quiet_when_the_service_exists_or_is_not_set() {
        check(&RULE, &[&set("queue", 2), &service("queue", "None")]).finds_nothing();
        check(&RULE, &[&set("queue", 1), &service("queue", "10.96.0.9")]).finds_nothing();
        check(&RULE, &[&set("", 2)]).finds_nothing();
        check(&RULE, &[&set("queue", 0)]).finds_nothing();
    }

    #[test]
    fn quiet_when_services_cannot_be_read() {
        let said = TestCluster::new(&[&set("queue", 2)]).forbid(Kind::Service).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["Service forbidden"]);
    }
}
