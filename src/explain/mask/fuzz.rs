//! Fuzzing: identifying data is masked in any context. `PROPTEST_CASES=100000 cargo test --lib mask::fuzz` runs longer;
//! failures are stored in `proptest-regressions` and tried first.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;
use regex::Captures;
use serde_json::{Value, json};

use super::{LENGTH, Masker, Names, PLACEHOLDER, PUBLIC_ADDRESSES};
use crate::explain::entity::EntityKind;
use crate::explain::vocabulary;

/// Data that must not appear in masked text.
#[derive(Clone, Debug)]
struct Planted {
    /// As it appears in the text: `password=hunter2`.
    text: String,
    /// The identifying parts: `hunter2`.
    secrets: Vec<String>,
    /// The type of name in the cluster, if it is one.
    name: Option<EntityKind>,
}

impl Planted {
    /// All of it is identifying.
    fn whole(text: String) -> Planted {
        Planted { secrets: vec![text.clone()], text, name: None }
    }

    /// Each of these parts is identifying.
    fn parts(text: String, secrets: &[&str]) -> Planted {
        Planted { text, secrets: secrets.iter().map(ToString::to_string).collect(), name: None }
    }

    /// Random data, of which any piece is identifying.
    fn random(text: String) -> Planted {
        const PIECE: usize = 8;
        let characters: Vec<char> = text.chars().collect();
        let pieces = characters.windows(PIECE.min(characters.len())).map(|piece| piece.iter().collect());
        Planted { secrets: pieces.collect(), text, name: None }
    }
}

/// A word that is not in the vocabulary.
fn strange() -> impl Strategy<Value = String> {
    "[a-z]{2,5}[0-9][a-z]{2,5}(-[a-z0-9]{1,5}[a-z]){0,2}"
}

/// Public words, which must be masked where they are names or secrets.
fn word() -> impl Strategy<Value = String> {
    let words = ["web", "api", "cart", "error", "gateway", "node", "pod", "service", "the", "correct", "connection"];
    select(words.to_vec()).prop_map(str::to_string)
}

/// Names of objects.
fn named() -> impl Strategy<Value = Planted> {
    let name = prop_oneof![
        word().prop_map(Planted::whole),
        strange().prop_map(Planted::whole),
        strange().prop_map(|name| Planted::parts(format!("{name}.eu-1.compute.internal"), &[&name])),
        (strange(), strange())
            .prop_map(|(host, name)| Planted::parts(format!("{host}.io/team/{name}"), &[&host, &name])),
    ];
    let kind = select(vec![EntityKind::Name, EntityKind::Namespace, EntityKind::Node]);
    (name, kind).prop_map(|(planted, kind)| Planted { name: Some(kind), ..planted })
}

fn address() -> impl Strategy<Value = Planted> {
    let any_address = prop_oneof![
        any::<Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<Ipv6Addr>().prop_map(|address| address.to_string()),
    ];
    // Only digits, like numbers, which are not masked.
    let parts = prop::collection::vec(1000u16..10_000, 8).prop_map(|parts| {
        let parts: Vec<String> = parts.iter().map(u16::to_string).collect();
        let halves = [parts[..4].join(":"), parts[4..].join(":")];
        Planted { text: parts.join(":"), secrets: halves.to_vec(), name: None }
    });
    let everybodys = |address: &String| !PUBLIC_ADDRESSES.contains(&address.as_str());
    prop_oneof![3 => any_address.prop_filter("everybody's", everybodys).prop_map(Planted::whole), 1 => parts]
}

