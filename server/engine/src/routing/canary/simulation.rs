//! Canaries played against made-up arms and a made-up clock: how soon a bad candidate is taken back, how rarely a good
//! one, and what the README says of both.

use std::f64::consts::TAU;

use super::*;
use crate::routing::tally::Tally;

/// How an arm answers.
#[derive(Clone, Copy)]
struct Arm {
    /// Of a latency of 10 ms, which is log-normal around that.
    slower: f64,
    fails: f64,
}

/// How a canary ended.
struct End {
    verdict: Verdict,
    why: String,
    /// That the candidate had had by then.
    requests: u64,
}

const GOOD: Arm = Arm { slower: 1.0, fails: 0.0 };
/// Of both arms together.
const REQUESTS_PER_SECOND: f64 = 400.0;
/// No bad candidate is left alone for so long.
const SECONDS_MAX: u64 = 2000;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// Inside (0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }
}

/// A large sample, so that drawing from it is quick.
fn latencies() -> Vec<Duration> {
    let mut chance = Chance(7);
    // The 99th percentile is three times the median. Normal numbers by Box and Muller (1958).
    let normal = |chance: &mut Chance| (-2.0 * chance.unit().ln()).sqrt() * (TAU * chance.unit()).cos();
    (0..1 << 12).map(|_| Duration::from_secs_f64(0.01 * (0.47 * normal(&mut chance)).exp())).collect()
}

/// One request arrives after the other; the canary is looked at every second.
fn play(plan: &Plan, arms: [Arm; 2], latencies: &[Duration], seed: u64, seconds_max: u64) -> End {
    let scaled =
        arms.map(|arm| latencies.iter().map(|latency| latency.mul_f64(arm.slower)).collect::<Vec<_>>());
    let mut chance = Chance(seed);
    let mut position = Position { step: 0, elapsed: Duration::ZERO, looks: Looks::default() };
    let mut tallies = [Tally::new(), Tally::new()];
    let mut before = 0;
    for _ in 0..seconds_max {
        let share = plan.steps[position.step].weight.share();
        for (index, share) in [1.0 - share, share].into_iter().enumerate() {
            let (tally, arm, latencies) = (&tallies[index], arms[index], &scaled[index]);
            for _ in 0..(REQUESTS_PER_SECOND * share) as u64 {
                if arm.fails > 0.0 && chance.unit() < arm.fails {
                    tally.failed();
                    continue;
                }
                tally.lasted(latencies[chance.next() as usize % latencies.len()]);
            }
        }
        position.elapsed += Duration::from_secs(1);
        let [control, candidate] = [0, 1].map(|arm: usize| tallies[arm].read());
        let requests = before + candidate.requests();
        let evidence = Evidence { control, candidate, mirrored: MirrorEvidence::default() };
        let Decision { verdict, why, looks } = decide(plan, position, &evidence);
        position.looks = looks;
        match verdict {
            Verdict::Hold(_) => {}
            Verdict::Forward => {
                position =
                    Position { step: position.step + 1, elapsed: Duration::ZERO, looks: Looks::default() };
                tallies = [Tally::new(), Tally::new()];
                before = requests;
            }
            Verdict::Back | Verdict::Done => return End { verdict, why, requests },
        }
    }
    End { verdict: Verdict::Hold(Wait::Time), why: "no end".into(), requests: before }
}

/// The default plan, with less time asked for.
fn quick() -> Plan {
    let mut plan = Plan::default();
    for step in plan.steps.iter_mut().filter(|step| step.weight != Weight::ALL) {
        step.time_min = Duration::from_secs(10);
    }
    plan
}

/// The most requests that a candidate had until it was taken back, over so many seeds.
fn requests_until_back(candidate: Arm, seeds: u64) -> u64 {
    let latencies = latencies();
    let ends = (0..seeds).map(|seed| play(&quick(), [GOOD, candidate], &latencies, seed, SECONDS_MAX));
    let requests = ends.map(|end| {
        assert_eq!(end.verdict, Verdict::Back, "{}", end.why);
        end.requests
    });
    requests.max().unwrap()
}

