//! When the candidate of a canary gets more requests, waits, or is taken back: pure.
//!
//! Each step is judged by itself, from the requests of both arms since it began. A candidate is taken back when a gate
//! is *surely* broken: when even the bound that favours the candidate is beyond what the gate allows. It goes forward
//! when the step has lasted long enough, both arms have had enough requests, and what was measured is within every
//! gate. In between it waits.
//!
//! All that may be wrong with that shares one chance of `1 - confidence` (Bonferroni): a candidate that keeps its
//! bounds is taken back with no greater probability over the whole canary. It is split evenly over the steps and the
//! gates. Looking again and again at a growing sample would spend it many times over, so a step is looked at when the
//! candidate has had a quarter more requests than at the last look, and look `k` spends the part `1 / (k (k + 1))`;
//! these add up to one however long the step lasts (a union bound over geometric epochs: Howard, Ramdas, McAuliffe
//! and Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, 2021, section 3).
//!
//! The gate on mismatches does not look at the candidate's requests but at those of the control that a shadow answered
//! too: there may be many while the candidate has few. It has looks of its own, by the number of compared requests, and
//! spends its share over these in the same way. So has the gate on rewards, which come late and not for every request:
//! its looks go by the number of rewards of the arm that has fewer.

mod bounds;
mod gates;
mod stage;

use std::time::Duration;

use self::gates::{Finding, GATES, findings, mismatch_rate, reward_decrease};
pub(in crate::routing) use self::stage::check_canary;
pub use self::stage::{Canary, Stage};
use super::Weight;
use super::tally::ArmEvidence;

/// How a candidate grows, and what it must keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Ascending; the last is everything.
    pub steps: Vec<Step>,
    pub gates: Gates,
    /// A candidate that keeps the bounds is taken back with a probability of one minus this at most.
    pub confidence: f64,
}

/// A share of the keys, and what is asked before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub weight: Weight,
    pub time_min: Duration,
    /// Of either arm.
    pub requests_min: u64,
}

/// Bounds on the candidate beside the control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gates {
    /// By how much its share of failed requests may exceed that of the control.
    pub error_rate_increase_max: f64,
    /// Whatever the control does.
    pub error_rate_max: f64,
    /// How many times the control's median latency its own may be.
    pub p50_ratio_max: f64,
    pub p99_ratio_max: f64,
    /// Which share of the control's requests a shadow of the candidate's version may answer otherwise; nothing is asked
    /// of it where this is `None`.
    pub mismatch_rate_max: Option<f64>,
    /// What its rewards must keep; nothing is asked of them where this is `None`.
    pub reward: Option<RewardGate>,
}

/// A bound on the mean of rewards from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RewardGate {
    /// By how much the candidate's may be below the control's.
    pub decrease_max: f64,
    /// Of either arm, for predictions of the step, before the next.
    pub rewards_min: u64,
}

/// What both arms, and a shadow where a gate asks for one, did since the step began.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    pub control: ArmEvidence,
    pub candidate: ArmEvidence,
    pub mirrored: MirrorEvidence,
}

/// Requests that the control answered, and whose answers were compared with those of the candidate's version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorEvidence {
    pub compared: u64,
    /// Of these: answered beyond the tolerance, or not at all.
    pub differing: u64,
}

/// Where a canary is in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The place among the plan's steps, never that of the last.
    pub step: usize,
    /// Since the step began.
    pub elapsed: Duration,
    pub looks: Looks,
}

/// The last looks of a step, from 1; 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// At the candidate's requests.
    pub candidate: u32,
    /// At those that were compared.
    pub mirror: u32,
    /// At rewards.
    pub rewards: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// With the numbers, for people.
    pub why: String,
    /// For the next [`Position`].
    pub looks: Looks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Hold(Wait),
    /// To the next step.
    Forward,
    /// The candidate gets nothing any more.
    Back,
    /// The candidate gets everything.
    Done,
}

