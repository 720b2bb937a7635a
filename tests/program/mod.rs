//! Runs the program with an empty environment, and returns its output.

use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

/// Runs in the project root, so that paths in the output are reproducible.
pub fn kubectl_gpt(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
    command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    command
}

/// The path of a recorded cluster.
pub fn recorded(scenario: &str) -> String {
    format!("tests/scenarios/{scenario}/cluster.json")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Standard output and standard error.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The report of `-o json`.
pub fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}
