//! A thread that owns an `Instance`: gather, run, scatter, answer; bisects a batch that fails and survives a panic.

mod outputs;

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::answer::Answer;
use crate::audit::{AuditedBatch, Sampling};
use crate::backend::{InputView, Instance, Model, Placement};
use crate::cores::{Asked, Share, Slot};
use crate::deployment::{Deployment, Ran, RunTiming};
use crate::error::{InferError, RunError, Stage, panic_text};
use crate::examiner::Examiner;
use crate::former::CloseReason;
use crate::gather::Gather;
use crate::interruptions::{self, Interruptions, Manner};
use crate::job::Job;
use crate::outbox::{Finished, FinishedAnswer, Outbox};
use crate::queue::Waited;
use crate::request::{Outputs, Timing};
use crate::runs::{Caller, GivenUp, RunCell, RunRules};
use crate::stopping::StopReason;
use crate::tensor::Tensor;
use crate::thread_priority::ThreadPriority;
use crate::trace::{SpanRef, Trace, TracedBatch};
use crate::waiting::Item;

use self::outputs::check_declared;
pub(crate) use self::outputs::check_outputs;

/// One worker's state between batches.
pub(crate) struct Worker<'a> {
    deployment: &'a Arc<Deployment>,
    /// Among the workers of the deployment.
    index: usize,
    model: &'a dyn Model,
    rules: &'a RunRules,
    cell: &'a RunCell,
    share: &'a Share,
    placement: Placement,
    /// Held from batch to batch while there is more to run, by the cell while a run is in progress.
    slot: Option<Slot>,
    /// `None` after a panic until a new one could be built.
    instance: Option<Box<dyn Instance>>,
    gather: Gather,
    /// Those who wait for the requests of the batch, at their places, until they are answered. The cell has them
    /// while a run is in progress.
    callers: Vec<Option<Caller>>,
    outbox: Outbox<'a>,
    yields: Yields,
    priority: ThreadPriority<'a>,
    /// Has live batches run again. `None` where that would show nothing.
    audits: Option<(Sampling, &'a Examiner)>,
}

/// Why a worker has stopped serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The queue is closed and empty.
    Over,
    /// There was nothing to do for long; its queue counts it as absent.
    Idle,
}

/// What there is to do next.
enum Next {
    Batch(CloseReason),
    Leave(Left),
}

/// Whether a thread yields its core in between while it computes.
///
/// Linux's fair scheduler lets a thread that computes have its core until the next tick, up to 4 ms, though an I/O
/// thread has something to read. While requests are refused that is how long a refusal takes, and the answer to
/// it, which another server may give, is what a caller waits for.
enum Yields {
    /// There was no reason to yet.
    Unprepared,
    Prepared {
        timer: Interruptions,
        is_on: bool,
    },
    /// The system has no such timers.
    Never,
}

/// How long who wants the core of a worker waits for it while requests are refused. A refusal should be there
/// within a millisecond, and its request waits once to be read and once more for its answer to be written.
const YIELDS_EVERY: Duration = Duration::from_micros(250);

/// What a run gave, and why it was told to stop if it was.
type RunResult = (Result<(Vec<Tensor>, RunTiming), RunError>, Option<StopReason>);

// === impl Worker ===

impl<'a> Worker<'a> {
    pub(crate) fn new(
        deployment: &'a Arc<Deployment>,
        (index, placement, share): (usize, Placement, &'a Share),
        (examiner, priority): (&'a Examiner, ThreadPriority<'a>),
        model: &'a dyn Model,
        rules: &'a RunRules,
        cell: &'a RunCell,
        instance: Option<Box<dyn Instance>>,
    ) -> Worker<'a> {
        if let Some(instance) = &instance {
            cell.set_stopper(instance.stopper());
        }
        let audit_share = deployment.merging.audit_share();
        // Workers and servers are to choose other batches.
        let sampling = || Sampling::new(audit_share, RandomState::new().hash_one(index));
        Worker {
            deployment,
            index,
            model,
            rules,
            cell,
            share,
            placement,
            slot: None,
            instance,
            gather: Gather::default(),
            callers: Vec::new(),
            outbox: Outbox::new(deployment),
            yields: Yields::Unprepared,
            priority,
            audits: (audit_share > 0.0).then(|| (sampling(), examiner)),
        }
    }

    pub(crate) fn into_instance(self) -> Option<Box<dyn Instance>> {
        self.instance
    }

