//! Decides how a result reads on a terminal.

use std::fmt::Write;

use crate::record::Outcome;
use crate::report::{Distribution, Outcomes, Phase};
use crate::schedule::Arrivals;
use crate::settings::{ExtentSettings, Load, Settings};

pub(crate) const COLUMNS: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];

/// The whole text for one phase.
pub(crate) fn phase(phase: &Phase) -> String {
    let mut text = String::new();
    render(&mut text, phase).expect("writing to a String does not fail; this is a bug");
    text
}

fn render(text: &mut String, phase: &Phase) -> std::fmt::Result {
    let total = &phase.total;
    writeln!(text, "{}: {}", phase.name, summary(&phase.settings))?;
    writeln!(text)?;
    write!(text, "{:<14}{:>10}{:>12}", "", "requests", "per second")?;
    for (name, _) in COLUMNS {
        write!(text, "{name:>10}")?;
    }
    writeln!(text, "   ms from the intended moment of sending")?;
    for outcome in Outcome::ALL {
        let Some(latency_ms) = total.latency_ms.get(outcome.name()) else { continue };
        let rate_per_s = match outcome {
            Outcome::Ok => total.ok_per_s,
            _ => latency_ms.count as f64 / phase.window_s,
        };
        row(text, outcome.name(), latency_ms, rate_per_s)?;
    }
    for (model, outcomes) in &phase.models {
        if let Some(latency_ms) = outcomes.latency_ms.get(Outcome::Ok.name()) {
            row(text, &format!("  {model}"), latency_ms, outcomes.ok_per_s)?;
        }
    }
    if total.count(Outcome::Deadline) > 0 {
        row(text, "  ok or late", &total.admitted_ms, total.admitted_ms.count as f64 / phase.window_s)?;
    }
    if matches!(phase.settings.load, Load::Open { .. }) && total.service_ms.count > 0 {
        row(text, "  from sending", &total.service_ms, total.ok_per_s)?;
    }
    writeln!(text)?;
    rates(text, phase)?;
    usage(text, phase)?;
    for (outcome, message) in &total.messages {
        writeln!(text, "first {outcome}: {message}")?;
    }
    for warning in &phase.warnings {
        writeln!(text, "WARNING: {warning}")?;
    }
    if let Some(goal) = &phase.goal {
        writeln!(text, "goal {}", if goal.holds { "holds" } else { "MISSED" })?;
        for (condition, holds) in &goal.conditions {
            writeln!(text, "  {} {condition}", if *holds { "yes" } else { "NO " })?;
        }
    }
    Ok(())
}

fn row(text: &mut String, name: &str, latency_ms: &Distribution, rate_per_s: f64) -> std::fmt::Result {
    write!(text, "{name:<14}{:>10}{rate_per_s:>12.1}", latency_ms.count)?;
    for (_, percent) in COLUMNS {
        write!(text, "{:>10}", milliseconds(latency_ms.percentile(percent)))?;
    }
    writeln!(text)
}

fn rates(text: &mut String, phase: &Phase) -> std::fmt::Result {
    let Outcomes { ok_per_s, ok_rows_per_s, good_per_s, .. } = phase.total;
    write!(text, "achieved {ok_per_s:.1} answers/s")?;
    if let Load::Open { .. } = phase.settings.load {
        // What fell due, which by chance is a little more or less than the rate that was asked for.
        let offered_per_s = phase.total.offered_per_s;
        write!(
            text,
            " of {offered_per_s:.1}/s offered ({:.1} %)",
            100.0 * ok_per_s / offered_per_s.max(1e-9)
        )?;
        write!(text, ", sent p99 {} ms late", milliseconds(phase.lag_ms.percentile(99.0)))?;
    }
    write!(text, "; {ok_rows_per_s:.1} rows/s")?;
    if let Some((good_per_s, slo_ms)) = good_per_s.zip(phase.settings.slo_ms) {
        write!(text, "; {good_per_s:.1}/s within {slo_ms} ms")?;
    }
    let failed = phase.total.failed();
    if failed > 0 {
        write!(text, "; {failed} failed ({:.3} %)", 100.0 * failed as f64 / phase.total.requests as f64)?;
    }
    writeln!(text)
}

