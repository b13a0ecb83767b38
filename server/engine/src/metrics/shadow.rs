//! What is counted of a route's shadow: what became of each request, and how far the answers are apart.

use std::time::Duration;

use metrics::{Counter, Histogram, SharedString};

use super::{
    SHADOW_ABSOLUTE_DIFFERENCE, SHADOW_DISTANCE, SHADOW_RELATIVE_DIFFERENCE, SHADOW_REQUESTS, SHADOW_ROWS,
    SHADOW_RUN_SECONDS,
};
use crate::comparison::Difference;

/// What became of a request that a shadow was to answer too: the values of the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Matched,
    Mismatched,
    ShadowFailed,
    PrimaryFailed,
    BothFailed,
    NoRoom,
    NoCore,
    NotServing,
    Unanswered,
}

/// Handles of one shadow of a route, whichever version it leads to.
pub(crate) struct ShadowMetrics {
    fates: [Counter; Fate::ALL.len()],
    absolute: Histogram,
    relative: Histogram,
    distance: Histogram,
    agreeing_rows: Counter,
    differing_rows: Counter,
    primary_run_seconds: Histogram,
    shadow_run_seconds: Histogram,
}

/// An infinite difference is recorded as this: one of them would make the sum of all infinite for ever.
const LARGEST: f64 = 1e12;

// === impl Fate ===

impl Fate {
    pub(crate) const ALL: [Fate; 9] = [
        Fate::Matched,
        Fate::Mismatched,
        Fate::ShadowFailed,
        Fate::PrimaryFailed,
        Fate::BothFailed,
        Fate::NoRoom,
        Fate::NoCore,
        Fate::NotServing,
        Fate::Unanswered,
    ];

    fn label(self) -> &'static str {
        match self {
            Fate::Matched => "matched",
            Fate::Mismatched => "mismatched",
            Fate::ShadowFailed => "shadow_failed",
            Fate::PrimaryFailed => "primary_failed",
            Fate::BothFailed => "both_failed",
            Fate::NoRoom => "no_room",
            Fate::NoCore => "no_core",
            Fate::NotServing => "not_serving",
            Fate::Unanswered => "unanswered",
        }
    }
}

// === impl ShadowMetrics ===

impl ShadowMetrics {
    pub(crate) fn new(route: &str, shadow: &str) -> ShadowMetrics {
        let labels: [(&'static str, SharedString); 2] =
            [("route", route.to_owned().into()), ("shadow", shadow.to_owned().into())];
        let labels_and = |key: &'static str, value: &'static str| {
            let [route, shadow] = labels.clone();
            [route, shadow, (key, SharedString::const_str(value))]
        };
        let rows = |result| metrics::counter!(SHADOW_ROWS.name, &labels_and("top1", result));
        let runs = |side| metrics::histogram!(SHADOW_RUN_SECONDS.name, &labels_and("side", side));
        ShadowMetrics {
            fates: Fate::ALL
                .map(|fate| metrics::counter!(SHADOW_REQUESTS.name, &labels_and("outcome", fate.label()))),
            absolute: metrics::histogram!(SHADOW_ABSOLUTE_DIFFERENCE.name, &labels),
            relative: metrics::histogram!(SHADOW_RELATIVE_DIFFERENCE.name, &labels),
            distance: metrics::histogram!(SHADOW_DISTANCE.name, &labels),
            agreeing_rows: rows("same"),
            differing_rows: rows("other"),
            primary_run_seconds: runs("primary"),
            shadow_run_seconds: runs("shadow"),
        }
    }

    pub(crate) fn count(&self, fate: Fate) {
        self.fates[fate as usize].increment(1);
    }

    /// Of one tensor.
    pub(crate) fn record_difference(&self, difference: &Difference) {
        if let Some(numbers) = difference.numbers {
            self.absolute.record(numbers.absolute.min(LARGEST));
            self.relative.record(numbers.relative.min(LARGEST));
        }
        if let Some(scores) = difference.scores {
            self.distance.record(scores.distance);
            self.agreeing_rows.increment(scores.agreeing as u64);
            self.differing_rows.increment((scores.rows - scores.agreeing) as u64);
        }
    }

    /// Of a request that both sides answered.
    pub(crate) fn record_runs(&self, primary: Duration, shadow: Duration) {
        self.primary_run_seconds.record(primary);
        self.shadow_run_seconds.record(shadow);
    }
}
