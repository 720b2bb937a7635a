//! The run time of the rules on a large generated cluster: `cargo bench --bench rules -- PODS BROKEN`.
//!
//! One of every BROKEN applications crashes. Prints the time of each step, of all rules together and of the slowest
//! rules.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "measures and reads files")]

use std::time::{Duration, Instant};

use generated::World;
use kubectl_gpt_analyzers::{Cluster, Profile, analyze, rules};

mod generated;

/// Faster rules are not listed.
const SLOW: Duration = Duration::from_millis(2);

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let pods = numbers.first().copied().unwrap_or(100_000);
    let broken_every = numbers.get(1).copied().unwrap_or(0);
    let (mut builder, mut decoding, mut bytes) = (generated::builder(), Duration::ZERO, 0);
    World { pods, broken_every }.each_page(&mut |kind, body| {
        let start = Instant::now();
        let page = generated::decode(kind, &body);
        decoding += start.elapsed();
        bytes += body.len();
        builder.add(page.batch);
    });
    println!("{decoding:>9.1?}  decoding {} MB", bytes / 1_000_000);
    let start = Instant::now();
    let cluster = generated::build(builder);
    println!("{:>9.1?}  sorting and indexes", start.elapsed());
    report(&cluster);
    if let Some(peak) = peak_memory() {
        println!("peak memory {peak}");
    }
}

fn report(cluster: &Cluster) {
    let rules = rules::of(Profile::Default);
    // Run all rules first: the first run builds shared indexes.
    let start = Instant::now();
    let analysis = analyze(cluster, &rules);
    let together = start.elapsed();
    let mut times: Vec<(Duration, &str)> = Vec::new();
    for rule in &rules {
        let start = Instant::now();
        analyze(cluster, &[*rule]);
        times.push((start.elapsed(), &rule.meta().id));
    }
    times.sort_by(|a, b| b.cmp(a));
    println!("{together:>9.1?}  all rules and causes: {} findings", analysis.findings.len());
    println!("{:>9.1?}  sum of the rules one by one", times.iter().map(|(time, _)| *time).sum::<Duration>());
    for (time, rule) in times.iter().filter(|(time, _)| *time >= SLOW) {
        println!("{time:>9.1?}    {rule}");
    }
    let mut found = std::collections::BTreeMap::<&str, usize>::new();
    analysis.findings.iter().for_each(|finding| *found.entry(&finding.rule).or_default() += 1);
    println!("findings by rule: {found:?}");
}

/// `VmHWM` from /proc (Linux).
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_string())
}
