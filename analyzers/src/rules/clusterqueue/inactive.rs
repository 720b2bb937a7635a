use serde_json::Value;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time::{PROVISION, age};
use crate::snapshot::Cluster;
use crate::snapshot::model::{Condition, CustomResource, condition};
use crate::text::kubectl;
use crate::text::similar::nearest_name;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for ClusterQueues and LocalQueues of Kueue that have been inactive for more than five minutes: the
    /// condition `Active` is False, for example because a ClusterQueue references a ResourceFlavor that does not exist.
    ///
    /// ## Why it matters
    ///
    /// An inactive queue admits nothing, including workloads that do not need the missing flavor. Their Jobs stay
    /// suspended without a warning.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get clusterqueue NAME -o yaml` shows the condition; `kubectl get resourceflavors` lists the flavors.
    ///
    /// ## How to fix
    ///
    /// Correct the name of the flavor in `spec.resourceGroups`, or create the ResourceFlavor. Do not set `suspend:
    /// false` on the Jobs: Kueue suspends them again.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for queues that are stopped (`stopPolicy`), or in the first five minutes.
    "clusterqueue/inactive": Error,
    "a queue of Kueue is inactive and admits nothing",
    needs: [],
    optional: [],
    reads_custom: true,
    explained_by: ["clusterqueue/inactive"],
}

pub(in crate::rules) const GROUP: &str = "kueue.x-k8s.io";

fn check(cluster: &Cluster, report: &mut Report) {
    for queue in queues(cluster, "ClusterQueue") {
        if let Some(reason) = inactive(cluster, queue) {
            report.add(of_cluster_queue(cluster, queue, &reason));
        }
    }
    for queue in queues(cluster, "LocalQueue") {
        if let Some(reason) = inactive(cluster, queue)
            && let Some(finding) = of_local_queue(cluster, queue, &reason)
        {
            report.add(finding);
        }
    }
}

fn queues<'a>(cluster: &'a Cluster, kind: &'a str) -> impl Iterator<Item = &'a CustomResource> {
    let all = cluster.custom().iter().filter(move |custom| custom.kind == kind && custom.group() == GROUP);
    all.filter(|queue| queue.metadata.deletion_timestamp.is_none())
}

/// The condition of a queue that is not active and was not stopped.
pub(in crate::rules) fn inactive(cluster: &Cluster, queue: &CustomResource) -> Option<Condition> {
    let conditions = queue.conditions();
    let active = condition(&conditions, "Active").filter(|c| c.is_false() && c.reason != "Stopped")?;
    let stopped = queue.spec.get("stopPolicy").and_then(Value::as_str).is_some_and(|policy| policy != "None");
    let settled = active.last_transition_time.is_none_or(|since| age(cluster.now(), since) >= PROVISION);
    (settled && !stopped).then(|| active.clone())
}

/// The ClusterQueue of a LocalQueue, if it was read.
pub(in crate::rules) fn cluster_queue<'a>(cluster: &'a Cluster, queue: &CustomResource) -> Option<&'a CustomResource> {
    let name = queue.spec.get("clusterQueue").and_then(Value::as_str)?;
    queues(cluster, "ClusterQueue").find(|queue| queue.metadata.name == name)
}

/// `references missing ResourceFlavor(s): gpu-l4,gpu-t4.`
fn missing_flavors(message: &str) -> Vec<String> {
    let Some((_, rest)) = message.split_once("missing ResourceFlavor(s): ") else { return Vec::new() };
    let names = rest.split([',', ' ', ';']).map(|name| name.trim_matches(['.', '[', ']', '"']));
    names
        .take_while(|name| !name.contains(':') && *name != "and")
        .filter(|name| !name.is_empty())
        .map(str::to_string)
        .collect()
}

fn of_cluster_queue(cluster: &Cluster, queue: &CustomResource, active: &Condition) -> Finding {
    let object = queue.reference();
    let name = queue.metadata.name.as_str();
    let missing = missing_flavors(&active.message);
    let flavors: Vec<&str> = queues(cluster, "ResourceFlavor").map(|flavor| flavor.metadata.name.as_str()).collect();
    let why = if missing.is_empty() {
        shorten(if active.message.is_empty() { &active.reason } else { &active.message }, 200)
    } else {
        let (noun, verb) = if missing.len() == 1 { ("ResourceFlavor", "does") } else { ("ResourceFlavors", "do") };
        format!("it references {noun} {}, which {verb} not exist", list(&missing, 3))
    };
    let mut finding =
        Finding::error(object.clone(), format!("ClusterQueue {name} is inactive and admits nothing: {why}"))
            .since(active.last_transition_time)
            .evidence(
                format!("condition Active is False ({}): {}", active.reason, shorten(&active.message, 300)),
                &object,
                "status.conditions[Active]",
            );
    if !missing.is_empty() && !flavors.is_empty() {
        finding = finding.evidence(format!("existing ResourceFlavors: {}", list(&flavors, 6)), &object, "");
    }
    for flavor in missing.iter().take(3) {
        finding = match nearest_name(flavor, flavors.iter().copied()) {
            Some(near) => finding.fix_command(
                format!(
                    "Change flavor {flavor} in spec.resourceGroups{} to {near}, if that replaced it",
                    place(queue, flavor)
                ),
                kubectl(["edit", "clusterqueue", name]),
            ),
            None => finding.fix_command(
                format!(
                    "Remove flavor {flavor} from spec.resourceGroups{}, or name an existing one",
                    place(queue, flavor)
                ),
                kubectl(["edit", "clusterqueue", name]),
            ),
        };
        finding = finding.fix(format!("Or create ResourceFlavor {flavor}"));
    }
    if missing.is_empty() {
        finding = finding.fix_command("Resolve the reported reason", kubectl(["describe", "clusterqueue", name]));
    }
    finding
}

