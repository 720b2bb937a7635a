//! Leases: which components are alive, and when they last renewed.

use crate::kubernetes::time::age;
use crate::snapshot::Cluster;
use crate::snapshot::model::{Lease, Timestamp};
use std::time::Duration;

/// Holders renew their leases several times a minute.
const FRESH: Duration = Duration::from_secs(60);

pub fn renewed(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

/// Whether the Leases of a cluster are conclusive.
pub trait LeaseExt {
    /// Whether any lease is fresh at the time of the snapshot. If none is, that time is wrong (clock skew, or an old
    /// recording that contains a newer object), or the API server accepts no writes. A single stale lease then proves
    /// nothing.
    fn has_a_fresh_lease(&self) -> bool;
}

impl LeaseExt for Cluster {
    fn has_a_fresh_lease(&self) -> bool {
        self.all::<Lease>().iter().filter_map(renewed).any(|renewed| age(self.now(), renewed) <= FRESH)
    }
}
