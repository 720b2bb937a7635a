use crate::engine::{Report, Severity, declare_rule};
use crate::rules::authored::{Authored, AuthoredExt};
use crate::snapshot::Cluster;
use crate::snapshot::model::Container;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// That containers run as another user than root: `runAsNonRoot: true`, or a `runAsUser` other than 0, of the container
    /// or of the pod.
    ///
    /// ## Why it matters
    ///
    /// Root in a container is root on the node as soon as it gets out of the container: by a flaw of the kernel, a mounted
    /// folder of the node, a socket of the container runtime.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -- id` says `uid=0(root)`.
    ///
    /// ## How to fix
    ///
    /// Set `securityContext.runAsNonRoot: true` on the pod, and `runAsUser` where the image's user is root or has only a
    /// name. Enforce it with the label `pod-security.kubernetes.io/enforce: restricted` on the namespace.
    ///
    /// ## Exceptions
    ///
    /// For Windows, in the namespaces of Kubernetes and its distributions, and for pods with a user namespace of their own
    /// (`hostUsers: false`). It is `warning` if root is asked for, and `info` if it is left to the image, and for DaemonSets.
    "workload/runs-as-root": Warning in Strict,
    "containers that run as root, or may",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    Root,
    /// Whoever the image says.
    OfImage,
    Other,
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.authored() {
        if workload.runs_on_windows() || workload.spec.host_users == Some(false) {
            continue;
        }
        let users: Vec<(&str, User)> =
            workload.spec.all_containers().map(|c| (c.name.as_str(), user(&workload, c))).collect();
        let of = |wanted: User| users.iter().filter(move |(_, user)| *user == wanted).map(|(name, _)| *name);
        let (root, open): (Vec<&str>, Vec<&str>) = (of(User::Root).collect(), of(User::OfImage).collect());
        let title = workload.object.title();
        let (severity, message, names) = match (root.is_empty(), open.is_empty()) {
            (true, true) => continue,
            (false, _) => (Severity::Warning, format!("{title} asks for root, in {}", containers(&root)), root),
            (true, false) => (
                Severity::Info,
                format!("{title} may run as root: {} leaves the user to the image", containers(&open)),
                open,
            ),
        };
        let severity = if workload.is_on_every_node() { Severity::Info } else { severity };
        let mut finding = workload.finding(severity, message);
        for name in names {
            let path = workload.path(&format!("containers[{name}].securityContext"));
            let text = match workload.spec.container(name).and_then(|c| c.security_context.run_as_user) {
                Some(user) => format!("container {name} has runAsUser {user}"),
                None => format!("runAsNonRoot is not set for container {name}"),
            };
            finding = finding.evidence(text, &workload.object, &path);
        }
        report.add(finding.fix_command("Set runAsNonRoot, and a user where the image has none", workload.edit()));
    }
}

fn containers(names: &[&str]) -> String {
    format!("{} {}", if names.len() == 1 { "container" } else { "each of the containers" }, list(names, 3))
}

fn user(workload: &Authored, container: &Container) -> User {
    let (own, pod) = (&container.security_context, &workload.spec.security_context);
    let id = own.run_as_user.or(pod.run_as_user);
    let never_root = own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
    match id {
        // The kubelet refuses to start it.
        _ if never_root => User::Other,
        Some(0) => User::Root,
        Some(_) => User::Other,
        None => User::OfImage,
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn cart(pod: &str, container: &str) -> String {
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: cart, namespace: shop}}
            spec: {{template: {{spec: {{{pod} containers: [{{name: web, securityContext: {container}}}]}}}}}}"
        )
    }

    #[test]
    fn fires_for_root_and_mildly_for_an_open_user() {
        check(&RULE, &[&cart("", "{runAsUser: 0}")])
            .finds(&["warning Deployment shop/cart: Deployment cart asks for root, in container web"]);
        check(&RULE, &[&cart("securityContext: {runAsUser: 0},", "{runAsNonRoot: false}")]).finding();
        check(&RULE, &[&cart("", "{}")]).finds(&[
            "info Deployment shop/cart: Deployment cart may run as root: container web leaves the user to the image",
        ]);
    }

    #[test]
    fn quiet_for_another_user() {
        check(&RULE, &[&cart("", "{runAsUser: 1000}")]).finds_nothing();
        check(&RULE, &[&cart("securityContext: {runAsNonRoot: true},", "{}")]).finds_nothing();
        check(&RULE, &[&cart("hostUsers: false,", "{runAsUser: 0}")]).finds_nothing();
        check(&RULE, &[&cart("nodeSelector: {kubernetes.io/os: windows},", "{}")]).finds_nothing();
    }
}
