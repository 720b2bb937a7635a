//! If any single kind is forbidden, no new problems are reported: "could not be read" is never "does not exist".

use std::collections::BTreeSet;

use crate::api_server::{ApiServer, Then, When};
use crate::expectations::folders;
use kubectl_gpt::collect::{ConnectOptions, Scope, collect, connect};
use kubectl_gpt_analyzers::engine::analyze;
use kubectl_gpt_analyzers::{Kind, Now, Origin, Profile, Severity, rules};
use serde_json::Value;

/// The problems of the cluster behind a server, as `rule object`.
async fn wrong(server: &ApiServer) -> BTreeSet<String> {
    let options = ConnectOptions { kubeconfig: Some(server.kubeconfig()), ..ConnectOptions::default() };
    let kinds = Kind::ALL.iter().copied().collect();
    let collected = collect(&connect(&options).await.unwrap(), &kinds, &Scope::Cluster, &|_| {}).await.unwrap();
    let cluster = collected.builder.build(Now::NewestInData, Origin::Cluster);
    let findings = analyze(&cluster, &rules::of(Profile::Default)).findings;
    let serious = findings.iter().filter(|finding| finding.severity >= Severity::Warning);
    serious.map(|finding| format!("{} {}", finding.rule, finding.object)).collect()
}

#[tokio::test]
async fn forbidden_kinds_cause_no_false_alarms() {
    let mut alarms = Vec::new();
    for folder in folders("scenarios") {
        let text = std::fs::read_to_string(folder.join("cluster.json")).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let items = list["items"].as_array().unwrap();
        let known = wrong(&ApiServer::start(items.clone())).await;
        for kind in Kind::ALL.iter().filter(|kind| items.iter().any(|item| item["kind"] == kind.api().kind)) {
            let server = ApiServer::start(items.clone());
            server.fail(When::listing(kind.api().plural), Then::Forbidden);
            let new = wrong(&server).await;
            alarms.extend(new.difference(&known).map(|alarm| format!("{folder:?} without {kind}: {alarm}")));
        }
    }
    assert!(alarms.is_empty(), "{}", alarms.join("\n"));
}
