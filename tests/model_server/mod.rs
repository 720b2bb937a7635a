//! A fake OpenAI-compatible server that responds or fails as configured by a test.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// The response to one request.
#[derive(Clone, Debug)]
pub enum Does {
    /// Streams this text in small pieces.
    Says(String),
    /// Streams a tool call: name and arguments.
    Calls(&'static str, Value),
    /// Responds without streaming.
    SaysWhole(String),
    /// Responds with this status, body and `Retry-After`.
    Refuses(u16, Value, Option<&'static str>),
    /// Responds after a delay.
    Slow(Duration, String),
    /// Streams half of the text, then breaks the connection.
    Cut(String),
    /// Streams half of the text and ends without a finish reason.
    EndsEarly(String),
    /// Sends an event that is not JSON.
    Malformed,
    /// Responds with an HTML page.
    Html,
    /// Streams endless text.
    Huge,
    RedirectsTo(String),
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub authorization: Option<String>,
    pub body: Value,
}

#[derive(Default)]
struct World {
    does: VecDeque<Does>,
    otherwise: Option<Does>,
    /// Rejects structured output.
    plain: bool,
    /// Rejects tools.
    toolless: bool,
    asked: Vec<Asked>,
    busy: usize,
    busiest: usize,
}

type Shared = Arc<Mutex<World>>;

pub struct ModelServer {
    world: Shared,
    address: SocketAddr,
    _runtime: Runtime,
}

impl ModelServer {
    /// A server that always responds in this way.
    pub fn that(does: Does) -> ModelServer {
        ModelServer::start(World { otherwise: Some(does), ..World::default() })
    }

    /// A server that responds in these ways in order, then repeats the last one.
    pub fn first(does: Vec<Does>) -> ModelServer {
        let otherwise = does.last().cloned();
        ModelServer::start(World { does: does.into(), otherwise, ..World::default() })
    }

    pub fn without_structured_output(self) -> ModelServer {
        self.world.lock().unwrap().plain = true;
        self
    }

    pub fn without_tools(self) -> ModelServer {
        self.world.lock().unwrap().toolless = true;
        self
    }

    fn start(world: World) -> ModelServer {
        let world = Arc::new(Mutex::new(world));
        let runtime = Runtime::new().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&world));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        ModelServer { world, address, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.world.lock().unwrap().asked.clone()
    }

    /// The maximum number of concurrent requests.
    pub fn busiest(&self) -> usize {
        self.world.lock().unwrap().busiest
    }
}

async fn answer(State(world): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_string());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let does = {
        let mut world = world.lock().unwrap();
        world.busy += 1;
        world.busiest = world.busiest.max(world.busy);
        world.asked.push(Asked { path: uri.to_string(), authorization, body: body.clone() });
        if world.plain && body.get("response_format").is_some() {
            Does::Refuses(400, json!({"error": {"message": "response_format is not supported"}}), None)
        } else if world.toolless && body.get("tools").is_some() {
            Does::Refuses(400, json!({"error": "this model does not support tools"}), None)
        } else {
            world.does.pop_front().or(world.otherwise.clone()).unwrap()
        }
    };
    // Long enough for concurrent requests to overlap.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let response = respond(does).await;
    world.lock().unwrap().busy -= 1;
    response
}

async fn respond(does: Does) -> Response {
    match does {
        Does::Says(text) => stream(said(&text, Some("stop"))),
        Does::Calls(name, arguments) => {
            let call = json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments.to_string()}});
            let chunk = json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null}]});
            stream(vec![
                event(&chunk),
                event(&json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})),
                done(),
            ])
        }
        Does::SaysWhole(text) => {
            let body =
                json!({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]});
            whole(200, "application/json", body.to_string())
        }
        Does::Refuses(status, body, retry_after) => {
            let mut response = whole(status, "application/json", body.to_string());
            if let Some(value) = retry_after {
                response.headers_mut().insert("retry-after", value.parse().unwrap());
            }
            response
        }
        Does::Slow(delay, text) => {
            tokio::time::sleep(delay).await;
            stream(said(&text, Some("stop")))
        }
        Does::Cut(text) => {
            let mut pieces: Vec<Result<String, std::io::Error>> =
                said(&text[..text.len() / 2], None).into_iter().map(Ok).collect();
            pieces.pop();
            pieces.push(Err(std::io::Error::other("cut")));
            events(Body::from_stream(futures::stream::iter(pieces)))
        }
        Does::EndsEarly(text) => stream(said(&text[..text.len() / 2], None)),
        Does::Malformed => stream(vec!["data: {\"choices\": [{\"delta\"\n\n".to_string(), done()]),
        Does::Html => whole(200, "text/html", "<html><body>It works!</body></html>".to_string()),
        Does::Huge => {
            let piece = event(&json!({"choices": [{"delta": {"content": "word ".repeat(2000)}}]}));
            let pieces = std::iter::repeat_with(move || Ok::<_, std::io::Error>(piece.clone())).take(100_000);
            events(Body::from_stream(futures::stream::iter(pieces)))
        }
        Does::RedirectsTo(url) => {
            let mut response = whole(307, "text/plain", String::new());
            response.headers_mut().insert("location", url.parse().unwrap());
            response
        }
    }
}

fn said(text: &str, reason: Option<&str>) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let pieces = characters.chunks(7).map(|piece| piece.iter().collect::<String>());
    let mut events: Vec<String> =
        pieces.map(|piece| event(&json!({"choices": [{"delta": {"content": piece}}]}))).collect();
    if let Some(reason) = reason {
        events.push(event(&json!({"choices": [{"delta": {}, "finish_reason": reason}]})));
    }
    events.push(done());
    events
}

fn event(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}

fn done() -> String {
    "data: [DONE]\n\n".to_string()
}

fn stream(pieces: Vec<String>) -> Response {
    events(Body::from_stream(futures::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>))))
}

fn events(body: Body) -> Response {
    Response::builder().header("content-type", "text/event-stream; charset=utf-8").body(body).unwrap()
}

fn whole(status: u16, content_type: &str, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    Response::builder().status(status).header("content-type", content_type).body(Body::from(body)).unwrap()
}
