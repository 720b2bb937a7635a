use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::metallb::{is_announced, pool_of, unannounced};
use crate::snapshot::model::Service;
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for Services of type LoadBalancer whose address MetalLB assigned from a pool that no advertisement
    /// announces (see `ipaddresspool/not-announced`).
    ///
    /// ## Why it matters
    ///
    /// The Service has an external address and ready endpoints, and the address even works inside the cluster, because
    /// every node handles it. From outside nobody answers.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe service NAME` shows an event `IPAllocated` but no `nodeAssigned`; `arping ADDRESS`
    /// from a host of the network gets no reply.
    ///
    /// ## How to fix
    ///
    /// Correct the advertisement of the pool, not the Service.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire where a ServiceL2Status shows that a node announces the address, or where the
    /// advertisements could not be read.
    "service/not-announced": Error,
    "no node announces the external address of a Service",
    needs: [Service],
    optional: [Node, Pod],
    reads_custom: true,
    explained_by: ["ipaddresspool/not-announced"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let pools = unannounced(cluster);
    if pools.is_empty() {
        return;
    }
    for service in cluster.all::<Service>() {
        let Some(name) = pool_of(service) else { continue };
        let Some(found) = pools.iter().find(|found| found.pool.metadata.name == name) else { continue };
        let Some(address) = service.status.load_balancer.ingress.first() else { continue };
        if is_announced(cluster, service) || cluster.is_terminating(service) {
            continue;
        }
        let (object, pool) = (service.reference(), found.pool.reference());
        let message = format!(
            "address {} of Service {} is assigned but not announced: no advertisement covers IPAddressPool {name}",
            address.ip,
            service.name()
        );
        let finding = Finding::error(object.clone(), message)
            .evidence(format!("the address is of IPAddressPool {name}"), &object, "metadata.annotations")
            .because(pool)
            .fix_command(
                format!("Correct the advertisements of MetalLB so that one covers IPAddressPool {name}"),
                kubectl([
                    "-n",
                    found.pool.metadata.namespace.as_str(),
                    "get",
                    "l2advertisements.metallb.io,bgpadvertisements.metallb.io",
                    "-o",
                    "yaml",
                ]),
            );
        report.add(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    const WORLD: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: public, namespace: metallb-system}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: lan, namespace: metallb-system}
spec: {ipAddressPools: [internal]}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop, annotations: {metallb.io/ip-allocated-from-pool: public}}
spec: {type: LoadBalancer, selector: {app: edge}, ports: [{port: 443}]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.64}]}}";

    #[test]
    fn fires_because_of_the_pool() {
        check(&RULE, &[WORLD])
            .finds(&["error Service shop/edge: address 203.0.113.64 of Service edge is assigned but \
                                        not announced: no advertisement covers IPAddressPool public"]);
        let said = TestCluster::new(&[WORLD]).check_all();
        assert_eq!(said.by("service/not-announced").caused_by, [said.by("ipaddresspool/not-announced").id.clone()]);
    }

    #[test]
    fn quiet_when_announced() {
        check(&RULE, &[&WORLD.replace("[internal]", "[internal, public]")]).finds_nothing();
        let status = "{apiVersion: metallb.io/v1beta1, kind: ServiceL2Status, metadata: {name: l2-x, namespace: \
                      metallb-system, labels: {metallb.io/service-name: edge, metallb.io/service-namespace: shop}}}";
        check(&RULE, &[WORLD, status]).finds_nothing();
    }
}
