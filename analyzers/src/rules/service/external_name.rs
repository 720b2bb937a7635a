use std::net::IpAddr;

use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::Service;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that the `externalName` of a Service can resolve: it is not empty, not an IP address and, if it refers to
    /// a Service of this cluster (`NAME.NAMESPACE.svc.cluster.local`), that Service exists.
    ///
    /// ## Why it matters
    ///
    /// An ExternalName Service is a CNAME record. An address such as `192.0.2.1` is treated as a DNS name that consists of
    /// digits, which no DNS server resolves.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get service NAME -o jsonpath='{.spec.externalName}'` shows the name; resolve it from a
    /// pod.
    ///
    /// ## How to fix
    ///
    /// For an IP address, use a Service without a selector and an EndpointSlice. Otherwise correct the name.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for names outside the cluster, which cannot be checked from here, or where Services could
    /// not be read.
    "service/external-name": Warning,
    "the externalName of a Service does not resolve",
    needs: [Service],
    optional: [Namespace],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for service in cluster.all::<Service>().iter().filter(|service| service.is_external_name()) {
        if let Some(finding) = problem(cluster, service) {
            report.add(finding);
        }
    }
}

fn problem(cluster: &Cluster, service: &Service) -> Option<Finding> {
    let (name, target) = (service.name(), service.spec.external_name.trim_end_matches('.'));
    let finding = |message: String| {
        let object = service.reference();
        Finding::warning(object.clone(), message)
            .evidence(format!("spec.externalName is {target}"), &object, "spec.externalName")
            .fix_command(
                "Set spec.externalName to a DNS name that resolves",
                kubectl(["-n", service.namespace(), "edit", "service", name]),
            )
    };
    if target.is_empty() {
        return Some(finding(format!("Service {name} of type ExternalName has no externalName")));
    }
    if target.parse::<IpAddr>().is_ok() {
        let message = format!("Service {name} has the IP address {target} as externalName, which must be a DNS name");
        return Some(finding(message).fix("For an IP address, use a Service without a selector and an EndpointSlice"));
    }
    let (namespace, other) = internal(target)?;
    if !cluster.get::<Service>(namespace, other).is_missing() {
        return None;
    }
    let message =
        format!("Service {name} is an alias for Service {other} in namespace {namespace}, which does not exist");
    Some(finding(message).rests_on_absence())
}

/// The namespace and name of the Service of this cluster that a DNS name, or the DNS name of one of its pods, refers to.
fn internal(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_suffix(".svc.cluster.local").or_else(|| name.strip_suffix(".svc"))?;
    let (rest, namespace) = name.rsplit_once('.')?;
    let service = rest.rsplit('.').next().unwrap_or(rest);
    (!namespace.is_empty() && !service.is_empty()).then_some((namespace, service))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn service(external: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: db, namespace: shop}}, spec: {{type: ExternalName, \
             externalName: '{external}'}}}}"
        )
    }

    const PG: &str = "{apiVersion: v1, kind: Service, metadata: {name: pg, namespace: data}, spec: {}}";

    #[test]
    fn fires_for_an_address() {
        check(&RULE, &[&service("192.0.2.1")]).finds(&[
            "warning Service shop/db: Service db has the IP address 192.0.2.1 as externalName, which must be a DNS name",
        ]);
    }

    #[test]
    fn fires_for_nothing_and_for_a_missing_service() {
        check(&RULE, &[&service("")])
            .finds(&["warning Service shop/db: Service db of type ExternalName has no externalName"]);
        check(&RULE, &[&service("pg.data.svc.cluster.local")]).finds(&[
            "warning Service shop/db: Service db is an alias for Service pg in namespace data, which does not exist",
        ]);
    }

    #[test]
    fn quiet_for_names_that_may_resolve() {
        check(&RULE, &[&service("db.example.com")]).finds_nothing();
        check(&RULE, &[&service("pg.data.svc.cluster.local."), PG]).finds_nothing();
        check(&RULE, &[&service("pg-0.pg.data.svc.cluster.local"), PG]).finds_nothing();
        TestCluster::new(&[&service("pg.data.svc.cluster.local")]).forbid(Kind::Service).check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_for_other_types() {
        check(&RULE, &["{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}}"]).finds_nothing();
    }
}
