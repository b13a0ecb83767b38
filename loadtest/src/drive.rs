//! Decides the two kinds of load: a fixed number of requests in flight, or a fixed schedule of arrivals.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::mix::Mix;
use crate::pace::Pacer;
use crate::record::{Moments, Outcome, Recorder, Window};
use crate::schedule::Schedule;
use crate::transmit::{Transmit, Workload};

/// A closed loop waits this long after a lost connection, so as not to spin on a dead server.
const PAUSE_AFTER_LOSS: Duration = Duration::from_millis(10);
/// An open loop that is behind lets the other tasks run after this many requests.
const LATE_SENDS_PER_TURN: u32 = 32;

/// When a load stops sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// At this moment after the start.
    Until(Duration),
    /// After this many requests outside the warm-up.
    Requests(u64),
}

/// What all senders of a load share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Set when the load shall stop early.
    pub(crate) stopped: AtomicBool,
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// What every sender of a load keeps to.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) start: Instant,
    pub(crate) window: Window,
    pub(crate) extent: Extent,
    pub(crate) slo: Option<Duration>,
    /// When what was sent is kept.
    pub(crate) keeps_sent: bool,
    pub(crate) shared: Arc<Shared>,
}

/// One sender: a share of the load, on one thread.
pub(crate) struct Drive<T: Transmit> {
    sender: T,
    workloads: Vec<Workload<T::Head>>,
    terms: Terms,
    remaining: AtomicU64,
    mix: Mutex<Mix>,
    recorders: Mutex<Vec<Recorder>>,
}

// === impl Extent ===

impl Extent {
    pub(crate) fn window(self, warmup: Duration) -> Window {
        let end = match self {
            Extent::Until(end) => Some(end),
            Extent::Requests(_) => None,
        };
        Window { start: warmup, end }
    }
}

// === impl Drive ===

impl<T: Transmit> Drive<T> {
    pub(crate) fn new(sender: T, workloads: Vec<Workload<T::Head>>, terms: Terms, seed: u64) -> Drive<T> {
        let models = workloads.iter().map(|workload| (workload.weight, workload.payloads.len()));
        let mix = Mix::new(models, seed);
        let recorder = Recorder::new(terms.window, terms.slo);
        let recorder = if terms.keeps_sent { recorder.keeping_sent() } else { recorder };
        let recorders = vec![recorder; workloads.len()];
        let remaining = match terms.extent {
            Extent::Requests(requests) => requests,
            Extent::Until(_) => u64::MAX,
        };
        Drive {
            sender,
            workloads,
            terms,
            remaining: AtomicU64::new(remaining),
            mix: Mutex::new(mix),
            recorders: Mutex::new(recorders),
        }
    }

    /// Keeps `in_flight` requests under way until the extent is reached and all are answered.
    pub(crate) async fn closed(self: &Arc<Self>, in_flight: usize) {
        let mut loops = JoinSet::new();
        for _ in 0..in_flight {
            let drive = Arc::clone(self);
            loops.spawn(async move {
                loop {
                    let intended = drive.terms.start.elapsed();
                    if !drive.admits(intended) {
                        break;
                    }
                    if drive.request(intended).await == Outcome::Transport {
                        tokio::time::sleep(PAUSE_AFTER_LOSS).await;
                    }
                }
            });
        }
        loops.join_all().await;
    }

