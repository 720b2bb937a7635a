//! What pods report about the interfaces of their cloud.

use std::net::{IpAddr, Ipv4Addr};

use super::netpol::{Answer, Direction, Endpoint, PolicySet, Port};
use crate::kubernetes::nodes::platform::PlatformExt;
use crate::kubernetes::workloads::restarts::PodContainer;
use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Object, ObjectRef};

/// The reason of the event by which the Amazon VPC CNI reports a denied call.
pub const MISSING_PERMISSIONS: &str = "MissingIAMPermissions";

/// The action of a denied call: `ec2:AssignPrivateIpAddresses`.
pub fn denied_action(message: &str) -> Option<&str> {
    let words = message.split(|c: char| c.is_whitespace() || ",;()\"'".contains(c));
    let is_action = |word: &&str| {
        let parts = word.split_once(':');
        parts.is_some_and(|(service, action)| {
            service.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                && !service.is_empty()
                && action.starts_with(|c: char| c.is_ascii_uppercase())
                && action.chars().all(|c| c.is_ascii_alphanumeric())
        })
    };
    words.map(|word| word.trim_end_matches(['.', ':'])).find(is_action)
}

/// The owner of the pod on a node that reports that its cloud denies it calls: the node's network plugin.
pub fn denied_on_node(cluster: &Cluster, node: &str) -> Option<ObjectRef> {
    let is_denied = |pod: &&Pod| cluster.events(&pod.reference()).iter().any(|e| e.reason == MISSING_PERMISSIONS);
    let pod = cluster.pods_on_node(node).into_iter().filter(|pod| pod.spec.host_network).find(is_denied)?;
    Some(cluster.owner_of(pod).into_owned())
}

/// The fix for a container whose log shows that it cannot reach the EC2 instance metadata from a pod: a response of IMDSv2
/// crosses one hop by default, and the network of a pod is one hop more. `None` if its pod is on the host network, or if
/// a policy blocks the address.
pub(crate) fn metadata_fix(cluster: &Cluster, container: &PodContainer) -> Option<String> {
    const SOURCES: [&str; 5] = ["ec2imds", "ec2metadata", "ec2 metadata", "instance metadata", "169.254.169.254"];
    const ERRORS: [&str; 4] = ["deadline exceeded", "timeout", "timed out", "canceled"];
    let pod = container.pod;
    if pod.spec.host_network || cluster.cloud().is_some_and(|cloud| cloud != "aws") {
        return None;
    }
    let log = cluster.log(pod.namespace(), pod.name(), container.name())?;
    let is_about = |line: &&String| {
        let lower = line.to_lowercase();
        SOURCES.iter().any(|word| lower.contains(word)) && ERRORS.iter().any(|word| lower.contains(word))
    };
    log.lines.iter().rev().take(50).find(is_about)?;
    let metadata = Endpoint::Address(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)));
    let side = PolicySet::new(cluster).side(Direction::Egress, &Endpoint::pod(pod), &metadata, Port::tcp(80));
    if side.answer == Answer::No {
        return None;
    }
    let is_alb = container.spec.image.contains("aws-load-balancer-controller");
    let instead = if is_alb {
        "set --aws-vpc-id and --aws-region (values vpcId and region of the Helm chart), so that it does not need the \
         metadata"
    } else {
        "configure the region, and credentials by a role of its ServiceAccount, so that it does not need them"
    };
    Some(format!(
        "The EC2 instance metadata are out of reach of pods that are not on the host network unless the instances have \
         HttpPutResponseHopLimit 2 (IMDSv2): {instead}, or raise the hop limit in the launch template of the nodes"
    ))
}

#[cfg(test)]
mod tests {
    use super::denied_action;

    #[test]
    fn finds_the_action() {
        let text = "Unauthorized operation: failed to call ec2:AssignPrivateIpAddresses due to missing permissions.";
        assert_eq!(denied_action(text), Some("ec2:AssignPrivateIpAddresses"));
        assert_eq!(denied_action("error: Denied at 10:00"), None);
    }
}
