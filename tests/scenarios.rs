//! Clusters recorded from real Kubernetes, broken in known ways, and healthy installs of known projects: everything that
//! is truly wrong is found, causes are told from consequences, and nothing else is called wrong.

use std::path::{Path, PathBuf};

use crate::expectations::{folders, mistakes};
use kubectl_gpt::collect::files;
use kubectl_gpt::report::{Report, Source, json, table};
use kubectl_gpt_analyzers::rule::{Analysis, analyze};
use kubectl_gpt_analyzers::{Cluster, Now, Profile, rules};

fn run(folder: &Path) -> (Cluster, Analysis) {
    let files: Vec<PathBuf> = ["cluster.json", "cluster.json.gz", "logs"]
        .iter()
        .map(|name| folder.join(name))
        .filter(|p| p.exists())
        .collect();
    let input = files::read(&files).unwrap();
    let cluster = input.builder.build(Now::NewestInData, input.origin);
    let analysis = analyze(&cluster, &rules::of(Profile::Default));
    assert!(analysis.not_evaluated.is_empty(), "{folder:?}: {:?}", analysis.not_evaluated);
    (cluster, analysis)
}

fn report(folder: &Path, render: impl Fn(&Report) -> String) -> String {
    let (cluster, analysis) = run(folder);
    render(&Report::new(Source::files(Vec::new(), &cluster), &cluster, &analysis))
}

fn assert_no_mistakes(of: &str) {
    let mistakes: Vec<String> = folders(of)
        .iter()
        .flat_map(|folder| {
            let name = folder.file_name().unwrap().to_string_lossy().to_string();
            let report = serde_json::from_str(&report(folder, json::render)).unwrap();
            mistakes(folder, &report).into_iter().map(move |mistake| format!("{name}: {mistake}"))
        })
        .collect();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn broken_clusters_are_understood() {
    assert_no_mistakes("scenarios");
}

/// Many troubles side by side, three minutes after they were made.
#[test]
fn crowded_namespaces_are_understood() {
    assert_no_mistakes("field");
}

#[test]
fn healthy_installs_are_quiet() {
    assert_no_mistakes("realworld");
}

#[test]
fn healthy_installs_written_by_hand_are_quiet() {
    assert_no_mistakes("installs");
}

/// What people see, at the width of a small terminal. `INSTA_UPDATE=always cargo test` accepts a change on purpose.
#[test]
fn tables() {
    for folder in folders("scenarios") {
        let name = folder.file_name().unwrap().to_string_lossy().to_string();
        let text = report(&folder, |report| table::render(report, 80));
        insta::assert_snapshot!(name, anstream::adapter::strip_str(&text).to_string());
    }
}

/// Two runs on one snapshot are identical to the byte.
#[test]
fn same_input_same_output() {
    for folder in folders("scenarios") {
        assert_eq!(report(&folder, json::render), report(&folder, json::render));
    }
}
