//! Series as text, in the format that Prometheus has read since 2014 (text format 0.0.4).

use std::fmt::{self, Write as _};

use gristmill_engine::metrics::Kind;

use super::recorder::{Cell, Families, Family};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric that has a series.
pub(super) fn write(families: &Families) -> String {
    let mut text = String::with_capacity(64 * 1024);
    for (name, family) in families.iter().filter(|(_, family)| !family.series.is_empty()) {
        write_family(&mut text, name, family).expect("writing to a string does not fail; this is a bug");
    }
    text
}

fn write_family(text: &mut String, name: &str, family: &Family) -> fmt::Result {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    writeln!(text, "# HELP {name} {}", family.help.replace('\\', "\\\\").replace('\n', "\\n"))?;
    writeln!(text, "# TYPE {name} {kind}")?;
    for (labels, series) in &family.series {
        match &series.cell {
            Cell::Counter(cell) => writeln!(text, "{name}{} {}", Braces(labels), cell.value())?,
            Cell::Gauge(cell) => writeln!(text, "{name}{} {}", Braces(labels), Number(cell.value()))?,
            Cell::Histogram(cell) => {
                let buckets = cell.read();
                let separator = if labels.is_empty() { "" } else { "," };
                let bounds = buckets.bounds.iter().copied().chain([f64::INFINITY]);
                for (bound, count) in bounds.zip(&buckets.cumulative) {
                    writeln!(text, "{name}_bucket{{{labels}{separator}le=\"{}\"}} {count}", Number(bound))?;
                }
                let count = buckets.cumulative.last().copied().unwrap_or_default();
                writeln!(text, "{name}_sum{} {}", Braces(labels), Number(buckets.sum))?;
                writeln!(text, "{name}_count{} {count}", Braces(labels))?;
            }
        }
    }
    text.write_char('\n')
}

/// Labels in their braces; nothing where there are none.
struct Braces<'a>(&'a str);

impl fmt::Display for Braces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.0) }
    }
}

/// A float as both formats and all their readers write it: `1.0`, `5e-05`, `+Inf`. Bounds of buckets are labels,
/// so that how they are written decides which series they are.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            return f.write_str("NaN");
        }
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        let size = value.abs();
        if size != 0.0 && !(1e-4..1e6).contains(&size) {
            // As Go and Python write exponents: a sign and two digits.
            let text = format!("{value:e}");
            let (digits, exponent) = text.split_once('e').expect("{:e} writes an exponent; this is a bug");
            let exponent: i32 = exponent.parse().expect("{:e} writes a number; this is a bug");
            let sign = if exponent < 0 { '-' } else { '+' };
            return write!(f, "{digits}e{sign}{:02}", exponent.abs());
        }
        // `Debug` writes the `.0` of whole numbers, `Display` does not.
        write!(f, "{value:?}")
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use gristmill_engine::metrics::Metric;
    use metrics::{Key, Label, Level, Metadata, Recorder as _, Unit};

    use super::*;
    use crate::telemetry::recorder::Recorder;

    const METADATA: Metadata<'static> = Metadata::new("test", Level::INFO, None);

    fn metric(name: &'static str, kind: Kind, unit: Unit) -> Metric {
        Metric { name, kind, unit, labels: &["model"], help: "What it \\ says" }
    }

    fn key(name: &'static str) -> Key {
        Key::from_parts(name, vec![Label::new("model", "a")])
    }

    #[test]
    fn each_kind_is_written() {
        let recorder = Recorder::default();
        recorder.declare(&metric("requests_total", Kind::Counter, Unit::Count));
        recorder.declare(&metric("queue_bytes", Kind::Gauge, Unit::Bytes));
        recorder.declare(&metric("run_seconds", Kind::Histogram(&[5e-5, 0.001, 1.0]), Unit::Seconds));
        recorder.declare(&metric("unused", Kind::Gauge, Unit::Count));
        recorder.register_counter(&key("requests_total"), &METADATA).increment(7);
        recorder.register_gauge(&key("queue_bytes"), &METADATA).set(12.5);
        recorder.register_gauge(&Key::from_name("queue_bytes"), &METADATA).set(3.0);
        let histogram = recorder.register_histogram(&key("run_seconds"), &METADATA);
        for value in [0.0005, 0.25, 2.0] {
            histogram.record(value);
        }
        expect![[r#"
            # HELP queue_bytes What it \\ says
            # TYPE queue_bytes gauge
            queue_bytes 3.0
            queue_bytes{model="a"} 12.5

            # HELP requests_total What it \\ says
            # TYPE requests_total counter
            requests_total{model="a"} 7

            # HELP run_seconds What it \\ says
            # TYPE run_seconds histogram
            run_seconds_bucket{model="a",le="5e-05"} 0
            run_seconds_bucket{model="a",le="0.001"} 1
            run_seconds_bucket{model="a",le="1.0"} 2
            run_seconds_bucket{model="a",le="+Inf"} 3
            run_seconds_sum{model="a"} 2.2505
            run_seconds_count{model="a"} 3

        "#]]
        .assert_eq(&write(&recorder.lock()));
    }

    #[test]
    fn numbers_are_written_as_others_write_them() {
        let written = |value: f64| Number(value).to_string();
        assert_eq!(written(0.0), "0.0");
        assert_eq!(written(1.0), "1.0");
        assert_eq!(written(0.00075), "0.00075");
        assert_eq!(written(0.000075), "7.5e-05");
        assert_eq!(written(1e10), "1e+10");
        assert_eq!(written(-2.5e-7), "-2.5e-07");
        assert_eq!(written(1024.0), "1024.0");
        assert_eq!(written(f64::INFINITY), "+Inf");
        assert_eq!(written(f64::NEG_INFINITY), "-Inf");
        assert_eq!(written(f64::NAN), "NaN");
    }
}
