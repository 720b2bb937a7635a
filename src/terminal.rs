//! Text from a cluster on a terminal: harmless, and as wide as there is room.

use std::io::{self, IsTerminal, Write};

use crate::cli::Color;
use anstream::{AutoStream, ColorChoice};

/// The width to write for: the terminal's, else `COLUMNS`, else 80.
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

/// A tick and a cross, in ASCII where the locale knows no more.
pub fn marks() -> (&'static str, &'static str) {
    if is_unicode() { ("✓", "✗") } else { ("+", "x") }
}

/// Text for people in the letters of their locale: of ours the ellipsis is the only one beyond ASCII.
pub fn spelled(text: &str) -> String {
    if is_unicode() { text.to_string() } else { text.replace('…', "...") }
}

fn is_unicode() -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    locale.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// Tells on standard error what the client does: kubectl's `-v`.
pub fn verbosity(level: u8) {
    let filter = match level {
        0 => return,
        1..=3 => "warn",
        4..=5 => "info",
        6..=7 => "info,kube_client=debug,kubectl_gpt=debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::new(filter);
    // A second subscriber in one process would be refused; the first one goes on.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init();
}

/// Makes text that somebody else wrote harmless: no control character, no escape sequence and none of the invisible
/// characters that reorder or hide text reaches the terminal; each is shown as `\u{…}`, line breaks and tabs as spaces.
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

/// [`plain`], but of a text of several lines that are ours.
pub fn plain_lines(text: &str) -> String {
    text.lines().fold(String::new(), |lines, line| lines + &plain(line) + "\n")
}

/// Characters that show nothing but change how the text around them is shown (Unicode UAX #9, "Trojan Source").
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Writes a report to standard output, with its colors or without. A reader that has gone (`| head`) is no error.
///
/// # Errors
/// When standard output cannot be written for another reason, such as a full disk.
pub fn write(text: &str, color: Color) -> io::Result<()> {
    write_while_read(text, color).map(drop)
}

/// Writes to standard output as [`write`] does, and says whether anybody still reads it.
///
/// # Errors
/// When standard output cannot be written for another reason than that its reader has gone.
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
    fn escapes_are_made_harmless() {
        assert_eq!(plain("a\u{1b}[31mred\u{7}\nb"), "a\\u{1b}[31mred\\u{7} b");
        assert_eq!(plain("\u{202e}gpj.exe \u{9b}2J"), "\\u{202e}gpj.exe \\u{9b}2J");
        assert_eq!(plain("größe 東京"), "größe 東京");
    }
}
