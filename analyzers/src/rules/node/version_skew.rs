use crate::engine::{Finding, Report, declare_rule};
use crate::snapshot::model::{Node, Pod};
use crate::snapshot::{Cluster, Object};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// That the kubelet of every node is not newer than the API server and at most three minor versions older.
    ///
    /// ## Why it matters
    ///
    /// Outside this range Kubernetes is not supported: pods may fail to start, fields are ignored, and the next control
    /// plane upgrade can disconnect the node. See <https://kubernetes.io/releases/version-skew-policy/#kubelet>.
    ///
    /// ## How to confirm
    ///
    /// Compare `kubectl version` with the column VERSION of `kubectl get nodes`.
    ///
    /// ## How to fix
    ///
    /// Upgrade the nodes. If they are newer than the API server, upgrade the control plane first.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire where the version of the API server is unknown, or for versions that cannot be parsed.
    "node/version-skew": Warning,
    "a kubelet is newer than the API server, or too old for it",
    needs: [Node],
    optional: [Pod],
    explained_by: [],
}

/// How many minor versions a kubelet may be behind (since 1.28).
const MAX_BEHIND: u32 = 3;

fn check(cluster: &Cluster, report: &mut Report) {
    let Some((server_text, server)) = server_version(cluster) else { return };
    for node in cluster.all::<Node>() {
        let kubelet_text = &node.status.node_info.kubelet_version;
        let Some(kubelet) = minor_version(kubelet_text) else { continue };
        let is_newer = kubelet > server;
        let behind = if kubelet.0 == server.0 { server.1.saturating_sub(kubelet.1) } else { 0 };
        let (why, fix) = match (is_newer, behind) {
            (true, _) => {
                ("newer than".to_string(), "Upgrade the control plane first, or downgrade the node to its version")
            }
            (false, behind) if behind > MAX_BEHIND => (
                format!("{behind} minor versions behind"),
                "Upgrade the node: a kubelet may be at most three minor versions older than the API server",
            ),
            _ => continue,
        };
        let object = node.reference();
        let message = format!("Node {} runs kubelet {kubelet_text}, {why} the API server ({server_text})", node.name());
        let finding = Finding::warning(object.clone(), message)
            .evidence(format!("kubeletVersion is {kubelet_text}"), &object, "status.nodeInfo.kubeletVersion")
            .fix_command(fix, kubectl(["get", "nodes"]));
        report.add(finding);
    }
}

/// The version that the API server reports, or else the newest image tag of its static pods.
fn server_version(cluster: &Cluster) -> Option<(String, (u32, u32))> {
    if let Some(version) = cluster.server_version() {
        return Some((version.to_string(), minor_version(version)?));
    }
    let pods = cluster.in_namespace::<Pod>("kube-system").iter();
    let servers = pods.filter(|pod| pod.is_static() && pod.metadata.labels.get("component") == Some("kube-apiserver"));
    let images = servers.flat_map(|pod| &pod.spec.containers).map(|container| container.image.as_str());
    let tags = images.filter_map(|image| image.split('@').next()?.rsplit_once(':').map(|(_, tag)| tag));
    tags.filter_map(|tag| Some((tag.to_string(), minor_version(tag)?))).max_by_key(|(_, version)| *version)
}

/// Major and minor of `v1.33.5-eks-3abbec1`, `1.36.0+k3s1`.
fn minor_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor.get(..digits)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{TestCluster, check};

    fn node(version: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: worker-1}}, status: {{nodeInfo: {{kubeletVersion: '{version}'}}}}}}"
        )
    }

    fn against(server: &str, kubelet: &str) -> Vec<String> {
        let said = TestCluster::new(&[&node(kubelet)]).server_version(server).check(&RULE);
        said.0.findings.iter().map(|finding| finding.message.to_string()).collect()
    }

    #[test]
    fn fires_when_it_is_newer_or_four_behind() {
        assert_eq!(
            against("v1.35.2", "v1.36.0"),
            ["Node worker-1 runs kubelet v1.36.0, newer than the API server (v1.35.2)"]
        );
        assert_eq!(
            against("v1.36.3-eks-3abbec1", "v1.32.9-eks-113cf36"),
            [
                "Node worker-1 runs kubelet v1.32.9-eks-113cf36, 4 minor versions behind the API server (v1.36.3-eks-3abbec1)"
            ]
        );
    }

    #[test]
    fn quiet_within_three_and_for_unparsable_versions() {
        for (server, kubelet) in [
            ("v1.36.3", "v1.33.0"),
            ("v1.36.1", "v1.36.3"),
            ("v1.36.3", ""),
            ("v1.36.3", "v1"),
            ("v1.36.3", "dev.build"),
            ("strange", "v1.36.3"),
            ("1.36+", "v1.36.0"),
        ] {
            assert_eq!(against(server, kubelet), [""; 0], "{server} {kubelet}");
        }
        check(&RULE, &[&node("v1.20.0")]).finds_nothing();
    }

    #[test]
    fn fires_with_the_version_of_the_static_pods_image() {
        let server = "{apiVersion: v1, kind: Pod, metadata: {name: kube-apiserver-cp, namespace: kube-system,
            labels: {component: kube-apiserver}, annotations: {kubernetes.io/config.mirror: x}},
            spec: {containers: [{name: kube-apiserver, image: 'registry.k8s.io/kube-apiserver:v1.36.1@sha256:00'}]}}";
        check(&RULE, &[&node("v1.30.0"), server]).finds(&[
            "warning Node worker-1: Node worker-1 runs kubelet v1.30.0, 6 minor versions behind the API server (v1.36.1)",
        ]);
    }
}
