//! Files that are written whole or not at all: made complete beside their place, then moved there.

use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Who may read a file that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// As for any other new file: whom the umask lets.
    Everybody,
    Owner,
}

/// An empty file in the folder of a place. It goes away again unless it is moved there.
///
/// # Errors
/// When no file can be made in that folder.
pub fn beside(place: &Path, readers: Readers) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kubectl-gpt-");
    // Without permissions of its own a temporary file is for its owner only.
    #[cfg(unix)]
    if readers == Readers::Everybody {
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    }
    #[cfg(not(unix))]
    let _ = readers;
    builder.tempfile_in(folder(place))
}

/// Writes a file in one step: nobody reads half of it.
///
/// # Errors
/// When the file cannot be made, filled or moved to its place; what stood there stays.
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

/// The folder that a place is in.
pub fn folder(place: &Path) -> &Path {
    place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use super::{Readers, write};

    #[test]
    fn what_fails_half_way_leaves_what_was_there() {
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
    fn an_owners_file_is_for_nobody_else() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("snapshot");
        write::<io::Error>(&place, Readers::Owner, |_| Ok(())).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