/// What a canary waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// One of the arms does not serve.
    Version,
    Time,
    Requests,
    /// The shadow has compared too few.
    Mirror,
    /// Too few requests have been rewarded.
    Rewards,
    /// The measured value is beyond what this gate allows, which may be chance.
    Gate(&'static str),
}

/// At fewer requests of the candidate, fewer that were compared, and fewer rewards, nothing is judged.
pub const REQUESTS_MIN: u64 = 20;
/// The requests of one look are so many times those of the look before.
const LOOKS_APART: f64 = 1.25;
const STEPS_MAX: usize = 32;

/// Decides what becomes of the candidate now.
pub fn decide(plan: &Plan, position: Position, evidence: &Evidence) -> Decision {
    let step = &plan.steps[position.step];
    let now = Looks::at(evidence);
    let mut news = Vec::new();
    if now.candidate > position.looks.candidate {
        news.extend(findings(&plan.gates, evidence, plan.chance_of_error(now.candidate)));
    }
    if now.mirror > position.looks.mirror {
        news.extend(mismatch_rate(&plan.gates, evidence, plan.chance_of_error(now.mirror)));
    }
    if now.rewards > position.looks.rewards {
        news.extend(reward_decrease(&plan.gates, evidence, plan.chance_of_error(now.rewards)));
    }
    let looks = now.max(position.looks);
    if let Some(finding) = news.into_iter().find(Finding::is_surely_beyond) {
        return Decision { verdict: Verdict::Back, why: finding.text, looks };
    }
    let hold = |wait, why| Decision { verdict: Verdict::Hold(wait), why, looks };
    if let Some(why) = step.lacks_time(position.elapsed) {
        return hold(Wait::Time, why);
    }
    for (name, arm) in [("candidate", &evidence.candidate), ("control", &evidence.control)] {
        if let Some(why) = step.lacks_requests(name, arm.requests()) {
            return hold(Wait::Requests, why);
        }
    }
    if plan.gates.mismatch_rate_max.is_some() && evidence.mirrored.compared < step.requests_min {
        let why = format!(
            "{} requests have been compared with the shadow's answers in this step, at least {} are asked for: if there \
             are no more soon, raise the shadow's percent, or give the server cores, as mirrors are shed while it is busy",
            evidence.mirrored.compared, step.requests_min
        );
        return hold(Wait::Mirror, why);
    }
    if let Some(gate) = plan.gates.reward {
        for (name, arm) in [("candidate", &evidence.candidate), ("control", &evidence.control)] {
            if arm.rewards.count < gate.rewards_min {
                let why = format!(
                    "{} predictions that the {name} made in this step have been rewarded, at least {} are asked for",
                    arm.rewards.count, gate.rewards_min
                );
                return hold(Wait::Rewards, why);
            }
        }
    }
    let mut found = findings(&plan.gates, evidence, plan.chance_of_error(looks.candidate.max(1)));
    found.extend(mismatch_rate(&plan.gates, evidence, plan.chance_of_error(looks.mirror.max(1))));
    found.extend(reward_decrease(&plan.gates, evidence, plan.chance_of_error(looks.rewards.max(1))));
    if let Some(finding) = found.iter().find(|finding| finding.is_beyond()) {
        return hold(Wait::Gate(finding.gate), finding.text.clone());
    }
    let verdict = match plan.steps[position.step + 1].weight {
        Weight::ALL => Verdict::Done,
        _ => Verdict::Forward,
    };
    let why = found.into_iter().map(|finding| finding.text).collect::<Vec<_>>().join("; ");
    Decision { verdict, why, looks }
}

