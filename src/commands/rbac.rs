//! `kubectl-gpt rules --rbac`: the smallest ClusterRole with which nothing is forbidden.

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
         # What the server serves.\n\
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
        role.push_str("# The last lines of crashed containers; --no-logs does without.\n");
        entry(&mut role, "", "pods/log", "get");
    }
    if kinds.contains(&Kind::Secret) {
        let reads_certificates = [Kind::Ingress, Kind::Gateway].iter().any(|kind| kinds.contains(kind));
        role.push_str(
            "# Secrets are listed as metadata only: whether those exist that pods name. To RBAC that is the right to read\n\
             # them; leave it out, and what depends on Secrets is reported as not evaluated.\n",
        );
        if reads_certificates {
            role.push_str(
                "# Those that an Ingress or a Gateway takes its certificate from are read: tls.crt is checked.\n",
            );
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
        role.push_str("# For rules of your own.\n");
        entry(&mut role, group, "\"*\"", "list");
    }
    role
}

fn custom(role: &mut String, crds: &Crds) {
    match crds {
        Crds::None => {}
        Crds::Groups(groups) if !groups.iter().any(|group| group.contains('*')) => {
            for group in groups {
                entry(role, group, "\"*\"", "list");
            }
        }
        _ => role.push_str(
            "# Custom resources: RBAC needs their API groups by name. Name them with --crds GROUP,... here and for analyze,\n\
             # or use --crds none; what may not be listed is reported as not evaluated.\n",
        ),
    }
}

fn entry(role: &mut String, group: &str, resources: &str, verbs: &str) {
    // Nothing can fail: it is a string.
    let _ = writeln!(role, "- apiGroups: [\"{group}\"]\n  resources: [{resources}]\n  verbs: [{verbs}]");
}
