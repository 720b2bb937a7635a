//! The built-in rules: one folder per kind, one file per rule.

mod admission;
mod admissionpolicy;
mod answers;
mod api;
mod apiservice;
mod certificate;
mod clusterqueue;
mod configmap;
mod container;
mod controlplane;
mod crd;
mod cronjob;
mod csi;
mod csidriver;
mod csinode;
mod csr;
mod daemonset;
mod deployment;
mod diagnosis;
mod dns;
mod gateway;
mod hpa;
mod httproute;
mod ingress;
mod ipaddresspool;
mod job;
mod namespace;
mod network_policy;
mod node;
mod nodepool;
mod pdb;
mod pod;
mod policy_report;
mod priorityclass;
mod pv;
mod pvc;
mod quota;
mod rbac;
mod resource;
mod service;
mod serviceaccount;
mod statefulset;
mod storageclass;
mod user_managed;
mod volumeattachment;
mod volumesnapshot;
mod vpa;
mod webhook;
mod workload;

use crate::engine::{BuiltIn, Profile, Rule};

/// The rules that run under a profile, sorted by id. `strict` includes all rules.
pub fn of(profile: Profile) -> Vec<&'static dyn Rule> {
    all().into_iter().filter(|rule| rule.meta().profile <= profile).collect()
}

/// All rules of all profiles, sorted by id.
pub fn all() -> Vec<&'static dyn Rule> {
    let folders: &[&[&'static BuiltIn]] = &[
        admissionpolicy::RULES,
        api::RULES,
        apiservice::RULES,
        certificate::RULES,
        clusterqueue::RULES,
        configmap::RULES,
        controlplane::RULES,
        crd::RULES,
        cronjob::RULES,
        csidriver::RULES,
        csinode::RULES,
        csr::RULES,
        daemonset::RULES,
        deployment::RULES,
        dns::RULES,
        gateway::RULES,
        hpa::RULES,
        httproute::RULES,
        ingress::RULES,
        ipaddresspool::RULES,
        job::RULES,
        namespace::RULES,
        network_policy::RULES,
        node::RULES,
        nodepool::RULES,
        pdb::RULES,
        pod::RULES,
        policy_report::RULES,
        priorityclass::RULES,
        pv::RULES,
        pvc::RULES,
        quota::RULES,
        rbac::RULES,
        resource::RULES,
        service::RULES,
        serviceaccount::RULES,
        statefulset::RULES,
        storageclass::RULES,
        volumeattachment::RULES,
        volumesnapshot::RULES,
        vpa::RULES,
        webhook::RULES,
        workload::RULES,
    ];
    let mut rules: Vec<&'static dyn Rule> = folders.iter().copied().flatten().map(|rule| *rule as &dyn Rule).collect();
    rules.sort_by(|a, b| a.meta().id.cmp(&b.meta().id));
    rules
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the rules' own source is read")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::all;

    /// Every rule has a page with all headings, a test that fires, a test that stays quiet, and a file named after its
    /// id.
    #[test]
    fn every_rule_is_complete() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules");
        let mut ids = BTreeSet::new();
        for rule in all() {
            let meta = rule.meta();
            assert!(ids.insert(meta.id.clone()), "duplicate rule {}", meta.id);
            for heading in ["What it checks", "Why it matters", "How to confirm", "How to fix", "Exceptions"] {
                assert!(
                    meta.page().contains(&format!("## {heading}\n")),
                    "{}: the page has no heading {heading:?}",
                    meta.id
                );
            }
            assert!(!meta.summary.ends_with('.'), "{}: a summary has no full stop", meta.id);
            let file = source.join(format!("{}.rs", meta.id.replace('-', "_")));
            let code = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            for prefix in ["fires", "quiet"] {
                assert!(code.contains(&format!("fn {prefix}_")), "{}: no test named {prefix}_…", meta.id);
            }
        }
    }

    /// A misspelled id would explain nothing.
    #[test]
    fn every_cause_is_a_rule() {
        let ids: BTreeSet<String> = all().iter().map(|rule| rule.meta().id.to_string()).collect();
        for rule in all() {
            for entry in rule.meta().explained_by {
                let is_known =
                    ids.iter().any(|id| crate::engine::causes::includes(entry.trim_start_matches("elsewhere:"), id));
                assert!(is_known, "{}: explained_by names {entry}, which is no rule", rule.meta().id);
            }
        }
    }

    /// An unregistered rule would never run.
    #[test]
    fn every_file_is_registered() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules");
        let ids: BTreeSet<String> = all().iter().map(|rule| rule.meta().id.replace('-', "_")).collect();
        for folder in std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_dir()) {
            for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                let code = std::fs::read_to_string(&file).unwrap();
                if code.contains("declare_rule! {") {
                    let id = file.strip_prefix(&source).unwrap().with_extension("").display().to_string();
                    assert!(ids.contains(&id), "{id} is not registered");
                }
            }
        }
    }
}