    /// Sends at the moments of `schedule` whatever the answers do, until the extent is reached and all
    /// are answered. More than `in_flight_max` requests wait for others; their latency runs meanwhile.
    pub(crate) async fn open(
        self: &Arc<Self>,
        schedule: Schedule,
        pacer: &Pacer,
        in_flight_max: u32,
    ) -> std::io::Result<()> {
        let places = Arc::new(Semaphore::new(in_flight_max as usize));
        let mut late_sends = 0;
        for intended in schedule {
            if !self.admits(intended) {
                break;
            }
            let moment = self.terms.start + intended;
            if moment > Instant::now() {
                pacer.wait_until(moment).await?;
                late_sends = 0;
            } else {
                late_sends += 1;
                if late_sends % LATE_SENDS_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let place = Arc::clone(&places).acquire_owned().await;
            let drive = Arc::clone(self);
            tokio::spawn(async move {
                drive.request(intended).await;
                drop(place);
            });
        }
        drop(places.acquire_many(in_flight_max).await);
        Ok(())
    }

    /// What was measured, by workload. All requests must have been answered.
    pub(crate) fn take_recorders(&self) -> Vec<Recorder> {
        std::mem::take(&mut *self.recorders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn admits(&self, intended: Duration) -> bool {
        if self.terms.shared.stopped.load(Ordering::Relaxed) {
            return false;
        }
        match self.terms.extent {
            Extent::Until(end) => intended < end,
            Extent::Requests(_) if !self.terms.window.contains(intended) => true,
            Extent::Requests(_) => self
                .remaining
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |remaining| remaining.checked_sub(1))
                .is_ok(),
        }
    }

    async fn request(&self, intended: Duration) -> Outcome {
        let (model, payload) = self.mix.lock().unwrap_or_else(PoisonError::into_inner).pick();
        let workload = &self.workloads[model];
        let payload = &workload.payloads[payload];
        let sent = self.terms.start.elapsed();
        let answer = self.sender.transmit(&workload.head, payload).await;
        let done = self.terms.start.elapsed();
        let outcome = answer.outcome;
        let moments = Moments { intended, sent, done };
        self.recorders.lock().unwrap_or_else(PoisonError::into_inner)[model].record(
            moments,
            payload.rows,
            answer,
        );
        let counter =
            if outcome == Outcome::Ok { &self.terms.shared.answered } else { &self.terms.shared.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::body::Payload;
    use crate::error::Result;
    use crate::model::Metadata;
    use crate::record::Answer;
    use crate::schedule::Arrivals;
    use crate::transmit::ModelName;

    /// A server that takes 1 ms for an answer, but stands still between two moments.
    #[derive(Clone)]
    struct Stalling {
        start: Instant,
        stall: (Duration, Duration),
    }

    impl Transmit for Stalling {
        type Head = ();

        fn head(&self, _model: &ModelName, _timeout: Option<Duration>) -> Result<()> {
            Ok(())
        }

        async fn metadata(&self, model: &ModelName) -> Result<Metadata> {
            Ok(Metadata { name: model.name.clone(), inputs: Vec::new() })
        }

        async fn transmit(&self, _head: &(), _payload: &Payload) -> Answer {
            let (from, to) = self.stall;
            if (from..to).contains(&self.start.elapsed()) {
                tokio::time::sleep_until(self.start + to).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            Answer::OK
        }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// 100 ms of warm-up, one second of load with a stall from 500 ms to 900 ms.
    fn drive(extent: Extent) -> Arc<Drive<Stalling>> {
        let start = Instant::now();
        let sender = Stalling { start, stall: (ms(500), ms(900)) };
        let payload = Payload { body: Bytes::new(), rows: 1, json_length: None };
        let workload = Workload { weight: 1.0, head: (), payloads: vec![payload] };
        let window = extent.window(ms(100));
        let terms =
            Terms { start, window, extent, slo: Some(ms(10)), keeps_sent: false, shared: Arc::default() };
        Arc::new(Drive::new(sender, vec![workload], terms, 0))
    }

    async fn open(extent: Extent, in_flight_max: u32) -> Recorder {
        let drive = drive(extent);
        let schedule = Schedule::new(Arrivals::Constant, 100.0, 0, 1, 0);
        drive.open(schedule, &Pacer::coarse(), in_flight_max).await.unwrap();
        drive.take_recorders().remove(0)
    }

    fn latency_ms(recorder: &Recorder, percentile: f64) -> f64 {
        (recorder.latency_ns(Outcome::Ok).value_at_percentile(percentile) as f64 / 1e6).round()
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_charges_a_stall_to_every_request_meant_during_it() {
        let recorder = open(Extent::Until(ms(1100)), 1000).await;
        // One request every 10 ms from 100 ms on; those meant at 500, 510, … 890 wait for the rest of the stall.
        assert_eq!(recorder.requests(), 100);
        assert_eq!(latency_ms(&recorder, 100.0), 401.0);
        assert_eq!(latency_ms(&recorder, 60.0), 1.0);
        assert_eq!(latency_ms(&recorder, 61.0), 11.0);
        assert_eq!(latency_ms(&recorder, 80.0), 201.0);
        assert_eq!(recorder.lag_ns().max(), recorder.lag_ns().min(), "no request was sent late");
        assert_eq!(recorder.good_in_window(), Some(60));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_place_counts_as_latency_and_as_lag_but_not_as_service() {
        let recorder = open(Extent::Until(ms(1100)), 1).await;
        assert_eq!(recorder.requests(), 100, "the schedule is kept: what is late is sent late, not left out");
        assert_eq!(latency_ms(&recorder, 100.0), 401.0);
        // Behind the stalled one, each takes its 1 ms in turn, which eats up 9 ms of the 401 ms each time.
        let queued = recorder.latency_ns(Outcome::Ok).count_between(2_000_000, u64::MAX);
        assert_eq!(queued, 45);
        let stalled = recorder.service_ns().count_between(2_000_000, u64::MAX);
        assert_eq!(stalled, 1, "counted from sending, only one request saw the stall");
        assert!(recorder.lag_ns().max() > 380_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_sees_a_stall_once_for_each_request_in_flight() {
        let drive = drive(Extent::Until(ms(1100)));
        drive.closed(3).await;
        let recorder = drive.take_recorders().remove(0);
        assert_eq!(recorder.latency_ns(Outcome::Ok).count_between(2_000_000, u64::MAX), 3);
        assert!((1_700..=1_803).contains(&recorder.requests()), "{}", recorder.requests());
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_of_requests_counts_those_after_the_warm_up() {
        assert_eq!(open(Extent::Requests(7), 10).await.requests(), 7);
        let drive = drive(Extent::Requests(7));
        drive.closed(3).await;
        assert_eq!(drive.take_recorders()[0].requests(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_load_sends_nothing_more() {
        let drive = drive(Extent::Until(ms(1100)));
        drive.terms.shared.stopped.store(true, Ordering::Relaxed);
        drive.closed(3).await;
        assert_eq!(drive.take_recorders()[0].requests(), 0);
    }
}
