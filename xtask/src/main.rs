//! Chores of the repository, each a command of `cargo xtask`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal of a developer")]

mod new_rule;
mod regen;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  regen [--check]          Regenerate docs/, README.md and the expected outputs of tests;
                           with --check, only report what is out of date
  new-rule KIND/NAME       Create the file of a new rule and register it, e.g. workload/no-limits";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["regen"] => regen::run(root, false),
        ["regen", "--check"] => regen::run(root, true),
        ["new-rule", id] => new_rule::run(root, id),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
