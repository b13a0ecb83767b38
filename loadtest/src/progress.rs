//! Shows on a terminal how far a load has come; elsewhere it shows nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::drive::Shared;
use crate::settings::{ExtentSettings, Settings};

/// A bar on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    warmup: Duration,
    by_time: bool,
    shown: (Duration, u64),
}

// === impl Progress ===

impl Progress {
    /// indicatif itself draws nothing where standard error is not a terminal.
    pub(crate) fn new(settings: &Settings, quiet: bool) -> Progress {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let (length, by_time) = match settings.extent {
            ExtentSettings::DurationS(seconds) => (((settings.warmup_s + seconds) * 1e3) as u64, true),
            ExtentSettings::Requests(requests) => (requests, false),
        };
        let style = ProgressStyle::with_template("{prefix:>7} [{bar:24}] {msg}")
            .expect("the template is fixed and valid; this is a bug")
            .progress_chars("=> ");
        let bar = ProgressBar::with_draw_target(Some(length), target).with_style(style);
        Progress { bar, warmup: settings.warmup(), by_time, shown: (Duration::ZERO, 0) }
    }

    pub(crate) fn show(&mut self, elapsed: Duration, shared: &Shared) {
        if self.bar.is_hidden() {
            return;
        }
        let answered = shared.answered.load(Ordering::Relaxed);
        let failed = shared.failed.load(Ordering::Relaxed);
        let (before, answered_before) = self.shown;
        let rate_per_s = (answered - answered_before) as f64 / (elapsed - before).as_secs_f64().max(1e-3);
        self.shown = (elapsed, answered);
        let position = if self.by_time { elapsed.as_millis() as u64 } else { answered + failed };
        self.bar.set_position(position);
        self.bar.set_prefix(if elapsed < self.warmup { "warm-up" } else { "load" });
        self.bar.set_message(format!("{rate_per_s:.0} answers/s, {answered} ok, {failed} failed"));
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
