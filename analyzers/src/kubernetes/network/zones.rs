//! Zones of the cluster's DNS in ConfigMaps that CoreDNS mounts but does not import.

use crate::kubernetes::network::cluster_dns::DnsExt;
use crate::kubernetes::network::corefile;
use crate::snapshot::model::{ConfigMap, PodSpec};
use crate::snapshot::{Cluster, Object, ObjectRef};

/// A server block under a key that no `import` of the Corefile matches.
#[derive(Clone, Debug)]
pub struct UnreadZone {
    pub config_map: ObjectRef,
    pub key: String,
    pub zones: Vec<String>,
    /// The patterns that the Corefile imports from the same folder.
    pub imports: Vec<String>,
    /// The ConfigMap with the Corefile.
    pub corefile: ObjectRef,
}

impl UnreadZone {
    /// The zone of a name, if it is one of these.
    pub fn zone_of(&self, host: &str) -> Option<&str> {
        let is_in =
            |zone: &&String| host == **zone || host.strip_suffix(zone.as_str()).is_some_and(|h| h.ends_with('.'));
        self.zones.iter().find(is_in).map(String::as_str)
    }
}

/// All zones that CoreDNS does not read.
pub fn unread_zones(cluster: &Cluster) -> &[UnreadZone] {
    &cluster.derived(|| Found(find(cluster))).0
}

struct Found(Vec<UnreadZone>);

fn find(cluster: &Cluster) -> Vec<UnreadZone> {
    let dns = cluster.dns();
    let Some(pod) = dns.pods.first() else { return Vec::new() };
    let mounts = mounts(cluster, pod.namespace(), &pod.spec);
    let Some((folder, map)) = mounts.iter().find(|(_, map)| map.data.values.contains_key("Corefile")) else {
        return Vec::new();
    };
    let Some(file) = map.data.values.get("Corefile").and_then(|text| corefile::parse(text).ok()) else {
        return Vec::new();
    };
    let imports: Vec<String> = file.imports.iter().map(|import| absolute(folder, import)).collect();
    let mut found = Vec::new();
    for (folder, other) in mounts.iter().filter(|(_, other)| other.name() != map.name()) {
        let own: Vec<&String> = imports.iter().filter(|import| parent(import) == folder.as_str()).collect();
        if own.is_empty() {
            continue;
        }
        for (key, value) in &other.data.values {
            let path = format!("{folder}/{key}");
            if imports.iter().any(|import| matches(import, &path)) {
                continue;
            }
            let Some(zones) = zones(value) else { continue };
            let imports = own.iter().filter_map(|import| import.rsplit('/').next()).map(str::to_string).collect();
            found.push(UnreadZone {
                config_map: other.reference(),
                key: key.clone(),
                zones,
                imports,
                corefile: map.reference(),
            });
        }
    }
    found
}

/// The ConfigMaps that a pod mounts as whole folders, with the folders.
fn mounts<'a>(cluster: &'a Cluster, namespace: &str, spec: &PodSpec) -> Vec<(String, &'a ConfigMap)> {
    let mut found = Vec::new();
    for volume in &spec.volumes {
        let Some(source) = volume.config_map.as_ref() else { continue };
        let Some(map) = cluster.get::<ConfigMap>(namespace, &source.name).found() else { continue };
        let is_whole = source.items.iter().all(|item| item.key == "Corefile");
        let mounts = spec.containers.iter().flat_map(|container| &container.volume_mounts);
        let mut mounts = mounts.filter(|mount| mount.name == volume.name && mount.sub_path.is_empty());
        if let Some(mount) = mounts.next().filter(|_| is_whole) {
            found.push((mount.mount_path.trim_end_matches('/').to_string(), map));
        }
    }
    found
}

/// Imports are relative to the folder of the Corefile.
fn absolute(folder: &str, import: &str) -> String {
    if import.starts_with('/') { import.to_string() } else { format!("{folder}/{import}") }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Whether a pattern with `*` matches a path; `*` does not match a slash.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((start, rest)) => path.strip_prefix(start).is_some_and(|tail| {
            let ends = (0..=tail.len()).filter(|n| tail.is_char_boundary(*n));
            ends.take_while(|n| !tail[..*n].contains('/')).any(|n| matches(rest, &tail[n..]))
        }),
    }
}

/// The zones of server blocks, without ports; `None` for the root zone, plugins without a block and invalid text.
fn zones(text: &str) -> Option<Vec<String>> {
    let file = corefile::parse(text).ok()?;
    let is_served = file.servers.iter().any(|server| !server.plugins.is_empty());
    let keys = file.servers.iter().flat_map(|server| &server.keys);
    let zones: Vec<String> = keys
        .map(|key| key.rsplit("://").next().unwrap_or(key).split(':').next().unwrap_or_default())
        .map(|zone| zone.trim_end_matches('.').to_ascii_lowercase())
        .filter(|zone| zone.contains('.') || zone.len() > 2)
        .collect();
    (is_served && !zones.is_empty()).then_some(zones)
}

#[cfg(test)]
mod tests {
    use super::{matches, zones};

    #[test]
    fn patterns() {
        assert!(matches("/etc/coredns/custom/*.server", "/etc/coredns/custom/a.server"));
        assert!(!matches("/etc/coredns/custom/*.server", "/etc/coredns/custom/a.conf"));
        assert!(!matches("/etc/*.server", "/etc/coredns/a.server"));
        assert!(matches("/etc/*", "/etc/ä"));
    }

    #[test]
    fn zones_of_server_blocks() {
        assert_eq!(zones("corp.example:53 { forward . 10.0.0.1\n}\n"), Some(vec!["corp.example".to_string()]));
        assert_eq!(zones(".:53 {\n errors\n}\n"), None);
        assert_eq!(zones("a {"), None);
    }
}
