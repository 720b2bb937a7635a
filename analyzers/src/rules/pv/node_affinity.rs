use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::storage::{Misnamed, misnamed, phase_of_volume, users};
use crate::snapshot::model::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use crate::snapshot::{Cluster, Kind, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// PersistentVolumes that are pinned to one node by the node's name (`kubernetes.io/hostname In [NAME]`), while the
    /// node of that name (with or without its domain) has another value of the label and no other node has this one.
    ///
    /// ## Why it matters
    ///
    /// The label `kubernetes.io/hostname` is the host name of the machine, which may differ from the name of the Node.
    /// Some provisioners of local volumes mix them up. No node matches the volume's node affinity, so that its pods are
    /// never scheduled, although the node exists.
    ///
    /// ## How to confirm
    ///
    /// Compare `kubectl get pv NAME -o jsonpath='{.spec.nodeAffinity}'` with `kubectl get nodes -L
    /// kubernetes.io/hostname`.
    ///
    /// ## How to fix
    ///
    /// Set the node's label to the name that the volume requires, unless pods or volumes select the present value. Where
    /// the kubelet sets the label again, configure its host name (`--hostname-override`). For a new volume, upgrade the
    /// provisioner and recreate the claim. The node affinity of a PersistentVolume is immutable: to keep its data,
    /// recreate the PersistentVolume with the value of the label.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire if any node matches, if no node has the name, and for volumes that are released or being
    /// deleted. The severity is `warning` while no pod waits for the volume.
    "pv/node-affinity": Error,
    "a PersistentVolume is pinned to a node by a label value that the node does not have",
    needs: [PersistentVolume, Node],
    optional: [PersistentVolumeClaim, Pod],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    if !cluster.covers_all(Kind::Node) || cluster.all::<Node>().is_empty() {
        return;
    }
    for volume in cluster.all::<PersistentVolume>() {
        if volume.deleted().is_some() || matches!(phase_of_volume(volume), "Released" | "Failed") {
            continue;
        }
        if let Some(misnamed) = misnamed(cluster, volume) {
            report.add(finding(cluster, volume, &misnamed));
        }
    }
}

fn finding(cluster: &Cluster, volume: &PersistentVolume, misnamed: &Misnamed) -> Finding {
    let (name, node, key, wanted) = (volume.name(), misnamed.node.name(), misnamed.key, misnamed.wanted);
    let waiting = waiting(cluster, volume);
    let severity = if waiting.is_some() { Severity::Error } else { Severity::Warning };
    let has = match misnamed.has {
        Some(value) => format!("node {node} has {key}={value}"),
        None => format!("node {node} does not have the label {key}"),
    };
    let message = format!("PersistentVolume {name} requires {key}={wanted}, but {has}");
    let object = volume.reference();
    let mut finding = Finding::new(severity, object.clone(), message)
        .since(volume.created())
        .evidence(format!("nodeAffinity requires {key} in ({wanted})"), &object, "spec.nodeAffinity")
        .evidence(has, &misnamed.node.reference(), "metadata.labels");
    if let Some(pod) = waiting {
        finding = finding.evidence("a pod waits for this volume", &pod.reference(), "spec.volumes");
    }
    let label = format!("{key}={wanted}");
    let finding = finding.fix_command(
        format!(
            "Set the label {key} of node {node} to {wanted}, unless pods or other volumes select the present value"
        ),
        kubectl(["label", "node", node, &label, "--overwrite"]),
    );
    let value = misnamed.has.unwrap_or("the value that the node has");
    finding.fix(format!(
        "Or recreate the volume with {key} in ({value}): spec.nodeAffinity is immutable; set \
                         persistentVolumeReclaimPolicy to Retain first if it holds data, and upgrade its provisioner"
    ))
}

/// A pod that is not scheduled and uses the claim of a volume.
fn waiting<'a>(cluster: &'a Cluster, volume: &PersistentVolume) -> Option<&'a Pod> {
    let owner = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let (namespace, name) = (owner.namespace.as_deref()?, owner.name.as_deref()?);
    let claim = cluster.get::<PersistentVolumeClaim>(namespace, name).found()?;
    users(cluster, claim).into_iter().find(|pod| pod.spec.node_name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn node(name: &str, host: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{kubernetes.io/hostname: {host}}}}}}}"
        )
    }

    const VOLUME: &str = "{apiVersion: v1, kind: PersistentVolume, metadata: {name: pv-7}, spec: {claimRef: {namespace: shop, \
        name: data}, nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, \
        operator: In, values: [ip-10-0-0-1]}]}]}}}, status: {phase: Bound}}";
    const CLAIM: &str = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: shop}}";
    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop}, spec: {volumes: [{name: d, \
        persistentVolumeClaim: {claimName: data}}]}, status: {phase: Pending}}";
    const FOUND: &str = "PersistentVolume pv-7: PersistentVolume pv-7 requires kubernetes.io/hostname=ip-10-0-0-1, but \
        node ip-10-0-0-1 has kubernetes.io/hostname=worker";

    #[test]
    fn fires_when_the_label_differs_from_the_name() {
        let node = node("ip-10-0-0-1", "worker");
        let said = check(&RULE, &[&node, VOLUME, CLAIM, POD]);
        said.finds(&[&format!("error {FOUND}")]);
        assert!(said.text().contains("kubectl label node ip-10-0-0-1 kubernetes.io/hostname=ip-10-0-0-1 --overwrite"));
        check(&RULE, &[&node, VOLUME, CLAIM]).finds(&[&format!("warning {FOUND}")]);
    }

    #[test]
    fn fires_when_the_node_is_registered_with_its_domain() {
        let node = node("ip-10-0-0-1.internal", "ip-10-0-0-1.internal");
        check(&RULE, &[&node, VOLUME, CLAIM, POD]).finds(&[
            "error PersistentVolume pv-7: PersistentVolume pv-7 requires kubernetes.io/hostname=ip-10-0-0-1, but node \
             ip-10-0-0-1.internal has kubernetes.io/hostname=ip-10-0-0-1.internal",
        ]);
    }

    #[test]
    fn quiet_when_a_node_matches_or_none_has_the_name() {
        check(&RULE, &[&node("ip-10-0-0-1", "ip-10-0-0-1"), VOLUME, CLAIM, POD]).finds_nothing();
        let swapped = [node("ip-10-0-0-1", "worker"), node("worker", "ip-10-0-0-1")];
        check(&RULE, &[&swapped[0], &swapped[1], VOLUME, CLAIM, POD]).finds_nothing();
        check(&RULE, &[&node("worker", "worker"), VOLUME, CLAIM, POD]).finds_nothing();
    }

    #[test]
    fn quiet_for_released_volumes() {
        check(&RULE, &[&node("ip-10-0-0-1", "worker"), &VOLUME.replace("Bound", "Released")]).finds_nothing();
    }
}