fn usage(text: &mut String, phase: &Phase) -> std::fmt::Result {
    let usage = &phase.usage;
    write!(
        text,
        "generator {:.2} cores, {:.1} µs CPU per answer",
        usage.generator_cores, usage.generator_cpu_us_per_ok
    )?;
    if let Some((cores, us_per_ok)) = usage.server_cores.zip(usage.server_cpu_us_per_ok) {
        write!(text, "; server {cores:.2} cores, {us_per_ok:.1} µs CPU per answer")?;
    }
    if let Some((before_mb, resident_mb)) = usage.server_resident_before_mb.zip(usage.server_resident_mb) {
        write!(text, ", {before_mb:.0} MB resident before and {resident_mb:.0} MB after")?;
    }
    writeln!(text)
}

/// Three digits that mean something, whatever the size.
pub(crate) fn milliseconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.3}"),
        value if value < 100.0 => format!("{value:.2}"),
        value => format!("{value:.1}"),
    }
}

fn summary(settings: &Settings) -> String {
    let models = settings.models.iter().map(|model| {
        let rows = match (model.rows, &model.input) {
            (Some(1), _) | (None, None) => "1 row".to_owned(),
            (Some(rows), _) => format!("{rows} rows"),
            (None, Some(path)) => format!("rows of {}", path.display()),
        };
        match settings.models.iter().all(|other| other.weight == model.weight) {
            true => format!("{} with {rows}", model.label()),
            false => format!("{} (weight {}) with {rows}", model.label(), model.weight),
        }
    });
    let models = models.collect::<Vec<_>>().join(", ");
    let load = match settings.load {
        Load::Closed { in_flight } => format!("{in_flight} in flight"),
        Load::Open { rate_per_s, arrivals: Arrivals::Constant, .. } => {
            format!("{rate_per_s}/s, constant gaps")
        }
        Load::Open { rate_per_s, arrivals: Arrivals::Poisson, .. } => {
            format!("{rate_per_s}/s, Poisson arrivals")
        }
    };
    let extent = match settings.extent {
        ExtentSettings::DurationS(seconds) => format!("{seconds} s"),
        ExtentSettings::Requests(requests) => format!("{requests} requests"),
    };
    let protocol = if settings.body.is_grpc() { "gRPC" } else { "HTTP" };
    let body = serde_json::to_value(settings.body).unwrap_or_default();
    format!(
        "{models} a request, {load}, {extent} after {} s of warm-up, {protocol} ({}) to {}, {} connection(s), {} \
         thread(s)",
        settings.warmup_s,
        body.as_str().unwrap_or_default(),
        settings.address,
        settings.connections,
        settings.threads,
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::report::GoalReport;
    use crate::report::tests::sample;

    #[test]
    fn a_phase_reads_as_a_table() {
        let mut sample = sample("peak", 1.0);
        sample.goal = Some(GoalReport {
            holds: false,
            conditions: vec![
                ("p99 ms: 5.850, at most 20".to_owned(), true),
                ("answers/s: 975.0, at least 990".to_owned(), false),
            ],
        });
        sample.warnings.push("mind this".to_owned());
        expect![[r#"
            peak: digits with 4 rows a request, 1000/s, Poisson arrivals, 1 s after 0 s of warm-up, gRPC (raw) to 127.0.0.1:8001, 1 connection(s), 1 thread(s)

                            requests  per second       p50       p90       p95       p99     p99.9       max   ms from the intended moment of sending
            ok                   980       977.0     3.410     5.411     5.665     5.870     5.870     5.870
            overloaded            10        10.0     5.919     5.919     5.919     5.919     5.919     5.919
            deadline              10        10.0     5.972     5.972     5.972     5.972     5.972     5.972
              ok or late         990       990.0     3.459     5.460     5.718     5.972     5.972     5.972
              from sending       980       977.0     3.402     5.403     5.652     5.853     5.853     5.853

            achieved 977.0 answers/s of 1000.0/s offered (97.7 %), sent p99 0.019 ms late; 3908.0 rows/s; 810.0/s within 5 ms; 20 failed (2.000 %)
            generator 0.02 cores, 20.5 µs CPU per answer; server 0.05 cores, 51.2 µs CPU per answer, 60 MB resident before and 70 MB after
            first deadline: too late
            first overloaded: queue full
            WARNING: mind this
            goal MISSED
              yes p99 ms: 5.850, at most 20
              NO  answers/s: 975.0, at least 990
        "#]].assert_eq(&phase(&sample));
    }

    #[test]
    fn milliseconds_keep_their_meaningful_digits() {
        let texts = [0.0, 0.0419, 9.9994, 12.345, 1234.5678].map(milliseconds);
        assert_eq!(texts, ["0.000", "0.042", "9.999", "12.35", "1234.6"]);
    }
}