/// Whether steps can be, of which there are so many at least.
///
/// # Errors
/// The text says what was expected and what came.
pub(in crate::routing) fn check_steps(steps: &[Step], steps_min: usize) -> Result<(), String> {
    if steps.len() < steps_min || steps.len() > STEPS_MAX {
        return Err(format!(
            "has {} steps: expected {steps_min} to {STEPS_MAX}, ascending to 100 percent, such as 1, 10, 50 and 100",
            steps.len()
        ));
    }
    for (index, step) in steps.iter().enumerate() {
        step.check(index + 1 == steps.len()).map_err(|why| format!("step {} {why}", index + 1))?;
    }
    match steps.windows(2).position(|pair| pair[0].weight >= pair[1].weight) {
        None => Ok(()),
        Some(index) => Err(format!(
            "step {} is at {} percent, after one at {}: expected more from step to step",
            index + 2,
            steps[index + 1].weight,
            steps[index].weight
        )),
    }
}

/// The number of the last look that so many requests allow, from 1; 0 before the first.
fn look(requests: u64) -> u32 {
    match requests < REQUESTS_MIN {
        true => 0,
        false => 1 + ((requests as f64 / REQUESTS_MIN as f64).ln() / LOOKS_APART.ln()) as u32,
    }
}

// === impl Looks ===

impl Looks {
    /// The last that there may be by now.
    fn at(evidence: &Evidence) -> Looks {
        Looks {
            candidate: look(evidence.candidate.requests()),
            mirror: look(evidence.mirrored.compared),
            rewards: look(evidence.candidate.rewards.count.min(evidence.control.rewards.count)),
        }
    }

    fn max(self, other: Looks) -> Looks {
        Looks {
            candidate: self.candidate.max(other.candidate),
            mirror: self.mirror.max(other.mirror),
            rewards: self.rewards.max(other.rewards),
        }
    }
}

// === impl MirrorEvidence ===

impl MirrorEvidence {
    /// 0 where nothing was compared.
    pub fn mismatch_rate(&self) -> f64 {
        self.differing as f64 / self.compared.max(1) as f64
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &MirrorEvidence) -> MirrorEvidence {
        MirrorEvidence {
            compared: self.compared.saturating_sub(earlier.compared),
            differing: self.differing.saturating_sub(earlier.differing),
        }
    }
}

// === impl Plan ===

impl Default for Plan {
    fn default() -> Plan {
        let step = |percent| Weight::from_percent(percent).map(Step::to);
        let steps = [1.0, 10.0, 50.0, 100.0].into_iter().map(step).collect::<Result<_, _>>();
        Plan {
            steps: steps.expect("these are percentages; this is a bug"),
            gates: Gates::default(),
            confidence: 0.99,
        }
    }
}

impl Plan {
    /// # Errors
    /// The text says what was expected and what came.
    pub fn check(&self) -> Result<(), String> {
        let Plan { steps, gates, confidence } = self;
        check_steps(steps, 2)?;
        let rates = [
            ("error_rate_increase_max", Some(gates.error_rate_increase_max)),
            ("error_rate_max", Some(gates.error_rate_max)),
            ("mismatch_rate_max", gates.mismatch_rate_max),
        ];
        for (name, rate) in rates {
            let Some(rate) = rate else { continue };
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!(
                    "{name} is {rate}: expected a share of requests from 0 to 1, such as 0.01"
                ));
            }
        }
        gates.reward.map_or(Ok(()), RewardGate::check)?;
        for (name, ratio) in [("p50_ratio_max", gates.p50_ratio_max), ("p99_ratio_max", gates.p99_ratio_max)]
        {
            if !(ratio > 0.0 && ratio.is_finite()) {
                return Err(format!(
                    "{name} is {ratio}: expected a number above 0, such as 1.5; one such as 1e9 allows everything"
                ));
            }
        }
        if !(0.5..=0.999_999).contains(confidence) {
            return Err(format!("confidence is {confidence}: expected 0.5 to 0.999999, such as 0.99"));
        }
        Ok(())
    }

    /// That a gate of a step may take at this look.
    fn chance_of_error(&self, look: u32) -> f64 {
        let asked_for = [self.gates.mismatch_rate_max.is_some(), self.gates.reward.is_some()];
        let gates = GATES + asked_for.map(usize::from).iter().sum::<usize>();
        let shares = (self.steps.len() - 1) * gates;
        (1.0 - self.confidence) / shares as f64 / (f64::from(look) * f64::from(look + 1))
    }
}

