//! How failed requests are repeated: to the API server and to a language model alike.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Delays that double with each attempt, unless the server requests another one.
#[derive(Debug)]
pub struct Backoff {
    policy: Policy,
    attempts: u32,
    delay: Duration,
    waited: Duration,
}

/// The limits of repetition.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The delay before the second attempt.
    pub first_delay: Duration,
    /// Attempts in all, the first one included.
    pub attempts: u32,
    /// The same if the server says when to come back.
    pub attempts_if_asked: u32,
    /// The sum of all delays of one request.
    pub budget: Duration,
}

impl Policy {
    pub fn start(self) -> Backoff {
        Backoff { policy: self, attempts: 1, delay: self.first_delay, waited: Duration::ZERO }
    }
}

impl Backoff {
    /// The delay before the next attempt; `None` if there is none. A server may request a longer delay than the first
    /// one, not a shorter one.
    pub fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let wait = asked.map_or(self.delay, |asked| asked.max(self.policy.first_delay));
        let attempts = if asked.is_some() { self.policy.attempts_if_asked } else { self.policy.attempts };
        let waited = self.waited.checked_add(wait)?;
        if self.attempts >= attempts || waited > self.policy.budget {
            return None;
        }
        self.attempts += 1;
        self.waited = waited;
        self.delay = self.delay.saturating_mul(2);
        Some(wait)
    }
}

/// `Retry-After`: a number of seconds, or a date (RFC 9110, 10.2.3). Numbers that no clock can hold are ignored.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Policy, retry_after};

    const POLICY: Policy = Policy {
        first_delay: Duration::from_secs(1),
        attempts: 3,
        attempts_if_asked: 4,
        budget: Duration::from_secs(20),
    };

    #[test]
    fn delays_double_until_the_attempts_are_spent() {
        let mut backoff = POLICY.start();
        let delays: Vec<_> = std::iter::from_fn(|| backoff.next(None)).map(|delay| delay.as_secs()).collect();
        assert_eq!(delays, [1, 2]);
    }

    #[test]
    fn a_server_may_ask_for_more_but_not_for_everything() {
        let mut backoff = POLICY.start();
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(backoff.next(seconds(0)), seconds(1));
        assert_eq!(backoff.next(seconds(10)), seconds(10));
        assert_eq!(backoff.next(seconds(10)), None);
        assert_eq!(POLICY.start().next(seconds(u64::MAX)), None);
    }

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(retry_after("3", now), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("0.5", now), Some(Duration::from_millis(500)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        for nonsense in ["soon", "", "-1", "1e400", "99999999999999999999999999"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }
}
