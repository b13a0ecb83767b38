//! One loaded version as the catalog holds it: checks and queues queries, and keeps its own statistics.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;
use tokio::runtime::Handle;

use crate::answer::{self, Ticket};
use crate::answer_limit::AnswerLimit;
use crate::backend::{Device, Model};
use crate::capacity::{Capacity, LatencyModel};
use crate::conduct::{Conduct, Summary};
use crate::cores::{Cores, Slot};
use crate::cost::CostModel;
use crate::error::{InferError, Stage};
use crate::former::{Policy, Refusal};
use crate::job::Job;
use crate::merging::Merging;
use crate::metrics::{AuditHandles, AuditMetrics, DeploymentHandles, DeploymentMetrics, Outcome};
use crate::queue::{Depth, Queue};
use crate::request::{ModelInfo, Query, Request};
use crate::samples::Recipe;
use crate::service_level::ServiceLevel;
use crate::statistics::{BatchStatistics, Counted, Statistics};
use crate::terms::Terms;
use crate::tuning::Fallback;
use crate::waiting::{Due, Place};

/// A version that can serve.
pub(crate) struct Deployment {
    pub(crate) info: Arc<ModelInfo>,
    policy: Policy,
    /// Why the largest batch has so many rows.
    batch_rows_why: String,
    terms: Terms,
    pub(crate) merging: Merging,
    pub(crate) queue: Queue<Job>,
    pub(crate) metrics: DeploymentMetrics,
    pub(crate) audits: AuditMetrics,
    pub(crate) service_level: Arc<ServiceLevel>,
    pub(crate) origin: Origin,
    statistics: Mutex<Statistics>,
    /// The runtime of whoever asks: the same for all.
    pub(crate) callers: OnceLock<Handle>,
    conduct: Mutex<Conduct>,
    /// The workers free their sessions on cores that nothing else wants.
    pub(crate) frees_when_idle: AtomicBool,
    /// For the gauge, which is there from the first request on.
    pub(crate) instances: AtomicUsize,
}

/// What more sessions of a version are made of, and where they run.
pub(crate) struct Origin {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) cores: Arc<Cores>,
    /// How samples of it are made up, where one has run.
    pub(crate) recipe: Option<Recipe>,
}

/// A query that waits for its answer. Dropping it frees what it still has of the queue.
pub(crate) struct Admitted {
    deployment: Arc<Deployment>,
    /// Who would have refused it.
    degraded_from: Option<Arc<ModelInfo>>,
    pub(crate) ticket: Ticket,
    pub(crate) rows: usize,
    places: Places,
    arrived: Instant,
    due: Due,
    pub(crate) answer_limit: Option<AnswerLimit>,
    /// It has its answer, or its end is counted.
    is_over: bool,
}

/// Where the parts of a request wait: mostly one.
type Places = SmallVec<[Place; 1]>;

/// Why a query was not admitted.
pub(crate) enum Refused {
    Error(InferError),
    /// There is no time or no room: another version may have both.
    Overload(InferError),
    /// The version was retired meanwhile; the query may try its successor.
    Closed,
}

/// What one run of the model did, for the statistics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pub(crate) requests: usize,
    pub(crate) rows: usize,
    /// Over all requests of the batch.
    pub(crate) queue_total: Duration,
    pub(crate) request_total: Duration,
    pub(crate) timing: RunTiming,
}

/// Durations of one run, in the order in which they happen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunTiming {
    pub(crate) gather: Duration,
    pub(crate) run: Duration,
    pub(crate) scatter: Duration,
}

// === impl Deployment ===

impl Deployment {
    pub(crate) fn new(
        info: ModelInfo,
        policy: Policy,
        cost: CostModel,
        (batch_rows_why, merging): (String, Merging),
        terms: Terms,
        service_level: Arc<ServiceLevel>,
        origin: Origin,
    ) -> Deployment {
        let metrics = DeploymentMetrics::new((info.name.clone(), info.version), DeploymentHandles::resolve);
        let audits = AuditMetrics::new((info.name.clone(), info.version), AuditHandles::resolve);
        let queue = Queue::new(policy.clone(), cost);
        if !merging.is_on() {
            queue.set_merging(false);
        }
        Deployment {
            info: Arc::new(info),
            queue,
            audits,
            merging,
            policy,
            batch_rows_why,
            terms,
            metrics,
            service_level,
            origin,
            statistics: Mutex::new(Statistics::default()),
            callers: OnceLock::new(),
            conduct: Mutex::new(Conduct::new(Instant::now())),
            frees_when_idle: AtomicBool::new(false),
            instances: AtomicUsize::new(0),
        }
    }

