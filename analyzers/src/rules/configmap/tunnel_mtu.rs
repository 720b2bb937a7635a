use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::tunnel_mtu::{TunnelMtu, tunnel_mtu};
use crate::snapshot::{Cluster, Kind};
use crate::text::kubectl;
use crate::text::words::shorten_middle;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks the log of the network plugin's pods for an MTU that the tunnel between the nodes cannot have: Calico
    /// repeats `Failed to set vxlan tunnel device MTU` with the configured and the current value.
    ///
    /// ## Why it matters
    ///
    /// VXLAN needs 50 bytes of each packet, IP-in-IP 20 and WireGuard 60. If the interfaces of the pods have a larger MTU
    /// than the tunnel, connections to pods on other nodes open, but large packets are lost: TLS handshakes time out,
    /// requests with large bodies hang. Connections within a node work.
    ///
    /// ## How to confirm
    ///
    /// `ip link` on a node shows the MTU of the tunnel (`vxlan.calico`) and of the pods' interfaces (`cali…`).
    /// `ping -M do -s 1422 POD-IP` from another node fails with a size that the tunnel cannot carry.
    ///
    /// ## How to fix
    ///
    /// Set the MTU of the network plugin to what the tunnel can have, or let the plugin detect it (`veth_mtu: "0"` in
    /// ConfigMap calico-config, or `spec.calicoNetwork.mtu` of the operator's Installation). Restart the plugin's pods,
    /// then recreate the other pods: running ones keep their MTU.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire without the log of the network plugin's pod on a node, which is read for nodes whose pods
    /// fail.
    "configmap/tunnel-mtu": Error,
    "the MTU of the pods is larger than that of the tunnel between the nodes",
    needs: [Pod],
    optional: [ConfigMap, DaemonSet],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if let Some(fault) = tunnel_mtu(cluster) {
        report.add(finding(fault));
    }
}

fn finding(fault: &TunnelMtu) -> Finding {
    let TunnelMtu { object, field, pod, owner, configured, possible, line } = fault;
    let message = format!(
        "{} sets an MTU of {configured}, but the tunnel between the nodes has {possible}: larger packets to pods on other \
         nodes are lost",
        object.title()
    );
    let finding = Finding::error(object.clone(), message)
        .evidence(format!("log of {}: {}", pod.name, shorten_middle(line, 200)), pod, "")
        .evidence(format!("configured {configured}, possible {possible}"), pod, "");
    let restart = kubectl(["-n", owner.namespace(), "rollout", "restart", &owner.target()]);
    let finding = if object.is(Kind::ConfigMap) {
        let text = format!("Set {field} of ConfigMap {} to {possible}, or to 0 to detect the MTU", object.name);
        finding.fix_command(text, kubectl(["-n", object.namespace(), "edit", "configmap", &object.name]))
    } else {
        finding.fix(format!(
            "Set the MTU of the network plugin to {possible} (50 bytes less than the nodes' network for VXLAN)"
        ))
    };
    finding.fix_command(format!("Then restart {}, and recreate the pods that keep the old MTU", owner.title()), restart)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, TestCluster};

    fn said(lines: &[&str]) -> Findings {
        let pod = "
            apiVersion: v1
            kind: Pod
            metadata: {name: calico-node-a, namespace: kube-system, ownerReferences: [
              {apiVersion: apps/v1, kind: DaemonSet, name: calico-node, controller: true}]}
            spec: {hostNetwork: true, containers: [{name: calico-node, env: [
              {name: FELIX_VXLANMTU, valueFrom: {configMapKeyRef: {name: calico-config, key: veth_mtu}}}]}]}
            status: {containerStatuses: [{name: calico-node, ready: true}]}";
        TestCluster::new(&[pod]).log("kube-system", "calico-node-a", "calico-node", lines).check(&RULE)
    }

    const UPDATE: &str = "[INFO] VXLAN device MTU needs to be updated device=\"vxlan.calico\" new=1500 old=1450";

    #[test]
    fn fires_when_the_tunnel_cannot_have_the_mtu() {
        said(&[UPDATE, "[WARNING] Failed to set vxlan tunnel device MTU error=invalid argument"]).finds(&[
            "error ConfigMap kube-system/calico-config: ConfigMap calico-config sets an MTU of 1500, but the tunnel \
             between the nodes has 1450: larger packets to pods on other nodes are lost",
        ]);
    }

    #[test]
    fn quiet_when_the_mtu_is_set() {
        said(&[UPDATE, "[INFO] VXLAN device MTU updated"]).finds_nothing();
        said(&["[INFO] MTU needs to be updated new=1450 old=1500", "Failed to set vxlan tunnel device MTU"])
            .finds_nothing();
    }
}
