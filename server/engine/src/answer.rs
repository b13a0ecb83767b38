//! How an answer travels from a worker to its caller: exactly once, whole, also when the request was cut into parts.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::InferError;
use crate::request::{Outputs, Timing};
use crate::tensor::Tensor;
use crate::trace::SpanRef;

/// The outputs that the caller asked for, with the request's timing.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) outputs: Outputs,
    pub(crate) timing: Timing,
    /// Of a traced request, the batches that it was in.
    pub(crate) batches: Vec<SpanRef>,
}

pub(crate) type Outcome = Result<Answer, InferError>;

/// The caller's end.
pub(crate) type Ticket = oneshot::Receiver<Outcome>;

/// The worker's end.
pub(crate) enum Reply {
    Whole(oneshot::Sender<Outcome>),
    Part { join: Arc<Join>, index: usize },
}

/// Collects the parts of one request. The first failure answers at once and abandons the rest.
pub(crate) struct Join {
    state: Mutex<JoinState>,
}

struct JoinState {
    reply: Option<oneshot::Sender<Outcome>>,
    parts: Vec<Option<Answer>>,
    missing: usize,
}

/// Both ends of a request that runs whole.
pub(crate) fn whole() -> (Reply, Ticket) {
    let (reply, ticket) = oneshot::channel();
    (Reply::Whole(reply), ticket)
}

/// The ends of a request that runs in `parts` parts.
pub(crate) fn parts(parts: usize) -> (Vec<Reply>, Ticket) {
    let (reply, ticket) = oneshot::channel();
    let state = JoinState { reply: Some(reply), parts: (0..parts).map(|_| None).collect(), missing: parts };
    let join = Arc::new(Join { state: Mutex::new(state) });
    let replies = (0..parts).map(|index| Reply::Part { join: Arc::clone(&join), index }).collect();
    (replies, ticket)
}

/// Sends outcomes: on the runtime of its callers if there are several, because each one
/// sent from a worker wakes an I/O thread that may take the worker's core before the next is sent. From
/// there, they are ready together, and those of one connection leave in one write.
pub(crate) fn deliver(replies: Vec<(Reply, Outcome)>, callers: Option<&Handle>) {
    match callers {
        Some(callers) if replies.len() > 1 => {
            // Not awaited: the callers are.
            let _delivery = callers.spawn(async { send_all(replies) });
        }
        _ => send_all(replies),
    }
}

fn send_all(replies: Vec<(Reply, Outcome)>) {
    for (reply, outcome) in replies {
        // A caller who has left needs no answer, and was counted.
        let _heard = reply.send(outcome);
    }
}

// === impl Reply ===

impl Reply {
    /// Whether the caller has gone or has its answer already.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            Reply::Whole(reply) => reply.is_closed(),
            Reply::Part { join, .. } => join.lock().reply.as_ref().is_none_or(oneshot::Sender::is_closed),
        }
    }

    /// Sends the outcome; false when nobody was there to take it.
    pub(crate) fn send(self, outcome: Outcome) -> bool {
        match self {
            Reply::Whole(reply) => reply.send(outcome).is_ok(),
            Reply::Part { join, index } => join.settle(index, outcome),
        }
    }
}

// === impl Join ===

impl Join {
    fn settle(&self, index: usize, outcome: Outcome) -> bool {
        let mut state = self.lock();
        match outcome {
            Err(error) => state.reply.take().is_some_and(|reply| reply.send(Err(error)).is_ok()),
            Ok(answer) => {
                state.parts[index] = Some(answer);
                state.missing -= 1;
                if state.missing > 0 {
                    return state.reply.as_ref().is_some_and(|reply| !reply.is_closed());
                }
                let parts = std::mem::take(&mut state.parts);
                let reply = state.reply.take();
                drop(state);
                let whole = stack(parts.into_iter().flatten().collect());
                reply.is_some_and(|reply| reply.send(whole).is_ok())
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, JoinState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stacks the parts' rows. The longest waits are the request's: its parts ran side by side or in turn.
fn stack(parts: Vec<Answer>) -> Outcome {
    let mut timing = Timing::default();
    for part in &parts {
        timing.queue = timing.queue.max(part.timing.queue);
        timing.run = timing.run.max(part.timing.run);
        timing.total = timing.total.max(part.timing.total);
        timing.batch_rows = timing.batch_rows.max(part.timing.batch_rows);
    }
    let count = parts.first().map_or(0, |part| part.outputs.len());
    let mut outputs = Outputs::new();
    for position in 0..count {
        let pieces: Vec<Tensor> = parts.iter().map(|part| part.outputs[position].1.clone()).collect();
        let stacked = Tensor::stack_rows(&pieces).map_err(|why| {
            InferError::InvalidInput(format!(
                "the model answered the parts of this request, which has more rows than its largest batch, with \
                 outputs that do not fit together: {why}; send fewer rows at once, or raise batch.rows_max"
            ))
        })?;
        outputs.push((parts[0].outputs[position].0, stacked));
    }
    let batches = parts.into_iter().flat_map(|part| part.batches).collect();
    Ok(Answer { outputs, timing, batches })
}
