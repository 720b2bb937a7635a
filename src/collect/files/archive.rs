//! Compressed files and archives (gzip, zstd, tar) from untrusted sources. Nothing is extracted to disk, and sizes
//! stated in a file do not determine memory or time.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path};
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};
use flate2::bufread::MultiGzDecoder;

use super::tree::{DEEPEST, Tree, is_log, is_read};

/// Maximum uncompressed size of a file, or of all files read from an archive, in bytes.
pub(super) const MAX_BYTES: u64 = 2 << 30;
/// Maximum size of one file in an archive.
const MAX_ENTRY_BYTES: u64 = 1 << 30;
/// Maximum uncompressed size of an archive, including skipped files: disk images, audit logs.
const MAX_ARCHIVE_BYTES: u64 = 16 << 30;
/// Maximum number of entries in an archive.
const MAX_ENTRIES: usize = 200_000;
/// Maximum size of metadata between two files of an archive: headers, long names.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// How much of the end of a log is kept.
pub(super) const LOG_END: usize = 1 << 20;
/// A stream that expands by more than this factor, beyond [`BOMB_FROM`] bytes, is a decompression bomb: JSON of
/// Kubernetes objects compresses ten to forty times. Archives may contain many nearly identical files.
const BOMB_RATIO: u64 = 200;
const ARCHIVE_BOMB_RATIO: u64 = 500;
const BOMB_FROM: u64 = 64 << 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

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
    let packed = Rc::new(Cell::new(0));
    let mut source = BufReader::with_capacity(64 << 10, Counted { source, count: Rc::clone(&packed) });
    let head = source.fill_buf()?;
    let (is_gzip, is_zstd) = (head.starts_with(&GZIP), head.starts_with(&ZSTD));
    let is_packed = is_gzip || is_zstd;
    let stream: Box<dyn Read + '_> = if is_gzip {
        Box::new(MultiGzDecoder::new(source))
    } else if is_zstd {
        Box::new(zstd::stream::read::Decoder::with_buffer(source)?)
    } else {
        Box::new(source)
    };
    let left = Rc::new(Cell::new(MAX_BYTES));
    let limits = Limits { packed: is_packed.then_some(packed), ratio: BOMB_RATIO, left: Rc::clone(&left) };
    let mut stream = BufReader::with_capacity(64 << 10, Limited { stream, unpacked: 0, limits });
    let described = |error: io::Error| match (error.get_ref().is_some_and(|inner| inner.is::<TooLarge>()), is_packed) {
        (false, true) => anyhow!(error).context("decompressing"),
        _ => anyhow!(error),
    };
    if is_tar(stream.fill_buf().map_err(described)?, name) {
        stream.get_mut().limits.ratio = ARCHIVE_BOMB_RATIO;
        return Ok(Unpacked::Archive(read_tar(stream, &left, name)?));
    }
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(described)?;
    Ok(Unpacked::Text(bytes))
}

/// Checks the magic bytes of POSIX and GNU archives; older formats have none.
fn is_tar(head: &[u8], name: &str) -> bool {
    let name = name.to_lowercase();
    let named = [".tar", ".tgz", ".tar.gz", ".tar.zst", ".tzst"].iter().any(|ending| name.ends_with(ending));
    head.get(257..262) == Some(b"ustar") || (named && head.len() >= 512)
}

fn read_tar(stream: impl Read, left: &Rc<Cell<u64>>, name: &str) -> Result<Tree> {
    let mut tree = Tree::new(name);
    let (mut entries, mut kept, mut unpacked) = (0, 0u64, 0u64);
    let mut archive = tar::Archive::new(stream);
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
    if parts.len() > DEEPEST {
        bail!("archive has directories nested more than {DEEPEST} levels deep");
    }
    Ok(parts.join("/"))
}

/// Reads the whole entry without decompressing it: bundles may contain gzipped logs and lists.
fn whole(entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
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

/// Counts the bytes read from the compressed stream.
struct Counted<'a> {
    source: &'a mut dyn Read,
    count: Rc<Cell<u64>>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

struct Limits {
    /// The number of bytes read from the compressed stream; `None` if it is not compressed.
    packed: Option<Rc<Cell<u64>>>,
    ratio: u64,
    /// How much more may be read.
    left: Rc<Cell<u64>>,
}

/// The decompressed stream, which fails when it exceeds a limit.
struct Limited<'a> {
    stream: Box<dyn Read + 'a>,
    unpacked: u64,
    limits: Limits,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buffer)?;
        self.unpacked += n as u64;
        let Limits { packed, ratio, left } = &self.limits;
        if let Some(packed) = packed {
            let max = packed.get().saturating_mul(*ratio).max(BOMB_FROM);
            if self.unpacked > max {
                return Err(io::Error::other(TooLarge(max)));
            }
        }
        match left.get().checked_sub(n as u64) {
            Some(rest) => left.set(rest),
            None => return Err(io::Error::other(TooLarge(self.unpacked))),
        }
        Ok(n)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("file is larger than {} MiB, more than any recorded cluster", .0 >> 20)]
struct TooLarge(u64);

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
