//! Explanations in plain words by a language model, private by construction.
//!
//! One request a root cause: facts of the cluster ([`prompt`]), without names ([`mask`]), to a server of the OpenAI chat
//! protocol ([`provider`], [`client`]); the answer understood, names restored, commands marked ([`answer`]). Findings and
//! the exit code are what they are without it.

pub mod answer;
pub mod cache;
pub mod client;
pub mod command;
pub mod mask;
pub mod names;
pub mod prompt;
pub mod provider;
pub mod tools;
mod vocabulary;

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use kubectl_gpt_analyzers::{Cluster, rules};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use answer::{Explanation, Line};
use cache::Cache;
use client::{Failed, ModelClient};
use mask::Masker;
use names::Names;
use prompt::Prompts;
use provider::{Endpoint, Settings};

use crate::report::Problem;

/// How many requests are under way at the same time.
const AT_A_TIME: usize = 4;

/// A request as it would be sent.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The finding that it is about.
    pub finding: String,
    pub request: Value,
}

/// The masker for a cluster: by the settings, one that masks or one that does not.
pub fn masker(settings: &Settings, cluster: &Cluster, context: Option<&str>) -> Masker {
    if settings.mask { Masker::new(Names::of(cluster, context)) } else { Masker::disabled() }
}

/// The requests for the problems, in their order.
///
/// # Errors
/// When a template of the user's is wrong.
pub fn prepare(
    settings: &Settings,
    prompts: &Prompts,
    cluster: &Cluster,
    problems: &[Problem],
    masker: &Masker,
) -> Result<Vec<Prepared>> {
    let built_in = rules::all();
    let of = |problem: &Problem| {
        // Only of rules that come with the program: what a rule of the user's says is not for everybody.
        let rule = built_in.iter().copied().find(|rule| rule.meta().id == problem.root.rule);
        let facts = prompt::facts(cluster, problem, masker);
        let messages = prompts.explain(rule, &facts, settings.language.as_deref())?;
        let mut request = client::chat(settings, messages);
        request["response_format"] = json!({
            "type": "json_schema",
            "json_schema": {"name": "explanation", "strict": true, "schema": answer::schema()},
        });
        Ok(Prepared { finding: problem.root.id.clone(), request })
    };
    problems.iter().map(of).collect()
}

/// What `--dry-run` prints: each request to the byte, but for the key.
pub fn dry_run(endpoint: &Endpoint, requests: &[Prepared]) -> String {
    let url = endpoint.chat_url();
    let mut text = String::new();
    for prepared in requests {
        text += &format!("POST {url}\ncontent-type: application/json\n");
        if let Some(header) = endpoint.key_header() {
            text += &format!("{header}: ***\n");
        }
        text += &format!("\n{:#}\n\n", prepared.request);
    }
    text
}

/// Explains problems side by side.
pub struct Explainer {
    settings: Settings,
    client: ModelClient,
    cache: Option<Cache>,
    masker: Arc<Masker>,
}

impl Explainer {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(settings: Settings, masker: Arc<Masker>) -> Result<Explainer, Failed> {
        let client = ModelClient::new(&settings)?;
        let cache = settings.cache.then(Cache::of_user).flatten();
        Ok(Explainer { settings, client, cache, masker })
    }

    /// The explanations in the order of the requests. `tell` gets the lines of each as they arrive, in order too: with
    /// the place of the request.
    pub async fn explain(
        self: &Arc<Explainer>,
        requests: Vec<Prepared>,
        tell: &mut (dyn FnMut(usize, Line) + Send),
    ) -> Vec<Explanation> {
        let under_way = Arc::new(Semaphore::new(AT_A_TIME));
        let mut answers = Vec::new();
        for prepared in requests {
            let (sender, lines) = mpsc::unbounded_channel();
            let (explainer, under_way) = (Arc::clone(self), Arc::clone(&under_way));
            let finding = prepared.finding.clone();
            let task = tokio::spawn(async move {
                let _permit = under_way.acquire_owned().await;
                explainer.one(prepared, &sender).await
            });
            answers.push((finding, lines, task));
        }
        let mut explanations = Vec::new();
        for (n, (finding, mut lines, task)) in answers.into_iter().enumerate() {
            while let Some(line) = lines.recv().await {
                tell(n, line);
            }
            explanations.push(task.await.unwrap_or_else(|_| Explanation {
                finding,
                note: Some("not explained: a defect of this program".to_string()),
                ..Explanation::default()
            }));
        }
        explanations
    }

    async fn one(&self, prepared: Prepared, lines: &mpsc::UnboundedSender<Line>) -> Explanation {
        let begun =
            Explanation { finding: prepared.finding, model: self.settings.model.clone(), ..Explanation::default() };
        let mut told: Vec<Line> = Vec::new();
        let mut tell = |all: &[Line]| {
            // Nothing is taken back: what does not begin as what was told waits for the end.
            if all.starts_with(&told) {
                for line in &all[told.len()..] {
                    let _ = lines.send(line.clone());
                }
                told = all.to_vec();
            }
        };
        let (url, request) = (self.settings.endpoint.chat_url(), prepared.request.to_string());
        let kept = self.cache.as_ref().and_then(|cache| cache.get(&url, &request, SystemTime::now()));
        let mut explanation = begun.clone();
        if let Some(content) = kept
            && explanation.understand(&content, &self.masker)
        {
            explanation.cached = true;
        } else {
            let completion = {
                let mut so_far = |content: &str| {
                    let mut part = begun.clone();
                    part.understand_so_far(content, &self.masker);
                    tell(&part.lines());
                };
                self.client.complete(&prepared.request, &mut so_far).await
            };
            explanation = begun;
            match completion {
                Err(failed) => explanation.note = Some(format!("not explained: {failed}")),
                Ok(completion) => {
                    if !explanation.understand(&completion.content, &self.masker) {
                        explanation.note = Some("not explained: the model said nothing that can be shown".to_string());
                    } else if completion.cut {
                        explanation.note = Some("the answer was cut off; --max-tokens allows longer ones".to_string());
                    } else if let Some(cache) = &self.cache {
                        // An answer that cannot be kept is an answer all the same.
                        let _ = cache.put(&url, &request, &completion.content);
                    }
                }
            }
        }
        tell(&explanation.lines());
        for line in explanation.lines().into_iter().filter(|line| !told.contains(line)) {
            let _ = lines.send(line);
        }
        explanation
    }
}
