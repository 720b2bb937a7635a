//! A single GET request with bounded retries.

use std::error::Error;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header::{ACCEPT, RETRY_AFTER, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::client::Body;
use kubectl_gpt_analyzers::Reason;

use super::connection::Connection;
use super::failure::{ApiStatus, Failure, credentials_cause};
use super::plugin::PluginError;
use super::tls;
use crate::retry::{Policy, retry_after};

/// The media type of plain responses.
pub(super) const JSON: &str = "application/json";

/// client-go uses the same number of attempts if the server sends `Retry-After`.
const RETRIES: Policy = Policy {
    first_delay: Duration::from_millis(250),
    attempts: 5,
    attempts_if_asked: 10,
    budget: Duration::from_secs(30),
};
/// The total delay between attempts of all requests of one run: half a minute for each of the concurrent lists. A
/// server that throttles for longer is not retried kind by kind.
const TOTAL_RETRY_BUDGET: Duration = Duration::from_secs(120);
/// After this many consecutive requests without any response, no more are sent.
const GIVE_UP_AFTER: u32 = 8;

/// One attempt that failed.
struct Attempt {
    failure: Failure,
    /// Whether a retry may succeed.
    repeat: bool,
    /// The delay requested by `Retry-After`.
    wait: Option<Duration>,
}

impl Connection {
    /// Returns the response body of a GET. Retries on 429, on 5xx and on broken connections.
    pub(super) async fn get(&self, path: &str, accept: &str) -> Result<Vec<u8>, Failure> {
        if self.unanswered.load(Ordering::Relaxed) >= GIVE_UP_AFTER {
            return Err(Failure::new(Reason::Unavailable, "not attempted: the API server stopped responding"));
        }
        self.repeat(path, accept, true).await
    }

    /// Like [`get`](Connection::get), but without retries if the server is unreachable, so that a wrong context fails
    /// immediately.
    pub(super) async fn get_once_reached(&self, path: &str, accept: &str) -> Result<Vec<u8>, Failure> {
        self.repeat(path, accept, false).await
    }

    async fn repeat(&self, path: &str, accept: &str, patient: bool) -> Result<Vec<u8>, Failure> {
        tokio::select! {
            biased;
            () = self.interrupt.wait() => Err(Failure::new(Reason::Interrupted, "interrupted")),
            answer = self.attempts(path, accept, patient) => answer,
        }
    }

    async fn attempts(&self, path: &str, accept: &str, patient: bool) -> Result<Vec<u8>, Failure> {
        let mut backoff = RETRIES.start();
        loop {
            let failed = match self.attempt(path, accept).await {
                Ok(body) => return Ok(body),
                Err(failed) => failed,
            };
            let unreached = failed.failure.status.is_none() && !patient;
            if !failed.repeat || unreached {
                return Err(failed.failure);
            }
            let Some(wait) = backoff.next(failed.wait).filter(|wait| self.may_wait(*wait)) else {
                return Err(failed.failure);
            };
            tracing::debug!(path, ?wait, "{}", failed.failure.message);
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, path: &str, accept: &str) -> Result<Vec<u8>, Attempt> {
        let final_failure = |failure| Attempt { failure, repeat: false, wait: None };
        let user_agent = concat!("kubectl-gpt/", env!("CARGO_PKG_VERSION"));
        let request = Request::get(path).header(ACCEPT, accept).header(USER_AGENT, user_agent).body(Body::empty());
        let request = request.map_err(|e| final_failure(Failure::new(Reason::Internal, e.to_string())))?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (start, sent) = (Instant::now(), Timestamp::now());
        let exchange = async {
            let (head, body) = self.client.send(request).await?.into_parts();
            Ok::<_, kube::Error>((head, whole(body).await?))
        };
        let answer = match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, exchange).await.map_err(|_| timeout),
            None => Ok(exchange.await),
        };
        self.note_answer(matches!(answer, Ok(Ok(_))));
        let (head, body) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(no_answer(&error)),
            Err(timeout) => {
                let message = format!("timed out after {timeout:?}");
                return Err(final_failure(Failure::new(Reason::Timeout, message)));
            }
        };
        self.clock.compare(&head.headers, sent, Timestamp::now());
        let (status, bytes, took) = (head.status.as_u16(), body.len(), start.elapsed());
        tracing::debug!("GET path={path:?} status={status} bytes={bytes} took={took:?}");
        if head.status == StatusCode::OK {
            return Ok(body);
        }
        let status = ApiStatus::read(&body);
        let asked = head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, Timestamp::now()));
        Err(Attempt {
            repeat: matches!(head.status.as_u16(), 429 | 500 | 502 | 503 | 504),
            wait: asked.or(status.retry_after()),
            failure: Failure::from_response(head.status, &status.message),
        })
    }

    /// Deducts a delay from the total retry budget.
    fn may_wait(&self, wait: Duration) -> bool {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let left = |left: u64| left.checked_sub(wait);
        self.retry_budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }

    /// Resets the retry budget for a new run.
    pub(super) fn reset_retry_budget(&self) {
        self.retry_budget.store(TOTAL_RETRY_BUDGET.as_millis() as u64, Ordering::Relaxed);
    }

    fn note_answer(&self, answered: bool) {
        if answered {
            self.unanswered.store(0, Ordering::Relaxed);
        } else {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads the body without a second copy: pages are megabytes.
async fn whole(mut body: Body) -> Result<Vec<u8>, kube::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// The failure of a request sent by kube itself: an error response, or no complete response.
pub(super) fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Failure::from_response(code, &status.message)
        }
        error => no_answer(error).failure,
    }
}

/// An exchange without a complete response: connection refused, connection broken, no route, untrusted certificate.
fn no_answer(error: &kube::Error) -> Attempt {
    let (failure, repeat) = if let Some(cause) = credentials_error(error) {
        (Failure { credentials: true, ..Failure::new(Reason::Forbidden, cause) }, false)
    } else if let Some(failure) = causes(error).find_map(|error| tls::final_failure(error.downcast_ref()?)) {
        (failure, false)
    } else {
        (Failure::new(Reason::Unavailable, deepest(error)), true)
    };
    Attempt { failure, repeat, wait: None }
}

fn credentials_error(error: &kube::Error) -> Option<String> {
    let of_kube = causes(error).find_map(|error| error.downcast_ref()).map(credentials_cause);
    of_kube.or_else(|| causes(error).find_map(|error| error.downcast_ref::<PluginError>()).map(ToString::to_string))
}

/// An error and its causes, down to the innermost. An I/O error may wrap another one that it does not expose as its
/// source.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| (*error).source())
    })
}

/// The innermost error: `Connection refused` instead of the four layers around it.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let text = causes(error).last().map(ToString::to_string).unwrap_or_default();
    match text.split_once(" (os error ") {
        Some((text, _)) => text.to_string(),
        None => text,
    }
}
