//! A thread that owns an `Instance`: gather, run, scatter, answer; bisects a batch that fails and survives a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::answer::Answer;
use crate::backend::{InputView, Instance, Model};
use crate::deployment::{Deployment, Ran, RunTiming};
use crate::error::{InferError, RunError, Stage};
use crate::former::CloseReason;
use crate::gather::Gather;
use crate::job::Job;
use crate::metrics::Outcome;
use crate::outbox::{Finished, FinishedAnswer, Outbox, unheard};
use crate::request::{Outputs, Timing};
use crate::tensor::{ShapeText, Signature, Tensor};
use crate::waiting::Item;

/// One worker's state between batches.
pub(crate) struct Worker<'a> {
    deployment: &'a Deployment,
    /// Among the workers of the deployment.
    index: usize,
    model: &'a dyn Model,
    /// `None` after a panic until a new one could be built.
    instance: Option<Box<dyn Instance>>,
    gather: Gather,
    outbox: Outbox<'a>,
}

// === impl Worker ===

impl<'a> Worker<'a> {
    pub(crate) fn new(
        deployment: &'a Deployment,
        index: usize,
        model: &'a dyn Model,
        instance: Box<dyn Instance>,
    ) -> Worker<'a> {
        Worker {
            deployment,
            index,
            model,
            instance: Some(instance),
            gather: Gather::default(),
            outbox: Outbox::new(deployment),
        }
    }

    /// Serves until the queue is closed and empty.
    pub(crate) fn serve(&mut self) {
        let mut batch = Vec::new();
        let mut dropped = Vec::new();
        while let Some(reason) = self.next_batch(&mut batch, &mut dropped) {
            for job in dropped.drain(..) {
                self.answer_dropped(job);
            }
            if batch.is_empty() {
                continue;
            }
            self.deployment.metrics.count_closed(reason);
            let taken = Instant::now();
            // The panic may come from the model's runtime or from this crate; in both cases the batch
            // fails, the instance is replaced and the worker lives on.
            let result = catch_unwind(AssertUnwindSafe(|| self.run_or_bisect(&mut batch, taken)));
            if let Err(panic) = &result {
                self.recover(&mut batch, &panic_text(&**panic));
            }
            batch.clear();
            let now = Instant::now();
            // A batch that failed says nothing about how long others take.
            let took = matches!(result, Ok(true)).then_some(now - taken);
            self.deployment.queue.finish(self.index, took);
            // The next batch should take about as long as this one.
            self.outbox.send_before(now + (now - taken));
        }
    }

    /// Waits for work, with nothing unsent.
    fn next_batch(&mut self, batch: &mut Vec<Job>, dropped: &mut Vec<Job>) -> Option<CloseReason> {
        let queue = &self.deployment.queue;
        if !self.outbox.is_empty() {
            if let Some(reason) = queue.try_batch(self.index, batch, dropped) {
                return Some(reason);
            }
            self.outbox.send();
        }
        queue.next_batch(self.index, batch, dropped)
    }

    fn answer_dropped(&self, mut job: Job) {
        self.fail(&mut job, InferError::DeadlineExceeded { stage: Stage::Queue });
    }

    fn recover(&mut self, batch: &mut [Job], panic: &str) {
        let model = &self.deployment.info;
        tracing::error!(
            model = model.name,
            version = model.version,
            panic,
            "a run panicked; replacing the session"
        );
        self.instance = None;
        self.deployment.metrics.instance_replacements.increment(1);
        for job in batch {
            if job.reply.is_some() {
                let error = InferError::Backend(format!(
                    "the model's run panicked: {panic}; its session is replaced"
                ));
                self.fail(job, error);
            }
        }
    }

    /// Runs `jobs` together. When that fails they are run in halves, so that only the guilty one errs. True when
    /// one run was enough.
    fn run_or_bisect(&mut self, jobs: &mut [Job], taken: Instant) -> bool {
        match self.run(jobs) {
            Ok((outputs, timing)) => {
                self.scatter(jobs, outputs, timing, taken);
                true
            }
            Err(error) if jobs.len() == 1 => {
                let error = match error {
                    RunError::Input(why) => InferError::InvalidInput(why),
                    RunError::Failed(why) => InferError::Backend(why),
                    stopped @ RunError::Stopped => InferError::Backend(stopped.to_string()),
                };
                self.fail(&mut jobs[0], error);
                false
            }
            Err(_) => {
                let (left, right) = jobs.split_at_mut(jobs.len() / 2);
                self.run_or_bisect(left, taken);
                self.run_or_bisect(right, taken);
                false
            }
        }
    }

    fn run(&mut self, jobs: &[Job]) -> Result<(Vec<Tensor>, RunTiming), RunError> {
        let signature = &self.deployment.info.signature;
        let rows = jobs.iter().map(Item::rows).sum();
        let instance = match &mut self.instance {
            Some(instance) => instance,
            None => {
                let built = self.model.instance().map_err(|error| {
                    RunError::Failed(format!("the session could not be replaced after a panic: {error}"))
                })?;
                self.instance.insert(built)
            }
        };
        let start = Instant::now();
        let requests = jobs.iter().map(|job| job.request.inputs());
        self.gather.fill(requests, signature.is_batched().then_some(rows));
        let views: SmallVec<[Option<InputView<'_>>; 4]> =
            self.gather.views(jobs[0].request.inputs()).collect();
        let gathered = Instant::now();
        let outputs = instance.run(&views)?;
        let ran = Instant::now();
        drop(views);
        self.gather.shrink();
        check_outputs(signature, &outputs, rows)?;
        let timing = RunTiming { gather: gathered - start, run: ran - gathered, scatter: Duration::ZERO };
        let metrics = &self.deployment.metrics;
        metrics.assembly_seconds.record(timing.gather);
        metrics.run_seconds.record(timing.run);
        metrics.batch_rows.record(rows as f64);
        Ok((outputs, timing))
    }

    /// Cuts each caller's own rows out of `outputs`, without copying them.
    fn scatter(&mut self, jobs: &mut [Job], outputs: Vec<Tensor>, mut timing: RunTiming, taken: Instant) {
        let start = Instant::now();
        let counts: SmallVec<[usize; 64]> = jobs.iter().map(Item::rows).collect();
        let rows = counts.iter().sum();
        let mut answers: SmallVec<[Outputs; 64]> = SmallVec::new();
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
        let answers = jobs.iter_mut().zip(answers).map(|(job, outputs)| {
            let queue = taken.saturating_duration_since(job.arrived);
            queue_total += queue;
            FinishedAnswer {
                reply: job.reply.take().expect("a job is answered once; this is a bug"),
                answer: Answer {
                    outputs,
                    timing: Timing { queue, run: timing.run, batch_rows: rows, ..Timing::default() },
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

    fn fail(&self, job: &mut Job, error: InferError) {
        let reply = job.reply.take().expect("a job is answered once; this is a bug");
        let outcome = Outcome::of(&error);
        if outcome == Outcome::BackendError {
            self.deployment.record_model_failure();
        }
        // A caller whose deadline has passed was told so by the front door's clock, and has left.
        let unheard = unheard(&reply, job.due.deadline, Instant::now());
        if unheard.is_none() {
            self.deployment.record_failure(job.arrived.elapsed());
        }
        // Counted before it is sent, as answers are.
        self.deployment.count(unheard.unwrap_or(outcome));
        let _heard = reply.send(Err(error));
    }
}

/// A runtime that answers with other tensors than it declared must not hand out anybody's rows.
fn check_outputs(signature: &Signature, outputs: &[Tensor], rows: usize) -> Result<(), RunError> {
    if outputs.len() != signature.outputs.len() {
        return Err(RunError::Failed(format!(
            "the model gave {} outputs, its signature has {}",
            outputs.len(),
            signature.outputs.len()
        )));
    }
    for (spec, output) in signature.outputs.iter().zip(outputs) {
        if output.dtype() != spec.dtype {
            return Err(RunError::Failed(format!(
                "output '{}' is {}, the signature says {}",
                spec.name,
                output.dtype(),
                spec.dtype
            )));
        }
        if signature.is_batched() && output.shape().first() != Some(&rows) {
            return Err(RunError::Failed(format!(
                "output '{}' has shape {} for a batch of {rows} rows: its first dimension must be the rows",
                spec.name,
                ShapeText(output.shape())
            )));
        }
    }
    Ok(())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}
