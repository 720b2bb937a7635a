use std::collections::BTreeMap;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::network::cloud::{MISSING_PERMISSIONS, denied_action};
use crate::kubernetes::time::{RECENT, age};
use crate::snapshot::model::{Event, Pod, ServiceAccount};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for events `MissingIAMPermissions`, by which the Amazon VPC CNI reports that its IAM role lacks a
    /// permission.
    ///
    /// ## Why it matters
    ///
    /// The pods of the DaemonSet stay ready and serve the addresses that they already have. But they cannot get more, so
    /// new pods stay in `ContainerCreating`, as if the subnet were exhausted.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n kube-system get events --field-selector reason=MissingIAMPermissions` shows the denied call; `aws iam
    /// list-attached-role-policies --role-name ROLE` shows the policies of the role.
    ///
    /// ## How to fix
    ///
    /// Attach the missing policy (`AmazonEKS_CNI_Policy`) to the IAM role of the ServiceAccount (annotation
    /// `eks.amazonaws.com/role-arn`, or a pod identity association), or of the nodes if it has none.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for events of more than an hour ago.
    "workload/cloud-permissions": Error,
    "the cloud denies a workload the calls that it needs",
    needs: [Event, Pod],
    optional: [ServiceAccount, DaemonSet, Deployment, ReplicaSet, StatefulSet],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let mut by_owner: BTreeMap<ObjectRef, Vec<(&Pod, &Event)>> = BTreeMap::new();
    let is_recent = |event: &&Event| event.last_seen().is_none_or(|seen| age(cluster.now(), seen) < RECENT);
    let about = |event: &Event| {
        let object = &event.involved_object;
        let pod = cluster.get::<Pod>(&object.namespace, &object.name).found();
        pod.filter(|_| object.kind == "Pod")
    };
    let events = cluster.all::<Event>().iter().filter(|event| event.reason == MISSING_PERMISSIONS).filter(is_recent);
    for (pod, event) in events.filter_map(|event| Some((about(event)?, event))) {
        by_owner.entry(cluster.owner_of(pod).into_owned()).or_default().push((pod, event));
    }
    for (owner, found) in by_owner {
        if let Some((pod, event)) = found.iter().max_by_key(|(_, event)| event.last_seen()) {
            report.add(finding(cluster, &owner, pod, event, found.len()));
        }
    }
}

fn finding(cluster: &Cluster, owner: &ObjectRef, pod: &Pod, event: &Event, pods: usize) -> Finding {
    let action = denied_action(&event.message);
    let what = action.unwrap_or("the calls that it needs");
    let account = match pod.spec.service_account_name.as_str() {
        "" => "default",
        name => name,
    };
    let reference = ObjectRef::new(Kind::ServiceAccount, pod.namespace(), account);
    let role = cluster.get::<ServiceAccount>(pod.namespace(), account).found();
    let role = role.and_then(|account| account.annotation("eks.amazonaws.com/role-arn"));
    let whose = match role {
        Some(role) => format!("IAM role {role} of ServiceAccount {account}"),
        None => format!("the IAM role of ServiceAccount {account}, or of the nodes if it has none"),
    };
    let message = format!("{} is not permitted to call {what}: its IAM role lacks the permission", owner.title());
    let mut finding = Finding::error(owner.clone(), message).pods(pods).since(event.first_timestamp).evidence(
        format!("{}: {}", event.reason, words::shorten(&event.message, 400)),
        &pod.reference(),
        "",
    );
    if let Some(role) = role {
        let text = format!("annotation eks.amazonaws.com/role-arn is {role}");
        finding = finding.evidence(text, &reference, "metadata.annotations");
    }
    let policy = match owner.name.as_str() {
        "aws-node" => "the policy AmazonEKS_CNI_Policy".to_string(),
        _ => "a policy with this action".to_string(),
    };
    let allows = action.map(|action| format!(", which allows {action}")).unwrap_or_default();
    finding.fix_command(
        format!("Attach {policy}{allows}, to {whose}"),
        kubectl(["-n", pod.namespace(), "get", "serviceaccount", account, "-o", "yaml"]),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    const WORLD: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: aws-node, namespace: kube-system, annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::1:role/cni'}}
---
apiVersion: v1
kind: Pod
metadata: {name: aws-node-a, namespace: kube-system, ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: aws-node, controller: true}]}
spec: {serviceAccountName: aws-node, nodeName: w1, hostNetwork: true, containers: [{name: aws-node}]}
status: {phase: Running}
---
apiVersion: v1
kind: Event
metadata: {name: e, namespace: kube-system}
type: Warning
reason: MissingIAMPermissions
message: 'Unauthorized operation: failed to call ec2:CreateNetworkInterface due to missing permissions.'
lastTimestamp: '2026-11-21T11:50:00Z'
involvedObject: {kind: Pod, namespace: kube-system, name: aws-node-a}";

    const WAITING: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'}
spec: {nodeName: w1, containers: [{name: app}]}
status: {phase: Pending, containerStatuses: [{name: app, state: {waiting: {reason: ContainerCreating}}}]}
---
apiVersion: v1
kind: Event
metadata: {name: f, namespace: shop}
type: Warning
reason: FailedCreatePodSandBox
message: 'plugin type=\"aws-cni\" failed (add): add cmd: failed to assign an IP address to container'
lastTimestamp: '2026-11-21T11:59:00Z'
involvedObject: {kind: Pod, namespace: shop, name: web}";

    #[test]
    fn fires_with_the_call_and_the_role() {
        let said = check(&RULE, &[WORLD]);
        said.finds(&["error DaemonSet kube-system/aws-node: DaemonSet aws-node is not permitted to call \
                      ec2:CreateNetworkInterface: its IAM role lacks the permission"]);
        assert!(said.finding().fix[0].text.contains("arn:aws:iam::1:role/cni"));
    }

    #[test]
    fn fires_as_the_cause_of_pods_without_an_address() {
        let said = TestCluster::new(&[WORLD, WAITING]).check_all();
        let sandbox = said.by("pod/sandbox");
        assert_eq!(sandbox.caused_by, [said.by("workload/cloud-permissions").id.clone()]);
        assert!(!sandbox.fix.iter().any(|fix| fix.text.contains("subnet")), "{:?}", sandbox.fix);
    }

    #[test]
    fn quiet_for_an_old_event() {
        check(&RULE, &[&WORLD.replace("11:50:00Z", "10:50:00Z")]).finds_nothing();
    }
}
