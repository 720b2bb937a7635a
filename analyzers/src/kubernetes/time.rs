//! How long things normally take. Rules report nothing before that (unless Kubernetes itself gives up earlier).

use std::time::Duration;

use crate::snapshot::model::{PodSpec, Timestamp};

/// For a pod to start and become ready.
pub const START: Duration = Duration::from_secs(120);
/// For a pod to be scheduled.
pub const SCHEDULE: Duration = Duration::from_secs(60);
/// For errors that the kubelet or a controller reports itself: only retries may still resolve them.
pub const REPORTED: Duration = Duration::from_secs(60);
/// For a Service, Ingress or Gateway to get an address, or a claim to get a volume.
pub const PROVISION: Duration = Duration::from_secs(300);
/// For an object to disappear after the grace period of its deletion.
pub const DELETE: Duration = Duration::from_secs(60);
/// The maximum age of recent events.
pub const RECENT: Duration = Duration::from_secs(3600);

/// How long a pod may take to become ready: [`START`], or the sum of what its startup probes and initial delays
/// allow, if that is longer.
pub fn to_start(spec: &PodSpec) -> Duration {
    let allowed = spec.running_containers().map(|container| {
        let startup = container.startup_probe.as_deref().map_or(0, |probe| {
            let period = probe.period_seconds.unwrap_or(10).max(1);
            let failures = probe.failure_threshold.unwrap_or(3).max(1);
            i64::from(probe.initial_delay_seconds) + i64::from(period) * i64::from(failures)
        });
        let readiness = container.readiness_probe.as_deref().map_or(0, |probe| i64::from(probe.initial_delay_seconds));
        startup + readiness
    });
    START.max(Duration::from_secs(allowed.max().unwrap_or(0).clamp(0, 86_400) as u64))
}

/// How long ago `since` was; zero if it is in the future (clock skew).
pub fn age(now: Timestamp, since: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// `45s`, `12m`, `3h`, `5d`: ages in the format of kubectl.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_in_the_format_of_kubectl() {
        let written: Vec<String> =
            [0, 119, 120, 7199, 7200, 172_799, 172_800].map(|s| human(Duration::from_secs(s))).to_vec();
        assert_eq!(written, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }

    #[test]
    fn a_future_time_has_age_zero() {
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(age(now, Timestamp::from_second(2000).unwrap()), Duration::ZERO);
    }
}