/// The README states these numbers.
#[test]
fn a_bad_candidate_is_taken_back_within_the_stated_requests() {
    let most = requests_until_back(Arm { slower: 2.0, ..GOOD }, 300);
    assert!(most <= 500, "twice as slow: {most}");
    let most = requests_until_back(Arm { fails: 0.01, ..GOOD }, 50);
    assert!(most <= 3000, "fails one request in a hundred: {most}");
    let most = requests_until_back(Arm { fails: 0.1, ..GOOD }, 300);
    assert!(most <= 200, "fails one request in ten: {most}");
}

#[test]
fn a_good_candidate_reaches_everything() {
    let latencies = latencies();
    for arm in [GOOD, Arm { fails: 0.002, ..GOOD }, Arm { slower: 0.5, ..GOOD }] {
        for seed in 0..20 {
            let control = Arm { fails: arm.fails, ..GOOD };
            let end = play(&quick(), [control, arm], &latencies, seed, SECONDS_MAX);
            assert_eq!(end.verdict, Verdict::Done, "seed {seed}: {}", end.why);
        }
    }
}

/// Where a candidate is just as slow, or fails just as often, as it may, it is hardest to tell; and it is looked at
/// hundreds of times.
#[test]
fn a_candidate_at_its_bounds_is_taken_back_no_more_often_than_confidence_allows() {
    let latencies = latencies();
    let mut plan = quick();
    plan.confidence = 0.9;
    plan.gates = Gates {
        p50_ratio_max: 1.2,
        p99_ratio_max: 1.2,
        error_rate_increase_max: 0.01,
        error_rate_max: 0.02,
        ..Gates::default()
    };
    let candidate = Arm { slower: 1.2, fails: 0.02 };
    let seeds = 100;
    let back = (0..seeds).filter(|seed| {
        let control = Arm { fails: 0.01, ..GOOD };
        play(&plan, [control, candidate], &latencies, 1000 + seed, 300).verdict == Verdict::Back
    });
    let back = back.count();
    assert!(back as f64 <= (1.0 - plan.confidence) * seeds as f64, "{back} of {seeds}");
}

/// How many requests are compared until a candidate that has none of its own is taken back, which answers this share of
/// them otherwise; `None` where it is not after so many.
fn compared_until_back(plan: &Plan, differs: f64, seed: u64, compared_max: u64) -> Option<u64> {
    let mut chance = Chance(seed);
    let [control, candidate] = [0, 1].map(|_| Tally::new().read());
    let mut evidence = Evidence { control, candidate, mirrored: MirrorEvidence::default() };
    let mut position = Position { step: 0, elapsed: Duration::ZERO, looks: Looks::default() };
    while evidence.mirrored.compared < compared_max {
        evidence.mirrored.compared += 1;
        evidence.mirrored.differing += u64::from(chance.unit() < differs);
        let Decision { verdict, looks, .. } = decide(plan, position, &evidence);
        position.looks = looks;
        if verdict == Verdict::Back {
            return Some(evidence.mirrored.compared);
        }
    }
    None
}

fn with_mismatches(mismatch_rate_max: f64) -> Plan {
    let gates = Gates { mismatch_rate_max: Some(mismatch_rate_max), ..Gates::default() };
    Plan { gates, ..quick() }
}

/// The README states these numbers.
#[test]
fn a_candidate_that_answers_otherwise_is_taken_back_within_the_stated_comparisons() {
    let plan = with_mismatches(0.01);
    for (differs, stated) in [(1.0, 20), (0.1, 400), (0.05, 1500)] {
        let compared = (0..300).map(|seed| compared_until_back(&plan, differs, seed, 10 * stated));
        let most = compared.map(|compared| compared.expect("it is taken back")).max().unwrap();
        assert!(most <= stated, "answers {differs} otherwise: {most}");
    }
}

/// Exactly at its bound it is hardest to tell, and it is looked at as soon as one look follows another.
#[test]
fn a_candidate_at_its_bound_of_mismatches_is_taken_back_no_more_often_than_confidence_allows() {
    for differs in [0.01, 0.1] {
        let plan = Plan { confidence: 0.9, ..with_mismatches(differs) };
        let seeds = 100;
        let back =
            (0..seeds).filter(|seed| compared_until_back(&plan, differs, 1000 + seed, 10_000).is_some());
        let back = back.count();
        assert!(back as f64 <= (1.0 - plan.confidence) * seeds as f64, "{back} of {seeds}");
    }
}
