//! Runs the default rules over recorded clusters (each a v1 List in JSON) and prints the findings.
//!
//! `cargo run -p kubectl-gpt-analyzers --example check -- cluster.json …`

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "an example for the terminal")]

use kubectl_gpt_analyzers::snapshot::decode::{Decoded, object};
use kubectl_gpt_analyzers::{Builder, Extent, Kind, Now, Origin, Profile, analyze, rules};

#[derive(serde::Deserialize)]
struct List {
    items: Vec<Box<serde_json::value::RawValue>>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in std::env::args().skip(1) {
        let list: List = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        let mut builder = Builder::new();
        for kind in Kind::ALL {
            builder.cover(*kind, Extent::Everything);
        }
        for item in list.items {
            match object(item.get()) {
                Ok(Decoded::Known(batch)) => builder.add(batch),
                Ok(Decoded::Custom(custom)) => builder.add_custom(*custom),
                Err(broken) => builder.add_broken(broken),
            }
        }
        let cluster = builder.build(Now::NewestInData, Origin::Cluster);
        let analysis = analyze(&cluster, &rules::of(Profile::Default));
        println!("## {file} at {}", cluster.now());
        for finding in &analysis.findings {
            println!("{} {} [{}] {}: {}", finding.id, finding.severity, finding.rule, finding.object, finding.message);
            if finding.pods > 0 {
                println!("    {} pods, since {:?}", finding.pods, finding.since);
            }
            for evidence in &finding.evidence {
                println!("    - {} ({:?})", evidence.text, evidence.path);
            }
            for fix in &finding.fix {
                println!("    > {} {}", fix.text, fix.command.as_deref().unwrap_or_default());
            }
            if !finding.caused_by.is_empty() {
                println!("    caused by {}", finding.caused_by.join(", "));
            }
        }
        for gap in &analysis.not_evaluated {
            println!("not evaluated: {gap:?}");
        }
    }
    Ok(())
}
