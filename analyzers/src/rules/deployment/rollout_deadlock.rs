use std::collections::BTreeSet;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::disruption::rolling_update;
use crate::kubernetes::storage::waits_for_consumer;
use crate::kubernetes::time::{START, age};
use crate::kubernetes::workloads::revision::sides;
use crate::snapshot::model::{Deployment, PersistentVolumeClaim, Pod, StorageClass, port_text};
use crate::snapshot::{Cluster, Object, ObjectRef, Origin, Selector};
use crate::text::kubectl;
use crate::text::words::count;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for rollouts of Deployments that block themselves. With `maxUnavailable` 0 (also 25% of up to three
    /// replicas, which is rounded down to 0) an old pod stays until a new one is ready, but the new one cannot start
    /// because of the old ones:
    ///
    /// - required pod anti-affinity with its own labels, or a host port, and an old pod on every node that fits;
    /// - a `ReadWriteOnce` claim that an old pod holds on another node, or a `ReadWriteOncePod` claim.
    ///
    /// For manifests it reports Deployments with such a claim, and as `info` such anti-affinity.
    ///
    /// ## Why it matters
    ///
    /// The rollout never finishes by itself. The old pods keep serving, so it is often noticed only later.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` of the new pod shows `didn't match pod anti-affinity rules`,
    /// `didn't have free ports` or `Multi-Attach error`, while the old pods are ready.
    ///
    /// ## How to fix
    ///
    /// For one pod per node set `maxUnavailable: 1` and `maxSurge: 0`. For a claim that only one pod can use set
    /// `strategy.type: Recreate`. Change the source of the Deployment (chart, GitOps repository), or the next
    /// deployment restores the old strategy.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire:
    ///
    /// - in the first two minutes;
    /// - with `Recreate`, or if `maxUnavailable` is 1 or more;
    /// - if the new pod waits for something else;
    /// - for manifests whose claim has another access mode, is not part of the manifests, or has a class of node-local
    ///   volumes, with which the new pod is placed on the node of the old one.
    "deployment/rollout-deadlock": Error,
    "a rollout waits for old pods that it does not remove",
    needs: [Deployment],
    optional: [ReplicaSet, Pod, PersistentVolumeClaim, StorageClass, Event],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for deployment in cluster.all::<Deployment>().iter().filter(|d| d.deleted().is_none() && !d.spec.paused) {
        let Some(kept) = keeps_old_pods(deployment) else { continue };
        let found = if cluster.origin() == Origin::Manifests {
            in_manifest(cluster, deployment, &kept)
        } else {
            live(cluster, deployment, &kept)
        };
        found.into_iter().for_each(|finding| report.add(finding));
    }
}

/// `maxUnavailable 25% of 3 is 0`, if the strategy removes no old pod before a new one is available.
fn keeps_old_pods(deployment: &Deployment) -> Option<String> {
    let (strategy, wanted) = (&deployment.spec.strategy, deployment.spec.replicas.unwrap_or(1));
    if !matches!(strategy.type_.as_str(), "" | "RollingUpdate") || wanted <= 0 {
        return None;
    }
    let update = strategy.rolling_update.as_ref();
    let (unavailable, _) = rolling_update(update, wanted)?;
    let value = update.and_then(|update| update.max_unavailable.as_ref()).map_or("25%".to_string(), port_text);
    (unavailable == 0).then(|| {
        if value.ends_with('%') {
            format!("maxUnavailable {value} of {wanted} rounds down to 0")
        } else {
            "maxUnavailable is 0".to_string()
        }
    })
}

fn live(cluster: &Cluster, deployment: &Deployment, kept: &str) -> Option<Finding> {
    if deployment.status.updated_replicas >= deployment.status.replicas {
        return None;
    }
    let (current, _) = sides(cluster, deployment)?;
    let group = cluster.group_of_owner(&deployment.reference())?;
    let current = current.reference();
    let active: Vec<&Pod> = cluster.pods_of(group).filter(|pod| pod.is_active()).collect();
    let (new, old): (Vec<&Pod>, Vec<&Pod>) =
        active.into_iter().partition(|pod| pod.controller().as_ref() == Some(&current));
    let waits =
        |pod: &&&Pod| !pod.is_ready() && pod.created().is_some_and(|created| age(cluster.now(), created) >= START);
    let new = new.iter().find(waits)?;
    apart(deployment, new, &old, kept).or_else(|| claim_held(cluster, deployment, new, &old, kept))
}

