//! `kubectl-gpt ask "QUESTION"`: asks a language model about the cluster.

use crate::config::ConfigArgs;
use crate::explain::provider::ModelArgs;
use crate::load::{ConnectionArgs, InputArgs};
use crate::terminal::Color;
use clap::Args;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::anyhow;
use kubectl_gpt_analyzers::engine::{Analysis, analyze};
use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::trace::READS;
use kubectl_gpt_analyzers::{Profile, rules};
use serde_json::{Value, json};

use crate::collect::{Connection, connect};
use crate::commands::explain;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::explain::client::{Completion, Failed, ModelClient, Why, chat};
use crate::explain::command::marked;
use crate::explain::mask::Masker;
use crate::explain::prompt::Prompts;
use crate::explain::provider::Settings;
use crate::explain::tools::{Tools, definitions};
use crate::explain::{Prepared, dry_run, masker};
use crate::load::{Loaded, Wanted, load, options, runtime};
use crate::terminal::{self, plain};

/// Ask a language model about the cluster's findings and objects. The model can call read-only tools; each call is
/// logged to standard error. Secret data is never sent, and everything that is sent is masked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl-gpt ask 'why is checkout slow?'
  kubectl-gpt ask -f cluster.json --provider ollama --model llama3.1 'what should I fix first?'

Exit codes: 0 answered, 2 invalid usage or configuration, 4 cluster unreachable, unreadable input, or no answer")]
pub struct AskArgs {
    /// The question, in any language.
    pub question: String,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Read files instead of a cluster, as with analyze (repeatable).
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Only this namespace; also the default namespace for tool calls (repeatable).
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub namespace: Vec<String>,
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print the first request without sending it.
    #[arg(long)]
    pub dry_run: bool,
    /// When to use colors; `auto` honors NO_COLOR, CLICOLOR_FORCE and whether standard output is a terminal.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

impl AskArgs {
    pub fn input(&self) -> InputArgs {
        InputArgs {
            filename: self.filename.clone(),
            namespace: self.namespace.clone(),
            crds: vec!["all".to_string()],
            ..InputArgs::default()
        }
    }
}

/// Maximum rounds of tool calls per question.
const MAX_ROUNDS: usize = 10;
/// Maximum tool calls per round.
const MAX_CALLS: usize = 6;

pub fn run(arguments: &AskArgs) -> Result<Exit, Failure> {
    let config = Config::load(&arguments.config)?;
    let (settings, prompts) = explain::settings(&arguments.model, &config, arguments.dry_run)?;
    if arguments.question.trim().is_empty() {
        return Err(Failure::usage(anyhow!("the question is empty")));
    }
    // The default profile, as in `analyze`: best-practice findings are rarely what the question is about.
    let rules = rules::of(Profile::Default);
    let read = rules.iter().flat_map(|rule| rule.meta().reads());
    let wanted =
        Wanted { kinds: read.chain(READS.iter().copied()).collect(), custom: true, logs: true, ..Wanted::default() };
    let loaded = load(&arguments.connection, &arguments.input(), &wanted)?;
    let analysis = analyze(&loaded.cluster, &rules);
    let masker = masker(&settings, &loaded.cluster, loaded.source.context.as_deref());
    let runtime = runtime()?;
    runtime.block_on(converse(arguments, settings, &prompts, &loaded, &analysis, &masker))
}

async fn converse(
    arguments: &AskArgs,
    settings: Settings,
    prompts: &Prompts,
    loaded: &Loaded,
    analysis: &Analysis,
    masker: &Masker,
) -> Result<Exit, Failure> {
    let tools = Tools {
        cluster: &loaded.cluster,
        analysis,
        masker,
        connection: connection(arguments).await,
        namespace: loaded.namespace.clone(),
    };
    let facts = tools.list_findings().map_err(|error| Failure::usage(anyhow!(error)))?;
    let question = masker.question(&arguments.question);
    let begin =
        |tools: bool| prompts.ask(&question, &facts, tools, settings.language.as_deref()).map_err(Failure::usage);
    let mut conversation = Conversation { settings: &settings, tools: &tools, offered: true, messages: begin(true)? };
    if arguments.dry_run {
        let first = Prepared { finding: String::new(), request: conversation.request() };
        terminal::write(&dry_run(&settings.endpoint, &[first]), arguments.color).map_err(Failure::unreadable)?;
        return Ok(Exit::Clean);
    }
    let unanswered = |failed: Failed| Failure::unreadable(anyhow!("no answer: {failed}"));
    let mut client = ModelClient::new(&settings).map_err(unanswered)?;
    let first = match conversation.answer(&client, arguments).await {
        Err(failed) if failed.reason == Why::NotUnderstood || failed.message.contains("tool") => {
            eprintln!("warning: the model does not support tools; answering from the findings only");
            conversation.offered = false;
            conversation.messages = begin(false)?;
            client = ModelClient::new(&settings).map_err(unanswered)?;
            conversation.answer(&client, arguments).await
        }
        answer => answer,
    };
    first.map_err(unanswered)?;
    while let Some(question) = next_question() {
        conversation.messages.push(json!({"role": "user", "content": masker.question(&question)}));
        if let Err(failed) = conversation.answer(&client, arguments).await {
            eprintln!("no answer: {}", plain(&failed.message));
        }
    }
    Ok(Exit::Clean)
}

/// For logs that have not been read yet. Optional: without a connection, only recorded logs are available.
async fn connection(arguments: &AskArgs) -> Option<Connection> {
    if !arguments.filename.is_empty() || arguments.dry_run {
        return None;
    }
    connect(&options(&arguments.connection)).await.ok()
}

/// Reads a follow-up question, if standard input and output are a terminal.
fn next_question() -> Option<String> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    eprint!("\n> ");
    let _ = io::stderr().flush();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).ok()?;
    Some(line.trim().to_string()).filter(|line| !line.is_empty())
}

