//! The scheduled times of a CronJob.
//!
//! The controller parses schedules with robfig/cron's `ParseStandard`: five fields, the `@daily` family, `@every` with
//! a Go duration, and (in objects from before Kubernetes 1.29) a `TZ=` or `CRON_TZ=` prefix.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::SignedDuration;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::snapshot::model::{CronJob, Timestamp};

/// A schedule with its time zone.
#[derive(Debug)]
pub(crate) struct Schedule {
    pattern: Pattern,
    zone: TimeZone,
    /// Whether the time zone is known. Without `timeZone` it is the local time zone of kube-controller-manager, which
    /// is usually, but not always, UTC.
    is_certain: bool,
}

#[derive(Debug)]
enum Pattern {
    Cron(Box<Cron>),
    Every(SignedDuration),
}

impl Schedule {
    /// `None` for a schedule or a time zone that cannot be parsed.
    pub(crate) fn of(cron: &CronJob) -> Option<Schedule> {
        let text = cron.spec.schedule.trim();
        let prefix = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="));
        let (named, text) = match prefix {
            Some(rest) => rest.split_once(' ').map(|(zone, text)| (Some(zone), text.trim()))?,
            None => (None, text),
        };
        let named = cron.spec.time_zone.as_deref().filter(|zone| !zone.is_empty()).or(named);
        let zone = match named {
            Some(name) => TimeZoneDatabase::bundled().get(name).ok()?,
            None => TimeZone::UTC,
        };
        let mut schedule = Schedule { pattern: Pattern::parse(text)?, zone, is_certain: named.is_some() };
        schedule.is_certain |= cron.status.last_schedule_time.is_some_and(|last| schedule.matches(last));
        Some(schedule)
    }

    /// The first scheduled time after a time.
    pub(crate) fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        match &self.pattern {
            Pattern::Every(period) => time.checked_add(*period).ok(),
            Pattern::Cron(cron) => {
                let zoned = time.to_zoned(self.zone.clone());
                cron.find_next_occurrence(&zoned, false).ok().map(|next| next.timestamp())
            }
        }
    }

    /// The number of scheduled times after one time and up to another, at most `most`. If the time zone is unknown,
    /// this is the minimum over all time zones.
    pub(crate) fn times(&self, after: Timestamp, until: Timestamp, most: usize) -> usize {
        if self.is_certain {
            return self.count(after, until, most);
        }
        let zones = (-24..=28).map(|halves| SignedDuration::from_mins(30 * halves));
        let counts = zones.filter_map(|offset| {
            Some(self.count(after.checked_add(offset).ok()?, until.checked_add(offset).ok()?, most))
        });
        counts.min().unwrap_or(0)
    }

    fn count(&self, after: Timestamp, until: Timestamp, most: usize) -> usize {
        let mut times = 0;
        let mut at = after;
        while times < most {
            match self.next_after(at) {
                Some(next) if next > at && next <= until => at = next,
                _ => break,
            }
            times += 1;
        }
        times
    }

    fn matches(&self, time: Timestamp) -> bool {
        match &self.pattern {
            Pattern::Every(_) => true,
            Pattern::Cron(cron) => cron.is_time_matching(&time.to_zoned(self.zone.clone())).unwrap_or(false),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        if let Some(every) = text.strip_prefix("@every ") {
            let period: SignedDuration = every.trim().parse().ok()?;
            return (period >= SignedDuration::from_secs(1)).then_some(Pattern::Every(period));
        }
        let text = match text {
            "@midnight" => "@daily".to_string(),
            _ => text.replace('?', "*"),
        };
        // robfig/cron reads `5/15` as `5-59/15`.
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).sloppy_ranges(true).build();
        Some(Pattern::Cron(Box::new(parser.parse(&text).ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use crate::snapshot::model::{CronJob, Timestamp};

    fn schedule(schedule: &str, zone: Option<&str>) -> Option<Schedule> {
        let mut cron = CronJob::default();
        cron.spec.schedule = schedule.to_string();
        cron.spec.time_zone = zone.map(str::to_string);
        Schedule::of(&cron)
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[track_caller]
    fn next(text: &str, zone: Option<&str>, after: &str, expected: &str) {
        assert_eq!(schedule(text, zone).unwrap().next_after(at(after)), Some(at(expected)), "{text}");
    }

    #[test]
    fn parses_what_robfig_cron_parses() {
        next("0 3 * * *", None, "2026-11-21T12:00:00Z", "2026-11-22T03:00:00Z");
        next("*/15 * * * *", None, "2026-11-21T12:00:00Z", "2026-11-21T12:15:00Z");
        next("5/15 * * * *", None, "2026-11-21T12:06:00Z", "2026-11-21T12:20:00Z");
        next("0 9-17/2 ? * MON-FRI", None, "2026-11-21T12:00:00Z", "2026-11-23T09:00:00Z");
        // Day of month or day of week, where both are restricted.
        next("0 0 1 * 0", None, "2026-11-21T12:00:00Z", "2026-11-22T00:00:00Z");
        next("@hourly", None, "2026-11-21T12:00:00Z", "2026-11-21T13:00:00Z");
        next("@midnight", None, "2026-11-21T12:00:00Z", "2026-11-22T00:00:00Z");
        next("@every 1h30m", None, "2026-11-21T12:00:00Z", "2026-11-21T13:30:00Z");
    }

    #[test]
    fn time_zones() {
        next("0 3 * * *", Some("Europe/Berlin"), "2026-11-21T12:00:00Z", "2026-11-22T02:00:00Z");
        next("CRON_TZ=America/New_York 0 3 * * *", None, "2026-11-21T12:00:00Z", "2026-11-22T08:00:00Z");
        assert!(schedule("0 3 * * *", Some("Mars/Olympus")).is_none());
    }

    #[test]
    fn rejects_invalid_schedules() {
        for text in ["", "every day", "* * * *", "0 0 3 * * *", "@every", "@every 0s", "61 * * * *"] {
            assert!(schedule(text, None).is_none(), "{text}");
        }
        assert_eq!(schedule("0 0 30 2 *", None).unwrap().next_after(at("2026-11-21T12:00:00Z")), None);
    }

    #[test]
    fn counts_the_minimum_if_the_zone_is_unknown() {
        let (after, until) = (at("2026-11-21T12:00:00Z"), at("2026-11-21T15:30:00Z"));
        assert_eq!(schedule("0 13,14 * * *", Some("UTC")).unwrap().times(after, until, 100), 2);
        assert_eq!(schedule("0 13,14 * * *", None).unwrap().times(after, until, 100), 0);
        assert_eq!(schedule("*/5 * * * *", None).unwrap().times(after, until, 100), 42);
        assert_eq!(schedule("* * * * *", None).unwrap().times(after, until, 100), 100);
    }
}