/// New pods that fit on no node because of the old ones.
fn apart(deployment: &Deployment, new: &Pod, old: &[&Pod], kept: &str) -> Option<Finding> {
    let scheduled = new.condition("PodScheduled").filter(|condition| condition.is_false())?;
    let held = old.iter().filter(|pod| !pod.spec.node_name.is_empty());
    let nodes: BTreeSet<&str> = held.map(|pod| pod.spec.node_name.as_str()).collect();
    let (why, path) = if scheduled.message.contains("anti-affinity") {
        let key = excludes_itself(new, old)?;
        (format!("required podAntiAffinity on {key} keeps its pods apart"), "spec.affinity.podAntiAffinity")
    } else if scheduled.message.contains("free ports") {
        let mut ports = new.spec.containers.iter().flat_map(|container| &container.ports);
        let port = ports.find(|port| port.host_port > 0)?.host_port;
        (format!("host port {port} allows one of its pods per node"), "spec.containers[].ports")
    } else {
        return None;
    };
    if nodes.is_empty() {
        return None;
    }
    let on = count(nodes.len(), "node");
    let message = format!(
        "rollout of Deployment {} is deadlocked: {why}, its old pods occupy {on}, and {kept}, so none of them is removed",
        deployment.name()
    );
    let patch = r#"{"spec":{"strategy":{"rollingUpdate":{"maxUnavailable":1,"maxSurge":0}}}}"#;
    let object = deployment.reference();
    let finding = Finding::error(object.clone(), message)
        .since(new.created())
        .evidence(format!("PodScheduled: {}", scheduled.message), &new.reference(), "status.conditions[PodScheduled]")
        .evidence(kept, &object, "spec.strategy.rollingUpdate.maxUnavailable")
        .evidence(why, &new.reference(), path);
    Some(finding.fix_command("Set maxUnavailable to 1 and maxSurge to 0", patched(&object, patch)))
}

/// The topology of a required anti-affinity term that an old pod matches.
fn excludes_itself(new: &Pod, old: &[&Pod]) -> Option<String> {
    let affinity = new.spec.affinity.as_ref()?.pod_anti_affinity.as_ref()?;
    let terms = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
    terms
        .filter(|term| {
            let selector = term.label_selector.as_ref().map(Selector::new);
            selector.is_some_and(|selector| old.iter().any(|pod| selector.matches(&pod.metadata.labels)))
        })
        .map(|term| term.topology_key.clone())
        .next()
}

/// A new pod that needs a claim of an old one.
fn claim_held(cluster: &Cluster, deployment: &Deployment, new: &Pod, old: &[&Pod], kept: &str) -> Option<Finding> {
    let node = new.spec.node_name.as_str();
    let (claim, mode, holder) =
        exclusive_claims(cluster, &new.metadata.namespace, &claims(&new.spec)).find_map(|(claim, mode)| {
            let holds = |pod: &&&Pod| {
                let elsewhere = !node.is_empty() && !pod.spec.node_name.is_empty() && pod.spec.node_name != node;
                claims(&pod.spec).contains(&claim.name()) && (elsewhere || mode == "ReadWriteOncePod")
            };
            Some((claim, mode, old.iter().find(holds)?))
        })?;
    if !node.is_empty() && !new.is_being_created() {
        return None;
    }
    let place = if node.is_empty() { String::new() } else { format!(" on node {node}") };
    let message = format!(
        "rollout of Deployment {} is deadlocked: its new pod{place} needs {mode} claim {}, which old pod {} holds on node \
         {}, and {kept}, so the old pod stays until the new one is ready",
        deployment.name(),
        claim.name(),
        holder.name(),
        holder.spec.node_name
    );
    let object = deployment.reference();
    let finding = Finding::error(object.clone(), message)
        .since(new.created())
        .evidence(kept, &object, "spec.strategy.rollingUpdate.maxUnavailable")
        .evidence(format!("accessModes: {mode}"), &claim.reference(), "spec.accessModes")
        .evidence(format!("pod runs on node {}", holder.spec.node_name), &holder.reference(), "spec.nodeName");
    Some(recreate(finding, &object))
}

