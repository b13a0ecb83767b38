//! The scheduler that serves, in a simulation: the former with its policy, terms, sweep and cost model, told made-up moments.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::{Machine, Next, Part, Scheduler};
use crate::cost::CostModel;
use crate::former::{Decision, Former};
use crate::random::Random;
use crate::request::{Query, ShapeKey};
use crate::sweep::Sweep;
use crate::terms::Terms;
use crate::tuning::Tuning;
use crate::waiting::{Due, Item, Place};
use crate::workers::policy;

/// What a deployment would decide.
pub struct Ours {
    former: Former<Waiter>,
    terms: Terms,
    rows_max: usize,
    /// Stands for the start: the former counts from here.
    epoch: Instant,
    /// Where the parts of each request wait.
    places: HashMap<usize, Places>,
    taken: Vec<Waiter>,
    dropped: Vec<Waiter>,
}

type Places = SmallVec<[Place; 1]>;

struct Waiter {
    part: Part,
    arrived: Instant,
    due: Due,
    shape_key: ShapeKey,
}

// === impl Ours ===

impl Ours {
    /// A version that has just been loaded on `machine`: its run times are swept, with `seed`, and the largest batch
    /// is chosen by that unless `tuning` sets it.
    pub fn new(tuning: &Tuning, machine: &Machine, seed: u64) -> Ours {
        let mut random = Random::new(seed);
        let sweep = Sweep::of(tuning.batch_rows_max, |rows| machine.run_times.draw(rows, &mut random));
        let rows_max = tuning.batch_rows_max.unwrap_or_else(|| sweep.rows_max());
        let terms = Terms::new(tuning);
        let policy = policy(rows_max, tuning, &terms, machine.workers);
        let cost = CostModel::seeded(rows_max, &sweep.samples);
        // Any moment will do: all others are counted from it.
        let epoch = Instant::now();
        Ours {
            former: Former::new(policy, cost, epoch),
            terms,
            rows_max,
            epoch,
            places: HashMap::new(),
            taken: Vec::new(),
            dropped: Vec::new(),
        }
    }

    fn at(&self, ns: u64) -> Instant {
        self.epoch + Duration::from_nanos(ns)
    }

    fn waiter(&self, part: Part) -> Waiter {
        let arrived = self.at(part.arrived_ns);
        let deadline = (part.deadline_ns != u64::MAX).then(|| self.at(part.deadline_ns));
        let query = Query { deadline, priority: part.priority, ..Query::default() };
        Waiter { part, arrived, due: self.terms.due(&query, arrived), shape_key: ShapeKey::default() }
    }
}

impl Scheduler for Ours {
    fn rows_max(&self) -> usize {
        self.rows_max
    }

    fn arrive(&mut self, now_ns: u64, parts: &[Part]) -> bool {
        let now = self.at(now_ns);
        let waiters: SmallVec<[Waiter; 1]> = parts.iter().map(|part| self.waiter(*part)).collect();
        if self.former.admits(now, &waiters).is_err() {
            return false;
        }
        let places = waiters.into_iter().map(|waiter| self.former.add(waiter)).collect();
        self.places.extend(parts.first().map(|part| (part.request, places)));
        true
    }

    fn leave(&mut self, request: usize) {
        for place in self.places.remove(&request).into_iter().flatten() {
            self.former.remove(place, true);
        }
    }

    fn poll(&self, now_ns: u64) -> Next {
        match self.former.poll(self.at(now_ns)) {
            Decision::Run => Next::Run,
            Decision::Idle => Next::Idle,
            Decision::WaitUntil(at) => Next::WaitUntil((at - self.epoch).as_nanos() as u64),
        }
    }

    fn take(&mut self, now_ns: u64, worker: usize, batch: &mut Vec<Part>, dropped: &mut Vec<Part>) {
        let now = self.at(now_ns);
        self.former.take(now, worker, &mut self.taken, &mut self.dropped);
        for waiter in &self.taken {
            // Whole requests wait in one place, which is empty now.
            if self.places.get(&waiter.part.request).is_some_and(|places| places.len() == 1) {
                self.places.remove(&waiter.part.request);
            }
        }
        batch.extend(self.taken.drain(..).map(|waiter| waiter.part));
        dropped.extend(self.dropped.drain(..).map(|waiter| waiter.part));
    }

    fn finish(&mut self, worker: usize, _rows: usize, took: Duration) {
        self.former.finish(worker, Some(took));
    }
}

impl Item for Waiter {
    fn rows(&self) -> usize {
        self.part.rows
    }

    fn bytes(&self) -> usize {
        // Bytes bound memory, of which there is none here.
        0
    }

    fn shape_key(&self) -> &ShapeKey {
        &self.shape_key
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn due(&self) -> &Due {
        &self.due
    }

    /// Who leaves takes the rows along.
    fn is_abandoned(&self) -> bool {
        false
    }
}
