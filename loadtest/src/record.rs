//! Decides what counts: which answers fall into the measurement, and from when latency runs.
//!
//! Latency is counted from the moment at which a request was *meant* to be sent. A generator that waits for
//! a slow server, and counts from when it got round to sending, leaves out exactly the requests that would
//! have suffered (coordinated omission).

use std::time::Duration;

use hdrhistogram::Histogram;

/// How a request ended, by what the sender should do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// The server refused for lack of room.
    Overloaded,
    /// Not answered within the request's timeout, by the server's word or by the generator's clock.
    Deadline,
    /// The server is loading or shutting down.
    Unavailable,
    /// The request itself is at fault.
    Invalid,
    /// The server failed.
    Internal,
    /// No answer from the server: connection refused, reset or closed.
    Transport,
}

/// What came back for one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// The server's or the connection's words, where the outcome is not `Ok`.
    pub(crate) message: Option<String>,
}

/// The three moments of one request, counted from the start of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    pub(crate) intended: Duration,
    pub(crate) sent: Duration,
    pub(crate) done: Duration,
}

/// A request that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sent {
    /// From the start of the load.
    pub(crate) at: Duration,
    pub(crate) rows: u64,
}

/// The measured part of a load, counted from its start: what was meant earlier is warm-up, what was meant
/// later was not sent. `end` is `None` where a number of requests ends the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) start: Duration,
    pub(crate) end: Option<Duration>,
}

/// What one sender, or after `merge` all of them, measured for one model.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    window: Window,
    slo: Option<Duration>,
    /// By `Outcome`, from the intended moment, in ns.
    latency_ns: Vec<Histogram<u64>>,
    /// Of `Ok`, from the moment of sending, in ns.
    service_ns: Histogram<u64>,
    /// From the intended moment to the moment of sending, in ns.
    lag_ns: Histogram<u64>,
    /// By `Outcome`, the first message seen.
    messages: Vec<Option<String>>,
    ok_in_window: u64,
    rows_in_window: u64,
    good_in_window: u64,
    last_done: Duration,
    /// Kept where it is to be written down.
    sent: Option<Vec<Sent>>,
}

const SAME_BOUNDS: &str = "every histogram has the same bounds; this is a bug";

// === impl Outcome ===

impl Outcome {
    pub(crate) const ALL: [Outcome; 7] = [
        Outcome::Ok,
        Outcome::Overloaded,
        Outcome::Deadline,
        Outcome::Unavailable,
        Outcome::Invalid,
        Outcome::Internal,
        Outcome::Transport,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Overloaded => "overloaded",
            Outcome::Deadline => "deadline",
            Outcome::Unavailable => "unavailable",
            Outcome::Invalid => "invalid",
            Outcome::Internal => "internal",
            Outcome::Transport => "transport",
        }
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) const OK: Answer = Answer { outcome: Outcome::Ok, message: None };

    pub(crate) fn failed(outcome: Outcome, message: impl ToString) -> Answer {
        Answer { outcome, message: Some(message.to_string()) }
    }
}

// === impl Window ===

impl Window {
    pub(crate) fn contains(&self, moment: Duration) -> bool {
        moment >= self.start && self.end.is_none_or(|end| moment < end)
    }
}

// === impl Recorder ===

impl Recorder {
    /// Latencies are kept to three significant digits between 1 µs and one hour.
    pub(crate) fn new(window: Window, slo: Option<Duration>) -> Recorder {
        let empty = Histogram::<u64>::new_with_bounds(1_000, 3_600_000_000_000, 3)
            .expect("the bounds are in order and three digits are allowed; this is a bug");
        Recorder {
            window,
            slo,
            latency_ns: vec![empty.clone(); Outcome::ALL.len()],
            service_ns: empty.clone(),
            lag_ns: empty,
            messages: vec![None; Outcome::ALL.len()],
            ok_in_window: 0,
            rows_in_window: 0,
            good_in_window: 0,
            last_done: Duration::ZERO,
            sent: None,
        }
    }

    /// The same, which also keeps when what was sent.
    pub(crate) fn keeping_sent(mut self) -> Recorder {
        self.sent = Some(Vec::new());
        self
    }

    /// Latency belongs to the requests *meant* inside the window, however late they were answered; rates
    /// belong to the answers that *arrived* inside it, whenever they were meant.
    pub(crate) fn record(&mut self, moments: Moments, rows: u64, answer: Answer) {
        let Moments { intended, sent, done } = moments;
        let latency = done.saturating_sub(intended);
        let outcome = answer.outcome;
        if self.window.contains(intended) {
            save(&mut self.latency_ns[outcome as usize], latency);
            save(&mut self.lag_ns, sent.saturating_sub(intended));
            if outcome == Outcome::Ok {
                save(&mut self.service_ns, done.saturating_sub(sent));
            }
            let message = &mut self.messages[outcome as usize];
            if message.is_none() {
                *message = answer.message;
            }
        }
        if outcome == Outcome::Ok && self.window.contains(done) {
            self.ok_in_window += 1;
            self.rows_in_window += rows;
            self.good_in_window += u64::from(self.slo.is_some_and(|slo| latency <= slo));
        }
        self.last_done = self.last_done.max(done);
        if let Some(all) = &mut self.sent {
            all.push(Sent { at: sent, rows });
        }
    }