fn recreate(finding: Finding, object: &ObjectRef) -> Finding {
    let patch = r#"{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}"#;
    finding.fix_command(
        "Set spec.strategy.type to Recreate, so that the old pod releases the volume before the new one starts",
        patched(object, patch),
    )
}

fn patched(object: &ObjectRef, patch: &str) -> String {
    kubectl(["-n", object.namespace(), "patch", "deployment", &object.name, "--type", "merge", "-p", patch])
}

/// The claims of a spec by name.
fn claims(spec: &crate::snapshot::model::PodSpec) -> Vec<&str> {
    let claims = spec.volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.map(|claim| claim.claim_name.as_str()).collect()
}

/// The claims that can be used on one node only, or by one pod only.
fn exclusive_claims<'a>(
    cluster: &'a Cluster,
    namespace: &str,
    names: &[&str],
) -> impl Iterator<Item = (&'a PersistentVolumeClaim, &'static str)> + use<'a> {
    let claims: Vec<_> = names.iter().filter_map(|name| cluster.get(namespace, name).found()).collect();
    claims.into_iter().filter_map(|claim: &PersistentVolumeClaim| {
        let modes = claim.spec.as_ref()?.access_modes.as_ref()?;
        let all = |wanted: &str| !modes.is_empty() && modes.iter().all(|mode| mode == wanted);
        let mode = if all("ReadWriteOncePod") { Some("ReadWriteOncePod") } else { None };
        let mode = mode.or(all("ReadWriteOnce").then_some("ReadWriteOnce"))?;
        Some((claim, mode))
    })
}

/// What a manifest alone shows.
fn in_manifest(cluster: &Cluster, deployment: &Deployment, kept: &str) -> Option<Finding> {
    let (object, spec) = (deployment.reference(), &deployment.spec.template.spec);
    let mut exclusive = exclusive_claims(cluster, deployment.namespace(), &claims(spec));
    if let Some((claim, mode)) =
        exclusive.find(|(claim, mode)| *mode == "ReadWriteOncePod" || !is_local(cluster, claim))
    {
        let message = format!(
            "rollouts of Deployment {} can deadlock: {kept}, so a new pod on another node waits for {mode} claim {} of the \
             old one, which waits for the new one",
            deployment.name(),
            claim.name()
        );
        let finding = Finding::warning(object.clone(), message)
            .evidence(kept, &object, "spec.strategy.rollingUpdate.maxUnavailable")
            .evidence(format!("accessModes: {mode}"), &claim.reference(), "spec.accessModes");
        return Some(recreate(finding, &object));
    }
    let affinity = spec.affinity.as_ref()?.pod_anti_affinity.as_ref()?;
    let labels = &deployment.spec.template.metadata.labels;
    let mut terms = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
    let term = terms.find(|term| {
        term.label_selector.as_ref().map(Selector::new).is_some_and(|s| !s.is_empty() && s.matches(labels))
    })?;
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let message = format!(
        "rollouts of Deployment {} require {} with a free {}: required podAntiAffinity keeps its pods apart, and {kept}",
        deployment.name(),
        wanted.saturating_add(1),
        if term.topology_key == "kubernetes.io/hostname" { "node" } else { term.topology_key.as_str() }
    );
    let message = message.replace(" with a free node", " nodes");
    let patch = r#"{"spec":{"strategy":{"rollingUpdate":{"maxUnavailable":1,"maxSurge":0}}}}"#;
    let finding =
        Finding::info(object.clone(), message).evidence(kept, &object, "spec.strategy.rollingUpdate.maxUnavailable");
    Some(finding.fix_command(
        "If there are no more nodes than replicas, set maxUnavailable to 1 and maxSurge to 0",
        patched(&object, patch),
    ))
}