/// Keys, tokens and digests in common formats.
fn token() -> impl Strategy<Value = Planted> {
    let token = prop_oneof![
        "[0-9a-f]{16,64}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "eyJ[A-Za-z0-9]{8,20}\\.eyJ[A-Za-z0-9]{8,20}\\.[A-Za-z0-9_-]{8,20}",
        "AKIA[A-Z0-9]{16}",
        "ghp_[A-Za-z0-9]{30}",
        "[A-Za-z0-9+/]{24}[A-Za-z0-9]{6}==",
        "[0-9]{9,16}",
        "[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{4}",
    ];
    let key = "[A-Za-z0-9+/]{64}\n[A-Za-z0-9+/]{20}";
    let pem = key.prop_map(|key| {
        let planted = Planted::random(key);
        Planted { text: format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", planted.text), ..planted }
    });
    prop_oneof![8 => token.prop_map(Planted::random), 1 => pem]
}

/// Words that are secrets by context.
fn assigned() -> impl Strategy<Value = Planted> {
    let value = prop_oneof![word(), "[a-zA-Z0-9]{4,12}[!-~&&[^\"'\\\\\\s]]{0,6}[a-zA-Z0-9]"];
    let before =
        ["password=", "PGPASSWORD: ", "token = ", "Authorization: Bearer ", "DB_PASS=", "run --admin-password "];
    let plain = (select(before.to_vec()), value).prop_map(|(before, value)| (before, value.clone(), " ", vec![value]));
    let around = [
        ("\"client_secret\":\"", "\""),
        ("\\\"password\\\": \\\"", "\\\""),
        ("api-key: '", "'"),
        ("Secret => \"", "\""),
    ];
    let quoted = (select(around.to_vec()), prop::collection::vec(word(), 1..4))
        .prop_map(|((before, after), words)| (before, words.join(" "), after, words));
    prop_oneof![plain, quoted].prop_map(|(before, value, after, secrets)| Planted {
        // The leading space ends a preceding URL.
        text: format!(" {before}{value}{after}"),
        secrets,
        name: None,
    })
}

/// Names of objects, including public words, and other identifying data.
fn planted() -> impl Strategy<Value = Planted> {
    let host = (strange(), select(vec!["com", "internal", "co.uk", "svc"]));
    let url = (select(vec!["https", "postgres", "redis"]), strange(), strange());
    prop_oneof![
        4 => named(),
        2 => address(),
        2 => token(),
        2 => assigned(),
        1 => host.prop_map(|(host, end)| Planted::parts(format!("{host}.{end}"), &[&host])),
        1 => (strange(), strange()).prop_map(|(a, b)| Planted::parts(format!("{a}@{b}.example"), &[&a, &b])),
        1 => url.prop_map(|(scheme, a, b)| Planted::parts(format!("{scheme}://{a}:x@{b}.io/x"), &[&a, &b])),
        1 => (strange(), strange()).prop_map(|(a, b)| Planted::parts(format!("https://{a}.io/hook/{b}?x"), &[&a, &b])),
        1 => strange().prop_map(|name| Planted::parts(format!("/srv/{name}/data"), &[&name])),
        1 => strange().prop_map(Planted::whole),
    ]
}

/// Surrounding text: public words, numbers, literal placeholders, arbitrary characters.
fn noise() -> impl Strategy<Value = String> {
    let words =
        ["failed", "Deployment", "GET", ":8080/ready", "0/3", "spec.containers[0]", "NAME_abcdef", "512Mi", "v1.36.3"];
    prop_oneof![
        3 => select(words.to_vec()).prop_map(str::to_string),
        1 => "\\PC{0,12}",
        1 => any::<String>(),
    ]
}

/// Separators of tokens.
const SEPARATORS: &[&str] =
    &[" ", "\"", "'", "(", ")", "[", "]", "{", "}", "<", ">", ",", ";", "=", "|", "\n", "\t", "`"];
/// Characters that may be adjacent to a name without being part of it.
const JOINTS: &[&str] = &[":", "/", ".", "@", "%", "~", "+"];

fn separator(of: &'static [&'static [&'static str]]) -> impl Strategy<Value = &'static str> {
    select(of.concat())
}

fn text(separators: &'static [&'static [&'static str]]) -> impl Strategy<Value = (String, Vec<Planted>)> {
    let piece = (noise(), separator(separators), planted(), separator(separators));
    prop::collection::vec(piece, 1..5).prop_map(|pieces| {
        let mut text = String::new();
        let mut all = Vec::new();
        for (noise, before, planted, after) in pieces {
            text.push_str(&format!("{noise}{before}{}{after}", planted.text));
            all.push(planted);
        }
        (text, all)
    })
}

fn masker(planted: &[Planted]) -> Masker {
    let mut names = Names { key: [7; 32], ..Names::default() };
    for planted in planted {
        if let Some(kind) = planted.name {
            names.kinds.insert(planted.text.to_lowercase(), kind);
        }
    }
    Masker::new(names)
}

/// The planted data that is readable in a text: words only as whole tokens, everything else anywhere.
fn leaks(masked: &str, planted: &[Planted]) -> Vec<String> {
    let rest = PLACEHOLDER.replace_all(masked, " ").to_lowercase();
    let tokens: Vec<&str> = rest.split(|c: char| !(c.is_alphanumeric() || "-_".contains(c))).collect();
    let is_read = |secret: &String| {
        let secret = secret.to_lowercase();
        if vocabulary::is_word(&secret) || vocabulary::is_term(&secret) {
            tokens.contains(&secret.as_str())
        } else {
            rest.contains(&secret)
        }
    };
    planted.iter().flat_map(|planted| &planted.secrets).filter(|secret| is_read(secret)).cloned().collect()
}

fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(400),
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn planted_data_is_masked((text, planted) in text(&[SEPARATORS])) {
        let masked = masker(&planted).mask(&text);
        prop_assert_eq!(leaks(&masked, &planted), Vec::<String>::new(), "{:?} became {:?}", text, masked);
    }

    #[test]
    fn planted_data_next_to_punctuation_is_masked((text, planted) in text(&[SEPARATORS, JOINTS])) {
        let masked = masker(&planted).mask(&text);
        prop_assert_eq!(leaks(&masked, &planted), Vec::<String>::new(), "{:?} became {:?}", text, masked);
    }

    /// Restoring reverts masking, also after masking twice. Masking is intentionally not idempotent: a literal
    /// placeholder in the data is data.
    #[test]
    fn masked_text_can_be_restored((text, planted) in text(&[SEPARATORS, JOINTS])) {
        let masker = masker(&planted);
        let masked = masker.mask(&text);
        prop_assert_eq!(masker.restore(&masked), text.as_str());
        let twice = masker.mask(&masked);
        prop_assert_eq!(masker.restore(&twice), masked.as_str());
    }

    /// Masking does not depend on earlier masking, except for the type of a value that appeared in another context.
    #[test]
    fn masking_is_independent_of_earlier_masking(
        (first, planted) in text(&[SEPARATORS]),
        (second, _) in text(&[SEPARATORS]),
    ) {
        let without_sorts = |masked: String| {
            let digits = |found: &Captures| found[0][found[0].len() - LENGTH..].to_string();
            PLACEHOLDER.replace_all(&masked, digits).into_owned()
        };
        let (fresh, used) = (masker(&planted), masker(&planted));
        used.mask(&second);
        prop_assert_eq!(without_sorts(used.mask(&first)), without_sorts(fresh.mask(&first)));
        prop_assert_eq!(used.mask(&first), used.mask(&first));
    }

    #[test]
    fn planted_data_in_json_is_masked((text, planted) in text(&[SEPARATORS]), (key, more) in text(&[SEPARATORS])) {
        let all: Vec<Planted> = planted.into_iter().chain(more).collect();
        let masker = masker(&all);
        let labels: Value = json!({all[0].text.as_str(): text});
        let value = json!({"metadata": {"labels": labels, "name": all[0].text}, key.as_str(): [{"message": text}, 7, null]});
        let masked = masker.json(&value);
        let mut texts = Vec::new();
        every_text(&masked, &mut texts);
        for masked in texts {
            prop_assert_eq!(leaks(masked, &all), Vec::<String>::new(), "{} became {}", value, masked);
        }
    }

    /// Words of a question are kept, names of the cluster are not.
    #[test]
    fn planted_data_in_questions_is_masked((text, planted) in text(&[SEPARATORS])) {
        let masker = masker(&planted);
        let masked = masker.question(&text);
        prop_assert_eq!(leaks(&masked, &planted), Vec::<String>::new(), "{:?} became {:?}", text, masked);
        prop_assert_eq!(masker.restore(&masked), text.as_str());
    }

    #[test]
    fn any_text_can_be_restored(text in any::<String>()) {
        let masker = masker(&[]);
        for masked in [masker.mask(&text), masker.question(&text)] {
            prop_assert_eq!(masker.restore(&masked), text.as_str());
        }
        let _ = masker.restore(&text);
    }
}

fn every_text<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| every_text(item, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                found.push(key);
                every_text(value, found);
            }
        }
        _ => {}
    }
}
