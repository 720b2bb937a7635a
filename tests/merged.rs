//! All broken clusters combined: each root cause is still separate, with only its own consequences.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::expectations::{folders, mistakes_among_others};
use jiff::Timestamp;
use kubectl_gpt::collect::files;
use kubectl_gpt::report::{Report, Source, json};
use kubectl_gpt_analyzers::engine::analyze;
use kubectl_gpt_analyzers::{Now, Profile, rules};
use regex::{Captures, Regex};
use serde_json::{Value, json};

/// The scenario with a broken kube-system, which all scenarios include.
const WITH_ITS_KUBE_SYSTEM: &str = "coredns-crash";

/// The objects of all scenarios, as if recorded at the same time: cluster-scoped objects and kube-system only once.
fn merged() -> Value {
    let time = Regex::new(r#""(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)""#).unwrap();
    let mut objects: BTreeMap<[String; 3], Value> = BTreeMap::new();
    let mut scenarios = folders("scenarios");
    scenarios.sort_by_key(|folder| !folder.ends_with(WITH_ITS_KUBE_SYSTEM));
    let mut moment: Option<Timestamp> = None;
    for folder in scenarios {
        let text = fs::read_to_string(folder.join("cluster.json")).unwrap();
        let recorded = time.captures_iter(&text).map(|found| found[1].parse::<Timestamp>().unwrap()).max().unwrap();
        let later = moment.get_or_insert(recorded).duration_since(recorded);
        let moved = |found: &Captures| format!("\"{}\"", found[1].parse::<Timestamp>().unwrap() + later);
        let list: Value = serde_json::from_str(&time.replace_all(&text, moved)).unwrap();
        for object in list["items"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            let metadata = &object["metadata"];
            let key = [text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"])];
            if folder.ends_with(WITH_ITS_KUBE_SYSTEM) || key[1] != "kube-system" {
                objects.entry(key).or_insert_with(|| object.clone());
            }
        }
    }
    json!({"apiVersion": "v1", "kind": "List", "items": objects.into_values().collect::<Vec<_>>()})
}

fn report(file: &Path) -> Value {
    let input = files::read(&[file.to_path_buf()]).unwrap();
    let cluster = input.builder.build(Now::NewestInData, input.origin);
    let analysis = analyze(&cluster, &rules::of(Profile::Default));
    serde_json::from_str(&json::render(&Report::new(Source::files(Vec::new(), &cluster), &cluster, &analysis)).unwrap())
        .unwrap()
}

#[test]
fn root_causes_stay_separate_when_combined() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.json");
    fs::write(&file, merged().to_string()).unwrap();
    let crowd = report(&file);
    let mistaken: Vec<String> = folders("scenarios")
        .iter()
        .flat_map(|folder| {
            mistakes_among_others(folder, &crowd).into_iter().map(move |mistake| format!("{folder:?}: {mistake}"))
        })
        .collect();
    assert!(mistaken.is_empty(), "{}", mistaken.join("\n"));
    // Each root cause stays a root cause when combined: broken DNS does not explain unrelated typos.
    let roots = |report: &Value| -> BTreeSet<String> {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|f| f["causedBy"] == json!([])).map(|f| f["id"].as_str().unwrap().to_string()).collect()
    };
    let alone: BTreeSet<String> =
        folders("scenarios").iter().flat_map(|folder| roots(&report(&folder.join("cluster.json")))).collect();
    assert_eq!(roots(&crowd), alone);
}