    /// Serves until the queue is closed and empty, or nothing comes for long.
    ///
    /// # Errors
    /// A run did not end, and another worker serves in place of this one.
    pub(crate) fn serve(&mut self) -> Result<Left, GivenUp> {
        let mut batch = Vec::new();
        let mut dropped = Vec::new();
        loop {
            let reason = match self.next_batch(&mut batch, &mut dropped) {
                Next::Batch(reason) => reason,
                Next::Leave(left) => return Ok(left),
            };
            for mut job in dropped.drain(..) {
                caller(&mut job).fail(self.deployment, InferError::DeadlineExceeded { stage: Stage::Queue });
            }
            if batch.is_empty() {
                continue;
            }
            self.deployment.metrics.count_closed(reason);
            let taken = Instant::now();
            self.priority.run_begins(taken);
            interruptions::note_run();
            self.callers.extend(batch.iter_mut().map(|job| Some(caller(job))));
            // The panic may come from the model's runtime or from this crate; in both cases the batch
            // fails, the instance is replaced and the worker lives on.
            let is_typical = match catch_unwind(AssertUnwindSafe(|| self.run_or_bisect(&mut batch, 0, taken)))
            {
                Ok(ran) => ran?,
                Err(panic) => {
                    self.recover(&panic_text(&*panic))?;
                    false
                }
            };
            batch.clear();
            self.callers.clear();
            let now = Instant::now();
            self.priority.run_ended(now - taken, now);
            // A batch that failed or was stopped says nothing about how long others take.
            self.deployment.queue.finish(self.index, is_typical.then_some(now - taken));
            // The next batch should take about as long as this one.
            self.outbox.send_before(now + (now - taken));
        }
    }

    /// Waits for work, then for run slots, and takes a batch only then; waits with nothing unsent.
    fn next_batch(&mut self, batch: &mut Vec<Job>, dropped: &mut Vec<Job>) -> Next {
        let queue = &self.deployment.queue;
        loop {
            let has_more = (self.slot.is_some() || !self.outbox.is_empty()) && queue.is_ready();
            let asked = match self.slot.take() {
                Some(slot) if has_more => slot.ask_again(),
                slot => {
                    drop(slot);
                    if !has_more && !self.outbox.is_empty() {
                        self.outbox.send();
                    }
                    // A thread that computes nothing has nothing to yield, and would be woken for it without an end.
                    self.yields.set(false);
                    self.priority.waits(Instant::now());
                    match queue.wait() {
                        Waited::Work => {}
                        Waited::Idle => return Next::Leave(Left::Idle),
                        Waited::Over => return Next::Leave(Left::Over),
                    }
                    self.share.ask(self.placement)
                }
            };
            let slot = match asked {
                Asked::Granted(slot) => slot,
                Asked::Queued(queued) => {
                    if !self.outbox.is_empty() {
                        self.outbox.send();
                    }
                    if self.share.has_several_devices {
                        queue.pass_on();
                    }
                    let start = Instant::now();
                    let slot = queued.wait();
                    self.deployment.metrics.slot_wait_seconds.record(start.elapsed());
                    // Without one, other workers have taken what there was.
                    let Some(slot) = slot else { continue };
                    slot
                }
            };
            if let Some(reason) = queue.try_batch(self.index, batch, dropped) {
                self.slot = Some(slot);
                return Next::Batch(reason);
            }
        }
    }

    fn recover(&mut self, panic: &str) -> Result<(), GivenUp> {
        self.cell.end(&mut self.callers, &mut self.outbox, &mut self.slot)?;
        let model = &self.deployment.info;
        tracing::error!(
            model = model.name,
            version = model.version,
            panic,
            "a run panicked; replacing the session"
        );
        self.instance = None;
        self.deployment.metrics.instance_replacements.increment(1);
        for caller in self.callers.drain(..).flatten() {
            let error =
                InferError::Backend(format!("the model's run panicked: {panic}; its session is replaced"));
            caller.fail(self.deployment, error);
        }
        Ok(())
    }

