//! Decompresses files (gzip, zstd) from untrusted sources. Sizes stated in a file do not determine memory or time.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use anyhow::{Result, anyhow};
use flate2::bufread::MultiGzDecoder;

/// Maximum uncompressed size of a file, or of all files read from an archive, in bytes.
pub(super) const MAX_BYTES: u64 = 2 << 30;
/// A stream that expands by more than this factor, beyond [`BOMB_FROM`] bytes, is a decompression bomb: JSON of
/// Kubernetes objects compresses ten to forty times. Archives may contain many nearly identical files.
const BOMB_RATIO: u64 = 200;
const ARCHIVE_BOMB_RATIO: u64 = 500;
const BOMB_FROM: u64 = 64 << 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A file that is decompressed while it is read; reading fails when it exceeds a limit.
pub(super) struct Decompressed<'a> {
    stream: BufReader<Limited<'a>>,
    is_packed: bool,
}

impl<'a> Decompressed<'a> {
    /// Detects the compression by the magic bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(source: &'a mut dyn Read) -> Result<Decompressed<'a>> {
        let packed = Rc::new(Cell::new(0));
        let mut source = BufReader::with_capacity(64 << 10, Counted { source, count: Rc::clone(&packed) });
        let head = source.fill_buf()?;
        let (is_gzip, is_zstd) = (head.starts_with(&GZIP), head.starts_with(&ZSTD));
        let is_packed = is_gzip || is_zstd;
        let stream: Box<dyn Read + 'a> = if is_gzip {
            Box::new(MultiGzDecoder::new(source))
        } else if is_zstd {
            Box::new(zstd::stream::read::Decoder::with_buffer(source)?)
        } else {
            Box::new(source)
        };
        let left = Rc::new(Cell::new(MAX_BYTES));
        let limits = Limits { packed: is_packed.then_some(packed), ratio: BOMB_RATIO, left };
        let stream = BufReader::with_capacity(64 << 10, Limited { stream, unpacked: 0, limits });
        Ok(Decompressed { stream, is_packed })
    }

    /// Whether it is an archive: checks the magic bytes of POSIX and GNU archives, and the name because older formats
    /// have none.
    ///
    /// # Errors
    /// When the file cannot be read or decompressed.
    pub fn is_tar(&mut self, name: &str) -> Result<bool> {
        let is_packed = self.is_packed;
        let head = self.stream.fill_buf().map_err(|error| described(error, is_packed))?;
        let name = name.to_lowercase();
        let named = [".tar", ".tgz", ".tar.gz", ".tar.zst", ".tzst"].iter().any(|ending| name.ends_with(ending));
        Ok(head.get(257..262) == Some(b"ustar") || (named && head.len() >= 512))
    }

    /// Raises the limit of the compression ratio to that of archives.
    pub fn allow_repetition(&mut self) {
        self.stream.get_mut().limits.ratio = ARCHIVE_BOMB_RATIO;
    }

    /// How many more bytes may be read, initially [`MAX_BYTES`]. A reader of parts sets it for each part.
    pub fn left(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.stream.get_ref().limits.left)
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// When the file cannot be read or decompressed, or exceeds the limits.
    pub fn whole(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).map_err(|error| described(error, self.is_packed))?;
        Ok(bytes)
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

fn described(error: io::Error, is_packed: bool) -> anyhow::Error {
    let is_too_large = error.get_ref().is_some_and(|inner| inner.is::<TooLarge>());
    if is_packed && !is_too_large { anyhow!(error).context("decompressing") } else { anyhow!(error) }
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
