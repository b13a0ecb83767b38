//! Decides how two results are set side by side: ratios and plain words, no judgement of noise.

use std::fmt::Write;

use crate::record::Outcome;
use crate::report::{Distribution, Phase, Report};
use crate::table::{COLUMNS, milliseconds};

/// The whole text for results A (before) and B (after).
pub(crate) fn compare(before: &Report, after: &Report) -> String {
    let mut text = String::new();
    render(&mut text, before, after).expect("writing to a String does not fail; this is a bug");
    text
}

fn render(text: &mut String, before: &Report, after: &Report) -> std::fmt::Result {
    writeln!(text, "A: {} on {}", before.started_at, host(before))?;
    writeln!(text, "B: {} on {}", after.started_at, host(after))?;
    if before.host != after.host {
        writeln!(text, "WARNING: A and B were measured on different machines")?;
    }
    let pairs = pairs(before, after);
    if pairs.is_empty() {
        writeln!(text, "A and B have no phase of the same name: there is nothing to compare")?;
    }
    for (a, b) in pairs {
        writeln!(text)?;
        phase(text, a, b)?;
    }
    Ok(())
}

fn host(report: &Report) -> String {
    let cpu = report.host.cpu.as_deref().unwrap_or(&report.host.arch);
    format!("{} core(s), {cpu}", report.host.cores)
}

/// Phases of the same name; two results of one phase each are meant for each other whatever their names.
fn pairs<'a>(before: &'a Report, after: &'a Report) -> Vec<(&'a Phase, &'a Phase)> {
    if let ([a], [b]) = (&before.phases[..], &after.phases[..]) {
        return vec![(a, b)];
    }
    let same = |a: &&'a Phase| after.phases.iter().find(|b| a.name == b.name);
    before.phases.iter().filter_map(|a| Some((a, same(&a)?))).collect()
}

fn phase(text: &mut String, a: &Phase, b: &Phase) -> std::fmt::Result {
    match a.name == b.name {
        true => writeln!(text, "{}", a.name)?,
        false => writeln!(text, "{} (A) and {} (B)", a.name, b.name)?,
    }
    for difference in differences(a, b) {
        writeln!(text, "  settings differ: {difference}")?;
    }
    writeln!(text, "  {:<22}{:>12}{:>12}{:>9}", "", "A", "B", "B/A")?;
    line(text, "answers/s", a.total.ok_per_s, b.total.ok_per_s, &|value| format!("{value:.1}"))?;
    line(text, "rows/s", a.total.ok_rows_per_s, b.total.ok_rows_per_s, &|value| format!("{value:.1}"))?;
    if let Some((good_a, good_b)) = a.total.good_per_s.zip(b.total.good_per_s) {
        line(text, "answers/s in time", good_a, good_b, &|value| format!("{value:.1}"))?;
    }
    let (ok_a, ok_b) = (latency(a), latency(b));
    for (name, percent) in COLUMNS {
        let (value_a, value_b) = (ok_a.percentile(percent), ok_b.percentile(percent));
        line(text, &format!("{name} ms"), value_a, value_b, &milliseconds)?;
    }
    let (failed_a, failed_b) = (a.total.failed() as f64, b.total.failed() as f64);
    line(text, "failed", failed_a, failed_b, &|value| format!("{value:.0}"))?;
    if let Some((cpu_a, cpu_b)) = a.usage.server_cpu_us_per_ok.zip(b.usage.server_cpu_us_per_ok) {
        line(text, "server CPU µs/answer", cpu_a, cpu_b, &|value| format!("{value:.1}"))?;
    }
    writeln!(text, "  {}", verdict(a, b))
}

fn latency(phase: &Phase) -> Distribution {
    phase.total.latency_ms.get(Outcome::Ok.name()).cloned().unwrap_or_default()
}

fn line(text: &mut String, name: &str, a: f64, b: f64, format: &dyn Fn(f64) -> String) -> std::fmt::Result {
    let ratio = if a > 0.0 { format!("{:.3}", b / a) } else { "-".to_owned() };
    writeln!(text, "  {name:<22}{:>12}{:>12}{ratio:>9}", format(a), format(b))
}