/// The position of a flavor in `spec.resourceGroups`: `[1].flavors[0].name`.
fn place(queue: &CustomResource, flavor: &str) -> String {
    let groups = queue.spec.get("resourceGroups").and_then(Value::as_array);
    for (n, group) in groups.into_iter().flatten().enumerate() {
        let flavors = group.get("flavors").and_then(Value::as_array);
        let found = flavors.into_iter().flatten().position(|f| f.get("name").and_then(Value::as_str) == Some(flavor));
        if let Some(at) = found {
            return format!("[{n}].flavors[{at}].name");
        }
    }
    String::new()
}

fn of_local_queue(cluster: &Cluster, queue: &CustomResource, active: &Condition) -> Option<Finding> {
    let object = queue.reference();
    let above = cluster_queue(cluster, queue);
    let name = queue.spec.get("clusterQueue").and_then(Value::as_str).unwrap_or_default();
    // A stopped ClusterQueue stops its LocalQueues.
    if above.is_some_and(|above| inactive(cluster, above).is_none()) {
        return None;
    }
    let why = match active.reason.as_str() {
        "ClusterQueueDoesNotExist" => format!("ClusterQueue {name} does not exist"),
        _ => format!("ClusterQueue {name} is inactive"),
    };
    let message = format!("LocalQueue {} is inactive: {why}", queue.metadata.name);
    let finding = Finding::error(object.clone(), message).since(active.last_transition_time).evidence(
        format!("condition Active is False ({}): {}", active.reason, shorten(&active.message, 200)),
        &object,
        "status.conditions[Active]",
    );
    Some(match above {
        Some(above) => finding.because(above.reference()).fix(format!("Make ClusterQueue {name} active again")),
        None => finding.fix_command(
            "Create the ClusterQueue, or recreate the LocalQueue with an existing one",
            kubectl(["get", "clusterqueues"]),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    const CLUSTER_QUEUE: &str = "
        apiVersion: kueue.x-k8s.io/v1beta1
        kind: ClusterQueue
        metadata: {name: team, uid: u}
        spec: {resourceGroups: [{flavors: [{name: spot}]}, {flavors: [{name: a100}]}]}
        status: {conditions: [{type: Active, status: 'False', reason: FlavorNotFound,
          message: \"Can't admit new workloads: references missing ResourceFlavor(s): a100.\", lastTransitionTime: '2026-11-21T10:00:00Z'}]}";
    const LOCAL_QUEUE: &str = "
        apiVersion: kueue.x-k8s.io/v1beta1
        kind: LocalQueue
        metadata: {name: jobs, namespace: ml, uid: u}
        spec: {clusterQueue: team}
        status: {conditions: [{type: Active, status: 'False', reason: ClusterQueueIsInactive,
          message: \"Can't submit new workloads to clusterQueue\", lastTransitionTime: '2026-11-21T10:00:00Z'}]}";
    const FLAVOR: &str = "{apiVersion: kueue.x-k8s.io/v1beta1, kind: ResourceFlavor, metadata: {name: a1000, uid: u}}";

    #[test]
    fn fires_when_a_flavor_does_not_exist() {
        let said = check(&RULE, &[CLUSTER_QUEUE, LOCAL_QUEUE, FLAVOR]);
        said.finds(&[
            "error ClusterQueue team: ClusterQueue team is inactive and admits nothing: it references ResourceFlavor a100, which \
             does not exist",
            "error LocalQueue ml/jobs: LocalQueue jobs is inactive: ClusterQueue team is inactive",
        ]);
        assert_eq!(said.0.findings[1].caused_by, [said.0.findings[0].id.clone()]);
        let fix = &said.0.findings[0].fix[0].text;
        assert_eq!(fix, "Change flavor a100 in spec.resourceGroups[1].flavors[0].name to a1000, if that replaced it");
    }

    #[test]
    fn quiet_for_active_stopped_and_young_queues() {
        check(&RULE, &[&CLUSTER_QUEUE.replace("'False'", "'True'")]).finds_nothing();
        let stopped = CLUSTER_QUEUE.replace("FlavorNotFound", "Stopped");
        check(&RULE, &[&stopped, LOCAL_QUEUE]).finds_nothing();
        check(&RULE, &[&CLUSTER_QUEUE.replace("T10:00", "T11:58")]).finds_nothing();
    }
}
