//! The API server's clock. All timestamps come from the cluster's clocks; if the local clock is wrong, all ages
//! computed from it would be wrong.

use std::sync::OnceLock;
use std::time::Duration;

use http::HeaderMap;
use http::header::DATE;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use kubectl_gpt_analyzers::kubernetes::time;

/// The clock difference that is tolerated without a note.
const TOLERATED: SignedDuration = SignedDuration::from_secs(60);

/// How far the API server's clock is ahead of the local one, measured on the first response.
#[derive(Debug, Default)]
pub(super) struct Clock(OnceLock<SignedDuration>);

impl Clock {
    /// Compares the `Date` of a response with the time of the request and of the response; only the first call counts.
    pub fn compare(&self, headers: &HeaderMap, sent: Timestamp, came: Timestamp) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
        if let Some(date) = date {
            self.0.get_or_init(|| ahead(date, sent, came));
        }
    }

    /// The time according to the API server's clock.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        self.skew().and_then(|skew| now.checked_add(skew).ok()).unwrap_or(now)
    }

    /// A note if the clocks differ.
    pub fn note(&self) -> Option<String> {
        let skew = self.skew()?;
        let direction = if skew.is_positive() { "behind" } else { "ahead of" };
        // The date has a resolution of one second: 4:59:59 is five hours.
        let minutes = (skew.unsigned_abs().as_secs() + 30) / 60;
        let by = time::human(Duration::from_secs(60 * minutes));
        Some(format!("the local clock is {by} {direction} the API server's clock; ages are computed with the latter"))
    }

    fn skew(&self) -> Option<SignedDuration> {
        self.0.get().copied().filter(|skew| skew.abs() > TOLERATED)
    }
}

/// How far a date lies outside the interval in which it was written.
fn ahead(date: Timestamp, sent: Timestamp, came: Timestamp) -> SignedDuration {
    if date < sent {
        date.duration_since(sent)
    } else if date > came {
        date.duration_since(came)
    } else {
        SignedDuration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(dates: &[&str]) -> Clock {
        let clock = Clock::default();
        for date in dates {
            let headers = HeaderMap::from_iter([(DATE, date.parse().unwrap())]);
            let sent: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
            clock.compare(&headers, sent, sent + SignedDuration::from_secs(30));
        }
        clock
    }

    #[test]
    fn clock_differences_are_reported() {
        let note = |dates: &[&str]| compared(dates).note();
        let behind = "the local clock is 5h behind the API server's clock; ages are computed with the latter";
        assert_eq!(note(&["Sat, 21 Nov 2026 17:00:29 GMT"]).as_deref(), Some(behind));
        let ahead = "the local clock is 60s ahead of the API server's clock; ages are computed with the latter";
        assert_eq!(note(&["Sat, 21 Nov 2026 11:58:59 GMT"]).as_deref(), Some(ahead));
        assert_eq!(note(&["Sat, 21 Nov 2026 11:59:00 GMT"]), None, "a minute is tolerated");
        assert_eq!(note(&["Sat, 21 Nov 2026 12:01:30 GMT"]), None, "the answer may have taken half a minute");
        assert_eq!(note(&[]), None);
        assert_eq!(note(&["yesterday"]), None);
        assert_eq!(note(&["Sat, 21 Nov 2026 12:00:00 GMT", "Sat, 21 Nov 2026 17:00:30 GMT"]), None);
    }

    #[test]
    fn the_time_is_that_of_the_server() {
        let years = compared(&["Mon, 21 Nov 2016 12:00:00 GMT"]).now();
        let late: Timestamp = Timestamp::now() - SignedDuration::from_hours(87_000);
        assert!(years < late, "{years}");
        let unknown = Timestamp::now().duration_since(compared(&[]).now());
        assert!(unknown.abs() < SignedDuration::from_secs(10));
    }
}
