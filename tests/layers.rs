//! Imports point down only: docs/architecture.md names the rooms, and here is what holds them. What tests import does not
//! count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemMod, ItemUse, Macro, UseTree};

/// The rooms of `analyzers/src`, from the top down. Rooms of one floor do not know each other.
const ANALYZERS: &[&[&str]] = &[
    &["rules", "trace", "user_rules"],
    &["engine"],
    &["kubernetes/network"],
    &["kubernetes/admission", "kubernetes/scheduling", "kubernetes/workloads"],
    &["kubernetes/storage"],
    &["kubernetes/nodes"],
    &["kubernetes/certificate", "kubernetes/disruption", "kubernetes/manager", "kubernetes/nearest"],
    &["kubernetes/time"],
    &["snapshot"],
    &["text"],
];

/// The rooms of `src`.
const PROGRAM: &[&[&str]] = &[
    &["cli"],
    &["commands"],
    &["load", "output"],
    &["report"],
    &["explain"],
    &["gate", "user_rules"],
    &["config"],
    &["exit", "progress"],
    &["collect"],
    &["cryptography", "duration", "glob", "interrupt", "problems", "retry", "scope", "terminal", "whole_file"],
];

/// The modules of a crate and what each imports, by their paths: `snapshot/model/pod`.
struct Imports(BTreeMap<String, BTreeSet<String>>);

impl Imports {
    fn of(source: &Path) -> Imports {
        let mut modules = BTreeMap::new();
        read(source, "", &source.join("lib.rs"), &mut modules);
        let known: BTreeSet<String> = modules.keys().cloned().collect();
        let resolve = |path: &String| {
            let segments: Vec<&str> = path.split('/').collect();
            (0..=segments.len()).rev().map(|n| segments[..n].join("/")).find(|module| known.contains(module))
        };
        let imports = modules.iter().map(|(module, paths)| {
            // A module and those above it are one room: `super::` is no import.
            let is_outside = |other: &String| {
                other != module && !module.starts_with(&format!("{other}/")) || other.is_empty() && !module.is_empty()
            };
            (module.clone(), paths.iter().filter_map(resolve).filter(is_outside).collect())
        });
        Imports(imports.collect())
    }

    /// Imports that do not point down, as lines for people.
    fn upward(&self, rooms: &[&[&str]]) -> Vec<String> {
        let floor = |module: &str| {
            let is_in = |room: &&str| module == *room || module.starts_with(&format!("{room}/"));
            let found = rooms.iter().enumerate().find_map(|(n, floor)| Some((n, *floor.iter().find(|r| is_in(r))?)));
            found.or_else(|| {
                rooms.iter().any(|f| f.iter().any(|r| r.starts_with(&format!("{module}/")))).then_some((usize::MAX, ""))
            })
        };
        let mut wrong = Vec::new();
        for (module, imported) in &self.0 {
            let Some((own_floor, own_room)) = floor(module) else {
                if !module.is_empty() {
                    wrong.push(format!("{module} is in no room"));
                }
                continue;
            };
            if own_room.is_empty() {
                continue;
            }
            for other in imported {
                match floor(other) {
                    Some((floor, room)) if floor > own_floor || room == own_room => {}
                    _ if other.is_empty() => wrong.push(format!("{module} imports from the root of the crate")),
                    _ => wrong.push(format!("{module} imports {other}")),
                }
            }
        }
        wrong
    }

    /// Modules that import each other, near or far.
    fn circles(&self) -> Vec<String> {
        let reachable = |from: &String| {
            let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
            while let Some(module) = todo.pop() {
                for next in &self.0[module] {
                    if seen.insert(next) {
                        todo.push(next);
                    }
                }
            }
            seen
        };
        self.0.keys().filter(|module| reachable(module).contains(module)).cloned().collect()
    }
}

