//! Atomic file writes: the content goes to a temporary file in the same directory, which is then renamed.

use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Everyone, subject to the umask.
    Everybody,
    Owner,
}

/// An empty temporary file in the directory of `place`. It is deleted unless it is persisted.
///
/// # Errors
/// When the directory is not writable.
pub fn beside(place: &Path, readers: Readers) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kubectl-gpt-");
    // Temporary files are readable only by their owner by default.
    #[cfg(unix)]
    if readers == Readers::Everybody {
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    }
    #[cfg(not(unix))]
    let _ = readers;
    builder.tempfile_in(folder(place))
}

/// Writes a file atomically: readers never see a partial file.
///
/// # Errors
/// When the file cannot be created, written or renamed; an existing file is kept.
pub fn write<E: From<io::Error>>(
    place: &Path,
    readers: Readers,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = beside(place, readers)?;
    let mut buffered = io::BufWriter::new(&mut file);
    fill(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().sync_all()?;
    file.persist(place).map_err(|error| error.error)?;
    Ok(())
}

/// The directory that contains `place`.
pub fn folder(place: &Path) -> &Path {
    place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use super::{Readers, write};

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("report");
        write::<io::Error>(&place, Readers::Everybody, |out| out.write_all(b"old")).unwrap();
        let cut = write(&place, Readers::Everybody, |out| {
            out.write_all(b"ne")?;
            Err(io::Error::other("cut"))
        });
        assert_eq!(cut.unwrap_err().to_string(), "cut");
        assert_eq!(fs::read_to_string(&place).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn owner_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("snapshot");
        write::<io::Error>(&place, Readers::Owner, |_| Ok(())).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
