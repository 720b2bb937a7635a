//! The pages in `docs/rules/` are generated from the documentation of the rules. `UPDATE_DOCS=1 cargo test --test all
//! docs::` writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kubectl_gpt::commands::rules::reads;
use kubectl_gpt::gate::Notice;
use kubectl_gpt_analyzers::{Profile, Rule, rules};

/// The expected content of `docs/rules/`.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut index = String::from(
        "# Rules\n\n`kubectl-gpt rules` prints this table, `kubectl-gpt rules ID` the page of a rule. Both work offline.\n\n\
         | rule | severity | profile | finds |\n|---|---|---|---|\n",
    );
    let mut pages = BTreeMap::new();
    let notices = Notice::ALL.map(Notice::meta);
    for meta in rules::all().into_iter().map(Rule::meta).chain(notices) {
        let file = format!("{}.md", meta.id);
        index.push_str(&format!(
            "| [{}]({file}) | {} | {} | {} |\n",
            meta.id, meta.severity, meta.profile, meta.summary
        ));
        let profile = match meta.profile {
            Profile::Default => "",
            Profile::Strict => " Runs only with `--profile strict`, or if `--rule` names it.",
        };
        let (id, severity, summary) = (&meta.id, meta.severity, &meta.summary);
        let reads = match reads(meta) {
            nothing if nothing.is_empty() => nothing,
            reads => format!("\n{reads}"),
        };
        let page = format!("# {id}\n\nSeverity: {severity}. Finds: {summary}.{profile}\n\n{}{reads}", meta.page());
        pages.insert(PathBuf::from(file), page);
    }
    pages.insert(PathBuf::from("README.md"), index);
    pages
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn the_pages_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules");
    let pages = pages();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let _ = fs::remove_dir_all(&folder);
        for (file, page) in &pages {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, page).unwrap();
        }
    }
    let found: BTreeMap<PathBuf, String> = files(&folder)
        .into_iter()
        .map(|path| (path.strip_prefix(&folder).unwrap().to_path_buf(), fs::read_to_string(&path).unwrap()))
        .collect();
    for (file, page) in &pages {
        assert_eq!(
            found.get(file),
            Some(page),
            "{} is stale: UPDATE_DOCS=1 cargo test --test all docs::",
            file.display()
        );
    }
    assert_eq!(found.len(), pages.len(), "docs/rules contains pages of removed rules");
}

/// Runs the commands of a page again and inserts their output: `$ command`, followed by output up to the end of the
/// block.
#[cfg(unix)]
fn with_real_outputs(page: &str) -> String {
    let (mut text, mut commands, mut inside) = (String::new(), Vec::new(), false);
    for line in page.lines() {
        match (inside, line) {
            (false, "```console") => inside = true,
            (true, "```") => {
                text.push_str(&outputs(&std::mem::take(&mut commands)));
                inside = false;
            }
            (true, line) => {
                commands.extend(line.strip_prefix("$ ").map(str::to_string));
                continue;
            }
            _ => {}
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Runs commands in one shell, so that `$?` works, and prints each before its output.
#[cfg(unix)]
fn outputs(commands: &[String]) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_kubectl-gpt")).parent().unwrap();
    let quoted = |command: &String| format!("'$ {}'", command.replace('\'', r"'\''"));
    // Printing the next command must not change `$?`.
    let script: Vec<String> =
        commands.iter().map(|c| format!("code=$?; printf '%s\\n' {}; (exit $code); {c}", quoted(c))).collect();
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{}", script.join("\n"))])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", program.display()))
        .env("LANG", "C.UTF-8")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[cfg(unix)]
#[test]
fn outputs_in_the_guide_are_real() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut pages = vec![docs.join("guide.md")];
    pages.extend(files(&docs.join("scenarios")));
    // A new rule must not make every page stale.
    let counts = regex::Regex::new(r"\d+ objects checked by\s+\d+ rules").unwrap();
    for page in pages {
        let written = fs::read_to_string(&page).unwrap();
        let real = with_real_outputs(&written);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&page, &real).unwrap();
        } else {
            let (written, real) = (counts.replace_all(&written, "checked"), counts.replace_all(&real, "checked"));
            assert_eq!(written, real, "{} is stale: UPDATE_DOCS=1 cargo test --test all docs::", page.display());
        }
    }
}

#[test]
fn every_scenario_has_a_page() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scenarios");
    let index = fs::read_to_string(docs.join("README.md")).unwrap();
    for scenario in crate::expectations::folders("scenarios") {
        let page = format!("{}.md", scenario.file_name().unwrap().to_string_lossy());
        assert!(docs.join(&page).exists(), "docs/scenarios/{page} is missing");
        assert!(index.contains(&format!("({page})")), "{page} is not in the index");
    }
}

/// Links between pages are not broken.
#[test]
fn links_in_the_docs_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let link = regex::Regex::new(r"\]\(([^)#:]+)(#[^)]*)?\)").unwrap();
    let pages = [
        vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("docs/guide.md")],
        files(&root.join("docs/scenarios")),
    ];
    for page in pages.concat() {
        for found in link.captures_iter(&fs::read_to_string(&page).unwrap()) {
            let target = page.parent().unwrap().join(&found[1]);
            assert!(target.exists(), "{} links to {}", page.display(), &found[1]);
        }
    }
}
