use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::zones::{UnreadZone, unread_zones};
use crate::kubernetes::workloads::log_lines::whole_telling_line;
use crate::kubernetes::workloads::restarts::containers;
use crate::kubernetes::workloads::symptoms::{Symptom, symptoms};
use crate::snapshot::model::Pod;
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::list;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks ConfigMaps that CoreDNS mounts in a folder from which the Corefile imports files (`coredns-custom` on AKS,
    /// k3s and others): every key with a server block matches one of the imported patterns, such as `*.server`.
    ///
    /// ## Why it matters
    ///
    /// CoreDNS does not read a key that no `import` matches, and reports nothing about it. The zone is not served: names
    /// in it do not resolve, although its configuration looks right.
    ///
    /// ## How to confirm
    ///
    /// Compare the keys of the ConfigMap with the `import` lines of the Corefile: `kubectl -n kube-system get configmap
    /// coredns -o yaml`. CoreDNS logs `No files matching import glob pattern` if no key matches at all.
    ///
    /// ## How to fix
    ///
    /// Rename the key so that it matches the pattern for server blocks, usually `NAME.server`. CoreDNS reloads by itself
    /// if the plugin `reload` is enabled; otherwise restart it.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for keys whose name marks them as disabled (`.disabled`, `.bak`, `.old`, `.example`), for
    /// ConfigMaps in folders from which nothing is imported, and for volumes that rename keys. The finding is a `warning`
    /// unless the log of a failing container names a host of the zone.
    "dns/zone-not-imported": Error,
    "the Corefile does not import a zone of a mounted ConfigMap",
    needs: [Service, Pod, ConfigMap],
    optional: [],
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for unread in unread_zones(cluster).iter().filter(|unread| !is_disabled(&unread.key)) {
        report.add(finding(cluster, unread));
    }
}

fn is_disabled(key: &str) -> bool {
    let lower = key.to_lowercase();
    ["disabled", "bak", "backup", "old", "orig", "example", "sample", "off", "txt", "md"]
        .iter()
        .any(|ending| lower.ends_with(&format!(".{ending}")) || lower.ends_with(&format!("-{ending}")))
}

fn finding(cluster: &Cluster, unread: &UnreadZone) -> Finding {
    let UnreadZone { config_map, key, zones, imports, corefile } = unread;
    let needed = host_in_a_log(cluster, unread);
    let severity = if needed.is_some() { Severity::Error } else { Severity::Warning };
    let imported = list(imports, 3);
    let message = format!(
        "CoreDNS does not read key {key} of ConfigMap {} (zone {}): the Corefile imports {imported}",
        config_map.name,
        list(zones, 3)
    );
    let pattern = imports.iter().find(|import| import.contains("server")).or(imports.first());
    let suffix = pattern.and_then(|pattern| pattern.split_once('*')).map_or(".server", |(_, suffix)| suffix);
    let stem = key.split_once('.').map_or(key.as_str(), |(stem, _)| stem);
    let mut finding = Finding::new(severity, config_map.clone(), message)
        .key(key.clone())
        .evidence(format!("key {key} configures zone {}", list(zones, 3)), config_map, &format!("data[{key}]"))
        .evidence(format!("the Corefile imports {imported}"), corefile, "data[Corefile]");
    if let Some((host, pod)) = needed {
        finding = finding.evidence(format!("log of {}: {host} does not resolve", pod.name), &pod, "");
    }
    finding.fix_command(
        format!("Rename key {key} to {stem}{suffix}"),
        kubectl(["-n", config_map.namespace(), "edit", "configmap", &config_map.name]),
    )
}

/// A host of the zone that the log of a container cannot resolve.
fn host_in_a_log(cluster: &Cluster, unread: &UnreadZone) -> Option<(String, ObjectRef)> {
    cluster.logs().keys().find_map(|(namespace, pod, container)| {
        let pod = cluster.get::<Pod>(namespace, pod).found()?;
        let container = containers(pod).find(|c| c.name() == container)?;
        let line = whole_telling_line(cluster, &container)?;
        symptoms(&line).into_iter().find_map(|symptom| match symptom {
            Symptom::Lookup { host, answered: true, .. } if unread.zone_of(&host).is_some() => {
                Some((host, pod.reference()))
            }
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, TestCluster};

    const DNS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}},
 spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{port: 53, protocol: UDP}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: coredns-0, namespace: kube-system, labels: {k8s-app: kube-dns}},
 spec: {containers: [{name: coredns, volumeMounts: [{name: config, mountPath: /etc/coredns}, {name: custom, mountPath: /etc/coredns/custom}]}],
   volumes: [{name: config, configMap: {name: coredns}}, {name: custom, configMap: {name: coredns-custom}}]}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: coredns, namespace: kube-system},
 data: {Corefile: \".:53 {\\n  kubernetes cluster.local\\n  import custom/*.override\\n}\\nimport custom/*.server\\n\"}}";

    fn world(key: &str) -> TestCluster {
        let custom = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: coredns-custom, namespace: kube-system}},
               data: {{{key}: \"corp.example:53 {{\\n  forward . 10.0.0.1\\n}}\\n\"}}}}"
        );
        TestCluster::new(&[DNS, &custom])
    }

    fn said(key: &str) -> Findings {
        world(key).check(&RULE)
    }

    #[test]
    fn fires_for_a_key_that_no_import_matches() {
        let said = said("corp.conf");
        said.finds(&[
            "warning ConfigMap kube-system/coredns-custom: CoreDNS does not read key corp.conf of ConfigMap \
             coredns-custom (zone corp.example): the Corefile imports *.override and *.server",
        ]);
        assert_eq!(said.finding().fix[0].text, "Rename key corp.conf to corp.server");
    }

    #[test]
    fn fires_as_an_error_if_a_container_needs_the_zone() {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {containers: [{name: c}]},
            status: {containerStatuses: [{name: c}]}}";
        let line = "FATAL dial tcp: lookup ldap.corp.example on 10.96.0.10:53: no such host";
        let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: coredns-custom, namespace: kube-system},
            data: {corp.conf: \"corp.example:53 {\\n  forward . 10.0.0.1\\n}\\n\"}}";
        let said = TestCluster::new(&[DNS, map, pod]).log("shop", "web", "c", &[line]).check(&RULE);
        assert_eq!(said.finding().severity, crate::Severity::Error);
    }

    #[test]
    fn quiet_for_imported_and_disabled_keys() {
        said("corp.server").finds_nothing();
        said("corp.server.disabled").finds_nothing();
    }
}
