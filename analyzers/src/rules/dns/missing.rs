use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::kubernetes::nodes::platform::PlatformExt;
use crate::snapshot::model::{Node, Pod, Service};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Origin};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that a cluster whose pods rely on cluster DNS (`dnsPolicy: ClusterFirst`) has a DNS Service.
    ///
    /// ## Why it matters
    ///
    /// The kubelets configure every pod with the address of that Service. Without it no pod resolves any name.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n kube-system get service kube-dns` returns NotFound, while `/etc/resolv.conf` in the pods contains an
    /// address of the Service network.
    ///
    /// ## How to fix
    ///
    /// Reinstall CoreDNS (`kubeadm init phase addon coredns`, or your distribution's add-on) with the cluster IP that
    /// the kubelets are configured with.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - where any Service has port 53
    /// - where DNS runs on the nodes (EKS Auto Mode), where the provider manages it (GKE, OpenShift), or where a
    ///   node-local cache runs
    /// - where no pod outside kube-system relies on it
    /// - where Services, pods or nodes could not be read
    /// - for files other than a recording of a whole cluster
    "dns/missing": Error,
    "the cluster has no DNS Service",
    needs: [Service, Pod, Node],
    optional: [ReplicaSet, Job],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let all_read = [Kind::Service, Kind::Pod, Kind::Node].into_iter().all(|kind| cluster.covers_all(kind));
    if cluster.origin() != Origin::Cluster || !all_read || is_served_otherwise(cluster) {
        return;
    }
    let relying = cluster.all::<Pod>().iter().filter(|pod| relies_on_it(pod)).count();
    if relying == 0 {
        return;
    }
    let object = ObjectRef::new(Kind::Service, "kube-system", "kube-dns");
    let rely = if relying == 1 { "relies" } else { "rely" };
    let message = format!(
        "The cluster has no DNS Service (kube-dns or equivalent), and {} {rely} on it",
        words::count(relying, "pod"),
    );
    let finding = Finding::error(object.clone(), message)
        .evidence("no Service of the cluster has port 53", &object, "")
        .pods(relying)
        .rests_on_absence();
    report.add(match cluster.all::<Pod>().iter().find(|pod| is_dns_pod(pod)) {
        Some(pod) => finding
            .evidence(format!("no Service selects DNS pod {}", pod.name()), &pod.reference(), "metadata.labels")
            .fix_command(
                "Recreate Service kube-dns with the cluster IP that the kubelets are configured with",
                expose(),
            ),
        None => finding.fix("Install CoreDNS: kubeadm init phase addon coredns, or your distribution's add-on"),
    });
}

fn expose() -> String {
    kubectl(["-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns"])
}

fn is_served_otherwise(cluster: &Cluster) -> bool {
    let serves_dns = |service: &Service| service.port(53).is_some();
    let on_nodes = |node: &Node| node.metadata.labels.get("eks.amazonaws.com/compute-type") == Some("auto");
    cluster.all::<Node>().is_empty()
        || cluster.all::<Service>().is_empty()
        || cluster.all::<Service>().iter().any(serves_dns)
        || !cluster.dns().node_local.is_empty()
        || cluster.is_gke()
        || cluster.is_openshift()
        || cluster.all::<Node>().iter().any(on_nodes)
}

/// `ClusterFirst` is the default; pods on the host network fall back to the node's DNS with it.
fn relies_on_it(pod: &Pod) -> bool {
    let policy = pod.spec.dns_policy.as_str();
    let cluster_first = policy.is_empty() || policy == "ClusterFirst";
    let through_network = policy == "ClusterFirstWithHostNet" || (cluster_first && !pod.spec.host_network);
    pod.is_active() && through_network && !pod.spec.node_name.is_empty() && !pod.namespace().starts_with("kube-")
}

fn is_dns_pod(pod: &Pod) -> bool {
    pod.namespace() == "kube-system" && pod.is_active() && pod.metadata.labels.get("k8s-app") == Some("kube-dns")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::{Kind, Origin};
    use crate::testing::{TestCluster, check};

    const API: &str = "{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}, \
                       spec: {ports: [{port: 443}]}}";
    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {nodeName: node-1}}";
    const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: node-1}}";
    const DNS: &str = "{apiVersion: v1, kind: Service, metadata: {name: my-dns, namespace: infra}, \
                       spec: {ports: [{port: 53, protocol: UDP}]}}";

    #[test]
    fn fires_without_any_dns() {
        check(&RULE, &[API, POD, NODE]).finds(&[
            "error Service kube-system/kube-dns: The cluster has no DNS Service (kube-dns or equivalent), and 1 pod \
             relies on it",
        ]);
    }

    #[test]
    fn quiet_where_something_serves_dns() {
        check(&RULE, &[API, POD, NODE, DNS]).finds_nothing();
        let auto = "{apiVersion: v1, kind: Node, metadata: {name: a, labels: {eks.amazonaws.com/compute-type: auto}}}";
        check(&RULE, &[API, POD, NODE, auto]).finds_nothing();
    }

    #[test]
    fn quiet_where_no_pod_relies_on_it() {
        check(&RULE, &[API, NODE, &POD.replace("nodeName", "dnsPolicy: Default, nodeName")]).finds_nothing();
        check(&RULE, &[API, NODE, &POD.replace("nodeName", "hostNetwork: true, nodeName")]).finds_nothing();
        check(&RULE, &[API, NODE]).finds_nothing();
    }

    #[test]
    fn quiet_where_it_may_not_have_been_read() {
        TestCluster::new(&[API, POD, NODE]).origin(Origin::Extract).check(&RULE).finds_nothing();
        TestCluster::new(&[API, POD, NODE]).forbid(Kind::Service).check(&RULE).finds_nothing();
    }
}