    /// Checks a query that arrives now and queues it, or else has `fallback` do that. Never blocks.
    ///
    /// # Errors
    /// Counted as this deployment's.
    pub(crate) fn submit(
        self: &Arc<Deployment>,
        query: Query,
        now: Instant,
        fallback: Option<&Arc<Deployment>>,
    ) -> Result<Admitted, InferError> {
        let spare = fallback.map(|fallback| (fallback, query.clone()));
        let refused = match self.admit(query, now) {
            Ok(admitted) => return Ok(admitted),
            Err(refused) => refused,
        };
        if let (Refused::Overload(_), Some((fallback, query))) = (&refused, spare)
            && let Ok(mut admitted) = fallback.admit(query, now)
        {
            self.metrics.degraded.increment(1);
            admitted.degraded_from = Some(Arc::clone(&self.info));
            return Ok(admitted);
        }
        Err(self.refuse(refused))
    }

    /// The error for a query that nobody else took, counted as this deployment's.
    pub(crate) fn refuse(&self, refused: Refused) -> InferError {
        match refused {
            Refused::Error(error) => self.count_refused(error),
            Refused::Overload(error) => {
                self.origin.cores.note_refusal(Instant::now());
                self.count_refused(error)
            }
            Refused::Closed => {
                self.count(Outcome::Unavailable);
                InferError::Unavailable("the server is shutting down".into())
            }
        }
    }

    fn count_refused(&self, error: InferError) -> InferError {
        self.count(Outcome::of(&error));
        self.record_failure(Duration::ZERO);
        error
    }

    /// Checks a query and queues it; what is refused is not counted yet.
    pub(crate) fn admit(
        self: &Arc<Deployment>,
        mut query: Query,
        arrived: Instant,
    ) -> Result<Admitted, Refused> {
        if self.callers.get().is_none()
            && let Ok(runtime) = Handle::try_current()
        {
            self.callers.get_or_init(|| runtime);
        }
        let due = self.terms.due(&query, arrived);
        query.deadline = due.deadline;
        let answer_limit = query.answer_limit;
        let mut request = Request::new(&self.info.signature, query).map_err(Refused::Error)?;
        let rows = request.rows();
        if rows > self.policy.queue_rows_max && !self.merging.is_on() {
            // Whether its first axis counts rows, as those of a signal do not, nobody knows.
            request.keep_alone();
        }
        self.check_size(&request).map_err(Refused::Error)?;
        let signature = &self.info.signature;
        if let Some(limit) = answer_limit
            // Else the rows of the answer may be others.
            && (self.merging.is_on() || !signature.is_batched())
        {
            limit.check(request.least_answer_bytes(signature)).map_err(Refused::Error)?;
        }
        if due.deadline.is_some_and(|deadline| deadline <= arrived) {
            return Err(Refused::Error(InferError::DeadlineExceeded { stage: Stage::Queue }));
        }
        let pushed = if self.runs_whole(request.rows()) {
            let (reply, ticket) = answer::whole();
            let job = Job { request, arrived, due, reply: Some(reply) };
            let pushed = self.queue.push(arrived, job);
            pushed.map(|place| (Places::from([place]), ticket)).map_err(|(refusal, _)| refusal)
        } else {
            let parts = request.split(self.policy.batch_rows_max);
            let (replies, ticket) = answer::parts(parts.len());
            let jobs = parts
                .into_iter()
                .zip(replies)
                .map(|(request, reply)| Job { request, arrived, due, reply: Some(reply) })
                .collect();
            let pushed = self.queue.push_all(arrived, jobs);
            pushed.map(|places| (places.into(), ticket)).map_err(|(refusal, _)| refusal)
        };
        match pushed {
            Ok((places, ticket)) => {
                let deployment = Arc::clone(self);
                Ok(Admitted {
                    deployment,
                    degraded_from: None,
                    ticket,
                    rows,
                    places,
                    arrived,
                    due,
                    answer_limit,
                    is_over: false,
                })
            }
            Err(Refusal::Closed) => Err(Refused::Closed),
            Err(refusal) => Err(Refused::Overload(self.refused(refusal))),
        }
    }

