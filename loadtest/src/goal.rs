//! Decides what a scenario may state as the goal of a phase, and whether what was measured meets it.

use serde::Deserialize;

use crate::record::Outcome;
use crate::report::{GoalReport, Phase};

/// Conditions on one phase; all that are given must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Goal {
    p50_ms_max: Option<f64>,
    p99_ms_max: Option<f64>,
    p999_ms_max: Option<f64>,
    /// Of what the server did not refuse: answered, or late.
    admitted_p99_ms_max: Option<f64>,
    /// Of refusals for lack of room.
    refused_p99_ms_max: Option<f64>,
    ok_per_s_min: Option<f64>,
    /// Of the requests that fell due, in percent.
    ok_percent_of_offered_min: Option<f64>,
    /// Of all requests, in percent.
    failed_percent_max: Option<f64>,
    /// Requests within the phase's `slo`, a second.
    good_per_s_min: Option<f64>,
    /// The same, in percent of an earlier phase's.
    good_percent_of: Option<Share>,
    /// What became resident of the server's memory during the measured part, in MB.
    server_growth_mb_max: Option<f64>,
}

/// So many percent of what an earlier phase has measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    phase: String,
    min: f64,
}

// === impl Goal ===

impl Goal {
    /// The phase that it is compared with.
    pub(crate) fn base(&self) -> Option<&String> {
        self.good_percent_of.as_ref().map(|share| &share.phase)
    }

    /// Holds it against what was measured; `None` where it states nothing.
    pub(crate) fn judge(&self, phase: &Phase, before: &[Phase]) -> Option<GoalReport> {
        let total = &phase.total;
        let latency_ms = total.latency_ms.get(Outcome::Ok.name()).cloned().unwrap_or_default();
        let refused_ms = total.latency_ms.get(Outcome::Overloaded.name()).cloned().unwrap_or_default();
        let failed_percent = 100.0 * total.failed() as f64 / total.requests.max(1) as f64;
        let answered = latency_ms.count > 0;
        let mut conditions = Vec::new();
        let mut at_most = |name: &str, value: f64, limit: Option<f64>, counts: bool| {
            if let Some(limit) = limit {
                conditions.push((format!("{name}: {value:.3}, at most {limit}"), counts && value <= limit));
            }
        };
        at_most("p50 ms", latency_ms.percentile(50.0), self.p50_ms_max, answered);
        at_most("p99 ms", latency_ms.percentile(99.0), self.p99_ms_max, answered);
        at_most("p99.9 ms", latency_ms.percentile(99.9), self.p999_ms_max, answered);
        let admitted_ms = total.admitted_ms.percentile(99.0);
        at_most("p99 ms of what was admitted", admitted_ms, self.admitted_p99_ms_max, answered);
        let refused = refused_ms.count > 0;
        at_most("p99 ms of refusals", refused_ms.percentile(99.0), self.refused_p99_ms_max, refused);
        at_most("failed %", failed_percent, self.failed_percent_max, total.requests > 0);
        let resident = phase.usage.server_resident_mb.zip(phase.usage.server_resident_before_mb);
        let growth_mb = resident.map(|(after_mb, before_mb)| after_mb - before_mb);
        let known = growth_mb.is_some();
        at_most("MB more resident", growth_mb.unwrap_or(0.0), self.server_growth_mb_max, known);
        let mut at_least = |name: &str, value: f64, limit: Option<f64>| {
            if let Some(limit) = limit {
                conditions.push((format!("{name}: {value:.1}, at least {limit}"), value >= limit));
            }
        };
        let ok_percent = 100.0 * total.ok_per_s / total.offered_per_s.max(1e-9);
        at_least("answers/s", total.ok_per_s, self.ok_per_s_min);
        at_least("answers in % of offered", ok_percent, self.ok_percent_of_offered_min);
        at_least("answers/s in time", total.good_per_s.unwrap_or(0.0), self.good_per_s_min);
        if let Some(Share { phase: name, min }) = &self.good_percent_of {
            let base = before.iter().find(|before| before.name == *name).map_or(0.0, Phase::right_per_s);
            let percent = if base > 0.0 { 100.0 * phase.right_per_s() / base } else { 0.0 };
            at_least(&format!("answers/s in time, in % of `{name}`"), percent, Some(*min));
        }
        (!conditions.is_empty())
            .then(|| GoalReport { holds: conditions.iter().all(|(_, holds)| *holds), conditions })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::report::tests::sample;

    /// Two phases, the second slower; `goal` is stated for that.
    fn check(goal: &str, expected: Expect) {
        let goal: Goal = toml::from_str(goal).unwrap();
        let judged = goal.judge(&sample("second", 1.5), &[sample("first", 1.0)]).unwrap();
        let lines = judged.conditions.iter().map(|(text, holds)| format!("{holds} {text}"));
        expected.assert_eq(&lines.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn each_condition_says_what_was_measured() {
        check(
            "p50_ms_max = 9\np99_ms_max = 5\nfailed_percent_max = 1",
            expect![[r#"
            true p50 ms: 5.112, at most 9
            false p99 ms: 8.798, at most 5
            false failed %: 2.000, at most 1"#]],
        );
        check(
            "admitted_p99_ms_max = 9\nrefused_p99_ms_max = 1\nserver_growth_mb_max = 5",
            expect![[r#"
            true p99 ms of what was admitted: 8.946, at most 9
            false p99 ms of refusals: 8.872, at most 1
            false MB more resident: 10.000, at most 5"#]],
        );
        check(
            "ok_percent_of_offered_min = 90\ngood_percent_of = { phase = 'first', min = 95 }",
            expect![[r#"
            true answers in % of offered: 97.4, at least 90
            false answers/s in time, in % of `first`: 58.0, at least 95"#]],
        );
    }
}
