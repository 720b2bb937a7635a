use crate::engine::{Report, Severity, declare_rule};
use crate::rules::user_managed::{UserManaged, UserManagedExt};
use crate::snapshot::Cluster;
use crate::snapshot::model::Container;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for containers that run or may run as root: neither the container nor the pod sets `runAsNonRoot: true`
    /// or a `runAsUser` other than 0.
    ///
    /// ## Why it matters
    ///
    /// Root in a container is root on the node if it escapes the container: through a kernel vulnerability, a mounted
    /// host directory or a socket of the container runtime.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE exec POD -- id` prints `uid=0(root)`.
    ///
    /// ## How to fix
    ///
    /// Set `securityContext.runAsNonRoot: true` on the pod, and `runAsUser` if the image's user is root or not numeric.
    /// Enforce it with the label `pod-security.kubernetes.io/enforce: restricted` on the namespace.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for Windows pods, in the namespaces of Kubernetes and its distributions, or for pods in a
    /// user namespace (`hostUsers: false`). The severity is `warning` if root is set explicitly, and `info` if the
    /// image determines the user and for DaemonSets.
    "workload/runs-as-root": Warning in Strict,
    "containers run or may run as root",
    needs: [],
    optional: [Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod],
    explained_by: [],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    Root,
    /// The user that the image specifies.
    OfImage,
    Other,
}

fn check(cluster: &Cluster, report: &mut Report) {
    for workload in cluster.user_managed() {
        if workload.runs_on_windows() || workload.spec.host_users == Some(false) {
            continue;
        }
        let users: Vec<(&str, User)> =
            workload.spec.all_containers().map(|c| (c.name.as_str(), user(&workload, c))).collect();
        let of = |wanted: User| users.iter().filter(move |(_, user)| *user == wanted).map(|(name, _)| *name);
        let (root, unset): (Vec<&str>, Vec<&str>) = (of(User::Root).collect(), of(User::OfImage).collect());
        let title = workload.object.title();
        let (severity, message, names) = match (root.is_empty(), unset.is_empty()) {
            (true, true) => continue,
            (false, _) => {
                let verb = if root.len() == 1 { "runs" } else { "run" };
                let message = format!("{} of {title} {verb} as root (runAsUser: 0)", containers(&root));
                (Severity::Warning, message, root)
            }
            (true, false) => (
                Severity::Info,
                format!("{} of {title} may run as root: the image determines the user", containers(&unset)),
                unset,
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
        report.add(finding.fix_command(
            "Set securityContext.runAsNonRoot to true, and runAsUser if the image has no numeric non-root user",
            workload.edit(),
        ));
    }
}

fn containers(names: &[&str]) -> String {
    format!("{} {}", if names.len() == 1 { "container" } else { "containers" }, list(names, 3))
}

fn user(workload: &UserManaged, container: &Container) -> User {
    let (own, pod) = (&container.security_context, &workload.spec.security_context);
    let id = own.run_as_user.or(pod.run_as_user);
    let never_root = own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
    match id {
        // The kubelet refuses to start it as root.
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
    fn fires_for_root_and_as_info_for_an_unset_user() {
        check(&RULE, &[&cart("", "{runAsUser: 0}")])
            .finds(&["warning Deployment shop/cart: container web of Deployment cart runs as root (runAsUser: 0)"]);
        check(&RULE, &[&cart("securityContext: {runAsUser: 0},", "{runAsNonRoot: false}")]).finding();
        check(&RULE, &[&cart("", "{}")]).finds(&[
            "info Deployment shop/cart: container web of Deployment cart may run as root: the image determines the \
             user",
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
