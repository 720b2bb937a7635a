//! Tests of `kubectl-gpt.yaml`: lookup, settings and error messages.

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use kubectl_gpt::config::Fields;
use serde_json::{Value, json};
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SCHEMA: &str = "docs/config.schema.json";

/// A temporary working directory and home directory.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("work")).unwrap();
        Place(folder)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], variables: &[(&str, &Path)]) -> Output {
        let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
        command.env_clear().env("HOME", self.0.path().join("home")).current_dir(self.0.path().join("work"));
        command.envs(variables.iter().copied()).args(arguments).output().unwrap()
    }

    /// The effective settings.
    fn config(&self, arguments: &[&str]) -> Value {
        in_force(&self.run(&[&["config"], arguments].concat()))
    }

    fn analyze(&self, scenario: &str, arguments: &[&str]) -> Output {
        let file = format!("{ROOT}/tests/scenarios/{scenario}/cluster.json");
        self.run(&[&["analyze", "-f", &file], arguments].concat())
    }

    /// The error message for a file with this text.
    fn complaint(&self, text: &str) -> String {
        self.write("work/kubectl-gpt.yaml", text);
        let output = self.analyze("healthy-shop", &[]);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(output.stdout.is_empty(), "{text}");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn in_force(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_saphyr::from_str(str::from_utf8(&output.stdout).unwrap()).unwrap()
}

#[test]
fn defaults_apply_without_a_file() {
    let config = Place::new().config(&[]);
    assert_eq!(config["file"], Value::Null);
    assert_eq!(config["failOn"], json!({"value": "error", "from": "default"}));
    assert_eq!(config["minSeverity"], json!({"value": "info", "from": "default"}));
    assert_eq!(config["allowPartial"], json!({"value": false, "from": "default"}));
    assert_eq!(config["crds"], json!({"value": ["all"], "from": "default"}));
    assert_eq!(config["profile"], json!({"value": "default", "from": "default"}));
    assert_eq!(config["explain"]["mask"], json!({"value": true, "from": "default"}));
}

#[test]
fn the_working_directory_overrides_the_home_and_the_flag_overrides_both() {
    let place = Place::new();
    place.write("home/.config/kubectl-gpt/kubectl-gpt.yaml", "failOn: never");
    assert_eq!(place.config(&[])["failOn"], json!({"value": "never", "from": "file"}));
    place.write("work/kubectl-gpt.yaml", "minSeverity: warning");
    let config = place.config(&[]);
    assert_eq!(config["file"], "kubectl-gpt.yaml");
    assert_eq!(config["minSeverity"], json!({"value": "warning", "from": "file"}));
    assert_eq!(config["failOn"]["from"], "default", "only one file counts");
    place.write("other/mine.yaml", "failOn: info");
    assert_eq!(place.config(&["--config", "../other/mine.yaml"])["failOn"]["value"], "info");
}

#[test]
fn the_configuration_directory_follows_xdg() {
    let place = Place::new();
    place.write("home/.config/kubectl-gpt/kubectl-gpt.yaml", "failOn: never");
    place.write("xdg/kubectl-gpt/kubectl-gpt.yaml", "failOn: info");
    let output = place.run_with(&["config"], &[("XDG_CONFIG_HOME", &place.0.path().join("xdg"))]);
    assert_eq!(in_force(&output)["failOn"]["value"], "info");
}

#[test]
fn flags_override_the_file() {
    let place = Place::new();
    place.write(
        "work/kubectl-gpt.yaml",
        "failOn: never\nallowPartial: true\nrule: pod/*\nskipRule: [pod/evicted, pod/lost]\ncrds: none\n",
    );
    let file = place.config(&[]);
    assert_eq!(file["rule"], json!({"value": ["pod/*"], "from": "file"}));
    assert_eq!(file["skipRule"]["value"], json!(["pod/evicted", "pod/lost"]));
    assert_eq!(file["crds"], json!({"value": ["none"], "from": "file"}));
    let flags = place.config(&["--fail-on", "warning", "--allow-partial=false", "--rule", "pv/*", "--crds", "all"]);
    assert_eq!(flags["failOn"], json!({"value": "warning", "from": "--fail-on"}));
    assert_eq!(flags["allowPartial"], json!({"value": false, "from": "--allow-partial"}));
    assert_eq!(flags["rule"], json!({"value": ["pv/*"], "from": "--rule"}));
    assert_eq!(flags["crds"]["from"], "--crds");
    assert_eq!(flags["skipRule"]["from"], "file");
}

#[test]
fn analyze_uses_the_file() {
    let place = Place::new();
    let code = |arguments: &[&str]| place.analyze("selector-mismatch", arguments).status.code();
    assert_eq!(code(&[]), Some(1));
    place.write("work/kubectl-gpt.yaml", "failOn: never");
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["--fail-on", "error"]), Some(1));
    place.write("work/kubectl-gpt.yaml", "rule: node/*");
    assert_eq!(code(&[]), Some(0));
    // A misspelled rule would silently disable the gate.
    place.write("work/kubectl-gpt.yaml", "rule: nodes/*");
    assert_eq!(code(&[]), Some(2));
    // A run must not fail on hidden findings, regardless of the source of the two settings.
    place.write("work/kubectl-gpt.yaml", "minSeverity: error");
    assert_eq!(code(&["--fail-on", "warning"]), Some(2));
}

#[test]
fn a_file_with_only_comments_sets_nothing() {
    let place = Place::new();
    for text in ["", "# nothing yet\n", "---\n", "{}"] {
        place.write("work/kubectl-gpt.yaml", text);
        let config = place.config(&[]);
        assert_eq!((&config["file"], &config["failOn"]["from"]), (&json!("kubectl-gpt.yaml"), &json!("default")));
    }
}

