//! The skeleton of a rule: its file with page, check and two tests, and its registration.

use std::fs;
use std::path::Path;

pub(crate) fn run(root: &Path, id: &str) -> Result<(), String> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let (kind, name) = id
        .split_once('/')
        .filter(|(kind, name)| is_name(kind) && is_name(name))
        .ok_or_else(|| format!("expected KIND/NAME in lowercase, such as workload/no-limits, found {id:?}"))?;
    let (folder, module) = (kind.replace('-', "_"), name.replace('-', "_"));
    let rules = root.join("analyzers/src/rules");
    let file = rules.join(&folder).join(format!("{module}.rs"));
    if file.exists() {
        return Err(format!("{} exists", file.display()));
    }
    let registry = rules.join(&folder).join("mod.rs");
    if registry.exists() {
        let text = read(&registry)?;
        write(&registry, &registered(&text, &module)?)?;
    } else {
        fs::create_dir_all(rules.join(&folder)).map_err(|error| format!("creating {folder}: {error}"))?;
        write(
            &registry,
            &format!(
                "mod {module};\n\nuse crate::engine::BuiltIn;\n\npub(super) const RULES: &[&BuiltIn] = &[&{module}::RULE];\n"
            ),
        )?;
        let all = rules.join("mod.rs");
        write(&all, &registered_folder(&read(&all)?, &folder)?)?;
    }
    write(&file, &skeleton(id))?;
    println!("created    {}", shown(root, &file));
    println!("registered {}", shown(root, &registry));
    println!(
        "next: write the page, the check and the tests, then run `cargo test --workspace` and `cargo xtask regen`"
    );
    Ok(())
}

/// The folder's list of rules with one more, in order.
fn registered(text: &str, module: &str) -> Result<String, String> {
    let declared = insert_line(text, &format!("mod {module};"), |line| line.strip_prefix("mod ").is_some())?;
    let start = declared.find("&[&BuiltIn] = &[").ok_or("mod.rs has no list RULES")? + "&[&BuiltIn] = &[".len();
    let end = declared[start..].find("];").ok_or("the list RULES has no end")? + start;
    let mut rules: Vec<&str> = declared[start..end].split(',').map(str::trim).filter(|rule| !rule.is_empty()).collect();
    let rule = format!("&{module}::RULE");
    rules.push(&rule);
    rules.sort_unstable();
    let list: String = rules.iter().map(|rule| format!("    {rule},\n")).collect();
    Ok(format!("{}\n{list}{}", &declared[..start], &declared[end..]))
}

/// The list of folders with one more, in order.
fn registered_folder(text: &str, folder: &str) -> Result<String, String> {
    let declared = insert_line(text, &format!("mod {folder};"), |line| line.starts_with("mod "))?;
    insert_line(&declared, &format!("        {folder}::RULES,"), |line| line.ends_with("::RULES,"))
}

/// Puts a line among those like it, in the order of the alphabet.
fn insert_line(text: &str, new: &str, is_like: impl Fn(&str) -> bool) -> Result<String, String> {
    let lines: Vec<&str> = text.lines().collect();
    let after = lines.iter().rposition(|line| is_like(line) && *line < new);
    let at = match after {
        Some(n) => n + 1,
        None => lines.iter().position(|line| is_like(line)).ok_or_else(|| format!("no place for {new:?}"))?,
    };
    let all: Vec<&str> = lines[..at].iter().copied().chain([new]).chain(lines[at..].iter().copied()).collect();
    Ok(all.join("\n") + "\n")
}

fn skeleton(id: &str) -> String {
    format!(
        r#"use crate::engine::{{Finding, Report, declare_rule}};
use crate::snapshot::model::Deployment;
use crate::snapshot::{{Cluster, Object}};

declare_rule! {{
    /// ## What it checks
    ///
    /// TODO: which fields of which objects, and what must hold.
    ///
    /// ## Why it matters
    ///
    /// TODO: what stops working.
    ///
    /// ## How to confirm
    ///
    /// TODO: `kubectl -n NAMESPACE get deployment NAME` and what it shows.
    ///
    /// ## How to fix
    ///
    /// TODO: the field, and the value that it needs.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire TODO.
    "{id}": Warning,
    "TODO: one phrase without a full stop",
    needs: [Deployment],
    optional: [],
    explained_by: [],
}}

fn check(cluster: &Cluster, report: &mut Report) {{
    for deployment in cluster.all::<Deployment>().iter().filter(|d| !cluster.is_terminating(*d)) {{
        let object = deployment.reference();
        if deployment.spec.replicas == Some(-1) {{
            let message = format!("Deployment {{}} TODO", deployment.name());
            report.add(
                Finding::warning(object.clone(), message)
                    .evidence("spec.replicas is -1", &object, "spec.replicas")
                    .fix("TODO: Set FIELD to VALUE"),
            );
        }}
    }}
}}

#[cfg(test)]
mod tests {{
    use super::RULE;
    use crate::testing::check;

    fn deployment(replicas: i32) -> String {{
        format!(
            "
            apiVersion: apps/v1
            kind: Deployment
            metadata: {{{{name: web, namespace: shop}}}}
            spec: {{{{replicas: {{replicas}}}}}}"
        )
    }}

    #[test]
    fn fires_todo() {{
        check(&RULE, &[&deployment(-1)]).finds(&["warning Deployment shop/web: Deployment web TODO"]);
    }}

    #[test]
    fn quiet_todo() {{
        check(&RULE, &[&deployment(1)]).finds_nothing();
    }}
}}
"#
    )
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("reading {}: {error}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("writing {}: {error}", file.display()))
}

fn shown(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::{registered, registered_folder};

    #[test]
    fn a_rule_is_registered_in_order() {
        let folder =
            "mod paused;\n\nuse crate::engine::BuiltIn;\n\npub(super) const RULES: &[&BuiltIn] = &[&paused::RULE];\n";
        let more = registered(folder, "image").unwrap();
        assert!(more.starts_with("mod image;\nmod paused;\n"), "{more}");
        assert!(more.contains("&[\n    &image::RULE,\n    &paused::RULE,\n];"), "{more}");
    }

    #[test]
    fn a_folder_is_registered_in_order() {
        let all = "mod api;\nmod pod;\n\nlet folders = [\n        api::RULES,\n        pod::RULES,\n];\n";
        assert_eq!(
            registered_folder(all, "job").unwrap(),
            "mod api;\nmod job;\nmod pod;\n\nlet folders = [\n        api::RULES,\n        job::RULES,\n        pod::RULES,\n];\n"
        );
    }
}
