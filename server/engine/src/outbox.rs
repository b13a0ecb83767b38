//! Answers on their way out: while there is more to run, they wait briefly for the next ones and leave together.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::answer::{self, Answer, Reply};
use crate::attainment::Tally;
use crate::deployment::{Deployment, Ran};
use crate::metrics::Outcome;

/// An answer waits at most this part of the time that its request has taken so far.
const WAIT_PART: u32 = 8;
/// One whose deadline is nearer than so many times that wait does not wait at all.
const DEADLINE_MARGIN: u32 = 4;

/// Finished answers of one worker. Each wake-up of an I/O thread costs a worker its core and its caches, so on
/// a busy server the answers of several short runs share one.
pub(crate) struct Outbox<'a> {
    deployment: &'a Deployment,
    batches: Vec<Finished>,
    /// When the first of them has waited enough.
    leave_by: Option<Instant>,
}

/// The answers of one run.
pub(crate) struct Finished {
    pub(crate) ran: Ran,
    /// Not in place: answers are some hundred bytes each, and a run's move several times on their way out.
    pub(crate) answers: Vec<FinishedAnswer>,
}

pub(crate) struct FinishedAnswer {
    pub(crate) reply: Reply,
    pub(crate) answer: Answer,
    pub(crate) arrived: Instant,
    pub(crate) deadline: Option<Instant>,
}

// === impl Outbox ===

impl<'a> Outbox<'a> {
    pub(crate) fn new(deployment: &'a Deployment) -> Outbox<'a> {
        Outbox { deployment, batches: Vec::new(), leave_by: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn add(&mut self, finished: Finished, now: Instant) {
        let leave_by = finished.answers.iter().map(|answer| answer.leave_by(now)).min();
        self.leave_by = self.leave_by.into_iter().chain(leave_by).min();
        self.batches.push(finished);
    }

    /// Sends the answers if they cannot wait for another run, expected to end at `next`.
    pub(crate) fn send_before(&mut self, next: Instant) {
        if self.leave_by.is_some_and(|leave_by| leave_by < next) {
            self.send();
        }
    }

    pub(crate) fn send(&mut self) {
        send(&mut self.batches, self.deployment);
        self.leave_by = None;
    }

    /// Moves what waits to where others can send it, should the run that begins last. `place` is empty.
    pub(crate) fn lend(&mut self, place: &mut Vec<Finished>) {
        std::mem::swap(&mut self.batches, place);
    }

    /// Takes back what was lent and not sent meanwhile.
    pub(crate) fn take_back(&mut self, place: &mut Vec<Finished>) {
        std::mem::swap(&mut self.batches, place);
        if self.batches.is_empty() {
            self.leave_by = None;
        }
    }
}

/// Sends all answers. Counted before they are sent, so that a caller who has its answer finds it in the
/// statistics.
pub(crate) fn send(batches: &mut Vec<Finished>, deployment: &Deployment) {
    let now = Instant::now();
    let mut replies = Vec::new();
    let mut latencies: SmallVec<[Duration; 64]> = SmallVec::new();
    let mut tally = Tally::default();
    let Deployment { metrics, service_level, .. } = deployment;
    for Finished { mut ran, answers } in batches.drain(..) {
        for FinishedAnswer { reply, mut answer, arrived, deadline } in answers {
            let total = now.saturating_duration_since(arrived);
            answer.timing.total = total;
            ran.request_total += total;
            latencies.push(total);
            let outcome = unheard(&reply, deadline, now).unwrap_or(Outcome::Ok);
            match outcome {
                Outcome::Ok => metrics.record_answer(answer.timing.queue, total),
                outcome => metrics.count(outcome),
            }
            outcome.verdict().into_iter().for_each(|is_good| tally.add(is_good));
            if let Some(deadline) = deadline {
                service_level.record_slack(deadline, now);
            }
            replies.push((reply, Ok(answer)));
        }
        deployment.record_run(&ran);
    }
    deployment.record_answers(latencies.iter().copied(), now);
    service_level.count_all(tally, now);
    answer::deliver(replies, deployment.callers.get());
}

// === impl FinishedAnswer ===

impl FinishedAnswer {
    fn leave_by(&self, now: Instant) -> Instant {
        let wait = now.saturating_duration_since(self.arrived) / WAIT_PART;
        match self.deadline {
            Some(deadline) if deadline.saturating_duration_since(now) < wait * DEADLINE_MARGIN => now,
            _ => now + wait,
        }
    }
}

/// Why nobody will take the answer, if so: its deadline has passed, or the caller has gone.
pub(crate) fn unheard(reply: &Reply, deadline: Option<Instant>, now: Instant) -> Option<Outcome> {
    match deadline {
        Some(deadline) if deadline <= now => Some(Outcome::DeadlineExceeded),
        _ if reply.is_abandoned() => Some(Outcome::Cancelled),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Outputs, Timing};

    /// How long an answer to a request of `age_ms` waits whose deadline is `left_ms` away.
    fn wait_ms(age_ms: u64, left_ms: Option<u64>) -> u128 {
        let arrived = Instant::now();
        let now = arrived + Duration::from_millis(age_ms);
        let (reply, _ticket) = answer::whole();
        let answer = FinishedAnswer {
            reply,
            answer: Answer { outputs: Outputs::new(), timing: Timing::default(), batches: Vec::new() },
            arrived,
            deadline: left_ms.map(|left| now + Duration::from_millis(left)),
        };
        (answer.leave_by(now) - now).as_millis()
    }

    #[test]
    fn answers_wait_in_proportion_to_their_age() {
        assert_eq!(wait_ms(0, None), 0);
        assert_eq!(wait_ms(8, None), 1);
        assert_eq!(wait_ms(160, None), 20);
    }

    #[test]
    fn a_near_deadline_is_not_waited_for() {
        assert_eq!(wait_ms(160, Some(1000)), 20);
        assert_eq!(wait_ms(160, Some(80)), 20);
        assert_eq!(wait_ms(160, Some(79)), 0);
    }
}