// === impl Step ===

impl Step {
    /// What is asked at this weight where nothing else is said.
    pub fn to(weight: Weight) -> Step {
        match weight {
            Weight::ALL => Step { weight, time_min: Duration::ZERO, requests_min: 0 },
            _ => Step { weight, time_min: Duration::from_secs(600), requests_min: 1000 },
        }
    }

    /// What is missing of the time that it lasts at least, for people.
    pub(super) fn lacks_time(&self, elapsed: Duration) -> Option<String> {
        (elapsed < self.time_min)
            .then(|| format!("the step lasts {elapsed:.0?} so far, at least {:?}", self.time_min))
    }

    /// What is missing of an arm's requests, for people.
    pub(super) fn lacks_requests(&self, arm: &str, requests: u64) -> Option<String> {
        let Step { requests_min, .. } = *self;
        (requests < requests_min).then(|| {
            format!(
                "the {arm} has had {requests} requests in this step, at least {requests_min} are asked for"
            )
        })
    }

    fn check(&self, is_last: bool) -> Result<(), String> {
        let Step { weight, time_min, requests_min } = *self;
        match (is_last, weight) {
            (true, Weight::ALL) if time_min.is_zero() && requests_min == 0 => Ok(()),
            (true, Weight::ALL) => Err("asks for time or requests at 100 percent, where nothing is left to \
                                        compare with: leave them out"
                .into()),
            (true, _) => Err(format!("is the last and at {weight} percent: expected 100")),
            (false, _) if weight == Weight::default() => Err("is at 0 percent: expected more".into()),
            (false, _) if requests_min < REQUESTS_MIN => Err(format!(
                "asks for {requests_min} requests: expected at least {REQUESTS_MIN}, fewer tell nothing"
            )),
            (false, _) => Ok(()),
        }
    }
}

// === impl Gates ===

impl Default for Gates {
    /// A candidate is cold and gets small batches while its share is small, so it may seem slower than it is.
    fn default() -> Gates {
        Gates {
            error_rate_increase_max: 0.001,
            error_rate_max: 1.0,
            p50_ratio_max: 1.5,
            p99_ratio_max: 2.0,
            mismatch_rate_max: None,
            reward: None,
        }
    }
}

// === impl RewardGate ===

impl RewardGate {
    const REWARDS_MIN_BY_DEFAULT: u64 = 100;

    /// As operators say it: nothing, or a bound and perhaps a number of rewards.
    ///
    /// # Errors
    /// A number of rewards without a bound.
    pub fn read(decrease_max: Option<f64>, rewards_min: Option<u64>) -> Result<Option<RewardGate>, String> {
        match (decrease_max, rewards_min) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err("rewards_min stands without reward_decrease_max: give both, such as \
                                    reward_decrease_max = 0.02, or neither"
                .into()),
            (Some(decrease_max), rewards_min) => {
                let rewards_min = rewards_min.unwrap_or(RewardGate::REWARDS_MIN_BY_DEFAULT);
                Ok(Some(RewardGate { decrease_max, rewards_min }))
            }
        }
    }

    fn check(self) -> Result<(), String> {
        let RewardGate { decrease_max, rewards_min } = self;
        if !(0.0..=1.0).contains(&decrease_max) {
            return Err(format!(
                "reward_decrease_max is {decrease_max}: expected a difference of mean rewards from 0 to 1, such as 0.02"
            ));
        }
        match rewards_min >= REQUESTS_MIN {
            true => Ok(()),
            false => Err(format!(
                "rewards_min is {rewards_min}: expected at least {REQUESTS_MIN}, fewer tell nothing"
            )),
        }
    }
}

#[cfg(test)]
mod reward_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
