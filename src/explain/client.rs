//! Sends chat requests to an OpenAI-compatible endpoint, with limits on time, size and number, and with retries.

use std::error::Error;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_openai::Client;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use kubectl_gpt_analyzers::text::words;
use serde::Deserialize;
use serde_json::{Value, json};

use super::provider::{Endpoint, Settings};
use crate::cryptography;
use crate::retry::{Policy, retry_after};
use crate::terminal::plain;

/// If `Retry-After` is longer than the budget, the request fails instead.
const RETRIES: Policy = Policy {
    first_delay: Duration::from_millis(500),
    attempts: 4,
    attempts_if_asked: 4,
    budget: Duration::from_secs(30),
};
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limits on one answer, in bytes: on the body, and on the text in it.
const MAX_BODY_BYTES: usize = 8 << 20;
const MAX_ANSWER_BYTES: usize = 64 << 10;
const MAX_ERROR_BYTES: usize = 16 << 10;

/// Why there is no answer. The message never contains the API key.
#[derive(Clone, Debug)]
pub struct Failed {
    pub message: String,
    pub reason: Why,
    /// The delay requested by `Retry-After`.
    wait: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// All other requests will fail too: unknown model, wrong key, unreachable server.
    Hopeless,
    /// A retry may succeed.
    Passing,
    /// The endpoint rejected the request as invalid (400, 422).
    NotUnderstood,
    /// Any other error of this request.
    Other,
}