/// Reads a module and those below it: what each imports from elsewhere in its crate.
fn read(source: &Path, module: &str, file: &Path, modules: &mut BTreeMap<String, BTreeSet<String>>) {
    let text = fs::read_to_string(file).unwrap();
    let parsed: File = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut collected = Paths {
        module: module.split('/').filter(|s| !s.is_empty()).map(str::to_string).collect(),
        found: BTreeSet::new(),
    };
    collected.visit_file(&parsed);
    modules.insert(module.to_string(), collected.found);
    for item in &parsed.items {
        let Item::Mod(ItemMod { ident, content: None, attrs, .. }) = item else { continue };
        if is_for_tests(attrs) {
            continue;
        }
        let below = if module.is_empty() { ident.to_string() } else { format!("{module}/{ident}") };
        let file = source.join(format!("{below}.rs"));
        let file: PathBuf = if file.exists() { file } else { source.join(&below).join("mod.rs") };
        read(source, &below, &file, modules);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|a| a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|p| p.is_ident("test")))
}

/// The paths that begin with `crate`, without it.
struct Paths {
    module: Vec<String>,
    found: BTreeSet<String>,
}

impl Paths {
    fn tree(&mut self, before: &[String], tree: &UseTree) {
        match tree {
            UseTree::Path(path) => self.tree(&[before, &[path.ident.to_string()]].concat(), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
            UseTree::Name(name) => self.add(&[before, &[name.ident.to_string()]].concat()),
            UseTree::Rename(name) => self.add(&[before, &[name.ident.to_string()]].concat()),
            UseTree::Glob(_) => self.add(before),
        }
    }

    fn add(&mut self, segments: &[String]) {
        let up = segments.iter().take_while(|segment| *segment == "super").count();
        match segments.first().map(String::as_str) {
            // Alone it is `pub(crate)`.
            Some("crate") if segments.len() > 1 => drop(self.found.insert(segments[1..].join("/"))),
            Some("super") if up <= self.module.len() => {
                let above = &self.module[..self.module.len() - up];
                self.found.insert([above, &segments[up..]].concat().join("/"));
            }
            _ => {}
        }
    }

    /// Macros are not parsed: what they expand to has its paths in their tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => path.push(ident.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {}
                other => {
                    self.add(&std::mem::take(&mut path));
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.add(&path);
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item(&mut self, item: &'a Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.add(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'a Macro) {
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}

fn assert_layers(source: &str, rooms: &[&[&str]]) {
    let imports = Imports::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
    assert!(imports.0.len() > 30, "{source} was read");
    assert_eq!(imports.upward(rooms), [""; 0], "imports that point up in {source}");
    assert_eq!(imports.circles(), [""; 0], "modules of {source} that import each other");
}

#[test]
fn the_rooms_of_the_rules_know_only_those_below() {
    assert_layers("analyzers/src", ANALYZERS);
}

#[test]
fn the_rooms_of_the_program_know_only_those_below() {
    assert_layers("src", PROGRAM);
}

#[test]
fn an_import_that_points_up_is_found() {
    let imports = |pairs: &[(&str, &[&str])]| {
        let set = |imported: &[&str]| imported.iter().map(ToString::to_string).collect();
        Imports(pairs.iter().map(|(module, imported)| (module.to_string(), set(imported))).collect())
    };
    let rooms: &[&[&str]] = &[&["rules"], &["engine"], &["text"]];
    let good = imports(&[("rules", &["engine"]), ("engine", &["text"]), ("text", &[])]);
    assert_eq!((good.upward(rooms), good.circles()), (vec![], vec![]));
    let bad = imports(&[("rules", &["engine"]), ("engine", &["rules"]), ("new", &[])]);
    assert_eq!(bad.upward(rooms), ["engine imports rules", "new is in no room"]);
    assert_eq!(bad.circles(), ["engine", "rules"]);
}

#[test]
fn all_ways_to_import_are_seen() {
    let parsed = syn::parse_file(
        "use crate::a::{b, c::D as E}; fn f() -> crate::g::H { crate::i::j(); m!(1, crate::k::l) } \
         use super::n::O; #[cfg(test)] mod tests { use crate::p::Q; }",
    )
    .unwrap();
    let mut paths = Paths { module: vec!["x".to_string(), "y".to_string()], found: BTreeSet::new() };
    paths.visit_file(&parsed);
    let found: Vec<&str> = paths.found.iter().map(String::as_str).collect();
    assert_eq!(found, ["a/b", "a/c/D", "g/H", "i/j", "k/l", "x/n/O"]);
}
