//! Output to a terminal: escapes untrusted text from a cluster, and determines width, colors and encoding.

use clap::ValueEnum;
use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use kubectl_gpt_analyzers::text::safe;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// The output width: the terminal's, else `COLUMNS`, else 80.
pub fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let width = if io::stdout().is_terminal() { terminal.or(columns) } else { columns };
    width.unwrap_or(80).clamp(40, 200)
}

/// Whether standard output is a terminal.
pub fn is_read_there() -> bool {
    io::stdout().is_terminal()
}

/// A tick and a cross, in ASCII if the locale is not UTF-8.
pub fn marks() -> (&'static str, &'static str) {
    if is_unicode() { ("✓", "✗") } else { ("+", "x") }
}

/// Replaces characters that the locale cannot show. The ellipsis is the only non-ASCII character in the program's own
/// text.
pub fn spelled(text: &str) -> String {
    if is_unicode() { text.to_string() } else { text.replace('…', "...") }
}

fn is_unicode() -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    locale.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// Logs what the client does to standard error, like kubectl's `-v`.
pub fn verbosity(level: u8) {
    let filter = match level {
        0 => return,
        1..=3 => "warn",
        4..=5 => "info",
        6..=7 => "info,kube_client=debug,kubectl_gpt=debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::new(filter);
    // Only one subscriber can be installed per process; a second call keeps the first one.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init();
}

/// Text that somebody else wrote, harmless on a terminal and as one line.
pub fn plain(text: &str) -> String {
    safe(text).into_owned()
}

/// Applies [`plain`] to each line of a text.
pub fn plain_lines(text: &str) -> String {
    text.lines().fold(String::new(), |lines, line| lines + &plain(line) + "\n")
}

/// Writes a report to standard output, with or without colors. A closed pipe (`| head`) is not an error.
///
/// # Errors
/// When standard output cannot be written for another reason, such as a full disk.
pub fn write(text: &str, color: Color) -> io::Result<()> {
    write_while_read(text, color).map(drop)
}

/// Like [`write`], but returns whether standard output is still open.
///
/// # Errors
/// When standard output cannot be written for another reason than a closed pipe.
pub fn write_while_read(text: &str, color: Color) -> io::Result<bool> {
    let stdout = io::stdout().lock();
    let choice = match color {
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
        Color::Auto => AutoStream::choice(&stdout),
    };
    let mut out = AutoStream::new(stdout, choice);
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}