/// Whether the volumes of the claim's class are bound to a node, which then gets the new pod as well.
fn is_local(cluster: &Cluster, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
    let is_local = |text: &str| ["local", "hostpath", "no-provisioner", "lvm"].iter().any(|word| text.contains(word));
    let class = cluster.get::<StorageClass>("", name).found();
    is_local(name) || class.is_some_and(|class| is_local(&class.provisioner) && waits_for_consumer(class))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{TestCluster, check};

    fn deployment(replicas: i32, strategy: &str, spec: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop}}
            spec: {{replicas: {replicas}, strategy: {strategy}, template: {{metadata: {{labels: {{app: web}}}}, spec: {spec}}}}}
            status: {{replicas: 2, updatedReplicas: 1}}
            ---
            {{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: web-1, namespace: shop, annotations: {{deployment.kubernetes.io/revision: '1'}},
              ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, controller: true}}]}}}}
            ---
            {{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: web-2, namespace: shop, annotations: {{deployment.kubernetes.io/revision: '2'}},
              ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, controller: true}}]}}}}"
        )
    }

    fn pod(set: &str, spec: &str, status: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: {set}-x, namespace: shop, labels: {{app: web}}, creationTimestamp: '2026-11-21T11:00:00Z', ownerReferences: [
              {{apiVersion: apps/v1, kind: ReplicaSet, name: {set}, controller: true}}]}}
            spec: {spec}
            status: {status}"
        )
    }

    const APART: &str = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [
        {labelSelector: {matchLabels: {app: web}}, topologyKey: kubernetes.io/hostname}]}}";
    const CLAIM: &str = "volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]";
    const READY: &str = "{phase: Running, conditions: [{type: Ready, status: 'True'}]}";
    const REFUSED: &str = "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', message: \"1 node(s) didn't match pod anti-affinity rules\"}]}";

    fn data(mode: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: data, namespace: shop}}, spec: {{accessModes: [{mode}]}}}}"
        )
    }

    #[test]
    fn fires_for_one_pod_per_node() {
        let old = pod("web-1", &format!("{{nodeName: n1, {APART}}}"), READY);
        let new = pod("web-2", &format!("{{{APART}}}"), REFUSED);
        let said = check(&RULE, &[&deployment(1, "{}", &format!("{{{APART}}}")), &old, &new]);
        said.finds(&[
            "error Deployment shop/web: rollout of Deployment web is deadlocked: required podAntiAffinity on \
             kubernetes.io/hostname keeps its pods apart, its old pods occupy 1 node, and maxUnavailable 25% of 1 rounds \
             down to 0, so none of them is removed",
        ]);
    }

    #[test]
    fn fires_for_a_volume_on_the_node_of_the_old_pod() {
        let old = pod("web-1", &format!("{{nodeName: n1, {CLAIM}}}"), READY);
        let new = pod("web-2", &format!("{{nodeName: n2, {CLAIM}}}"), "{phase: Pending}");
        let all = |mode: &str| check(&RULE, &[&deployment(1, "{}", &format!("{{{CLAIM}}}")), &old, &new, &data(mode)]);
        assert!(all("ReadWriteOnce").finding().fix[0].text.contains("Recreate"));
        all("ReadWriteMany").finds_nothing();
    }

    #[test]
    fn fires_for_manifests() {
        let manifest = deployment(1, "{}", &format!("{{{CLAIM}}}"));
        let said = |claim: &str| TestCluster::new(&[&manifest, claim]).origin(Origin::Manifests).check(&RULE);
        assert!(said(&data("ReadWriteOnce")).text().contains("can deadlock"));
        said(&data("ReadWriteMany")).finds_nothing();
        said(&data("ReadWriteOnce").replace("spec: {", "spec: {storageClassName: local-path, ")).finds_nothing();
    }

    #[test]
    fn quiet_if_old_pods_are_removed() {
        let old = pod("web-1", &format!("{{nodeName: n1, {APART}}}"), READY);
        let new = pod("web-2", &format!("{{{APART}}}"), REFUSED);
        for strategy in [
            "{type: Recreate}",
            "{rollingUpdate: {maxUnavailable: 1, maxSurge: 0}}",
            "{rollingUpdate: {maxUnavailable: 0%, maxSurge: 0}}",
        ] {
            check(&RULE, &[&deployment(1, strategy, &format!("{{{APART}}}")), &old, &new]).finds_nothing();
        }
        check(&RULE, &[&deployment(4, "{}", &format!("{{{APART}}}")), &old, &new]).finds_nothing();
        let full = new.replace("didn't match pod anti-affinity rules", "Insufficient cpu");
        check(&RULE, &[&deployment(1, "{}", &format!("{{{APART}}}")), &old, &full]).finds_nothing();
    }
}
