//! No content of a cluster or a file makes a rule or a parser panic. `PROPTEST_CASES=10000 cargo test -p
//! kubectl-gpt-analyzers --test fuzz` runs more cases. Failing cases are stored next to this file and run first.
#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "measures and reads files")]

use std::path::Path;
use std::sync::LazyLock;

use kubectl_gpt_analyzers::kubernetes::network::corefile;
use kubectl_gpt_analyzers::snapshot::Amount;
use kubectl_gpt_analyzers::snapshot::decode::{Content, Decoded, continue_token, list_page, object};
use kubectl_gpt_analyzers::snapshot::model::Timestamp;
use kubectl_gpt_analyzers::{Builder, Cluster, Extent, Kind, Now, Origin, Reason, analyze, rules};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// The objects of every recorded scenario.
static RECORDED: LazyLock<Vec<Vec<Value>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let mut folders: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let read = |folder: &std::path::PathBuf| {
        let list: Value = serde_json::from_slice(&std::fs::read(folder.join("cluster.json")).ok()?).unwrap();
        list["items"].as_array().cloned()
    };
    folders.iter().filter_map(read).collect()
});

fn cluster(items: &[Value], now: Now) -> Cluster {
    let mut builder = Builder::new();
    for kind in Kind::ALL {
        builder.cover(*kind, Extent::Everything);
    }
    for item in items {
        match object(&item.to_string()) {
            Ok(Decoded::Known(batch)) => builder.add(batch),
            Ok(Decoded::Custom(custom)) => builder.add_custom(*custom),
            Err(broken) => builder.add_broken(broken),
        }
    }
    builder.build(now, Origin::Cluster)
}

/// Runs all rules and returns those that panic.
fn panics(cluster: &Cluster) -> Vec<String> {
    let analysis = analyze(cluster, &rules::all());
    let panicked = analysis.not_evaluated.into_iter().filter(|line| line.reason == Reason::Internal);
    panicked.map(|line| format!("{}: {}", line.rule, line.message)).collect()
}

/// Replacement values for a field: of another type, empty, huge, negative, or text with a special meaning.
fn anything() -> impl Strategy<Value = Value> {
    let words = [
        "",
        "0",
        "-1",
        "1e99",
        "9223372036854775807",
        "100%",
        "Always",
        "True",
        "*",
        "a=b",
        "http",
        "kube-system",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "::/0",
        "10.0.0.0/33",
        "@yearly",
        "*/0 * * * *",
        "\u{1b}[2J",
        "日本",
    ];
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(Value::from("x".repeat(5000))),
        Just(json!([{}])),
    ]
}

/// Follows a path below the value and replaces what is there.
fn change(value: &mut Value, path: &[Index], new: &Value) {
    match (value, path) {
        (Value::Object(fields), [step, rest @ ..]) if !fields.is_empty() => {
            let n = step.index(fields.len());
            change(fields.values_mut().nth(n).unwrap(), rest, new);
        }
        (Value::Array(items), [step, rest @ ..]) if !items.is_empty() => change(step.get_mut(items), rest, new),
        (value, _) => *value = new.clone(),
    }
}

/// A field to change: the object, the path, and the new value.
fn change_somewhere() -> impl Strategy<Value = (Index, Vec<Index>, Value)> {
    (any::<Index>(), prop::collection::vec(any::<Index>(), 1..10), anything())
}

/// Few cases by default, to keep test runs short.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(60),
    }
}

proptest! {
    #![proptest_config(cases())]

    /// No rule panics on a recorded cluster with a few changed fields, or on half of it.
    #[test]
    fn rules_survive_changed_objects(
        recording in any::<Index>(),
        changes in prop::collection::vec(change_somewhere(), 1..8),
        half in any::<bool>(),
    ) {
        let mut items = recording.get(RECORDED.as_slice()).clone();
        for (item, way, new) in &changes {
            change(item.get_mut(&mut items), way, new);
        }
        if half {
            items.truncate(items.len() / 2);
        }
        prop_assert_eq!(panics(&cluster(&items, Now::NewestInData)), Vec::<String>::new());
    }

    /// Clock skew from seconds to centuries.
    #[test]
    fn rules_survive_any_clock(recording in any::<Index>(), seconds in -377_705_023_201i64..=253_402_207_200) {
        let now = Now::At(Timestamp::from_second(seconds).unwrap());
        let items: &Vec<Value> = recording.get(RECORDED.as_slice());
        prop_assert_eq!(panics(&cluster(items, now)), Vec::<String>::new());
    }

    /// A page that was changed or truncated anywhere is read or rejected, and lost items are reported.
    #[test]
    fn pages_are_read_or_rejected(
        recording in any::<Index>(),
        change_to in change_somewhere(),
        cut in any::<Index>(),
        kind in prop::sample::select(Kind::ALL.to_vec()),
    ) {
        let (item, way, new) = change_to;
        let mut items: Vec<Value> = recording.get(RECORDED.as_slice()).clone();
        items.retain(|item| item["kind"] == kind.api().kind);
        items.push(json!({"metadata": {"name": "last"}}));
        let count = items.len();
        change(item.get_mut(&mut items), &way, &new);
        let body = json!({"metadata": {"continue": "next"}, "items": items}).to_string();
        let page = list_page(kind, body.as_bytes(), Content::Whole).unwrap();
        prop_assert_eq!(page.batch.len() + page.broken.len(), count);
        let cut = cut.index(body.len());
        prop_assert!(list_page(kind, &body.as_bytes()[..cut], Content::Whole).is_err());
        let token = continue_token(&body.as_bytes()[..cut]);
        prop_assert!(token.is_none_or(|token| token.is_empty() || token == "next"));
    }

    #[test]
    fn objects_are_read_or_rejected(text in ".{0,300}") {
        let _ = object(&text);
        let _ = object(&format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":{text:?}}},"spec":{{"containers":[{text}]}}}}"#));
    }

    #[test]
    fn corefiles_are_read_or_rejected(text in "([a-z. {}\"\\\\#()\n:0-9]|import|kubernetes){0,80}") {
        let _ = corefile::parse(&text);
    }

    /// Quantities can be printed in every notation without a panic.
    #[test]
    fn quantities_are_read_or_rejected(text in "[-+]?[0-9.]{0,25}([eE][-+]?[0-9]{0,5}|[numkKMGTPEi]{0,3})") {
        if let Some(amount) = Amount::parse(&text) {
            for resource in ["cpu", "memory", "pods", "nvidia.com/gpu"] {
                let _ = amount.text(resource);
            }
            let _ = (amount.percent_of(amount), amount.is_zero());
        }
    }
}
