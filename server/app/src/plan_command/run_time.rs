//! How long runs take, as `gristmill plan` is told: the answer of `/latency-model`, or a fixed part and one for each row.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gristmill_engine::cost::{CostSource, SizeCost};
use gristmill_engine::simulation::RunTimes;
use serde::Deserialize;

use crate::http_get;

/// What is known of a version's runs.
pub(super) struct Known {
    pub(super) run_times: RunTimes,
    /// Rows of the largest batch, where they are known too.
    pub(super) batch_rows_max: Option<usize>,
    /// For people.
    pub(super) source: String,
}

/// What is needed of `GET /v2/models/{model}/latency-model`.
#[derive(Deserialize)]
struct LatencyModel {
    model: String,
    version: u64,
    batch_rows_max: usize,
    tables: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    /// Empty for all shapes together.
    shape: Vec<u64>,
    sizes: Vec<Size>,
}

#[derive(Deserialize)]
struct Size {
    rows: usize,
    count: u64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    typical_us: f64,
    high_us: f64,
}

/// A line: `5ms+1ms` is 5 ms and 1 ms for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    fixed: Duration,
    row: Duration,
}

/// Reads a latency model from a file or an `http://` address.
///
/// # Errors
/// It cannot be had, or it has no run times yet.
pub(super) fn read(source: &str) -> anyhow::Result<Known> {
    let text = match source.strip_prefix("http://") {
        Some(rest) => {
            let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (status, body) = http_get::get(address, &format!("/{path}"))?;
            ensure!(status == 200, "{source} answered {status}: {}", body.trim());
            body
        }
        None => {
            std::fs::read_to_string(Path::new(source)).with_context(|| format!("cannot read {source}"))?
        }
    };
    parse(&text).with_context(|| source.to_owned())
}

fn parse(text: &str) -> anyhow::Result<Known> {
    let LatencyModel { model, version, batch_rows_max, tables } =
        serde_json::from_str(text).context("expected the answer of GET /v2/models/{model}/latency-model")?;
    let table = tables.into_iter().find(|table| table.shape.is_empty());
    let sizes: Vec<SizeCost> = table.into_iter().flat_map(|table| table.sizes).map(cost).collect();
    let run_times = RunTimes::measured(&sizes)
        .with_context(|| format!("model `{model}` has no run times yet: send it some requests first"))?;
    Ok(Known {
        run_times,
        batch_rows_max: Some(batch_rows_max),
        source: format!("{model} version {version}"),
    })
}

fn cost(size: Size) -> SizeCost {
    let micros = |value: f64| Duration::from_secs_f64(value.max(0.0) / 1e6);
    SizeCost {
        rows: size.rows,
        count: size.count,
        source: CostSource::Runs,
        p50: micros(size.p50_us),
        p90: micros(size.p90_us),
        p99: micros(size.p99_us),
        typical: micros(size.typical_us),
        high: micros(size.high_us),
    }
}

/// Reads a line as it is written on the command line.
///
/// # Errors
/// What was expected.
pub fn line(text: &str) -> Result<Line, String> {
    let expected = || format!("`{text}`: expected a fixed part and one for each row, as in 5ms+1ms");
    let (fixed, row) = text.split_once('+').ok_or_else(expected)?;
    let duration = |text: &str| humantime::parse_duration(text.trim()).map_err(|_error| expected());
    let line = Line { fixed: duration(fixed)?, row: duration(row)? };
    if line.fixed + line.row == Duration::ZERO { Err(expected()) } else { Ok(line) }
}

// === impl Known ===

impl From<Line> for Known {
    fn from(line: Line) -> Known {
        let Line { fixed, row } = line;
        let source = format!("{fixed:?} and {row:?} a row");
        Known { run_times: RunTimes::linear(fixed, row), batch_rows_max: None, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_model_is_read_and_one_without_runs_refused() {
        let text = r#"{"model":"m","version":2,"batch_rows_max":8,"workers":2,"tables":[{"shape":[],"sizes":[
            {"rows":1,"count":5,"source":"runs","p50_us":55.2,"p90_us":71.8,"p99_us":133.1,"typical_us":57.0,
             "high_us":133.1}]}]}"#;
        let known = parse(text).unwrap();
        assert_eq!((known.batch_rows_max, known.source.as_str()), (Some(8), "m version 2"));
        let error = parse(r#"{"model":"m","version":2,"batch_rows_max":8,"tables":[]}"#).err().unwrap();
        assert!(format!("{error:#}").contains("no run times yet"), "{error:#}");
        assert!(parse("[]").is_err());
    }

    #[test]
    fn a_line_has_two_parts() {
        let ms = Duration::from_millis;
        assert_eq!(line("5ms+1ms"), Ok(Line { fixed: ms(5), row: ms(1) }));
        assert_eq!(line("0s + 2ms"), Ok(Line { fixed: ms(0), row: ms(2) }));
        for text in ["", "5ms", "5ms+", "5+1", "0s+0s"] {
            assert!(line(text).unwrap_err().contains("as in 5ms+1ms"), "{text}");
        }
    }
}
