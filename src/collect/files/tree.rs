//! The files of a directory or an archive, by path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::decompressed::Decompressed;
use super::slashes;

/// Maximum depth of nested directories.
pub(super) const MAX_DEPTH: usize = 32;
/// How much of the end of a log is kept.
pub(super) const LOG_END: usize = 1 << 20;
/// Maximum number of files in a directory.
const MAX_FILES: usize = 500_000;

/// Files by path, relative to the directory or archive, with `/`.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The name as given by the user.
    pub name: String,
    files: BTreeMap<String, Content>,
    /// Hidden directories, which are skipped; `.git` is skipped without a note.
    pub hidden: Vec<String>,
    /// The number of links in an archive, which are not followed.
    pub links: usize,
}

enum Content {
    Disk(PathBuf),
    Memory(Vec<u8>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Disk(path) => path.fmt(f),
            Content::Memory(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl Tree {
    pub fn new(name: &str) -> Tree {
        Tree { name: name.to_string(), ..Tree::default() }
    }

    /// The files of a directory; links to directories are not followed.
    pub fn folder(path: &Path) -> Result<Tree> {
        let mut tree = Tree::new(slashes(path).trim_end_matches('/'));
        tree.walk(path, "", 0)?;
        Ok(tree)
    }

    fn walk(&mut self, folder: &Path, below: &str, depth: usize) -> Result<()> {
        let reading = || format!("reading directory {}", folder.display());
        if depth > MAX_DEPTH {
            bail!("{}: directories are nested more than {MAX_DEPTH} levels deep", reading());
        }
        let entries: io::Result<Vec<_>> = fs::read_dir(folder).with_context(reading)?.collect();
        for entry in entries.with_context(reading)? {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().to_string());
            let inside = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            if path.is_dir() {
                if path.is_symlink() {
                    continue;
                }
                match name.as_str() {
                    ".git" => {}
                    _ if name.starts_with('.') => self.hidden.push(inside),
                    _ => self.walk(&path, &inside, depth + 1)?,
                }
            } else if is_read(&inside) {
                self.files.insert(inside, Content::Disk(path));
            }
            if self.files.len() > MAX_FILES {
                bail!("{}: directory contains more than {MAX_FILES} files", reading());
            }
        }
        Ok(())
    }

    pub fn add(&mut self, path: String, content: Vec<u8>) {
        self.files.insert(path, Content::Memory(content));
    }

    /// The paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The paths below a directory (with a trailing `/`), relative to it, sorted.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        self.files.range(folder.to_string()..).map_while(move |(path, _)| path.strip_prefix(folder))
    }

    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The path for messages: `bundle.tar.gz/cluster-resources/nodes.json`.
    pub fn display(&self, path: &str) -> String {
        if matches!(self.name.as_str(), "." | "") { path.to_string() } else { format!("{}/{path}", self.name) }
    }

    /// The decompressed content of a file.
    pub fn read(&self, path: &str) -> Result<Cow<'_, [u8]>> {
        let name = self.display(path);
        let reading = || format!("reading {name}");
        let bytes = match self.files.get(path) {
            None => bail!("{name} not found"),
            Some(Content::Memory(bytes)) if !path.ends_with(".gz") => return Ok(Cow::Borrowed(bytes)),
            Some(Content::Memory(bytes)) => decompress(&mut bytes.as_slice(), path),
            Some(Content::Disk(file)) => decompress(&mut fs::File::open(file).with_context(reading)?, ""),
        };
        Ok(Cow::Owned(bytes.with_context(reading)?))
    }

    /// Reads the end of a log; `None` if it cannot be read.
    pub fn read_log(&self, path: &str) -> Option<String> {
        let bytes = match self.files.get(path)? {
            Content::Memory(bytes) => bytes.clone(),
            Content::Disk(file) => end_of(&mut fs::File::open(file).ok()?, LOG_END).ok()?,
        };
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn decompress(source: &mut dyn Read, name: &str) -> Result<Vec<u8>> {
    let mut file = Decompressed::open(source)?;
    if file.is_tar(name)? {
        bail!("nested archives are not supported");
    }
    file.whole()
}

/// Reads the last bytes of a stream.
pub(super) fn end_of(source: &mut impl Read, max: usize) -> Result<Vec<u8>> {
    let (mut end, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match source.read(&mut chunk)? {
            0 => break,
            n => end.extend_from_slice(&chunk[..n]),
        }
        if end.len() > 2 * max {
            end.drain(..end.len() - max);
        }
    }
    end.drain(..end.len().saturating_sub(max));
    Ok(end)
}

/// Whether a file of this name may contain objects or logs.
pub(super) fn is_read(path: &str) -> bool {
    is_objects(path) || is_log(path) || has_no_ending(path)
}

/// Troubleshoot writes some lists without an extension, and kustomize uses `Kustomization`.
fn has_no_ending(path: &str) -> bool {
    const NAMES: [&str; 5] = ["pvs", "clusterroles", "clusterrolebindings", "clusterRoleBindings", "Kustomization"];
    NAMES.contains(&path.rsplit('/').next().unwrap_or(path))
}

pub(super) fn is_objects(path: &str) -> bool {
    let path = path.to_lowercase();
    let path = path.strip_suffix(".gz").unwrap_or(&path);
    [".json", ".yaml", ".yml"].iter().any(|ending| path.ends_with(ending))
}

pub(super) fn is_log(path: &str) -> bool {
    path.ends_with(".log") || path.ends_with("/logs.txt")
}
