//! Output to a terminal: escapes untrusted text from a cluster, and determines width, colors and encoding.

use clap::ValueEnum;
use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};

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

/// Escapes untrusted text: control characters, escape sequences and the invisible characters that reorder or hide text
/// are shown as `\u{…}`, line breaks and tabs as spaces.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => plain.push(' '),
            _ if c.is_control() || is_invisible(c) => plain.extend(c.escape_unicode()),
            _ => plain.push(c),
        }
    }
    plain
}

/// Applies [`plain`] to each line of a text.
pub fn plain_lines(text: &str) -> String {
    text.lines().fold(String::new(), |lines, line| lines + &plain(line) + "\n")
}

/// Invisible characters that change how the surrounding text is displayed (Unicode UAX #9, "Trojan Source").
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
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

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(plain("a\u{1b}[31mred\u{7}\nb"), "a\\u{1b}[31mred\\u{7} b");
        assert_eq!(plain("\u{202e}gpj.exe \u{9b}2J"), "\\u{202e}gpj.exe \\u{9b}2J");
        assert_eq!(plain("größe 東京"), "größe 東京");
    }
}
