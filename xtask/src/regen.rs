//! Everything in the repository that a program writes. The tests that hold it up to date write it, too, when told so by
//! the environment: what is generated and what is checked cannot differ.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The README's example, as its text gives it.
const MAIN_JOB: &str = "cargo run --release -- analyze ";

pub(crate) fn run(root: &Path, check: bool) -> Result<(), String> {
    let mut tests = cargo(root, &["test", "--test", "all", "--", "docs::", "scenarios::", "schema"]);
    if !check {
        tests.envs([("UPDATE_DOCS", "1"), ("INSTA_UPDATE", "always")]);
    }
    succeed(&mut tests)?;
    readme(root, check)
}

/// The output of the README's main job, between the lines of three backquotes that follow the command.
fn readme(root: &Path, check: bool) -> Result<(), String> {
    let file = root.join("README.md");
    let text = fs::read_to_string(&file).map_err(|error| format!("reading README.md: {error}"))?;
    let command = text.lines().find(|line| line.starts_with(MAIN_JOB)).ok_or("README.md lacks the main job")?;
    let arguments: Vec<&str> = command.split_whitespace().skip(4).collect();
    let mut program = cargo(root, &["run", "--quiet", "--"]);
    let output = program.args(arguments).output().map_err(|error| format!("running {command}: {error}"))?;
    if output.status.code() != Some(1) {
        return Err(format!("{command} ended with {}, expected 1 (findings)", output.status));
    }
    let output = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
    let at = text.find(command).ok_or("README.md lacks the main job")?;
    let start =
        text[at..].find("```text\n").ok_or("README.md lacks the output of the main job")? + at + "```text\n".len();
    let end = text[start..].find("```").ok_or("README.md lacks the end of the output")? + start;
    if text[start..end] == output {
        return Ok(());
    }
    if check {
        return Err("README.md shows another output of its main job; run `cargo xtask regen`".to_string());
    }
    let text = format!("{}{output}{}", &text[..start], &text[end..]);
    fs::write(&file, text).map_err(|error| format!("writing README.md: {error}"))
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(arguments);
    command
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("running {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
}
