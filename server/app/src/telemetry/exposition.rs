//! Series as text: in the format that Prometheus has read since 2014 (0.0.4), or as OpenMetrics 1.0.

use std::fmt::{self, Write as _};
use std::time::UNIX_EPOCH;

use gristmill_engine::metrics::Kind;
use metrics::Unit;
use metrics_exporter_prometheus::formatting::{sanitize_label_value, write_help_line, write_type_line};

use super::cell::{Buckets, Exemplar};
use super::recorder::{Cell, Families, Family};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Prometheus,
    /// With units, and with exemplars on the buckets of histograms.
    OpenMetrics,
}

// === impl Format ===

impl Format {
    /// What a scraper asks for; the older format where it does not prefer the other.
    pub(super) fn accepted(accept: &str) -> Format {
        let quality = |wanted: &str| {
            let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
            let qualities = ranges.filter_map(|mut parts| {
                let is_wanted = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
                let quality = parts.find_map(|parameter| parameter.strip_prefix("q="));
                is_wanted.then(|| quality.map_or(Some(1.0), |text| text.parse::<f64>().ok())).flatten()
            });
            qualities.fold(0.0, f64::max)
        };
        let open_metrics = quality("application/openmetrics-text");
        match open_metrics > 0.0 && open_metrics >= quality("text/plain") {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Every metric that has a series, and then `more`, which is text already.
pub(super) fn write(families: &Families, more: &str, format: Format) -> String {
    let bug = "writing to a string does not fail; this is a bug";
    let mut text = String::with_capacity(64 * 1024);
    for (name, family) in families.iter().filter(|(_, family)| !family.series.is_empty()) {
        write_family(&mut text, name, family, format).expect(bug);
    }
    text.push_str(more);
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn write_family(text: &mut String, name: &str, family: &Family, format: Format) -> fmt::Result {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    // In OpenMetrics a counter's name has no suffix, and its sample always has one.
    let (described, counter) = match (format, family.kind) {
        (Format::OpenMetrics, Kind::Counter) => {
            let stem = name.strip_suffix("_total").unwrap_or(name);
            (stem, format!("{stem}_total"))
        }
        _ => (name, name.to_owned()),
    };
    match format {
        Format::Prometheus => write_help_line(text, described, None, None, &family.help),
        // Where a help text is escaped as a label's value is.
        Format::OpenMetrics => {
            writeln!(text, "# HELP {described} {}", sanitize_label_value(&family.help))?;
        }
    }
    write_type_line(text, described, None, None, kind);
    if let (Format::OpenMetrics, Some(unit)) = (format, unit(described, family.unit)) {
        writeln!(text, "# UNIT {described} {unit}")?;
    }
    for (labels, series) in &family.series {
        match &series.cell {
            Cell::Counter(cell) => writeln!(text, "{counter}{} {}", Braces(labels), cell.value())?,
            Cell::Gauge(cell) => writeln!(text, "{name}{} {}", Braces(labels), Number(cell.value()))?,
            Cell::Histogram(cell) => write_histogram(text, name, labels, &cell.read(), format)?,
        }
    }
    if format == Format::Prometheus { text.write_char('\n') } else { Ok(()) }
}

fn write_histogram(
    text: &mut String,
    name: &str,
    labels: &str,
    buckets: &Buckets,
    format: Format,
) -> fmt::Result {
    let separator = if labels.is_empty() { "" } else { "," };
    let bounds = buckets.bounds.iter().copied().chain([f64::INFINITY]);
    for (index, (bound, count)) in bounds.zip(&buckets.cumulative).enumerate() {
        write!(text, "{name}_bucket{{{labels}{separator}le=\"{}\"}} {count}", Number(bound))?;
        if let (Format::OpenMetrics, Some(Some(exemplar))) = (format, buckets.exemplars.get(index)) {
            write_exemplar(text, exemplar)?;
        }
        text.write_char('\n')?;
    }
    let count = buckets.cumulative.last().copied().unwrap_or_default();
    writeln!(text, "{name}_sum{} {}", Braces(labels), Number(buckets.sum))?;
    writeln!(text, "{name}_count{} {count}", Braces(labels))
}

fn write_exemplar(text: &mut String, exemplar: &Exemplar) -> fmt::Result {
    let Exemplar { trace_id, value, at } = exemplar;
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, milliseconds) = (since.as_secs(), since.subsec_millis());
    write!(text, " # {{trace_id=\"{trace_id}\"}} {} {seconds}.{milliseconds:03}", Number(*value))
}

/// The unit, where the metric's name ends with it: OpenMetrics allows no other.
fn unit(name: &str, unit: Option<Unit>) -> Option<&'static str> {
    let unit = match unit? {
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        _ => return None,
    };
    name.strip_suffix(unit)?.ends_with('_').then_some(unit)
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
    use std::time::Duration;

    use expect_test::{Expect, expect};
    use gristmill_engine::metrics::Metric;
    use metrics::{Key, Label, Level, Metadata, Recorder as _};

    use super::*;
    use crate::telemetry::recorder::Recorder;
    use crate::trace_context::TraceId;

    const METADATA: Metadata<'static> = Metadata::new("test", Level::INFO, None);

    fn metric(name: &'static str, kind: Kind, unit: Unit) -> Metric {
        Metric { name, kind, unit, labels: &["model"], help: "What \"it\" \\ says" }
    }

    fn key(name: &'static str) -> Key {
        Key::from_parts(name, vec![Label::new("model", "a")])
    }

    /// One series of each kind, and a histogram with an exemplar.
    fn check(format: Format, expected: Expect) {
        let recorder = Recorder::default();
        let run_seconds = metric("run_seconds", Kind::Histogram(&[5e-5, 0.001, 1.0]), Unit::Seconds);
        recorder.declare(&metric("requests_total", Kind::Counter, Unit::Count));
        recorder.declare(&metric("queue_bytes", Kind::Gauge, Unit::Bytes));
        recorder.declare(&run_seconds);
        recorder.declare(&metric("unused", Kind::Gauge, Unit::Count));
        recorder.register_counter(&key("requests_total"), &METADATA).increment(7);
        recorder.register_gauge(&key("queue_bytes"), &METADATA).set(12.5);
        recorder.register_gauge(&Key::from_name("queue_bytes"), &METADATA).set(3.0);
        let histogram = recorder.register_histogram(&key("run_seconds"), &METADATA);
        for value in [0.0005, 0.25, 2.0] {
            histogram.record(value);
        }
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_042);
        let exemplar = Exemplar { trace_id: TraceId([0xab; 16]), value: 0.25, at };
        recorder.keep(&run_seconds, "model=\"a\"", exemplar);
        recorder.keep(&run_seconds, "model=\"unknown\"", exemplar);
        expected.assert_eq(&write(&recorder.lock(), "", format));
    }

    #[test]
    fn each_kind_is_written() {
        check(
            Format::Prometheus,
            expect![[r#"
                # HELP queue_bytes What "it" \\ says
                # TYPE queue_bytes gauge
                queue_bytes 3.0
                queue_bytes{model="a"} 12.5

                # HELP requests_total What "it" \\ says
                # TYPE requests_total counter
                requests_total{model="a"} 7

                # HELP run_seconds What "it" \\ says
                # TYPE run_seconds histogram
                run_seconds_bucket{model="a",le="5e-05"} 0
                run_seconds_bucket{model="a",le="0.001"} 1
                run_seconds_bucket{model="a",le="1.0"} 2
                run_seconds_bucket{model="a",le="+Inf"} 3
                run_seconds_sum{model="a"} 2.2505
                run_seconds_count{model="a"} 3

            "#]],
        );
    }

    #[test]
    fn open_metrics_has_units_and_exemplars() {
        check(
            Format::OpenMetrics,
            expect![[r#"
                # HELP queue_bytes What \"it\" \\ says
                # TYPE queue_bytes gauge
                # UNIT queue_bytes bytes
                queue_bytes 3.0
                queue_bytes{model="a"} 12.5
                # HELP requests What \"it\" \\ says
                # TYPE requests counter
                requests_total{model="a"} 7
                # HELP run_seconds What \"it\" \\ says
                # TYPE run_seconds histogram
                # UNIT run_seconds seconds
                run_seconds_bucket{model="a",le="5e-05"} 0
                run_seconds_bucket{model="a",le="0.001"} 1
                run_seconds_bucket{model="a",le="1.0"} 2 # {trace_id="abababababababababababababababab"} 0.25 1700000000.042
                run_seconds_bucket{model="a",le="+Inf"} 3
                run_seconds_sum{model="a"} 2.2505
                run_seconds_count{model="a"} 3
                # EOF
            "#]],
        );
    }

    #[test]
    fn the_scraper_chooses_the_format() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics);
        assert_eq!(Format::accepted("text/plain, application/openmetrics-text;q=0.9"), Format::Prometheus);
        assert_eq!(Format::accepted("application/openmetrics-text;q=0"), Format::Prometheus);
        assert_eq!(Format::accepted("*/*"), Format::Prometheus);
        assert_eq!(Format::accepted(""), Format::Prometheus);
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
