//! Explanations by a language model. Data is masked before it is sent.
//!
//! Sends one request per root cause: facts about the cluster ([`prompt`]), masked ([`mask`]), to an OpenAI-compatible
//! server ([`provider`], [`client`]). The answer is parsed, names are restored and commands marked ([`answer`]).
//! Findings and exit code do not depend on it.

pub mod answer;
pub mod cache;
pub mod client;
pub mod command;
pub mod entity;
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

use crate::problems::Problem;

/// Maximum number of concurrent requests.
const AT_A_TIME: usize = 4;

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The id of the finding to explain.
    pub finding: String,
    pub request: Value,
}

/// The masker for a cluster, enabled or disabled according to the settings.
pub fn masker(settings: &Settings, cluster: &Cluster, context: Option<&str>) -> Masker {
    if settings.mask { Masker::new(Names::of(cluster, context)) } else { Masker::disabled() }
}

/// Prepares the requests for the problems, in order.
///
/// # Errors
/// When a custom template is invalid.
pub fn prepare(
    settings: &Settings,
    prompts: &Prompts,
    cluster: &Cluster,
    problems: &[Problem],
    masker: &Masker,
) -> Result<Vec<Prepared>> {
    let built_in = rules::all();
    let of = |problem: &Problem| {
        // Only documentation of built-in rules is sent: that of custom rules may be confidential.
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

/// The output of `--dry-run`: the exact requests, without the API key.
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

/// Explains problems concurrently.
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

    /// Returns the explanations in the order of the requests. `tell` receives their lines as they arrive, in order,
    /// with the index of the request.
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
                note: Some("not explained: internal error".to_string()),
                ..Explanation::default()
            }));
        }
        explanations
    }

    async fn one(&self, prepared: Prepared, lines: &mpsc::UnboundedSender<Line>) -> Explanation {
        let begun =
            Explanation { finding: prepared.finding, model: self.settings.model.clone(), ..Explanation::default() };
        let mut sent: Vec<Line> = Vec::new();
        let mut tell = |all: &[Line]| {
            // Printed lines are never retracted: if the text so far has changed, wait for the end.
            if all.starts_with(&sent) {
                for line in &all[sent.len()..] {
                    let _ = lines.send(line.clone());
                }
                sent = all.to_vec();
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
                        explanation.note = Some("not explained: the model returned an empty answer".to_string());
                    } else if completion.cut {
                        explanation.note = Some("the answer was truncated; raise --max-tokens".to_string());
                    } else if let Some(cache) = &self.cache {
                        // A failed cache write does not invalidate the answer.
                        let _ = cache.put(&url, &request, &completion.content);
                    }
                }
            }
        }
        tell(&explanation.lines());
        for line in explanation.lines().into_iter().filter(|line| !sent.contains(line)) {
            let _ = lines.send(line);
        }
        explanation
    }
}
