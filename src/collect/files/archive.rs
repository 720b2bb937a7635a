//! Archives (tar) from untrusted sources. Nothing is extracted to disk, and sizes stated in an archive do not determine
//! memory or time.

use std::io::{self, Read};
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};

use super::decompressed::{Decompressed, MAX_BYTES};
use super::tree::{LOG_END, MAX_DEPTH, Tree, end_of, is_log, is_read};

/// Maximum size of one file in an archive.
const MAX_ENTRY_BYTES: u64 = 1 << 30;
/// Maximum uncompressed size of an archive, including skipped files: disk images, audit logs.
const MAX_ARCHIVE_BYTES: u64 = 16 << 30;
/// Maximum number of entries in an archive.
const MAX_ENTRIES: usize = 200_000;
/// Maximum size of metadata between two files of an archive: headers, long names.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// The detected content.
#[derive(Debug)]
pub(super) enum Unpacked {
    Text(Vec<u8>),
    Archive(Tree),
}

/// Reads a file, decompressing gzip and zstd; an archive (tar) is read into memory.
///
/// # Errors
/// When the file cannot be read or decompressed, exceeds the limits, or is a malicious archive.
pub(super) fn unpack(source: &mut dyn Read, name: &str) -> Result<Unpacked> {
    let mut file = Decompressed::open(source)?;
    if file.is_tar(name)? {
        return Ok(Unpacked::Archive(read_tar(file, name)?));
    }
    Ok(Unpacked::Text(file.whole()?))
}

fn read_tar(mut file: Decompressed, name: &str) -> Result<Tree> {
    file.allow_repetition();
    let left = file.left();
    let mut tree = Tree::new(name);
    let (mut entries, mut kept, mut unpacked) = (0, 0u64, 0u64);
    let mut archive = tar::Archive::new(file);
    let mut files = archive.entries()?;
    loop {
        left.set(MAX_HEADER_BYTES);
        let Some(entry) = files.next() else { break };
        let mut entry = entry.context("archive is corrupted")?;
        entries += 1;
        if entries > MAX_ENTRIES {
            bail!("archive has more than {MAX_ENTRIES} entries, more than any recorded cluster");
        }
        let path = entry_path(&entry.path_bytes())?;
        let size = entry.size();
        if size > MAX_ENTRY_BYTES {
            bail!("{path} in the archive is larger than {} MiB", MAX_ENTRY_BYTES >> 20);
        }
        unpacked += size;
        if unpacked > MAX_ARCHIVE_BYTES {
            bail!("archive is larger than {} GiB uncompressed", MAX_ARCHIVE_BYTES >> 30);
        }
        left.set(size + MAX_HEADER_BYTES);
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            tree.links += 1;
        }
        if !kind.is_file() || !is_read(&path) {
            io::copy(&mut entry, &mut io::sink()).context("archive is corrupted")?;
            continue;
        }
        let reading = || format!("reading {path} in the archive");
        let bytes = if is_log(&path) { end_of(&mut entry, LOG_END) } else { whole(&mut entry) };
        let bytes = bytes.with_context(reading)?;
        kept += bytes.len() as u64;
        if kept > MAX_BYTES {
            bail!("archive contains more than {} MiB of objects and logs", MAX_BYTES >> 20);
        }
        tree.add(path, bytes);
    }
    Ok(tree)
}

/// The path of an entry, relative and without `.`; a path outside the archive is an error.
fn entry_path(bytes: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(bytes).replace('\\', "/");
    let mut parts = Vec::new();
    for part in Path::new(&text).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().to_string()),
            Component::CurDir => {}
            _ => {
                bail!("archive entry {text:?} points outside the archive; the archive may be malicious")
            }
        }
    }
    if parts.len() > MAX_DEPTH {
        bail!("archive has directories nested more than {MAX_DEPTH} levels deep");
    }
    Ok(parts.join("/"))
}

/// Reads the whole entry without decompressing it: bundles may contain gzipped logs and lists.
fn whole(entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::{Unpacked, entry_path, unpack};

    /// An archive with arbitrary entry names, which the library's own writer rejects.
    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, data) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    #[track_caller]
    fn refused(bytes: &[u8], because: &str) {
        let error = format!("{:#}", unpack(&mut &bytes[..], "a.tar").unwrap_err());
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn entries_outside_the_archive() {
        for path in ["../x.json", "a/../../x.json", "/etc/x.json", "..\\x.json"] {
            refused(&archive(&[(path, tar::EntryType::Regular, b"{}")]), "points outside the archive");
        }
        assert_eq!(entry_path(b"./a/./b.json").unwrap(), "a/b.json");
    }

    #[test]
    fn links_and_devices_are_skipped() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "nodes.json", "/etc/passwd").unwrap();
        header.set_entry_type(tar::EntryType::Link);
        builder.append_link(&mut header, "pods.json", "/etc/passwd").unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        bytes.extend(archive(&[("null.json", tar::EntryType::Char, b""), ("a.json", tar::EntryType::Regular, b"{}")]));
        let Unpacked::Archive(tree) = unpack(&mut &gzip(&bytes)[..], "x").unwrap() else { panic!("no archive") };
        assert_eq!(tree.links, 2);
        assert_eq!(tree.paths().collect::<Vec<_>>(), ["a.json"]);
    }

    #[test]
    fn archives_beyond_the_size_limits() {
        // A header that states a size beyond the limit.
        let mut header = tar::Header::new_gnu();
        header.set_path("a.json").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        refused(header.as_bytes(), "larger than 1024 MiB");
        // A long name of several megabytes.
        let name = vec![b'a'; 8 << 20];
        refused(&archive(&[("x", tar::EntryType::GNULongName, &name)]), "larger than");
        let zeros = vec![0; 80 << 20];
        refused(&gzip(&archive(&[("a.json", tar::EntryType::Regular, &zeros)])), "larger than");
        let packed = zstd::encode_all(&archive(&[("a.json", tar::EntryType::Regular, &zeros)])[..], 1).unwrap();
        refused(&packed, "larger than");
    }

    #[test]
    fn archives_beyond_the_depth_limit() {
        let path = "a/".repeat(40) + "x.json";
        refused(&archive(&[(&path, tar::EntryType::Regular, b"{}")]), "nested more than");
    }

    #[test]
    fn truncated_archives() {
        let whole = gzip(&archive(&[("a.json", tar::EntryType::Regular, &[b'x'; 5000])]));
        refused(&whole[..whole.len() / 2], "");
    }

    #[test]
    fn archives_beyond_the_entry_limit() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_path("a/").unwrap();
        header.set_size(0);
        header.set_cksum();
        let mut endless = Endless { block: *header.as_bytes(), at: 0 };
        let error = format!("{:#}", unpack(&mut endless, "a.tar").unwrap_err());
        assert!(error.contains("more than 200000 entries"), "{error}");
    }

    /// Repeats the same block endlessly.
    struct Endless {
        block: [u8; 512],
        at: usize,
    }

    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            for byte in buffer.iter_mut() {
                *byte = self.block[self.at % 512];
                self.at += 1;
            }
            Ok(buffer.len())
        }
    }
}