    /// Whether a request of so many rows is not cut into parts: it fits a batch, or its requests run alone, and then
    /// its answer is to be the model's own.
    pub(crate) fn runs_whole(&self, rows: usize) -> bool {
        rows <= self.policy.batch_rows_max || !self.merging.is_on()
    }

    /// From now on requests share runs, or do not; `why` is for people.
    pub(crate) fn set_merging(&self, merges: bool, why: String) {
        self.merging.find(merges, why, || self.queue.set_merging(merges));
    }

    /// From now on requests run alone, because rows of callers were not kept apart. True for whoever says so first.
    pub(crate) fn refute_merging(&self, why: String) -> bool {
        self.merging.refute(why, || self.queue.set_merging(false))
    }

    fn check_size(&self, request: &Request) -> Result<(), InferError> {
        let name = &self.info.name;
        if request.rows() > self.policy.queue_rows_max {
            return Err(InferError::TooLarge(format!(
                "the request has {} rows; model '{name}' takes at most {} at once: send fewer, or raise \
                 queue.rows_max in its model.toml",
                request.rows(),
                self.policy.queue_rows_max
            )));
        }
        if request.bytes() > self.policy.queue_bytes_max {
            return Err(InferError::TooLarge(format!(
                "the request has {} bytes of tensors; model '{name}' takes at most {} at once: send fewer, or \
                 raise queue.bytes_max in its model.toml",
                request.bytes(),
                self.policy.queue_bytes_max
            )));
        }
        Ok(())
    }

    fn refused(&self, refusal: Refusal) -> InferError {
        let Policy { queue_rows_max, queue_bytes_max, queue_time_max, .. } = &self.policy;
        let full = |what: String| (format!("the queue of model '{}' is full: {what}", self.info.name), None);
        let (what, wait) = match refusal {
            Refusal::Hopeless => return InferError::DeadlineExceeded { stage: Stage::Arrival },
            Refusal::Rows { waiting } => full(format!("{waiting} of {queue_rows_max} rows wait")),
            Refusal::Bytes { waiting } => full(format!("{waiting} of {queue_bytes_max} bytes wait")),
            Refusal::Requests { waiting, most } => {
                full(format!("{waiting} of {most} requests of its priority wait"))
            }
            Refusal::Time { waiting } => {
                let most = queue_time_max.unwrap_or_default();
                full(format!("what waits takes {waiting:.1?} of at most {most:.1?}"))
            }
            Refusal::Late { by } => {
                let what = format!("model '{}' would answer {by:.1?} after the deadline", self.info.name);
                (what, Some(by))
            }
            Refusal::Closed => full("it is closed".to_owned()),
        };
        // When half of what waits now should be done a retry has a fair chance.
        let wait = wait.unwrap_or_else(|| self.queue.half_drained());
        let retry_after = wait.clamp(Duration::from_millis(1), Duration::from_secs(10));
        let message = format!("{what}; retry in {} ms", retry_after.as_millis());
        InferError::Overloaded { message, retry_after }
    }

    /// What is known of its run times, and what follows from them.
    pub(crate) fn latency_model(&self) -> LatencyModel {
        let Policy { batch_rows_max, workers, .. } = self.policy;
        let batch_rows_max = if self.merging.is_on() { batch_rows_max } else { 1 };
        let slo = self.terms.slo;
        self.queue.with_cost(|cost, wait_margin| LatencyModel {
            tables: cost.tables(),
            margin: cost.margin().into(),
            wait_margin: wait_margin.into(),
            batch_rows_max,
            batch_rows_why: self.batch_rows_why.clone(),
            workers,
            slo,
            capacity: Capacity::new(cost, batch_rows_max, workers, slo),
        })
    }

    /// Who is to answer what it would refuse for lack of time or room.
    pub(crate) fn degrade_to(&self) -> Option<&Fallback> {
        self.terms.degrade_to.as_ref()
    }

