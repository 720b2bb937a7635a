//! Caches answers on disk, readable only by the user.
//!
//! The key is a hash of the whole request: endpoint, model, prompt and masked content. The cached answer still contains
//! placeholders.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};

use crate::whole_file::{self, Readers};

/// Older answers are requested again.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A directory with one file per answer.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The user's cache directory; `None` if there is none, for example in a container without a home directory.
    pub fn of_user() -> Option<Cache> {
        let base = etcetera::choose_base_strategy().ok()?;
        Some(Cache { folder: base.cache_dir().join("kubectl-gpt").join("explanations") })
    }

    fn path(&self, url: &str, request: &str) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(concat!(env!("CARGO_PKG_VERSION"), "\0"));
        hash.update(url);
        hash.update("\0");
        hash.update(request);
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{digits}.txt"))
    }

    /// The cached answer to the same request, unless it has expired.
    pub fn get(&self, url: &str, request: &str, now: SystemTime) -> Option<String> {
        let path = self.path(url, request);
        let written = fs::metadata(&path).ok()?.modified().ok()?;
        if now.duration_since(written).unwrap_or_default() > MAX_AGE {
            let _ = fs::remove_file(&path);
            return None;
        }
        fs::read_to_string(path).ok().filter(|answer| !answer.is_empty())
    }

    /// Stores an answer, readable only by the user. Replaces an older one atomically.
    ///
    /// # Errors
    /// When the directory cannot be written; the answer itself is not affected.
    pub fn put(&self, url: &str, request: &str, answer: &str) -> io::Result<()> {
        make_private(&self.folder)?;
        whole_file::write(&self.path(url, request), Readers::Owner, |file| file.write_all(answer.as_bytes()))
    }

    /// Removes all answers; returns their number.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&self) -> io::Result<usize> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut removed = 0;
        for entry in entries {
            fs::remove_file(entry?.path())?;
            removed += 1;
        }
        Ok(removed)
    }
}

#[cfg(unix)]
fn make_private(folder: &PathBuf) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_private(folder: &PathBuf) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{Cache, MAX_AGE};

    #[test]
    fn answers_expire_and_belong_to_one_request() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().join("kubectl-gpt") };
        let now = SystemTime::now();
        assert_eq!(cache.get("u", "a", now), None);
        cache.put("u", "a", "answer").unwrap();
        assert_eq!(cache.get("u", "a", now).as_deref(), Some("answer"));
        assert_eq!(cache.get("u", "b", now), None);
        assert_eq!(cache.get("other", "a", now), None);
        assert_eq!(cache.get("u", "a", now + MAX_AGE + Duration::from_secs(60)), None);
        assert_eq!(cache.get("u", "a", now), None, "an expired answer is removed");
        cache.put("u", "a", "answer").unwrap();
        assert_eq!(cache.clear().unwrap(), 1);
        assert_eq!(cache.clear().unwrap(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().join("kubectl-gpt") };
        cache.put("u", "a", "answer").unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.folder), 0o700);
        assert_eq!(mode(&cache.path("u", "a")), 0o600);
    }
}
