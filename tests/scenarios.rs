//! Recorded clusters: all real problems of broken clusters are found, causes are separated from consequences, and
//! healthy installs have no findings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::expectations::{folders, mistakes};
use kubectl_gpt::collect::files;
use kubectl_gpt::report::{Report, Run, Source, json, table};
use kubectl_gpt_analyzers::engine::{Analysis, analyze};
use kubectl_gpt_analyzers::{Cluster, NotEvaluated, Now, Profile, Reason, rules};

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

/// A new rule does not change every expected output.
fn without_counts(text: &str) -> String {
    regex::Regex::new(r"checked by \d+ rules").unwrap().replace_all(text, "checked by N rules").into_owned()
}

fn as_json(report: &Report) -> String {
    json::render(report).unwrap()
}

fn assert_no_mistakes(of: &str) {
    let mistakes: Vec<String> = folders(of)
        .iter()
        .flat_map(|folder| {
            let name = folder.file_name().unwrap().to_string_lossy().to_string();
            let report = serde_json::from_str(&report(folder, as_json)).unwrap();
            mistakes(folder, &report).into_iter().map(move |mistake| format!("{name}: {mistake}"))
        })
        .collect();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn broken_clusters_have_the_expected_findings() {
    assert_no_mistakes("scenarios");
}

/// Many problems at the same time, three minutes after their creation.
#[test]
fn crowded_namespaces_have_the_expected_findings() {
    assert_no_mistakes("field");
}

#[test]
fn healthy_installs_have_no_findings() {
    assert_no_mistakes("realworld");
}

#[test]
fn handwritten_installs_have_no_findings() {
    assert_no_mistakes("installs");
}

/// Situations that operators reported in public: the true cause, what follows from it, and advice that helps.
#[test]
fn reported_situations_are_understood() {
    assert!(folders("reports").len() >= 60);
    assert_no_mistakes("reports");
}

/// The output on a narrow and on a wide terminal. `INSTA_UPDATE=always cargo test` accepts an intentional change.
#[test]
fn tables() {
    for folder in folders("scenarios") {
        let name = folder.file_name().unwrap().to_string_lossy().to_string();
        for (width, name) in [(80, name.clone()), (200, format!("{name}-wide"))] {
            let text = report(&folder, |report| table::render(report, width));
            let text = anstream::adapter::strip_str(&text).to_string();
            let is_command = |line: &&str| line.trim_start().starts_with("kubectl ");
            let too_long = text.lines().filter(|line| !is_command(line)).find(|line| line.chars().count() > width);
            assert_eq!(too_long, None, "{name}");
            insta::assert_snapshot!(name, without_counts(&text));
        }
    }
}

/// Colors highlight severity and commands; no information is conveyed by color alone.
#[test]
fn a_table_in_color() {
    let folder = folders("scenarios").into_iter().find(|folder| folder.ends_with("quota")).unwrap();
    let text = report(&folder, |report| table::render(report, 80));
    insta::assert_snapshot!("quota-in-color", without_counts(&text).replace('\u{1b}', "ESC"));
}

/// The summary of a live cluster: scope, context, duration, unread kinds and how to grant access.
#[test]
fn the_summary_describes_the_scope() {
    let (cluster, mut analysis) = run(&folders("scenarios").into_iter().find(|f| f.ends_with("healthy-shop")).unwrap());
    let last_line = |analysis: &Analysis, run: Run, notes: &[&str]| {
        let notes = notes.iter().map(ToString::to_string).collect();
        let source = Source::cluster(Some("prod".to_string()), notes, &cluster);
        table::render(&Report::new(source, &cluster, analysis).run(run), 80)
    };
    let whole = Run { on_terminal: true, took: Some(Duration::from_millis(1234)), ..Run::default() };
    insta::assert_snapshot!("last-line-healthy", without_counts(&last_line(&analysis, whole, &[])));
    let part = Run {
        on_terminal: true,
        namespaces: vec!["shop".into(), "bank".into()],
        selector: Some("app=cart".into()),
        ..Run::default()
    };
    analysis.not_evaluated.push(NotEvaluated {
        rule: "pod/crash-loop".to_string(),
        kind: "Pod".to_string(),
        reason: Reason::Forbidden,
        namespace: None,
        name: None,
        message: "listing pods in namespace shop: forbidden: User \"jane\" cannot list resource \"pods\"".to_string(),
    });
    let notes = ["access to some kinds is forbidden; `kubectl-gpt rules --rbac` prints the required ClusterRole"];
    insta::assert_snapshot!("last-line-unread", without_counts(&last_line(&analysis, part, &notes)));
}

/// Two runs on one snapshot give identical output.
#[test]
fn same_input_same_output() {
    for folder in folders("scenarios") {
        assert_eq!(report(&folder, as_json), report(&folder, as_json));
    }
}