/// What changed, in words, from one run each.
fn verdict(a: &Phase, b: &Phase) -> String {
    let failed = |phase: &Phase| match phase.total.failed() {
        0 => "none failed".to_owned(),
        failed => format!("{failed} of {} failed", phase.total.requests),
    };
    format!(
        "B gives {} answers a second, its median is {}, its p99 {}; in A {}, in B {}. One run each: repeat \
         both to tell a change from noise.",
        change(a.total.ok_per_s, b.total.ok_per_s, "more", "fewer"),
        change(latency(a).percentile(50.0), latency(b).percentile(50.0), "higher", "lower"),
        change(latency(a).percentile(99.0), latency(b).percentile(99.0), "higher", "lower"),
        failed(a),
        failed(b),
    )
}

fn change(a: f64, b: f64, more: &str, less: &str) -> String {
    if a <= 0.0 {
        return format!("not comparably {more}");
    }
    let percent = 100.0 * (b / a - 1.0);
    match percent {
        percent if percent >= 0.05 => format!("{percent:.1} % {more}"),
        percent if percent <= -0.05 => format!("{:.1} % {less}", -percent),
        _ => format!("0.0 % {more}"),
    }
}

/// The settings that are not the same, as `name: A -> B`.
fn differences(a: &Phase, b: &Phase) -> Vec<String> {
    let fields = |phase: &Phase| match serde_json::to_value(&phase.settings) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (fields_a, fields_b) = (fields(a), fields(b));
    // Where the server happened to listen does not change what is measured.
    let compared = fields_a.iter().filter(|(name, _)| !matches!(name.as_str(), "address" | "server_pid"));
    compared
        .filter(|(name, value)| fields_b.get(*name) != Some(*value))
        .map(|(name, value)| format!("{name}: {value} -> {}", fields_b[name]))
        .collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::report::tests::{report, sample};

    #[test]
    fn two_results_read_side_by_side() {
        let before = report(vec![sample("calm", 1.0), sample("peak", 1.0), sample("old", 1.0)]);
        let mut after = report(vec![sample("calm", 0.5), sample("peak", 1.0)]);
        after.phases[0].settings.threads = 2;
        after.phases[0].usage.server_cpu_us_per_ok = Some(25.0);
        expect![[r#"
            A: 2026-01-02T03:04:05Z on 2 core(s), Some CPU
            B: 2026-01-02T03:04:05Z on 2 core(s), Some CPU

            calm
              settings differ: threads: 1 -> 2
                                               A           B      B/A
              answers/s                    977.0       980.0    1.003
              rows/s                      3908.0      3920.0    1.003
              answers/s in time            810.0       980.0    1.210
              p50 ms                       3.410       1.708    0.501
              p90 ms                       5.411       2.710    0.501
              p95 ms                       5.665       2.839    0.501
              p99 ms                       5.870       2.943    0.501
              p99.9 ms                     5.870       2.943    0.501
              max ms                       5.870       2.943    0.501
              failed                          20          20    1.000
              server CPU µs/answer          51.2        25.0    0.489
              B gives 0.3 % more answers a second, its median is 49.9 % lower, its p99 49.9 % lower; in A 20 of 1000 failed, in B 20 of 1000 failed. One run each: repeat both to tell a change from noise.

            peak
                                               A           B      B/A
              answers/s                    977.0       977.0    1.000
              rows/s                      3908.0      3908.0    1.000
              answers/s in time            810.0       810.0    1.000
              p50 ms                       3.410       3.410    1.000
              p90 ms                       5.411       5.411    1.000
              p95 ms                       5.665       5.665    1.000
              p99 ms                       5.870       5.870    1.000
              p99.9 ms                     5.870       5.870    1.000
              max ms                       5.870       5.870    1.000
              failed                          20          20    1.000
              server CPU µs/answer          51.2        51.2    1.000
              B gives 0.0 % more answers a second, its median is 0.0 % higher, its p99 0.0 % higher; in A 20 of 1000 failed, in B 20 of 1000 failed. One run each: repeat both to tell a change from noise.
        "#]].assert_eq(&compare(&before, &after));
    }

    #[test]
    fn results_of_one_phase_are_compared_whatever_their_names() {
        let text = compare(&report(vec![sample("a", 1.0)]), &report(vec![sample("b", 1.0)]));
        assert!(text.contains("a (A) and b (B)"), "{text}");
    }

    #[test]
    fn different_machines_and_nothing_in_common_are_said() {
        let before = report(vec![sample("a", 1.0), sample("b", 1.0)]);
        let mut after = report(vec![sample("c", 1.0)]);
        after.host.cores = 64;
        let text = compare(&before, &after);
        assert!(text.contains("different machines"), "{text}");
        assert!(text.contains("nothing to compare"), "{text}");
    }
}
