//! `kubectl-gpt snapshot -o FILE`: records everything that `analyze` reads.

use std::collections::BTreeSet;

use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::{Cluster, Kind, Reason, rules};

use crate::cli::SnapshotArgs;
use crate::collect::Recorder;
use crate::collect::files::snapshot;
use crate::exit::{Exit, Failure};
use crate::load::{Wanted, load};
use crate::terminal::plain;

pub fn run(arguments: &SnapshotArgs) -> Result<Exit, Failure> {
    let recorder = Recorder::redacting();
    let wanted = Wanted {
        kinds: kinds(),
        custom: true,
        logs: !arguments.no_logs,
        recorder: Some(recorder.clone()),
        ..Wanted::default()
    };
    let loaded = load(&arguments.connection, &arguments.input(), &wanted)?;
    let (cluster, notes) = (&loaded.cluster, &loaded.source.notes);
    snapshot::write_file(&arguments.output, cluster, &recorder.take(), &loaded.places, notes)
        .map_err(Failure::unreadable)?;
    eprintln!("{}", plain(&summary(arguments, cluster)));
    for note in notes {
        eprintln!("note: {}", plain(note));
    }
    Ok(Exit::Clean)
}

/// The kinds that all rules read, selected or not.
fn kinds() -> BTreeSet<Kind> {
    rules::all().iter().flat_map(|rule| rule.meta().reads()).collect()
}

/// `monday.tar.zst: 253 objects, 3 logs; not read: Node (forbidden)`.
fn summary(arguments: &SnapshotArgs, cluster: &Cluster) -> String {
    let objects = words::count(cluster.objects().len(), "object");
    let logs = words::count(cluster.logs().len(), "log");
    let coverage = cluster.coverage();
    let known = Kind::ALL.iter().filter_map(|kind| Some((kind.to_string(), coverage.gap(*kind)?)));
    let custom = coverage.custom().iter().filter_map(|(kind, extent)| Some((kind.to_string(), extent.gap()?)));
    let gaps = known.chain(custom).filter(|(_, gap)| gap.reason != Reason::NotInInput);
    let gaps: Vec<String> = gaps.map(|(kind, gap)| format!("{kind} ({})", gap.reason)).collect();
    let unread = if gaps.is_empty() { String::new() } else { format!("; not read: {}", words::list(&gaps, 5)) };
    format!("{}: {objects}, {logs}{unread}", arguments.output.display())
}
