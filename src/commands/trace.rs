//! `kubectl-gpt trace FROM TO`: traces one connection hop by hop.

use crate::load::{ConnectionArgs, InputArgs};
use crate::terminal::Color;
use clap::{Args, ValueEnum};
use std::fmt::Write as _;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, anyhow};
use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::trace::{Hop, HopVerdict, READS, Trace, TraceEnd, trace};

use crate::exit::{Exit, Failure};
use crate::load::{Wanted, load};
use crate::terminal::{self, plain};

/// Trace a connection through DNS, Service, endpoints, readiness, network policies and ports, and report where it is
/// blocked and by which object.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl-gpt trace deploy/front svc/back:80
  kubectl-gpt trace -n shop pod/web-0 db.data.svc.cluster.local:5432
  kubectl-gpt trace ingress/shop
  kubectl-gpt trace internet svc/front

Exit codes: 0 open, 1 closed, 2 invalid usage, 3 undecided, 4 cluster unreachable or unreadable input")]
pub struct TraceArgs {
    /// Source: pod/NAME, deploy/NAME or another workload, ingress/NAME, or `internet`.
    pub from: String,
    /// Destination: svc/NAME[:PORT], pod/NAME[:PORT], a workload, or HOST[:PORT]. Optional if the source is an Ingress,
    /// which names its backends.
    pub to: Option<String>,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Read files instead of a cluster, as with analyze (repeatable).
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Namespace of FROM and TO, unless they specify one.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = TraceFormat::Table)]
    pub output: TraceFormat,
    /// When to use colors; `auto` honors NO_COLOR, CLICOLOR_FORCE and whether standard output is a terminal.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

impl TraceArgs {
    /// Reads the whole cluster: policies in any namespace can affect the connection.
    pub fn input(&self) -> InputArgs {
        let crds = kubectl_gpt_analyzers::kubernetes::network::netpol::FOREIGN_GROUPS
            .iter()
            .map(ToString::to_string)
            .collect();
        InputArgs { filename: self.filename.clone(), crds, ..InputArgs::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    Table,
    Json,
}

/// The width of the hop column, including the gap after it.
const HOP: usize = 18;

pub fn run(arguments: &TraceArgs) -> Result<Exit, Failure> {
    let input = arguments.input();
    let wanted = Wanted { kinds: READS.iter().copied().collect(), custom: true, ..Wanted::default() };
    let loaded = load(&arguments.connection, &input, &wanted)?;
    let namespace = arguments.namespace.as_ref().unwrap_or(&loaded.namespace);
    let end = |text: &str| TraceEnd::parse(text, namespace).map_err(|error| Failure::usage(anyhow!(error)));
    let from = end(&arguments.from)?;
    let to = arguments.to.as_deref().map(end).transpose()?;
    let trace = trace(&loaded.cluster, &from, to.as_ref()).map_err(|error| Failure::usage(anyhow!(error)))?;
    let text = match arguments.output {
        TraceFormat::Table => render(&trace, terminal::width()),
        TraceFormat::Json => serde_json::to_string_pretty(&trace).map_err(Failure::unreadable)? + "\n",
    };
    terminal::write(&text, arguments.color).context("writing the trace").map_err(Failure::unreadable)?;
    Ok(match trace.verdict {
        HopVerdict::Open => Exit::Clean,
        HopVerdict::Closed => Exit::Findings,
        HopVerdict::Unknown => Exit::Incomplete,
    })
}

fn render(trace: &Trace, width: usize) -> String {
    let bold = Style::new().bold();
    let mut text = format!("{bold}{} to {}{bold:#}\n", plain(&trace.from), plain(&trace.to));
    for hop in &trace.hops {
        text.push_str(&line(hop, width));
    }
    let (style, verdict) = match trace.verdict {
        HopVerdict::Open => (AnsiColor::Green.on_default().bold(), "open".to_string()),
        HopVerdict::Closed => {
            let closed = trace.hops.iter().filter(|hop| hop.verdict == HopVerdict::Closed);
            let at: Vec<String> = closed
                .map(|hop| match &hop.object {
                    Some(object) => format!("{object} ({})", hop.what),
                    None => hop.what.to_string(),
                })
                .collect();
            (AnsiColor::Red.on_default().bold(), format!("closed at {}", plain(&words::list(&at, 4))))
        }
        HopVerdict::Unknown => {
            (AnsiColor::Yellow.on_default().bold(), "undecided: some objects on the path could not be read".to_string())
        }
    };
    let _ = writeln!(text, "{style}{verdict}{style:#}");
    text
}

fn line(hop: &Hop, width: usize) -> String {
    let (style, mark) = match hop.verdict {
        HopVerdict::Open => (AnsiColor::Green.on_default(), terminal::marks().0),
        HopVerdict::Closed => (AnsiColor::Red.on_default(), terminal::marks().1),
        HopVerdict::Unknown => (AnsiColor::Yellow.on_default(), "?"),
    };
    let room = width.saturating_sub(HOP + 2).max(20);
    let mut text = String::new();
    for (n, piece) in textwrap::wrap(&plain(&hop.text), room).iter().enumerate() {
        let (mark, what) = if n == 0 { (mark, hop.what) } else { (" ", "") };
        let _ = writeln!(text, "{style}{mark}{style:#} {what:HOP$}{piece}");
    }
    if let Some(fix) = &hop.fix {
        for piece in textwrap::wrap(&plain(&fix.text), room) {
            let _ = writeln!(text, "  {:HOP$}{piece}", "");
        }
        if let Some(command) = &fix.command {
            let _ = writeln!(text, "  {:HOP$}{}", "", plain(command));
        }
    }
    text
}
