use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::{DaemonSet, NetworkPolicy};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks, where NetworkPolicies exist, that the network plugin is not one that ignores them: flannel alone, or the
    /// Amazon VPC CNI without its network policy agent.
    ///
    /// ## Why it matters
    ///
    /// The API server accepts NetworkPolicies whether or not anything enforces them. Without an enforcing plugin every
    /// pod can reach every other pod, although the policies suggest otherwise.
    ///
    /// ## How to confirm
    ///
    /// From a pod that no policy admits, `kubectl exec POD -- nc -zv -w 2 ADDRESS PORT` connects anyway.
    ///
    /// ## How to fix
    ///
    /// Install an enforcing plugin alongside flannel (Calico's canal, kube-network-policies, or flannel's own chart
    /// with `netpol.enabled=true`), or replace flannel with one. For the Amazon VPC CNI, set `enableNetworkPolicy` to
    /// `true` in the add-on's configuration.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for unknown plugins, in clusters without policies, or where anything that enforces
    /// policies runs alongside the plugin. k3s, which embeds flannel and a policy enforcer in one binary, is not
    /// mistaken for flannel alone.
    "network-policy/not-enforced": Warning,
    "the network plugin does not enforce NetworkPolicies",
    needs: [NetworkPolicy, DaemonSet],
    optional: [],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let policies = cluster.all::<NetworkPolicy>().len();
    let daemon_sets = cluster.all::<DaemonSet>();
    if policies == 0 || !cluster.covers_all(Kind::DaemonSet) || daemon_sets.iter().any(enforces) {
        return;
    }
    let Some(plugin) = daemon_sets.iter().find(|d| is_flannel(d) || is_aws(d)) else { return };
    let object = plugin.reference();
    let (name, namespace) = (plugin.name(), plugin.namespace());
    let (what, fix) = if is_aws(plugin) {
        (
            "the Amazon VPC CNI without its network policy agent",
            "Enable the agent: set enableNetworkPolicy to true in the add-on's configuration",
        )
    } else {
        (
            "flannel, which does not enforce NetworkPolicies",
            "Install a plugin that enforces NetworkPolicies alongside flannel, such as canal or kube-network-policies",
        )
    };
    let have = if policies == 1 { "has" } else { "have" };
    let message = format!(
        "{} {have} no effect: the network plugin (DaemonSet {name} in namespace {namespace}) is {what}",
        words::count(policies, "NetworkPolicy")
    );
    report.add(
        Finding::warning(object.clone(), message)
            .evidence("no other DaemonSet is known to enforce policies", &object, "spec.template.spec.containers")
            .fix_command(fix, kubectl(["-n", namespace, "describe", "daemonset", name]))
            .rests_on_absence(),
    );
}

fn is_flannel(daemon_set: &DaemonSet) -> bool {
    let name = daemon_set.name();
    name == "kube-flannel" || name.starts_with("kube-flannel-ds")
}

fn is_aws(daemon_set: &DaemonSet) -> bool {
    daemon_set.name() == "aws-node" && daemon_set.namespace() == "kube-system"
}

/// Whether a DaemonSet, or one of its containers, enforces NetworkPolicies. The VPC CNI's agent can be disabled.
fn enforces(daemon_set: &DaemonSet) -> bool {
    const ENFORCERS: &[&str] = &[
        "calico",
        "canal",
        "cilium",
        "antrea",
        "kube-router",
        "weave",
        "ovn",
        "azure-npm",
        "anetd",
        "network-polic",
        "netpol",
        "kindnet",
        "romana",
        "contiv",
        "nsx",
        "trireme",
        "tigera",
        "terway",
        "kilo",
    ];
    let is_enforcer = |text: &str| ENFORCERS.iter().any(|enforcer| text.contains(enforcer));
    let containers = || daemon_set.spec.template.spec.running_containers();
    if is_aws(daemon_set) {
        return containers().any(|container| {
            (container.name.contains("nodeagent") || container.image.contains("network-policy-agent"))
                && !container.args.iter().any(|arg| arg == "--enable-network-policy=false")
        });
    }
    is_enforcer(daemon_set.name())
        || containers().any(|container| is_enforcer(&container.name) || is_enforcer(&container.image))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const POLICY: &str =
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {}}";

    fn daemon_set(name: &str, container: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: {name}, namespace: kube-system}}, \
             spec: {{template: {{spec: {{containers: [{container}]}}}}}}}}"
        )
    }

    #[test]
    fn fires_for_flannel_alone() {
        check(&RULE, &[POLICY, &daemon_set("kube-flannel-ds", "{name: kube-flannel}")]).finds(&[
            "warning DaemonSet kube-system/kube-flannel-ds: 1 NetworkPolicy has no effect: the network plugin (DaemonSet kube-flannel-ds in namespace kube-system) is flannel, which does not enforce NetworkPolicies",
        ]);
    }

    #[test]
    fn quiet_where_something_enforces() {
        let flannel = daemon_set("kube-flannel-ds", "{name: kube-flannel}");
        check(&RULE, &[POLICY, &flannel, &daemon_set("calico-node", "{name: calico-node}")]).finds_nothing();
        let own = daemon_set("kube-flannel-ds", "{name: kube-flannel}, {name: kube-network-policies}");
        check(&RULE, &[POLICY, &own]).finds_nothing();
        check(&RULE, &[POLICY, &daemon_set("some-cni", "{name: cni}")]).finds_nothing();
        check(&RULE, &[&flannel]).finds_nothing();
        TestCluster::new(&[POLICY, &flannel]).forbid(Kind::DaemonSet).check(&RULE).finds_nothing();
    }

    #[test]
    fn fires_for_the_amazon_plugin_without_its_agent() {
        let agent = |args: &str| {
            daemon_set("aws-node", &format!("{{name: aws-node}}, {{name: aws-eks-nodeagent, args: [{args}]}}"))
        };
        check(&RULE, &[POLICY, &agent("--enable-network-policy=true")]).finds_nothing();
        check(&RULE, &[POLICY, &agent("--enable-network-policy=false")]).finds(&[
            "warning DaemonSet kube-system/aws-node: 1 NetworkPolicy has no effect: the network plugin (DaemonSet aws-node in namespace kube-system) is the Amazon VPC CNI without its network policy agent",
        ]);
    }
}
