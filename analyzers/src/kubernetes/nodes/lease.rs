//! Leases: who has given a sign of life, and when.

use crate::kubernetes::time::age;
use crate::snapshot::Cluster;
use crate::snapshot::model::{Lease, Timestamp};
use std::time::Duration;

/// Anything that renews its lease does so several times a minute.
const FRESH: Duration = Duration::from_secs(60);

pub fn renewed(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

/// Whether Leases tell anything.
pub trait LeaseExt {
    /// Whether anything at all renews leases at the time by which ages are reckoned: if nothing does, that time is wrong
    /// (a clock that is off, an old recording with a newer object in it), or the API server takes no writes; in neither case a
    /// single stale lease tells anything.
    fn has_a_fresh_lease(&self) -> bool;
}

impl LeaseExt for Cluster {
    fn has_a_fresh_lease(&self) -> bool {
        self.all::<Lease>().iter().filter_map(renewed).any(|renewed| age(self.now(), renewed) <= FRESH)
    }
}