    pub(crate) fn merge(&mut self, other: &Recorder) {
        for (mine, theirs) in self.latency_ns.iter_mut().zip(&other.latency_ns) {
            mine.add(theirs).expect(SAME_BOUNDS);
        }
        self.service_ns.add(&other.service_ns).expect(SAME_BOUNDS);
        self.lag_ns.add(&other.lag_ns).expect(SAME_BOUNDS);
        for (mine, theirs) in self.messages.iter_mut().zip(&other.messages) {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        }
        self.ok_in_window += other.ok_in_window;
        self.rows_in_window += other.rows_in_window;
        self.good_in_window += other.good_in_window;
        self.last_done = self.last_done.max(other.last_done);
        if let Some(sent) = &mut self.sent {
            sent.extend(other.sent());
        }
    }

    /// What was sent, in the order of the answers; nothing unless it was kept.
    pub(crate) fn sent(&self) -> &[Sent] {
        self.sent.as_deref().unwrap_or_default()
    }

    pub(crate) fn latency_ns(&self, outcome: Outcome) -> &Histogram<u64> {
        &self.latency_ns[outcome as usize]
    }

    /// Of what the server did not refuse: answered, or late.
    pub(crate) fn admitted_ns(&self) -> Histogram<u64> {
        let mut admitted = self.latency_ns(Outcome::Ok).clone();
        admitted.add(self.latency_ns(Outcome::Deadline)).expect(SAME_BOUNDS);
        admitted
    }

    pub(crate) fn service_ns(&self) -> &Histogram<u64> {
        &self.service_ns
    }

    pub(crate) fn lag_ns(&self) -> &Histogram<u64> {
        &self.lag_ns
    }

    pub(crate) fn message(&self, outcome: Outcome) -> Option<&str> {
        self.messages[outcome as usize].as_deref()
    }

    /// Requests meant inside the window.
    pub(crate) fn requests(&self) -> u64 {
        self.latency_ns.iter().map(Histogram::len).sum()
    }

    pub(crate) fn ok_in_window(&self) -> u64 {
        self.ok_in_window
    }

    pub(crate) fn rows_in_window(&self) -> u64 {
        self.rows_in_window
    }

    /// Answers within the objective, if there is one.
    pub(crate) fn good_in_window(&self) -> Option<u64> {
        self.slo.map(|_| self.good_in_window)
    }

    /// The length of the window; where requests end the load, up to the last answer.
    pub(crate) fn window_s(&self) -> f64 {
        let end = self.window.end.unwrap_or(self.last_done);
        end.saturating_sub(self.window.start).as_secs_f64()
    }

    /// Closes the window early, when the load was interrupted.
    pub(crate) fn cut(&mut self, end: Duration) {
        if self.window.end.is_some_and(|planned| end < planned) {
            self.window.end = Some(end);
        }
    }
}

fn save(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(duration.as_nanos().try_into().unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn recorder() -> Recorder {
        Recorder::new(Window { start: ms(100), end: Some(ms(200)) }, Some(ms(10)))
    }

    fn moments(intended: u64, sent: u64, done: u64) -> Moments {
        Moments { intended: ms(intended), sent: ms(sent), done: ms(done) }
    }

    fn max_ms(histogram: &Histogram<u64>) -> f64 {
        (histogram.max() as f64 / 1e6).round()
    }

    #[test]
    fn latency_runs_from_the_intended_moment_and_service_time_from_sending() {
        let mut recorder = recorder();
        recorder.record(moments(110, 150, 155), 1, Answer::OK);
        assert_eq!(max_ms(recorder.latency_ns(Outcome::Ok)), 45.0);
        assert_eq!(max_ms(recorder.service_ns()), 5.0);
        assert_eq!(max_ms(recorder.lag_ns()), 40.0);
    }

    #[test]
    fn latency_takes_what_was_meant_in_the_window_and_rates_what_arrived_in_it() {
        let mut recorder = recorder();
        recorder.record(moments(90, 90, 95), 4, Answer::OK); // warm-up
        recorder.record(moments(99, 99, 101), 4, Answer::OK); // answered inside
        recorder.record(moments(100, 100, 105), 4, Answer::OK); // both
        recorder.record(moments(199, 199, 500), 4, Answer::OK); // meant inside
        assert_eq!(recorder.requests(), 2);
        assert_eq!(max_ms(recorder.latency_ns(Outcome::Ok)), 301.0);
        assert_eq!((recorder.ok_in_window(), recorder.rows_in_window()), (2, 8));
        assert_eq!(recorder.window_s(), 0.1);
    }

    #[test]
    fn goodput_takes_only_right_answers_in_time() {
        let mut recorder = recorder();
        recorder.record(moments(110, 110, 120), 1, Answer::OK);
        recorder.record(moments(110, 118, 121), 1, Answer::OK);
        recorder.record(moments(110, 110, 112), 1, Answer::failed(Outcome::Overloaded, "full"));
        assert_eq!(recorder.good_in_window(), Some(1));
        assert_eq!(recorder.ok_in_window(), 2);
        recorder.record(moments(110, 110, 140), 1, Answer::failed(Outcome::Deadline, "late"));
        assert_eq!(recorder.latency_ns(Outcome::Overloaded).len(), 1);
        assert_eq!((recorder.admitted_ns().len(), max_ms(&recorder.admitted_ns())), (3, 30.0));
        assert_eq!(recorder.message(Outcome::Overloaded), Some("full"));
    }

    #[test]
    fn merging_adds_up() {
        let (mut one, mut two) = (recorder(), recorder());
        one.record(moments(110, 110, 120), 1, Answer::OK);
        two.record(moments(110, 110, 130), 2, Answer::OK);
        two.record(moments(110, 110, 130), 2, Answer::failed(Outcome::Internal, "broken"));
        one.merge(&two);
        assert_eq!((one.requests(), one.ok_in_window(), one.rows_in_window()), (3, 2, 3));
        assert_eq!(one.message(Outcome::Internal), Some("broken"));
    }
}