    /// Runs `jobs`, the first of which is at place `first` of the batch, together. When that fails they are run in
    /// halves, so that only the guilty one errs. True when one run was enough.
    fn run_or_bisect(&mut self, jobs: &mut [Job], first: usize, taken: Instant) -> Result<bool, GivenUp> {
        let began = jobs.iter().any(|job| job.request.trace().is_some()).then(Instant::now);
        let (result, stopped) = self.run(jobs)?;
        if let Some(began) = began {
            self.trace(jobs, began, result.as_ref().map(|(_, timing)| *timing));
        }
        match (result, stopped) {
            (Ok((outputs, timing)), _) => {
                self.audit(jobs, &outputs);
                self.scatter(jobs, first, outputs, timing, taken);
                return Ok(true);
            }
            (Err(_), Some(reason)) => self.answer_stopped(jobs, first, reason),
            (Err(error), None) if jobs.len() == 1 => {
                let unlike = jobs[0].request.unlike_rows(&self.deployment.info.signature);
                let error = match error {
                    RunError::Input(why) => InferError::InvalidInput(why),
                    // A runtime may not know that it was asked for something odd.
                    RunError::Failed(why) => match unlike {
                        Some(unlike) => InferError::InvalidInput(format!(
                            "{unlike}, which the model does not take: {why}"
                        )),
                        None => InferError::Backend(why),
                    },
                    stopped @ RunError::Stopped => InferError::Backend(stopped.to_string()),
                };
                self.take_caller(first).fail(self.deployment, error);
            }
            (Err(_), None) => {
                let (left, right) = jobs.split_at_mut(jobs.len() / 2);
                let right_first = first + left.len();
                self.run_or_bisect(left, first, taken)?;
                self.run_or_bisect(right, right_first, taken)?;
            }
        }
        Ok(false)
    }

    /// Tells of a run that traced requests were part of, and them of it.
    fn trace(&self, jobs: &mut [Job], began: Instant, result: Result<RunTiming, &RunError>) {
        let traces = || jobs.iter().filter_map(|job| job.request.trace());
        let Some(Trace { tracer, .. }) = traces().next() else { return };
        let members: SmallVec<[SpanRef; 16]> = traces().map(|trace| trace.span).collect();
        let run_began = result.ok().map(|timing| began + timing.gather);
        let batch = TracedBatch {
            model: &self.deployment.info.name,
            version: self.deployment.info.version,
            requests: jobs.len(),
            rows: jobs.iter().map(Item::rows).sum(),
            members: &members,
            began,
            run_began,
            ended: result.map_or_else(|_| Instant::now(), |timing| began + timing.gather + timing.run),
            error: result.err(),
        };
        let span = tracer.trace(&batch);
        for trace in jobs.iter_mut().filter_map(|job| job.request.trace_mut()) {
            trace.batches.push(span);
        }
    }

