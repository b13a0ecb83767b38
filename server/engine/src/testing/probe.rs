//! Hands benches the queue, the run slots and the gather buffers by themselves, which are nobody else's business.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Device, Placement};
use crate::cores::{Asked, Cores, Share, Slot};
use crate::cost::CostModel;
use crate::former::Policy;
use crate::gather::Gather;
use crate::metrics::Outcome;
use crate::queue::{Queue, Waited};
use crate::request::{Query, Request, ShapeKey};
use crate::service_level::ServiceLevel;
use crate::slots::Wish;
use crate::terms::Terms;
use crate::tuning::Tuning;
use crate::waiting::{Due, Item};

/// A queue of rows that nobody waits for.
pub struct QueueProbe(Queue<Row>);

/// What a worker takes at once; kept between takes, as workers do.
#[derive(Default)]
pub struct Batch {
    taken: Vec<Row>,
    dropped: Vec<Row>,
}

/// One worker's input buffers.
#[derive(Default)]
pub struct GatherProbe(Gather);

/// A worker that runs batches, and does nothing else.
pub struct SlotsProbe {
    held: Option<Slot>,
    share: Share,
}

/// All that is done for a model's promises, from the arrival of a request to its answer, without sockets and runs.
pub struct PromiseProbe {
    query: Query,
    terms: Terms,
    queue: QueueProbe,
    worker: SlotsProbe,
    service_level: Arc<ServiceLevel>,
}

struct Row {
    shape_key: ShapeKey,
    arrived: Instant,
    due: Due,
}

/// What a row counts for in the queue's bound.
const ROW_BYTES: usize = 120;
/// What a batch is said to have taken.
const RUN_TIME: Duration = Duration::from_micros(100);

// === impl QueueProbe ===

impl QueueProbe {
    /// Batches as large as 64 rows and no delay: the defaults.
    pub fn new(queue_rows_max: usize) -> QueueProbe {
        let policy = Policy {
            batch_rows_max: 64,
            batch_delay: None,
            preferred_rows: Vec::new(),
            queue_rows_max,
            queue_bytes_max: queue_rows_max * ROW_BYTES,
            queue_time_max: None,
            queue_requests_max: Vec::new(),
            workers: 1,
            is_eager: false,
        };
        let cost = CostModel::new(policy.batch_rows_max);
        QueueProbe(Queue::new(policy, cost))
    }

    /// Adds one row; false when the queue is full.
    pub fn push(&self) -> bool {
        self.offer(None)
    }

    /// The same of a row that is due so long from now; false also when it is not expected to be in time.
    pub fn push_due(&self, after: Duration) -> bool {
        self.offer(Some(after))
    }

    fn offer(&self, due_after: Option<Duration>) -> bool {
        let now = Instant::now();
        let due = Due { deadline: due_after.map(|after| now + after), ..Due::default() };
        self.add(now, due)
    }

    fn add(&self, now: Instant, due: Due) -> bool {
        self.0.push(now, Row { shape_key: ShapeKey::default(), arrived: now, due }).is_ok()
    }

    /// Waits for rows and says how many it took; `None` once the queue is closed and empty. The batch that was
    /// taken before counts as run.
    pub fn next_batch(&self, batch: &mut Batch) -> Option<usize> {
        if !batch.taken.is_empty() {
            batch.taken.clear();
            self.0.finish(0, Some(RUN_TIME));
        }
        while self.0.wait() == Waited::Work {
            if self.0.try_batch(0, &mut batch.taken, &mut batch.dropped).is_some() {
                return Some(batch.taken.len());
            }
        }
        None
    }

    pub fn close(&self) {
        self.0.close();
    }
}

impl Item for Row {
    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        ROW_BYTES
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

    fn is_abandoned(&self) -> bool {
        false
    }
}

// === impl GatherProbe ===

impl GatherProbe {
    /// Puts the rows of `requests`, which have equal shapes, side by side; gives their bytes in all.
    ///
    /// # Panics
    /// Without requests.
    pub fn fill(&mut self, requests: &[Request]) -> usize {
        let rows = requests.iter().map(Request::rows).sum();
        self.0.fill(requests.iter().map(Request::inputs), Some(rows));
        self.0.views(requests[0].inputs()).flatten().map(|view| view.data.len()).sum()
    }
}

// === impl SlotsProbe ===

impl SlotsProbe {
    /// The only worker of a machine with so many cores.
    pub fn new(cores: usize) -> SlotsProbe {
        let cores = Cores::new(Some(cores), Duration::ZERO);
        let share = cores.open(1, &[Device::Socket(0)], || Wish::Work { deadline: None });
        SlotsProbe { held: None, share }
    }

    /// A worker's turn from one batch to the next: asks for a slot, or asks again with the one that it holds.
    pub fn next(&mut self) {
        let asked = match self.held.take() {
            Some(slot) => slot.ask_again(),
            None => self.share.ask(Placement::default()),
        };
        self.held = match asked {
            Asked::Granted(slot) => Some(slot),
            Asked::Queued(queued) => queued.wait(),
        };
    }

    /// There is nothing more to run for the moment.
    pub fn give_back(&mut self) {
        self.held = None;
    }
}

// === impl PromiseProbe ===

impl PromiseProbe {
    /// Of a model that promises answers within `slo`, on a machine with so many cores.
    pub fn new(slo: Duration, queue_rows_max: usize, cores: usize) -> PromiseProbe {
        PromiseProbe {
            query: Query::default(),
            terms: Terms::new(&Tuning { slo: Some(slo), ..Tuning::default() }),
            queue: QueueProbe::new(queue_rows_max),
            worker: SlotsProbe::new(cores),
            service_level: ServiceLevel::new("probe", Instant::now()),
        }
    }

    /// A row arrives; false when it is refused.
    pub fn push(&self) -> bool {
        let now = Instant::now();
        self.queue.add(now, self.terms.due(&self.query, now))
    }

    /// A worker gets a run slot, takes a batch and accounts for its answers; says how many there were.
    pub fn run(&mut self, batch: &mut Batch) -> usize {
        self.worker.next();
        let taken = self.queue.next_batch(batch).expect("nobody closes the queue; this is a bug");
        let now = Instant::now();
        for row in &batch.taken {
            self.service_level.count(Outcome::Ok, now);
            if let Some(deadline) = row.due.deadline {
                self.service_level.record_slack(deadline, now);
            }
        }
        taken
    }
}
