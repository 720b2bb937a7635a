//! Everything that people read is in the language of docs/style.md. What rules report is checked where rules are tested.

#[path = "../analyzers/src/testing/style.rs"]
mod style;

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use kubectl_gpt::cli::Cli;

/// Text files of a directory and those below it, without recordings and generated outputs of programs.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let is_text = path
            .extension()
            .is_some_and(|e| ["md", "txt", "yml", "yaml", "toml", "html"].contains(&e.to_str().unwrap()));
        if path.is_dir() {
            pages(&path, found);
        } else if is_text && path.file_name().is_some_and(|name| name != "style.md") {
            found.push(path);
        }
    }
}

#[test]
fn documentation_follows_the_style_guide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files =
        vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("action.yml"), root.join("Cargo.toml")];
    for folder in ["docs", "prompts", "packaging", "deploy", ".github", "analyzers/custom"] {
        pages(&root.join(folder), &mut files);
    }
    for tests in ["scenarios", "field", "realworld", "installs", "inputs"] {
        files.extend([root.join("tests").join(tests).join("README.md")].into_iter().filter(|file| file.exists()));
    }
    assert!(files.len() > 100, "the documentation is there");
    // What would be sent to a model contains words of the recorded cluster.
    files.retain(|file| !file.starts_with(root.join("docs/dry-run")));
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.to_string())).collect::<Vec<_>>();
            lines.into_iter().flat_map(move |(n, line)| {
                style::violations(&line).into_iter().map(move |phrase| format!("{}:{n}: {phrase}", file.display()))
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn help_follows_the_style_guide() {
    let mut program = Cli::command();
    program.build();
    let mut commands = vec![program];
    while let Some(mut command) = commands.pop() {
        let help = command.render_long_help().to_string();
        assert_eq!(style::violations(&help), [""; 0], "{help}");
        commands.extend(command.get_subcommands().cloned());
    }
}
