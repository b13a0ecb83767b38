//! When the repository is read again, and what is made of what is found.

use std::time::{Duration, Instant};

use super::{LOOK_DELAY, Worker};
use crate::doubt::Belief;
use crate::managed::Managed;
use crate::reconcile::Reconciler;

// === impl Worker ===

impl Worker {
    /// How long nothing will change by itself.
    pub(super) fn timeout(&self, now: Instant) -> Duration {
        let models = self.reconciler.models.values();
        let planned = models.filter_map(|managed| managed.next_time(now)).min();
        let look = self.next_look();
        let judge = self.reconciler.routes.has_running_canary().then_some(self.judge_at);
        let next = planned.into_iter().chain(look).chain(judge).min();
        // Loads that hang are looked for now and then.
        next.map_or(Duration::from_secs(1), |next| {
            next.saturating_duration_since(now).clamp(Duration::from_millis(1), Duration::from_secs(1))
        })
    }

    fn next_look(&self) -> Option<Instant> {
        let Reconciler { models, routes, .. } = &self.reconciler;
        let is_changing = routes.is_changing() || models.values().any(Managed::is_changing);
        let soon = is_changing.then_some(self.following.settle.max(LOOK_DELAY));
        let interval = soon.into_iter().chain(self.following.poll_interval).min();
        let at = interval.map(|interval| self.looked + interval);
        at.into_iter().chain(self.look_at).chain(self.doubted_until).min()
    }

    pub(super) fn is_time_to_look(&self, now: Instant) -> bool {
        self.next_look().is_some_and(|next| next <= now)
    }

    /// Reads the repository. One that cannot be read changes nothing, and one that has lost everything nothing yet.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        self.looked = now;
        (self.look_at, self.doubted_until) = (None, None);
        let desired = match self.registry.desired() {
            Ok(desired) => desired,
            Err(error) => return self.reconciler.doubt(Some(error.to_string())),
        };
        let loses_all = self.reconciler.loses_all(&desired);
        match self.doubt.judge(loses_all, self.following.settle, now) {
            Belief::Believed => {
                self.reconciler.doubt(None);
                self.reconciler.observe(desired);
            }
            Belief::Doubted { until } => {
                self.doubted_until = Some(until);
                let why = "the model repository has no model any more: what serves goes on for at least 30 s, in \
                           case that it is not mounted; unload its models if they are to go at once";
                self.reconciler.doubt(Some(why.into()));
                self.reconciler.observe_in_doubt(desired);
            }
        }
    }
}
