//! The thread that keeps predictions and feedback: whatever came meanwhile is one commit.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gristmill_engine::bandit::Rewards;
use gristmill_engine::engine::Engine;
use gristmill_engine::journal::Ended;
use gristmill_engine::metrics::{FeedbackMetrics, FeedbackResult};
use gristmill_proto::admin::Experiment;
use tokio::sync::oneshot;

use super::bandits::Bandits;
use super::experiments::Experiments;
use super::log::Log;
use super::place::Place;
use super::store::{OfRoute, Rewarded, Rules, Store};
use super::{Fate, Item, Taken};

pub(super) enum Command {
    Tell { route: String, items: Vec<Item>, answer: Answer },
    Show { answer: oneshot::Sender<Vec<Experiment>> },
    End,
}

type Answer = oneshot::Sender<Result<Taken, String>>;

pub(super) struct Keeper {
    engine: Arc<Engine>,
    place: Place,
    predictions_max: u64,
    /// Opened when there is something to keep.
    store: Option<Store>,
    bandits: Bandits,
    experiments: Experiments,
    log: Option<Log>,
    metrics: FeedbackMetrics,
    dropped: u64,
    /// Predictions are brought to the disk at least this often, where no feedback does it.
    synced: Instant,
    is_behind: bool,
    /// When the metrics of experiments were set.
    published: Instant,
}

/// How often predictions are taken over while nothing is told.
const TICK: Duration = Duration::from_millis(100);
/// The longest that predictions of a killed server may have been made and be unknown after it.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// How old metrics of experiments may be: more often than anybody scrapes them.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(
        engine: Arc<Engine>,
        place: Place,
        predictions_max: u64,
        log: Option<&Path>,
    ) -> anyhow::Result<Keeper> {
        let mut keeper = Keeper {
            engine,
            place,
            predictions_max,
            store: None,
            bandits: Bandits::default(),
            experiments: Experiments::default(),
            log: log.map(Log::open).transpose().map_err(anyhow::Error::msg)?,
            metrics: FeedbackMetrics::resolve(),
            dropped: 0,
            synced: Instant::now(),
            is_behind: false,
            published: Instant::now(),
        };
        if keeper.place.is_due() {
            keeper.open().map_err(anyhow::Error::msg)?;
        }
        Ok(keeper)
    }

    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        loop {
            let first = match inbox.recv_timeout(TICK) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Command::End),
            };
            let (mut batches, mut watchers) = (Vec::new(), Vec::new());
            let mut is_over = false;
            for command in first.into_iter().chain(inbox.try_iter()) {
                match command {
                    Command::Tell { route, items, answer } => batches.push((route, items, answer)),
                    Command::Show { answer } => watchers.push(answer),
                    Command::End => is_over = true,
                }
            }
            self.keep(batches, is_over);
            for watcher in watchers {
                // Whoever asked may have left.
                let _left =
                    watcher.send(self.experiments.shown(self.store.as_ref(), &self.bandits, now_ms()));
            }
            if is_over {
                return;
            }
        }
    }

    /// One commit, and then the answers.
    fn keep(&mut self, batches: Vec<(String, Vec<Item>, Answer)>, is_over: bool) {
        // After the batches were received: a prediction that one of them names has been told here before.
        let ended: Vec<Ended> = std::iter::from_fn(|| self.engine.journal().next()).collect();
        let told: Vec<OfRoute<'_>> = batches
            .iter()
            .flat_map(|(route, items, _)| items.iter().map(move |item| (&**route, item)))
            .collect();
        let now_ms = now_ms();
        let routes = self.engine.routes();
        self.bandits.follow(&routes, self.store.as_mut(), now_ms);
        self.bandits.behaved(&ended, now_ms);
        self.experiments.follow(&routes, self.store.as_ref(), &self.bandits, now_ms);
        self.experiments.ended(&ended);
        let asking = routes.iter().filter(|route| route.asks_for_rewards());
        let asking: BTreeSet<&str> = asking.map(|route| route.name.as_str()).collect();
        let written = self.write(&ended, &told, &asking, now_ms, is_over);
        if let (Some(log), Ok(fates)) = (&mut self.log, &written) {
            log.write(&ended, &told, fates, now_ms);
        }
        if let Some(store) = self.store.as_ref().filter(|_| !told.is_empty()) {
            self.bandits.learn(store);
            self.experiments.look(store);
        }
        self.bandits.deal(&self.engine, self.store.as_mut(), now_ms);
        if self.published.elapsed() >= PUBLISH_INTERVAL {
            self.experiments.publish(self.store.as_ref(), &self.bandits, now_ms);
            self.published = Instant::now();
        }
        let mut fates = match written {
            Ok(fates) => fates.into_iter(),
            Err(why) => {
                tracing::error!(why, "predictions and feedback were not kept");
                for (_, _, answer) in batches {
                    // Whoever asked may have left.
                    let _left = answer.send(Err(format!("feedback was not kept: {why}")));
                }
                return;
            }
        };
        let is_durable = self.store.as_ref().is_some_and(Store::is_durable);
        for (_, items, answer) in batches {
            let fates: Vec<Fate> = fates.by_ref().take(items.len()).collect();
            fates.iter().for_each(|fate| self.metrics.count(result(fate)));
            let _left = answer.send(Ok(Taken { fates, is_durable }));
        }
    }

    fn write(
        &mut self,
        ended: &[Ended],
        told: &[OfRoute<'_>],
        asking: &BTreeSet<&str>,
        now_ms: u64,
        is_over: bool,
    ) -> Result<Vec<Fate>, String> {
        let dropped = self.engine.journal().dropped();
        self.metrics.dropped.increment(dropped - self.dropped);
        self.dropped = dropped;
        let is_late = self.is_behind && (is_over || self.synced.elapsed() >= SYNC_INTERVAL);
        if ended.is_empty() && told.is_empty() && !is_late {
            return Ok(Vec::new());
        }
        let is_urgent = !told.is_empty() || is_over || self.synced.elapsed() >= SYNC_INTERVAL;
        let store = match &mut self.store {
            Some(store) => store,
            none => none.insert(open(&self.place, self.predictions_max)?),
        };
        let rules = |route: &str| match asking.contains(route) {
            true => Rules { rewards: Rewards::Binary, half_life: None },
            false => self.bandits.rules(route),
        };
        let kept = store.write(ended, told, &rules, now_ms, is_urgent).map_err(|error| error.to_string());
        for Rewarded { arm, version, at_ms, reward } in store.rewarded() {
            let age = Duration::from_millis(now_ms.saturating_sub(at_ms));
            self.engine.rewarded(&arm, version, age, reward);
        }
        self.is_behind = !is_urgent;
        if is_urgent {
            self.synced = Instant::now();
        }
        if let Ok(held) = store.held() {
            self.metrics.outstanding.set(held as f64);
        }
        kept
    }

    fn open(&mut self) -> Result<(), String> {
        self.store = Some(open(&self.place, self.predictions_max)?);
        Ok(())
    }
}

fn open(place: &Place, predictions_max: u64) -> Result<Store, String> {
    Store::new(place.open()?, predictions_max).map_err(|error| format!("cannot read kept feedback: {error}"))
}

fn result(fate: &Fate) -> FeedbackResult {
    match fate {
        Fate::Accepted => FeedbackResult::Accepted,
        Fate::Duplicate => FeedbackResult::Duplicate,
        Fate::Conflict { .. } => FeedbackResult::Conflict,
        Fate::Unknown => FeedbackResult::Unknown,
        Fate::Invalid(_) => FeedbackResult::Invalid,
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
