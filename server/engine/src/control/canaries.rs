//! Judges the canaries in force now and then, and has what comes of it kept and in force.

use std::time::Instant;

use super::Worker;
use crate::reconcile::Reconciler;
use crate::route_table::{JUDGED_EVERY, Turn};
use crate::routing::canary::Verdict;

// === impl Worker ===

impl Worker {
    pub(super) fn judge_canaries(&mut self, now: Instant) {
        if now < self.judge_at {
            return;
        }
        self.judge_at = now + JUDGED_EVERY;
        if let Some(route) = self.reconciler.routes.unwritten()
            && self.set_route(route).is_ok()
        {
            tracing::info!("the repository says again which routes are in force");
        }
        let Reconciler { routes, models, .. } = &mut self.reconciler;
        for turn in routes.judge(models, now) {
            // An edit of a moment ago goes first.
            self.look();
            if self.reconciler.routes.is_current(&turn) {
                self.turn(turn, now);
            }
        }
    }

    /// Kept first and in force then. A candidate that is worse is taken back even where that cannot be kept.
    fn turn(&mut self, turn: Turn, now: Instant) {
        if let Err(error) = self.set_route(turn.route.clone()) {
            if turn.verdict != Verdict::Back {
                return self.reconciler.routes.stuck(&turn, error.to_string());
            }
            tracing::error!(%error, "a candidate is taken back, which a restart will not know");
            self.reconciler.routes.take_unwritten(turn.route.clone());
        }
        self.reconciler.routes.turned(turn, now);
    }
}
