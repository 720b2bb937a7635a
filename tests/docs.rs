//! The pages in `docs/rules/` are the rules' own documentation. `UPDATE_DOCS=1 cargo test --test all docs::` writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kubectl_gpt_analyzers::{Profile, rules};

/// What `docs/rules/` should hold.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut index = String::from(
        "# Rules\n\n`kubectl-gpt rules` prints this table, `kubectl-gpt rules ID` a rule's page, both offline.\n\n\
         | rule | severity | profile | finds |\n|---|---|---|---|\n",
    );
    let mut pages = BTreeMap::new();
    for rule in rules::all() {
        let meta = rule.meta();
        let file = format!("{}.md", meta.id);
        index.push_str(&format!(
            "| [{}]({file}) | {} | {} | {} |\n",
            meta.id, meta.severity, meta.profile, meta.summary
        ));
        let profile = match meta.profile {
            Profile::Default => "",
            Profile::Strict => " Only with `--profile strict`, or where `--rule` names it.",
        };
        let (id, severity, summary) = (&meta.id, meta.severity, &meta.summary);
        let page = format!("# {id}\n\nSeverity: {severity}. Finds: {summary}.{profile}\n\n{}", meta.page());
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
    assert_eq!(found.len(), pages.len(), "docs/rules holds pages of rules that are no more");
}
