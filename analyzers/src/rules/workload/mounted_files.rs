use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::workloads::mounts::{PATH, mounts};
use crate::kubernetes::workloads::start_error::{Cause, Site, broken_script, covered, not_executable, sub_path};
use crate::rules::container::tell_cause;
use crate::rules::user_managed::{Specified, specified};
use crate::snapshot::{Cluster, Origin};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks the files that containers get from volumes:
    ///
    /// - `subPath` of a mount that is not a key of the volume's ConfigMap or Secret;
    /// - in manifests, a `command` that is a script from a ConfigMap whose first line is not `#!…` with Unix line endings,
    ///   or that is mounted without the executable bit;
    /// - in manifests, a volume that is mounted over a folder of `$PATH`, such as `/usr/local/bin`, in which the image may
    ///   have its entrypoint.
    ///
    /// In a cluster `pod/cannot-start` and `pod/crash-loop` report the latter with the error of the runtime.
    ///
    /// ## Why it matters
    ///
    /// For a `subPath` without a key the kubelet mounts an empty folder: the container cannot start if the image has a file
    /// there, or runs without its configuration. The kernel answers `exec format error` or `no such file or directory` for
    /// a script without `#!` line. A mount replaces the whole folder of the image.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get configmap NAME -o yaml` shows the keys and their text.
    ///
    /// ## How to fix
    ///
    /// Correct `subPath` or the key, remove what precedes `#!`, set `defaultMode: 0755`, or mount at another folder.
    ///
    /// ## Exceptions
    ///
    /// A missing key is `info` if a pod of the workload is ready. The rule does not fire for objects whose keys are not known, optional volumes, keys that `items` maps to the path,
    /// and commands with an absolute path outside the mounted folder.
    "workload/mounted-files": Error,
    "a file that a container gets from a volume is missing, not executable, or hides files of the image",
    needs: [],
    optional: [
        Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, Pod, ConfigMap, Secret,
    ],
    explained_by: ["resource/not-ready"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for specified in specified(cluster) {
        for (container, path) in specified.containers() {
            let site = Site {
                namespace: specified.object.namespace(),
                spec: specified.spec,
                container,
                object: specified.object.clone(),
                path,
            };
            for finding in judge(cluster, &specified, &site) {
                report.add(finding);
            }
        }
    }
}

fn judge(cluster: &Cluster, specified: &Specified, site: &Site) -> Vec<Finding> {
    let mut found = Vec::new();
    for mounted in mounts(site.spec, site.container).filter(|mounted| !mounted.is_optional()) {
        if let Some(cause) = sub_path(cluster, site, &mounted) {
            // A program that is ready may do without the file.
            let severity = if specified.has_ready_pods { Severity::Info } else { Severity::Error };
            found.push(finding(severity, site, &cause, &mounted.mount.mount_path));
        }
    }
    if cluster.origin() != Origin::Manifests {
        return found;
    }
    let program = site.container.command.first().map(String::as_str);
    let broken =
        program.and_then(|program| broken_script(cluster, site, program).or_else(|| not_executable(site, program)));
    found.extend(broken.map(|cause| finding(Severity::Error, site, &cause, "command")));
    let covering = mounts(site.spec, site.container)
        .filter(|mounted| mounted.is_folder() && !mounted.is_filled_by_init(site.spec));
    for mounted in covering {
        let folder = mounted.mount.mount_path.trim_end_matches('/');
        let is_used = program.is_none_or(|program| !program.contains('/'));
        if PATH.contains(&folder) && is_used {
            found.push(finding(Severity::Warning, site, &covered(site, &mounted), folder));
        }
    }
    found
}

fn finding(severity: Severity, site: &Site, cause: &Cause, key: &str) -> Finding {
    let name = site.container.name.as_str();
    let message = format!("container {name} of {}: {}", site.object.title(), cause.clause);
    tell_cause(Finding::new(severity, site.object.clone(), message).container(name).key(format!("{name}{key}")), cause)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Origin;
    use crate::testing::{Findings, TestCluster};

    fn said(container: &str, volume: &str) -> Findings {
        let objects = format!(
            r##"
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{name: web, namespace: shop}}
            spec: {{template: {{spec: {{containers: [{{name: app, {container}}}], volumes: [{{name: c, configMap: {{name: conf{volume}}}}}]}}}}}}
            ---
            apiVersion: v1
            kind: ConfigMap
            metadata: {{name: conf, namespace: shop}}
            data: {{app.yml: "x", late.sh: "\n#!/bin/sh\n", good.sh: "#!/bin/sh\n"}}"##
        );
        TestCluster::new(&[&objects]).origin(Origin::Manifests).check(&RULE)
    }

    #[test]
    fn fires_for_a_sub_path_without_a_key() {
        let said = said("volumeMounts: [{name: c, mountPath: /etc/app.yaml, subPath: app.yaml}]", "");
        said.finds(&[
            "error Deployment shop/web: container app of Deployment web: subPath app.yaml is not a key of ConfigMap conf \
             (keys: app.yml, good.sh and late.sh), so an empty folder is mounted at /etc/app.yaml",
        ]);
        assert!(said.finding().fix[0].text.ends_with("to app.yml, or rename the key of ConfigMap conf to app.yaml"));
    }

    #[test]
    fn fires_for_a_sub_path_without_an_item() {
        let mount = "volumeMounts: [{name: c, mountPath: /etc/a, subPath: app.yml}]";
        let said = said(mount, ", items: [{key: app.yml, path: a.yml}]");
        assert!(said.text().contains("subPath app.yml is not a path in the items of volume c"));
    }

    #[test]
    fn fires_for_scripts_and_folders_of_the_path() {
        let script = |file: &str, mode: &str| {
            said(&format!("command: [/s/{file}], volumeMounts: [{{name: c, mountPath: /s}}]"), mode)
        };
        assert!(script("late.sh", ", defaultMode: 493").text().contains("#! line on line 2"));
        assert!(script("good.sh", "").text().contains("mode 0644"));
        script("good.sh", ", defaultMode: 493").finds_nothing();
        assert!(
            said("volumeMounts: [{name: c, mountPath: /usr/local/bin}]", "").text().contains("hides the image's files")
        );
    }

    #[test]
    fn quiet_for_files_that_exist() {
        said("volumeMounts: [{name: c, mountPath: /etc/a, subPath: d}]", ", items: [{key: app.yml, path: d/a}]")
            .finds_nothing();
        said("volumeMounts: [{name: c, mountPath: /etc/app.yml, subPath: app.yml}]", "").finds_nothing();
        said("volumeMounts: [{name: c, mountPath: /etc/a, subPath: a}]", ", items: [{key: app.yml, path: a}]")
            .finds_nothing();
        said("volumeMounts: [{name: c, mountPath: /etc/app.yaml, subPath: app.yaml}]", ", optional: true")
            .finds_nothing();
        said("command: [/bin/sh], volumeMounts: [{name: c, mountPath: /usr/local/bin}]", "").finds_nothing();
        said("volumeMounts: [{name: c, mountPath: /etc/app}]", "").finds_nothing();
    }
}
