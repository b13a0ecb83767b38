//! Tenants without limits of their own: each has the default's, as long as there is room to tell them apart.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::file::TenantLimits;
use super::{OTHER, Tenant, TenantMetrics};

/// Locks, so that I/O threads seldom wait for each other.
const SHARDS: usize = 16;
/// Pause after a look for idle tenants that found none: names are the clients' choice, and many new ones must not
/// make each request look through all that are known.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Unnamed {
    limits: TenantLimits,
    metrics: Arc<TenantMetrics>,
    /// Shared by those for whom there is no room.
    crowd: Arc<Tenant>,
    start: Instant,
    hasher: RandomState,
    shard_tenants_max: usize,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    tenants: HashMap<String, Arc<Tenant>>,
    look_after: Option<Instant>,
}

// === impl Unnamed ===

impl Unnamed {
    pub(super) fn new(limits: TenantLimits, tenants_max: usize, start: Instant) -> Unnamed {
        let metrics = Arc::new(TenantMetrics::new(OTHER));
        Unnamed {
            crowd: Arc::new(Tenant::new(&limits, Arc::clone(&metrics))),
            limits,
            metrics,
            start,
            hasher: RandomState::new(),
            shard_tenants_max: tenants_max.div_ceil(SHARDS),
            shards: Default::default(),
        }
    }

    /// The tenant called `name`. One that is idle is forgotten when another needs its room: nobody can tell.
    pub(super) fn find(&self, name: &str, now: Instant) -> Arc<Tenant> {
        if self.limits == TenantLimits::default() || self.shard_tenants_max == 0 {
            return Arc::clone(&self.crowd);
        }
        let index = (self.hasher.hash_one(name) % SHARDS as u64) as usize;
        let mut shard = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = shard.tenants.get(name) {
            return Arc::clone(tenant);
        }
        if shard.tenants.len() >= self.shard_tenants_max {
            shard.forget_idle(now, self.start);
        }
        if shard.tenants.len() >= self.shard_tenants_max {
            return Arc::clone(&self.crowd);
        }
        let tenant = Arc::new(Tenant::new(&self.limits, Arc::clone(&self.metrics)));
        shard.tenants.insert(name.to_owned(), Arc::clone(&tenant));
        tenant
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().tenants.len()).sum()
    }
}

// === impl Shard ===

impl Shard {
    fn forget_idle(&mut self, now: Instant, start: Instant) {
        if self.look_after.is_some_and(|look_after| now < look_after) {
            return;
        }
        let elapsed = u64::try_from(now.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX);
        let before = self.tenants.len();
        // Nobody else has it: a request between finding it and using it would use what is not counted any more.
        self.tenants.retain(|_, tenant| Arc::strong_count(tenant) > 1 || !tenant.is_idle(elapsed));
        self.look_after = (self.tenants.len() == before).then(|| now + LOOK_AGAIN);
    }
}
