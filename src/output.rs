//! `--output-file FORMAT=PATH`: reports in files, several at once, whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use tempfile::{NamedTempFile, TempPath};

use crate::cli::Format;
use crate::exit::Failure;
use crate::report::{self, Report};
use crate::terminal;
use crate::whole_file::{self, Readers};

/// Where reports go besides standard output.
#[derive(Clone, Debug, Default, Args)]
pub struct OutputArgs {
    /// Also write a report to a file: a format as of --output, and a path (repeatable).
    #[arg(long, value_name = "FORMAT=PATH", value_parser = OutputFile::parse)]
    pub output_file: Vec<OutputFile>,
}

/// One report in a file.
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
            format!("there is no format {format:?}; expected one of {}", known.join(", "))
        })?;
        match path {
            "" => Err("the path is missing behind the =".to_string()),
            "-" => Err("a file is needed; what goes to standard output is said by --output".to_string()),
            path => Ok(OutputFile { format, path: PathBuf::from(path) }),
        }
    }
}

impl OutputArgs {
    /// Finds out before anything is read whether the files can be written, as far as that can be known.
    ///
    /// # Errors
    /// When a path is named twice, is a folder, or lies in a folder in which no file can be made.
    pub fn check(&self) -> Result<(), Failure> {
        for (n, file) in self.output_file.iter().enumerate() {
            let twice = self.output_file[..n].iter().any(|other| other.path == file.path);
            if twice {
                return Err(Failure::usage(anyhow!("--output-file names {} twice", file.path.display())));
            }
            reserve(&file.path).map_err(Failure::usage)?;
        }
        Ok(())
    }

    /// Writes all files. They are made complete beside their places first and then moved there: whoever reads one gets
    /// the old report or the new one, and where one cannot be written none is replaced.
    ///
    /// # Errors
    /// Names the file and what kept it from being written.
    pub fn write(&self, report: &Report) -> Result<()> {
        let mut written = Vec::new();
        for file in &self.output_file {
            let text = report::render(report, file.format, terminal::width())?;
            let text = anstream::adapter::strip_str(&text).to_string();
            written.push(Written::new(&file.path, &text)?);
        }
        let mut moved = Vec::new();
        for file in written {
            match file.move_to_its_place() {
                Ok(undo) => moved.push(undo),
                Err(error) => {
                    moved.into_iter().rev().for_each(Undo::run);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// A complete report beside its place.
struct Written {
    /// `None` for what is no regular file, such as a pipe: that is written directly.
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

    fn move_to_its_place(self) -> Result<Undo> {
        let writing = || format!("writing {}", self.path.display());
        let Some(file) = self.file else {
            let mut out = OpenOptions::new().append(true).open(&self.path).with_context(writing)?;
            out.write_all(self.text.as_bytes()).with_context(writing)?;
            return Ok(Undo { path: self.path.clone(), before: Before::NoFile });
        };
        let place = real(&self.path);
        let before = match keep(&place).with_context(writing)? {
            Some(kept) => Before::Kept(kept),
            None => Before::Nothing,
        };
        file.persist(&place).map_err(|error| error.error).with_context(writing)?;
        Ok(Undo { path: place, before })
    }
}

/// How to take a move back.
struct Undo {
    path: PathBuf,
    before: Before,
}

enum Before {
    Nothing,
    Kept(TempPath),
    /// What went into a pipe is gone.
    NoFile,
}

impl Undo {
    fn run(self) {
        // This happens on the way to an error that is told; a second one would only hide it.
        let _ = match self.before {
            Before::Nothing => fs::remove_file(&self.path),
            Before::Kept(kept) => kept.persist(&self.path).map_err(|error| error.error),
            Before::NoFile => Ok(()),
        };
    }
}

/// The file that stands at a place now under a second name, until it is known that all are written.
fn keep(place: &Path) -> io::Result<Option<TempPath>> {
    if !place.exists() {
        return Ok(None);
    }
    let kept = tempfile::Builder::new().prefix(".kubectl-gpt-").make_in(whole_file::folder(place), |name| {
        fs::hard_link(place, name).or_else(|_| fs::copy(place, name).map(drop))
    })?;
    Ok(Some(kept.into_temp_path()))
}

/// An empty file beside a place, with the rights that the report will have; `None` where the place is no regular file.
fn reserve(path: &Path) -> Result<Option<NamedTempFile>> {
    let place = real(path);
    let metadata = fs::metadata(&place).ok();
    if path.as_os_str().to_string_lossy().ends_with(std::path::MAIN_SEPARATOR)
        || metadata.as_ref().is_some_and(fs::Metadata::is_dir)
    {
        bail!("writing {}: it is a folder; expected the name of a file", path.display());
    }
    // `/dev/stdout` may be a regular file, and yet must not be replaced.
    if path.starts_with("/dev") || metadata.as_ref().is_some_and(|metadata| !metadata.is_file()) {
        return Ok(None);
    }
    if let Some(metadata) = &metadata
        && metadata.permissions().readonly()
    {
        bail!("writing {}: it may not be changed", path.display());
    }
    let file = whole_file::beside(&place, Readers::Everybody).with_context(|| {
        let folder = whole_file::folder(&place).display();
        format!("writing {}: no file can be made in the folder {folder}", path.display())
    })?;
    if let Some(metadata) = metadata {
        file.as_file()
            .set_permissions(metadata.permissions())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(Some(file))
}

/// Through symbolic links: what they point at is replaced, not they.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}