impl Failed {
    fn new(reason: Why, message: impl Into<String>) -> Failed {
        Failed { message: message.into(), reason, wait: None }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failed {}

impl From<Failed> for OpenAIError {
    fn from(failed: Failed) -> OpenAIError {
        OpenAIError::Boxed(Box::new(failed))
    }
}

/// The answer of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    pub content: String,
    pub tool_calls: Vec<ToolCall>,
    /// Whether it was truncated at the token limit or the size limit.
    pub cut: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// JSON, unless the model returned something else.
    pub arguments: String,
}

/// One chunk of a streamed answer, or the whole of a non-streamed one. All fields are optional because servers differ
/// in what they omit.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    #[serde(alias = "message")]
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolCallPart>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCallPart {
    index: Option<usize>,
    id: Option<String>,
    function: Option<FunctionPart>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FunctionPart {
    name: Option<String>,
    arguments: Option<String>,
}

/// Sends and counts the requests of one run.
pub struct ModelClient {
    client: Client<Endpoint>,
    endpoint: Endpoint,
    timeout: Duration,
    left: AtomicU32,
    /// The first permanent failure; after it no more requests are sent.
    hopeless: OnceLock<Failed>,
    /// Whether the endpoint rejected structured output.
    unstructured: AtomicBool,
}

impl ModelClient {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(settings: &Settings) -> Result<ModelClient, Failed> {
        cryptography::install();
        let mut http = reqwest::Client::builder()
            // Redirects are not followed, so that the key is not sent elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("kubectl-gpt/", env!("CARGO_PKG_VERSION")));
        if settings.endpoint.is_loopback() {
            // Requests to this machine may be unmasked, so they must not go through a proxy.
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Failed::new(Why::Hopeless, deepest(&error)))?;
        let endpoint = settings.endpoint.clone();
        let service = {
            let (http, endpoint) = (http.clone(), endpoint.clone());
            tower::service_fn(move |request: HttpRequestFactory| exchange(http.clone(), endpoint.clone(), request))
        };
        Ok(ModelClient {
            client: Client::build(http, endpoint.clone()).with_http_service(service),
            endpoint,
            timeout: settings.timeout,
            left: AtomicU32::new(settings.max_requests),
            hopeless: OnceLock::new(),
            unstructured: AtomicBool::new(false),
        })
    }

    /// Returns the answer to a request; `on_text` is called with the text so far whenever a chunk arrives.
    ///
    /// # Errors
    /// When all attempts failed.
    pub async fn complete(
        &self,
        request: &Value,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Completion, Failed> {
        let mut request = request.clone();
        let (mut backoff, mut renamed) = (RETRIES.start(), false);
        loop {
            if self.unstructured.load(Ordering::Relaxed) {
                remove(&mut request, "response_format");
            }
            let failed = match self.attempt(&request, on_text).await {
                Ok(completion) => return Ok(completion),
                Err(failed) => failed,
            };
            match failed.reason {
                Why::NotUnderstood if self.simplify(&mut request, &failed, &mut renamed) => continue,
                Why::Passing => {}
                Why::Hopeless => {
                    let _ = self.hopeless.set(failed.clone());
                    return Err(failed);
                }
                _ => return Err(failed),
            }
            if let Some(wait) = failed.wait.filter(|wait| *wait > RETRIES.budget) {
                let message = format!("{}; retry after {}s", failed.message, wait.as_secs());
                return Err(Failed { message, ..failed });
            }
            let Some(wait) = backoff.next(failed.wait) else { return Err(failed) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Removes a parameter that older and smaller servers do not support. Returns false if there is nothing left to
    /// remove.
    fn simplify(&self, request: &mut Value, failed: &Failed, renamed: &mut bool) -> bool {
        let said = failed.message.to_lowercase();
        let is_unknown =
            ["unsupported", "unknown", "unrecognized", "not supported", "not permitted", "instead", "extra"];
        if !*renamed && said.contains("_tokens") && is_unknown.iter().any(|word| said.contains(word)) {
            *renamed = true;
            let (from, to) = match request.get("max_tokens") {
                Some(_) => ("max_tokens", "max_completion_tokens"),
                None => ("max_completion_tokens", "max_tokens"),
            };
            if let Some(limit) = remove(request, from) {
                request[to] = limit;
                return true;
            }
        }
        if remove(request, "response_format").is_some() {
            self.unstructured.store(true, Ordering::Relaxed);
            return true;
        }
        false
    }

    async fn attempt(&self, request: &Value, on_text: &mut (dyn FnMut(&str) + Send)) -> Result<Completion, Failed> {
        if let Some(failed) = self.hopeless.get() {
            return Err(failed.clone());
        }
        let take = |left: u32| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(Failed::new(Why::Other, "request not sent: --max-requests reached"));
        }
        match tokio::time::timeout(self.timeout, self.stream(request, on_text)).await {
            Ok(result) => result,
            Err(_) => Err(Failed::new(
                Why::Other,
                format!("request to {} timed out after {}s", self.endpoint.host(), self.timeout.as_secs_f64()),
            )),
        }
    }

    async fn stream(&self, request: &Value, on_text: &mut (dyn FnMut(&str) + Send)) -> Result<Completion, Failed> {
        let stream = self.client.chat().create_stream_byot::<_, Chunk>(request).await;
        let mut stream = stream.map_err(|error| self.failed(error))?;
        let mut completion = Completion::default();
        let mut finished = None;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| self.failed(error))?;
            if let Some(error) = chunk.error {
                return Err(Failed::new(Why::Passing, self.message(&error_message(&error.to_string()))));
            }
            let Some(choice) = chunk.choices.into_iter().next() else { continue };
            if let Some(delta) = choice.delta {
                completion.add(delta);
                on_text(&completion.content);
            }
            finished = choice.finish_reason.or(finished);
            if completion.content.len() > MAX_ANSWER_BYTES {
                completion.cut = true;
                return Ok(completion);
            }
        }
        match finished.as_deref() {
            Some("length") => completion.cut = true,
            Some("content_filter") => {
                return Err(Failed::new(Why::Other, "the answer was blocked by the endpoint's content filter"));
            }
            Some(_) => {}
            // A complete JSON object needs no finish reason.
            None if serde_json::from_str::<Value>(completion.content.trim()).is_ok_and(|json| json.is_object()) => {}
            None => {
                return Err(Failed::new(
                    Why::Passing,
                    format!("the answer from {} was interrupted", self.endpoint.host()),
                ));
            }
        }
        if completion.content.trim().is_empty() && completion.tool_calls.is_empty() {
            return Err(Failed::new(Why::Other, format!("the answer from {} is empty", self.endpoint.host())));
        }
        Ok(completion)
    }

    fn failed(&self, error: OpenAIError) -> Failed {
        let host = self.endpoint.host();
        match error {
            OpenAIError::Boxed(error) => match error.downcast::<Failed>() {
                Ok(failed) => *failed,
                Err(error) => Failed::new(Why::Other, self.message(&error.to_string())),
            },
            OpenAIError::JSONDeserialize(error, _) => {
                Failed::new(Why::Passing, format!("invalid chat completion from {host}: {error}"))
            }
            OpenAIError::StreamError(_) => Failed::new(Why::Passing, format!("the answer from {host} was interrupted")),
            error => Failed::new(Why::Other, self.message(&error.to_string())),
        }
    }

    fn message(&self, text: &str) -> String {
        format!("error from {}: {}", self.endpoint.host(), self.endpoint.without_key(text))
    }
}

impl fmt::Debug for ModelClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelClient").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Completion {
    fn add(&mut self, delta: Delta) {
        self.content.push_str(&delta.content.or(delta.refusal).unwrap_or_default());
        for part in delta.tool_calls.into_iter().flatten() {
            // Some servers number the calls, others only set an id.
            let is_new =
                part.id.as_ref().is_some_and(|id| !id.is_empty() && self.tool_calls.iter().all(|call| call.id != *id));
            let at = part.index.unwrap_or(if is_new {
                self.tool_calls.len()
            } else {
                self.tool_calls.len().saturating_sub(1)
            });
            if at > self.tool_calls.len() {
                continue;
            }
            if at == self.tool_calls.len() {
                self.tool_calls.push(ToolCall::default());
            }
            let call = &mut self.tool_calls[at];
            if let Some(id) = part.id.filter(|id| !id.is_empty()) {
                call.id = id;
            }
            let function = part.function.unwrap_or_default();
            call.name.push_str(&function.name.unwrap_or_default());
            if call.arguments.len() < MAX_ANSWER_BYTES {
                call.arguments.push_str(&function.arguments.unwrap_or_default());
            }
        }
    }
}

/// Performs one exchange: anything but an event stream is an error with a one-line message.
async fn exchange(
    http: reqwest::Client,
    endpoint: Endpoint,
    request: HttpRequestFactory,
) -> Result<reqwest::Response, Failed> {
    let host = endpoint.host();
    let request = request.build().await.map_err(|error| Failed::new(Why::Other, error.to_string()))?;
    let response = http.execute(request).await.map_err(|error| unreached(&host, &error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_redirection() {
        let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("an unknown location");
        let message = format!(
            "{host} redirects to {}; if this is the intended server, set --base-url",
            plain(&words::shorten(to, 200))
        );
        return Err(Failed::new(Why::Hopeless, message));
    }
    if !status.is_success() {
        let wait = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, jiff::Timestamp::now()));
        let body = read(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        let said = endpoint.without_key(&error_message(&String::from_utf8_lossy(&body)));
        return Err(Failed { wait, ..refused(&host, status, &said) });
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string();
    match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "text/event-stream" | "" => Ok(bounded(response)),
        // Not all servers support streaming.
        "application/json" => {
            let body = read(response, MAX_BODY_BYTES).await.ok_or_else(|| too_large(&host))?;
            let one_line = String::from_utf8_lossy(&body).replace(['\n', '\r'], " ");
            Ok(http::Response::new(format!("data: {one_line}\n\n")).into())
        }
        other => {
            let message = format!(
                "{host} returned {}, expected a chat completion; check the base URL {}",
                plain(&words::shorten(other, 60)),
                endpoint.base()
            );
            Err(Failed::new(Why::Hopeless, message))
        }
    }
}

/// Limits the size of a response: a line without an end would otherwise be buffered completely.
fn bounded(response: reqwest::Response) -> reqwest::Response {
    let mut left = MAX_BODY_BYTES;
    let body = response.bytes_stream().map_err(std::io::Error::other).and_then(move |bytes| {
        let fits = left.checked_sub(bytes.len());
        left = fits.unwrap_or(0);
        futures::future::ready(fits.map(|_| bytes).ok_or_else(|| std::io::Error::other("too large")))
    });
    http::Response::new(reqwest::Body::wrap_stream(body)).into()
}

async fn read(mut response: reqwest::Response, max: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
        if body.len() > max {
            return None;
        }
    }
    Some(body)
}

fn too_large(host: &str) -> Failed {
    Failed::new(Why::Other, format!("the answer from {host} is larger than {} MiB", MAX_BODY_BYTES >> 20))
}

fn refused(host: &str, status: StatusCode, said: &str) -> Failed {
    let code = status.as_u16();
    let quota = said.contains("insufficient_quota") || said.contains("exceeded your current quota");
    let (reason, hint) = match code {
        401 | 403 => (Why::Hopeless, "; check the API key"),
        404 => (Why::Hopeless, "; check --base-url and --model"),
        400 | 422 => (Why::NotUnderstood, ""),
        429 if quota => (Why::Hopeless, ""),
        408 | 409 | 425 | 429 | 500 | 502 | 503 | 504 | 529 => (Why::Passing, ""),
        _ => (Why::Other, ""),
    };
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Failed::new(reason, format!("{host} returned {status}{said}{hint}"))
}

fn unreached(host: &str, error: &reqwest::Error) -> Failed {
    let reason = if error.is_connect() { Why::Hopeless } else { Why::Passing };
    Failed::new(reason, format!("cannot reach {host}: {}", deepest(error)))
}

/// The message in an error body, in any known format; else its first line.
fn error_message(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let message = ["/error/message", "/error", "/message", "/detail"].iter().find_map(|at| json.pointer(at)?.as_str());
    let code = json.pointer("/error/code").and_then(Value::as_str).map(|code| format!(" ({code})")).unwrap_or_default();
    let line =
        || body.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<')).unwrap_or_default();
    plain(&words::shorten(message.unwrap_or_else(line), 300)) + &code
}

/// The innermost error: `Connection refused` instead of the layers around it.
fn deepest(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    text.split_once(" (os error ").map_or(text.clone(), |(text, _)| text.to_string())
}

fn remove(request: &mut Value, field: &str) -> Option<Value> {
    request.as_object_mut()?.remove(field)
}

/// A streaming chat completion request.
pub fn chat(settings: &Settings, messages: Vec<Value>) -> Value {
    json!({
        "model": settings.model,
        "messages": messages,
        "stream": true,
        settings.endpoint.limit_field: settings.max_tokens,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Chunk, Completion, error_message};

    #[test]
    fn error_messages_in_all_formats() {
        assert_eq!(
            error_message(r#"{"error": {"message": "no such model", "code": "model_not_found"}}"#),
            "no such model (model_not_found)"
        );
        assert_eq!(error_message(r#"{"error": "no such model"}"#), "no such model");
        assert_eq!(error_message(r#"{"detail": "Not Found"}"#), "Not Found");
        assert_eq!(error_message("<html>\n<b>\nBad gateway\n"), "Bad gateway");
        assert_eq!(error_message("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(error_message(""), "");
    }

    #[test]
    fn streamed_tool_calls_with_and_without_index() {
        let add = |chunks: &[serde_json::Value]| {
            let mut completion = Completion::default();
            for chunk in chunks {
                let chunk: Chunk =
                    serde_json::from_value(json!({"choices": [{"delta": {"tool_calls": [chunk]}}]})).unwrap();
                completion.add(chunk.choices.into_iter().next().unwrap().delta.unwrap());
            }
            completion.tool_calls.into_iter().map(|c| format!("{} {}{}", c.id, c.name, c.arguments)).collect::<Vec<_>>()
        };
        let numbered = [
            json!({"index": 0, "id": "1", "function": {"name": "get", "arguments": ""}}),
            json!({"index": 0, "function": {"arguments": "{\"a\""}}),
            json!({"index": 0, "function": {"arguments": ":1}"}}),
            json!({"index": 1, "id": "2", "function": {"name": "list", "arguments": "{}"}}),
        ];
        assert_eq!(add(&numbered), ["1 get{\"a\":1}", "2 list{}"]);
        let whole = [json!({"id": "1", "function": {"name": "get"}}), json!({"id": "2", "function": {"name": "list"}})];
        assert_eq!(add(&whole), ["1 get", "2 list"]);
        assert!(add(&[json!({"index": 99, "id": "1"})]).is_empty());
    }
}
