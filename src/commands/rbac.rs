//! `kubectl-gpt rules --rbac`: prints the minimum ClusterRole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use kubectl_gpt_analyzers::{Kind, Rule};

use crate::collect::Crds;

/// The ClusterRole that these rules need, as YAML; with the verb `watch` for `analyze --watch`.
pub fn cluster_role(rules: &[&dyn Rule], crds: &Crds, watch: bool) -> String {
    let watch = if watch { ", watch" } else { "" };
    let metas = || rules.iter().map(|rule| rule.meta());
    let kinds: BTreeSet<Kind> = metas().flat_map(|meta| meta.reads()).collect();
    let mut role = String::from(
        "apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: ClusterRole\n\
         metadata:\n  name: kubectl-gpt\n\
         rules:\n\
         # API discovery.\n\
         - nonResourceURLs: [/version, /api, /api/*, /apis, /apis/*]\n  verbs: [get]\n",
    );
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for api in kinds.iter().filter(|kind| **kind != Kind::Secret).map(|kind| kind.api()) {
        groups.entry(api.group).or_default().insert(api.plural);
    }
    for (group, resources) in groups {
        let resources: Vec<&str> = resources.into_iter().collect();
        entry(&mut role, group, &resources.join(", "), &format!("get, list{watch}"));
    }
    if kinds.contains(&Kind::Pod) {
        role.push_str("# Logs of crashed containers; not needed with --no-logs.\n");
        entry(&mut role, "", "pods/log", "get");
    }
    if kinds.contains(&Kind::Secret) {
        let reads_certificates = [Kind::Ingress, Kind::Gateway].iter().any(|kind| kinds.contains(kind));
        role.push_str(
            "# Secrets are listed as metadata only, to check that referenced Secrets exist. RBAC cannot restrict this to metadata:\n\
             # it also grants access to values. Without it, checks that depend on Secrets are reported as not evaluated.\n",
        );
        if reads_certificates {
            role.push_str("# TLS Secrets of Ingresses and Gateways are read to check tls.crt.\n");
        }
        let verbs = if reads_certificates { "get, list" } else { "list" };
        entry(&mut role, "", "secrets", &format!("{verbs}{watch}"));
    }
    if metas().any(|meta| meta.reads_custom) {
        custom(&mut role, crds);
    }
    let own = rules.iter().flat_map(|rule| rule.raw_kinds()).filter(|kind| kind.known().is_none());
    let groups: BTreeSet<&str> = own.map(|kind| kind.group.as_str()).collect();
    for group in groups {
        role.push_str("# For custom rules.\n");
        entry(&mut role, group, "\"*\"", "list");
    }
    role
}

fn custom(role: &mut String, crds: &Crds) {
    match crds {
        Crds::None => {}
        Crds::Groups(groups) if !groups.iter().any(|group| group.as_str().contains(['*', '?', '[', '{'])) => {
            for group in groups {
                entry(role, group.as_str(), "\"*\"", "list");
            }
        }
        _ => role.push_str(
            "# Custom resources: RBAC needs explicit API groups. Pass --crds GROUP,... to this command and to analyze,\n\
             # or use --crds none. Resources that cannot be listed are reported as not evaluated.\n",
        ),
    }
}

fn entry(role: &mut String, group: &str, resources: &str, verbs: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(role, "- apiGroups: [\"{group}\"]\n  resources: [{resources}]\n  verbs: [{verbs}]");
}