#[test]
fn errors_include_their_location() {
    let place = Place::new();
    let cases = [
        ("failOn: error\nfialOn: error\n", "2:1", "fialOn"),
        ("failOn: always\n", "1:9", "always"),
        ("explain:\n  modle: x\n", "2:3", "modle"),
        ("ignore:\n  - rules: pod/*\n", "2:5", "reason"),
        ("ignore:\n  - {rules: 'pod/[', reason: x}\n", "2:13", "unclosed character class"),
        ("ignore:\n  - {rules: [], reason: x}\n", "2:13", "empty"),
        ("ignore:\n  - {rules: a/b, reason: x, expires: soon}\n", "2:38", "expected a date such as 2027-01-01"),
        ("ignore:\n  - {rules: a/b, reason: x, expires: 2027-02-30}\n", "2:38", "2027-02-30"),
        ("ignore:\n  - {rules: a/b, reason: ' '}\n", "2:5", "reason must not be empty"),
        ("ignore:\n  - reason: everything is fine\n", "2:5", "entry ignores every finding"),
        ("failOn: [error\n", "", ""),
        ("- failOn\n", "1:1", ""),
    ];
    for (text, at, what) in cases {
        let said = place.complaint(text);
        assert!(said.starts_with(&format!("error: kubectl-gpt.yaml:{at}")), "{text}: {said}");
        assert!(said.contains(what), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{text}: {said}");
    }
}

#[test]
fn an_unreadable_file_is_an_error() {
    let place = Place::new();
    let output = place.analyze("healthy-shop", &["--config", "missing.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: reading missing.yaml: No such file"), "{said}");
    fs::create_dir_all(place.0.path().join("work/kubectl-gpt.yaml")).unwrap();
    assert_eq!(place.analyze("healthy-shop", &[]).status.code(), Some(2));
}

#[test]
fn api_keys_in_the_file_are_rejected_and_not_printed() {
    let place = Place::new();
    for text in
        ["explain: {apiKeyEnv: sk-proj-4711}", "explain: {baseUrl: 'https://me:sk-proj-4711@models.example.com/v1'}"]
    {
        let said = place.complaint(text);
        assert!(said.contains("variable") && !said.contains("4711"), "{said}");
    }
    assert!(place.complaint("explain: {baseUrl: localhost}").contains("expected a URL"));
}

#[test]
fn api_keys_are_never_printed() {
    let place = Place::new();
    place.write("work/mine.yaml", "explain: {apiKeyEnv: MY_KEY, prompts: prompts, maxTokens: 500}");
    let arguments = ["config", "--config", "mine.yaml"];
    let secret = Path::new("sk-4711");
    let output = place.run_with(&arguments, &[("MY_KEY", secret), ("OPENAI_API_KEY", secret)]);
    let explain = &in_force(&output)["explain"];
    assert_eq!(explain["apiKeyEnv"], json!({"value": "MY_KEY", "from": "file"}));
    assert_eq!(explain["maxTokens"]["value"], 500);
    assert_eq!(explain["model"], json!({"value": null, "from": "default"}));
    assert!(!String::from_utf8(output.stdout).unwrap().contains("4711"));
    // The same settings, found in the working directory, which may be untrusted.
    place.write("work/kubectl-gpt.yaml", "explain: {apiKeyEnv: MY_KEY}");
    assert!(place.config(&[])["explain"]["refused"].as_str().unwrap().contains("explain.apiKeyEnv"));
}

#[test]
fn ignore_entries_are_printed_unchanged() {
    let place = Place::new();
    let entry = json!({"rules": ["pod/*"], "names": ["a", "b*"], "reason": "team X", "expires": "2027-01-01"});
    place.write("work/kubectl-gpt.yaml", &json!({"ignore": [entry]}).to_string());
    assert_eq!(place.config(&[])["ignore"], json!([entry]));
}

/// `UPDATE_DOCS=1 cargo test --test all config::` writes it.
#[test]
fn the_schema_is_up_to_date() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Fields)).unwrap() + "\n";
    let path = Path::new(ROOT).join(SCHEMA);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &schema).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        schema,
        "{SCHEMA} is stale: UPDATE_DOCS=1 cargo test --test all config::"
    );
}

#[test]
fn the_schema_matches_the_parser() {
    let schema: Value = serde_json::from_str(&fs::read_to_string(Path::new(ROOT).join(SCHEMA)).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let cases = [
        ("{}", true),
        ("{failOn: never, minSeverity: warning, profile: strict, allowPartial: true, crds: none}", true),
        ("{ignore: [{rules: a/b, kinds: [Pod, Job], reason: r, expires: '2027-01-01'}], rules: [ours]}", true),
        ("{explain: {provider: ollama, baseUrl: 'http://localhost:11434/v1', apiKeyEnv: A_KEY, maxTokens: 9}}", true),
        ("{explain: {apiKeyEnv: sk-4711}}", false),
        ("{explain: {maxTokens: -1}}", false),
        ("{explain: {provider: nobody}}", false),
        ("{ignore: [{rules: a/b}]}", false),
        ("{ignore: [{rules: a/b, reason: r, until: '2027-01-01'}]}", false),
        ("{failOn: always}", false),
        ("{fail-on: error}", false),
        ("{rules: []}", false),
    ];
    for (text, is_valid) in cases {
        let value: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(schema.is_valid(&value), is_valid, "{text}");
        assert_eq!(serde_saphyr::from_str::<Fields>(text).is_ok(), is_valid, "{text}");
    }
}