struct Conversation<'a> {
    settings: &'a Settings,
    tools: &'a Tools<'a>,
    /// Whether the request includes the tool definitions.
    offered: bool,
    messages: Vec<Value>,
}

impl Conversation<'_> {
    fn request(&self) -> Value {
        let mut request = chat(self.settings, self.messages.clone());
        if self.offered {
            request["tools"] = definitions();
        }
        request
    }

    /// Runs tool calls until the model answers; prints the answer line by line as it arrives.
    async fn answer(&mut self, client: &ModelClient, arguments: &AskArgs) -> Result<(), Failed> {
        for round in 0..=MAX_ROUNDS {
            let mut request = self.request();
            if round == MAX_ROUNDS && self.offered {
                request["tool_choice"] = json!("none");
            }
            let mut printed = Printed { text: String::new(), arguments, masker: self.tools.masker };
            let completion = client.complete(&request, &mut |content| printed.so_far(content)).await?;
            if completion.tool_calls.is_empty() || round == MAX_ROUNDS {
                printed.whole(&completion);
                self.messages.push(json!({"role": "assistant", "content": completion.content}));
                return Ok(());
            }
            self.look_up(completion).await;
        }
        Ok(())
    }

    async fn look_up(&mut self, completion: Completion) {
        let calls = &completion.tool_calls[..completion.tool_calls.len().min(MAX_CALLS)];
        let requested = calls.iter().map(|call| {
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
        });
        let requested: Vec<Value> = requested.collect();
        self.messages.push(json!({"role": "assistant", "content": completion.content, "tool_calls": requested}));
        for call in calls {
            let start = Instant::now();
            let (shown, result) = self.tools.call(call).await;
            eprintln!("tool call: {}", plain(&words::shorten(&shown, 300)));
            tracing::debug!(took = ?start.elapsed(), "{shown}");
            self.messages.push(json!({"role": "tool", "tool_call_id": call.id, "content": result.to_string()}));
        }
    }
}

/// The part of the answer that has been printed: names restored, commands marked, line by line.
struct Printed<'a> {
    text: String,
    arguments: &'a AskArgs,
    masker: &'a Masker,
}

impl Printed<'_> {
    fn so_far(&mut self, content: &str) {
        // Reasoning output is not part of the answer.
        if content.trim_start().starts_with("<think") && !content.contains("</think>") {
            return;
        }
        if let Some((lines, _)) = content.rsplit_once('\n') {
            self.print(lines, "\n");
        }
    }

    fn whole(&mut self, completion: &Completion) {
        self.print(&completion.content, "\n");
        if completion.cut {
            eprintln!("warning: the answer was truncated; raise --max-tokens");
        }
    }

    fn print(&mut self, content: &str, end: &str) {
        let content = content.split_once("</think>").map_or(content, |(_, answer)| answer).trim();
        let restored = self.masker.restore(content);
        let lines: Vec<String> = marked(&restored).lines().map(plain).collect();
        let text = lines.join("\n") + end;
        // After a broken connection the answer restarts and is printed again.
        let rest = text.strip_prefix(&self.text).unwrap_or(&text);
        if terminal::write(rest, self.arguments.color).is_ok() {
            self.text.clone_from(&text);
        }
    }
}
