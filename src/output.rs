//! `--output-file FORMAT=PATH`: writes reports to files, all of them atomically.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use tempfile::{NamedTempFile, TempPath};

use crate::exit::Failure;
use crate::report::Format;
use crate::report::{self, Report};
use crate::terminal;
use crate::whole_file::{self, Readers};

/// Report files in addition to standard output.
#[derive(Clone, Debug, Default, Args)]
pub struct OutputArgs {
    /// Also write a report to a file, in any format of --output (repeatable).
    #[arg(long, value_name = "FORMAT=PATH", value_parser = OutputFile::parse)]
    pub output_file: Vec<OutputFile>,
}

/// One report file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    pub format: Format,
    pub path: PathBuf,
}

impl OutputFile {
    fn parse(text: &str) -> Result<OutputFile, String> {
        let Some((format, path)) = text.split_once('=') else {
            return Err(format!("expected FORMAT=PATH such as sarif=findings.sarif, found {text:?}"));
        };
        let format = Format::from_str(format, true).map_err(|_| {
            let known: Vec<String> = Format::value_variants().iter().map(Format::word).collect();
            format!("unknown format {format:?}, expected one of {}", known.join(", "))
        })?;
        match path {
            "" => Err("missing path after =".to_string()),
            "-" => Err("expected a file; use --output for standard output".to_string()),
            path => Ok(OutputFile { format, path: PathBuf::from(path) }),
        }
    }
}

impl OutputArgs {
    /// Checks before anything is read that the files can be written, as far as that can be determined.
    ///
    /// # Errors
    /// When a path is repeated, is a directory, or is in a directory that is not writable.
    pub fn check(&self) -> Result<(), Failure> {
        for (n, file) in self.output_file.iter().enumerate() {
            let is_duplicate = self.output_file[..n].iter().any(|other| other.path == file.path);
            if is_duplicate {
                return Err(Failure::usage(anyhow!("--output-file: {} is given twice", file.path.display())));
            }
            reserve(&file.path).map_err(Failure::usage)?;
        }
        Ok(())
    }

    /// Writes all files. Each is first written completely to a temporary file in the same directory and then renamed,
    /// so readers see either the old or the new report. If one cannot be written, none is replaced.
    ///
    /// # Errors
    /// Names the file and the reason why it could not be written.
    pub fn write(&self, report: &Report) -> Result<()> {
        let mut written = Vec::new();
        for file in &self.output_file {
            let text = report::render(report, file.format, terminal::width())?;
            let text = anstream::adapter::strip_str(&text).to_string();
            written.push(Written::new(&file.path, &text)?);
        }
        let mut moved = Vec::new();
        for file in written {
            match file.persist() {
                Ok(rollback) => moved.push(rollback),
                Err(error) => {
                    moved.into_iter().rev().for_each(Rollback::run);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// A complete report in a temporary file next to its destination.
struct Written {
    /// `None` if the destination is not a regular file, such as a pipe: then it is written directly.
    file: Option<NamedTempFile>,
    text: String,
    path: PathBuf,
}

impl Written {
    fn new(path: &Path, text: &str) -> Result<Written> {
        let mut file = reserve(path)?;
        if let Some(file) = &mut file {
            file.write_all(text.as_bytes())
                .and_then(|()| file.as_file().sync_all())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(Written { file, text: text.to_string(), path: path.to_path_buf() })
    }

    fn persist(self) -> Result<Rollback> {
        let writing = || format!("writing {}", self.path.display());
        let Some(file) = self.file else {
            let mut out = OpenOptions::new().append(true).open(&self.path).with_context(writing)?;
            out.write_all(self.text.as_bytes()).with_context(writing)?;
            return Ok(Rollback { path: self.path.clone(), before: Before::NoFile });
        };
        let place = real(&self.path);
        let before = match keep(&place).with_context(writing)? {
            Some(kept) => Before::Kept(kept),
            None => Before::Nothing,
        };
        file.persist(&place).map_err(|error| error.error).with_context(writing)?;
        Ok(Rollback { path: place, before })
    }
}

/// Undoes a rename.
struct Rollback {
    path: PathBuf,
    before: Before,
}

enum Before {
    Nothing,
    Kept(TempPath),
    /// Output to a pipe cannot be undone.
    NoFile,
}

impl Rollback {
    fn run(self) {
        // An error is already being reported; a second one would only hide it.
        let _ = match self.before {
            Before::Nothing => fs::remove_file(&self.path),
            Before::Kept(kept) => kept.persist(&self.path).map_err(|error| error.error),
            Before::NoFile => Ok(()),
        };
    }
}

/// Keeps the current file under a second name until all files are written.
fn keep(place: &Path) -> io::Result<Option<TempPath>> {
    if !place.exists() {
        return Ok(None);
    }
    let kept = tempfile::Builder::new().prefix(".kubectl-gpt-").make_in(whole_file::folder(place), |name| {
        fs::hard_link(place, name).or_else(|_| fs::copy(place, name).map(drop))
    })?;
    Ok(Some(kept.into_temp_path()))
}

/// An empty temporary file next to the destination, with the permissions of the report; `None` if the destination is
/// not a regular file.
fn reserve(path: &Path) -> Result<Option<NamedTempFile>> {
    let place = real(path);
    let metadata = fs::metadata(&place).ok();
    if path.as_os_str().to_string_lossy().ends_with(std::path::MAIN_SEPARATOR)
        || metadata.as_ref().is_some_and(fs::Metadata::is_dir)
    {
        bail!("writing {}: is a directory, expected a file", path.display());
    }
    // `/dev/stdout` may be a regular file, but must not be replaced.
    if path.starts_with("/dev") || metadata.as_ref().is_some_and(|metadata| !metadata.is_file()) {
        return Ok(None);
    }
    if let Some(metadata) = &metadata
        && metadata.permissions().readonly()
    {
        bail!("writing {}: file is read-only", path.display());
    }
    let file = whole_file::beside(&place, Readers::Everybody).with_context(|| {
        let folder = whole_file::folder(&place).display();
        format!("writing {}: cannot create a file in directory {folder}", path.display())
    })?;
    if let Some(metadata) = metadata {
        file.as_file()
            .set_permissions(metadata.permissions())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(Some(file))
}

/// Resolves symbolic links: their target is replaced, not the link.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}