    fn run(&mut self, jobs: &[Job]) -> Result<RunResult, GivenUp> {
        let signature = &self.deployment.info.signature;
        let rows = jobs.iter().map(Item::rows).sum();
        let instance = match &mut self.instance {
            Some(instance) => instance,
            None => match self.model.instance(self.placement) {
                Ok(built) => {
                    self.cell.set_stopper(built.stopper());
                    self.instance.insert(built)
                }
                Err(error) => {
                    let why = format!("the session could not be replaced: {error}");
                    return Ok((Err(RunError::Failed(why)), None));
                }
            },
        };
        let start = Instant::now();
        self.yields.set(self.share.is_refusing(start));
        self.cell.begin(&mut self.callers, &mut self.outbox, &mut self.slot, rows, start);
        let requests = jobs.iter().map(|job| job.request.inputs());
        let stacked = jobs[0].request.stackable_rows(signature).map(|_| rows);
        self.gather.fill(requests, stacked);
        let views: SmallVec<[Option<InputView<'_>>; 4]> =
            self.gather.views(jobs[0].request.inputs()).collect();
        let gathered = Instant::now();
        let result = instance.run(&views);
        let ran = Instant::now();
        drop(views);
        let stopped = self.cell.end(&mut self.callers, &mut self.outbox, &mut self.slot)?;
        self.gather.shrink();
        let outputs = result.and_then(|outputs| {
            check_outputs(signature, &outputs, stacked)
                .or_else(|error| self.pass_alone(jobs, &outputs, error))?;
            Ok(outputs)
        });
        let timing = RunTiming { gather: gathered - start, run: ran - gathered, scatter: Duration::ZERO };
        if outputs.is_ok() {
            self.rules.ran(timing.run, rows);
            let metrics = &self.deployment.metrics;
            metrics.assembly_seconds.record(timing.gather);
            metrics.run_seconds.record(timing.run);
            metrics.batch_rows.record(rows as f64);
        }
        Ok((outputs.map(|outputs| (outputs, timing)), stopped))
    }

    /// A request that ran whole and alone has the model's own answer, whatever rows that has: there are no others to
    /// get its rows. Where nothing but samples or the owner's word says that rows are kept apart, this shows that they
    /// are not.
    fn pass_alone(&self, jobs: &[Job], outputs: &[Tensor], error: RunError) -> Result<(), RunError> {
        let deployment = self.deployment;
        let [Job { request, .. }] = jobs else { return Err(error) };
        check_declared(&deployment.info.signature, outputs)?;
        let merging = &deployment.merging;
        if merging.is_on() && !merging.is_settled() && deployment.refute_merging(error.to_string()) {
            let info = &deployment.info;
            tracing::error!(model = info.name, version = info.version, %error, "each request runs alone from now on");
        }
        if request.is_whole() { Ok(()) } else { Err(error) }
    }

    /// Has the batch run again row by row if its turn has come.
    fn audit(&mut self, jobs: &[Job], outputs: &[Tensor]) {
        let Some((sampling, examiner)) = &mut self.audits else { return };
        // One row has no others.
        if matches!(jobs, [job] if job.rows() == 1) || !sampling.takes() {
            return;
        }
        if self.deployment.merging.is_on() {
            let requests = jobs.iter().map(|job| (job.request.inputs(), job.rows()));
            examiner.audit(self.deployment, || AuditedBatch::new(requests, outputs, sampling.place()));
        }
    }

    fn answer_stopped(&mut self, jobs: &[Job], first: usize, reason: StopReason) {
        let now = Instant::now();
        let rows = jobs.iter().map(Item::rows).sum();
        for place in first..first + jobs.len() {
            let caller = self.take_caller(place);
            match reason {
                StopReason::Abandoned => caller.count_gone(self.deployment, now),
                StopReason::TimedOut => {
                    let why = format!(
                        "the run took longer than {:?} and was stopped; run_timeout in the model.toml of '{}' \
                         says how long one may take",
                        self.rules.timeout(rows),
                        self.deployment.info.name
                    );
                    caller.fail(self.deployment, InferError::Backend(why));
                }
            }
        }
    }

    /// Cuts each caller's own rows out of `outputs`, without copying them.
    fn scatter(
        &mut self,
        jobs: &mut [Job],
        first: usize,
        outputs: Vec<Tensor>,
        mut timing: RunTiming,
        taken: Instant,
    ) {
        let start = Instant::now();
        let counts: SmallVec<[usize; 64]> = jobs.iter().map(Item::rows).collect();
        let rows = counts.iter().sum();
        let mut answers: Vec<Outputs> = Vec::with_capacity(jobs.len());
        if let [job] = jobs {
            answers.push(job.request.outputs().pick(outputs));
        } else {
            let mut columns: SmallVec<[_; 4]> =
                outputs.iter().map(|output| output.split_rows(&counts)).collect();
            answers.extend(jobs.iter().map(|job| {
                let own =
                    columns.iter_mut().map(|column| column.next().expect("one part a job; this is a bug"));
                job.request.outputs().pick(own.collect())
            }));
        }
        let mut queue_total = Duration::ZERO;
        let callers = self.callers[first..].iter_mut();
        let answers = jobs.iter_mut().zip(callers).zip(answers).map(|((job, caller), outputs)| {
            let queue = taken.saturating_duration_since(job.arrived);
            queue_total += queue;
            FinishedAnswer {
                reply: caller.take().expect("a job is answered once; this is a bug").reply,
                answer: Answer {
                    outputs,
                    timing: Timing { queue, run: timing.run, batch_rows: rows, ..Timing::default() },
                    batches: job
                        .request
                        .trace_mut()
                        .map_or_else(Vec::new, |trace| std::mem::take(&mut trace.batches)),
                },
                arrived: job.arrived,
                deadline: job.request.deadline(),
            }
        });
        let answers = answers.collect();
        let end = Instant::now();
        timing.scatter = end - start;
        let ran = Ran { requests: jobs.len(), rows, queue_total, request_total: Duration::ZERO, timing };
        self.outbox.add(Finished { ran, answers }, end);
    }

    fn take_caller(&mut self, place: usize) -> Caller {
        self.callers[place].take().expect("a job is answered once; this is a bug")
    }
}

// === impl Yields ===

impl Yields {
    fn set(&mut self, wanted: bool) {
        if let (Yields::Unprepared, true) = (&self, wanted) {
            *self = match Interruptions::of_this_thread(Manner::Yield) {
                Ok(timer) => Yields::Prepared { timer, is_on: false },
                Err(error) => {
                    tracing::debug!(%error, "a worker does not yield its core to I/O threads");
                    Yields::Never
                }
            };
        }
        let Yields::Prepared { timer, is_on } = self else { return };
        if *is_on == wanted {
            return;
        }
        *is_on = wanted;
        if let Err(error) = timer.every(wanted.then_some(YIELDS_EVERY)) {
            tracing::debug!(%error, "a worker does not yield its core to I/O threads");
            *self = Yields::Never;
        }
    }
}

fn caller(job: &mut Job) -> Caller {
    let reply = job.reply.take().expect("a job is taken once; this is a bug");
    Caller { reply, arrived: job.arrived, deadline: job.due.deadline }
}
