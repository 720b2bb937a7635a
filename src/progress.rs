//! Progress of reading, as one transient line on standard error; shows nothing if that is not a terminal.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use kubectl_gpt_analyzers::Kind;
use kubectl_gpt_analyzers::text::words;

use crate::collect::Progress;

/// The progress line; dropping it clears the line.
#[derive(Debug)]
pub struct ProgressLine {
    bar: ProgressBar,
    objects: Mutex<BTreeMap<Kind, usize>>,
}

impl ProgressLine {
    /// Creates the line; `quiet` disables it, for example when `-v` logs to the same terminal.
    pub fn new(quiet: bool) -> ProgressLine {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if !bar.is_hidden() {
            // Falls back to the default template.
            let style =
                ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            bar.set_style(style.tick_chars("|/-\\ "));
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        ProgressLine { bar, objects: Mutex::default() }
    }

    /// Shows the current step.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_string());
    }

    /// Shows how many kinds and objects have been read.
    pub fn tell(&self, progress: Progress) {
        let Ok(mut objects) = self.objects.lock() else { return };
        objects.insert(progress.kind, progress.objects);
        self.say(&text(progress, objects.values().sum()));
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn text(progress: Progress, objects: usize) -> String {
    let Progress { kind, kinds_done, kinds, .. } = progress;
    format!("reading: {kinds_done} of {kinds} kinds, {}, {}", words::count(objects, "object"), kind.api().plural)
}

#[cfg(test)]
mod tests {
    use kubectl_gpt_analyzers::Kind;

    use super::{ProgressLine, text};
    use crate::collect::Progress;

    #[test]
    fn shows_kinds_and_total_objects() {
        let progress = Progress { kind: Kind::Pod, objects: 500, kinds_done: 3, kinds: 62 };
        assert_eq!(text(progress, 1200), "reading: 3 of 62 kinds, 1200 objects, pods");
        let line = ProgressLine::new(true);
        line.tell(progress);
        line.tell(Progress { objects: 1000, ..progress });
        line.tell(Progress { kind: Kind::Service, objects: 7, ..progress });
        assert_eq!(line.bar.message(), "reading: 3 of 62 kinds, 1007 objects, services");
    }
}