    /// A request that has ended otherwise than with an answer.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.metrics.count(outcome);
        self.service_level.count(outcome, Instant::now());
    }

    /// Sets the gauges that describe a moment, if there was one yet that says something.
    pub(crate) fn refresh_gauges(&self) {
        if let Some(metrics) = self.metrics.if_used() {
            let depth = self.depth();
            metrics.queue_rows.set(depth.rows as f64);
            metrics.queue_bytes.set(depth.bytes as f64);
            metrics.instances.set(self.instances.load(Ordering::Relaxed) as f64);
        }
    }

    pub(crate) fn depth(&self) -> Depth {
        self.queue.depth()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.lock_statistics().clone()
    }

    /// Requests that the model answered.
    pub(crate) fn record_answers(&self, latencies: impl Iterator<Item = Duration>, now: Instant) {
        self.lock_conduct().answered(latencies, now);
    }

    /// A request that the model failed.
    pub(crate) fn record_model_failure(&self) {
        self.lock_conduct().failed(Instant::now());
    }

    /// How it behaves lately.
    pub(crate) fn conduct(&self) -> Summary {
        self.lock_conduct().summary()
    }

    fn lock_conduct(&self) -> MutexGuard<'_, Conduct> {
        self.conduct.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record_run(&self, ran: &Ran) {
        let requests = ran.requests as u32;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut statistics = self.lock_statistics();
        statistics.last_inference_ms = now.as_millis() as u64;
        statistics.inference_count += ran.rows as u64;
        statistics.execution_count += 1;
        statistics.success.add(requests, ran.request_total);
        statistics.queue.add(requests, ran.queue_total);
        statistics.compute_input.add(requests, ran.timing.gather * requests);
        statistics.compute_infer.add(requests, ran.timing.run * requests);
        statistics.compute_output.add(requests, ran.timing.scatter * requests);
        let batches = &mut statistics.batches;
        let position = batches.partition_point(|batch| batch.rows < ran.rows);
        if batches.get(position).is_none_or(|batch| batch.rows != ran.rows) {
            batches.insert(position, BatchStatistics { rows: ran.rows, ..BatchStatistics::default() });
        }
        let batch = &mut batches[position];
        batch.compute_input.add(1, ran.timing.gather);
        batch.compute_infer.add(1, ran.timing.run);
        batch.compute_output.add(1, ran.timing.scatter);
    }

    pub(crate) fn record_failure(&self, total: Duration) {
        self.lock_statistics().fail.add(1, total);
    }

    fn lock_statistics(&self) -> std::sync::MutexGuard<'_, Statistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Origin ===

impl Origin {
    /// Of a session beside those that serve.
    pub(crate) fn device(&self) -> Device {
        self.model.devices().first().copied().unwrap_or(Device::Socket(0))
    }

    /// Run slots for it, as loads have them: `None` where none is free for long.
    pub(crate) fn background(&self) -> Option<Slot> {
        match self.device() {
            Device::Socket(_) => self.cores.background(1),
            Device::Gpu(_) => self.spare(),
        }
    }

    /// Run slots for it, if nobody else wants them now.
    pub(crate) fn spare(&self) -> Option<Slot> {
        self.cores.spare(self.device())
    }
}

// === impl Admitted ===

impl Admitted {
    pub(crate) fn info(&self) -> &Arc<ModelInfo> {
        &self.deployment.info
    }

    pub(crate) fn degraded_from(&self) -> Option<&Arc<ModelInfo>> {
        self.degraded_from.as_ref()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due.deadline
    }

    /// When it is to be refused if no worker has taken it until then.
    pub(crate) fn start_by(&self) -> Option<Instant> {
        self.due.start_by
    }

    /// It has this answer.
    pub(crate) fn settle(&mut self, is_ok: bool) {
        self.is_over = true;
        if !is_ok && self.places.len() > 1 {
            // One part's failure is the request's: nobody waits for the others.
            self.deployment.queue.remove(&self.places, false);
        }
    }

    /// Takes it out of the queue because its time is over. False if a worker has taken it: then the worker counts how
    /// it ends.
    pub(crate) fn expire(&mut self) -> bool {
        let is_late = self.due.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let is_expired = !self.is_over && self.deployment.queue.remove(&self.places, is_late);
        if is_expired {
            self.is_over = true;
            self.deployment.count(Outcome::DeadlineExceeded);
            self.deployment.record_failure(self.arrived.elapsed());
        }
        is_expired
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if !self.is_over && self.deployment.queue.remove(&self.places, false) {
            self.deployment.count(Outcome::Cancelled);
        }
    }
}

impl Counted {
    fn add(&mut self, count: u32, total: Duration) {
        self.count += u64::from(count);
        self.total += total;
    }
}
