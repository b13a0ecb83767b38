//! Every metric series of the process, from its first handle until some time after its last one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gristmill_engine::metrics::{Kind, Metric, SECONDS_BUCKETS};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use metrics_exporter_prometheus::formatting::{sanitize_label_key, sanitize_label_value};

use super::cell::{CounterCell, Exemplar, GaugeCell, HistogramCell};

/// How long a series is shown after its last handle is gone: many scrapes, so that what a retired version
/// counted last is not missed. Prometheus takes a series that then disappears for ended.
pub(super) const KEPT: Duration = Duration::from_secs(10 * 60);

/// Shared by the handles' owners, who register, and the exposition, which reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder(Arc<Mutex<Families>>);

/// By name.
pub(super) type Families = BTreeMap<String, Family>;

/// All series of one metric.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) kind: Kind,
    pub(super) unit: Option<Unit>,
    pub(super) help: SharedString,
    /// By their labels as they are written, such as `model="digits",version="1"`.
    pub(super) series: BTreeMap<String, Series>,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) cell: Cell,
    /// When its last handle was seen to be gone.
    gone_since: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(super) enum Cell {
    Counter(Arc<CounterCell>),
    Gauge(Arc<GaugeCell>),
    Histogram(Arc<HistogramCell>),
}

// === impl Recorder ===

impl Recorder {
    /// Makes a metric known before its first series.
    pub(super) fn declare(&self, metric: &Metric) {
        self.describe(metric.name, metric.kind, Some(metric.unit), metric.help.into());
    }

    fn describe(&self, name: &str, kind: Kind, unit: Option<Unit>, help: SharedString) {
        let mut families = self.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| Family::new(kind));
        family.unit = unit;
        family.help = help;
    }

    /// Forgets series that have had no handle for [`KEPT`]. Nobody can write to them: a handle comes from here,
    /// under the same lock.
    pub(super) fn sweep(&self, now: Instant) {
        for family in self.lock().values_mut() {
            family.series.retain(|_, series| {
                if series.cell.has_handles() {
                    series.gone_since = None;
                    return true;
                }
                let gone_since = *series.gone_since.get_or_insert(now);
                now.saturating_duration_since(gone_since) < KEPT
            });
        }
    }

    /// Keeps an example of what was recorded in a histogram, unless somebody is at the series just now: a request
    /// does not wait for a scrape.
    pub(super) fn keep(&self, metric: &Metric, labels: &str, exemplar: Exemplar) {
        let Ok(families) = self.0.try_lock() else { return };
        let series = families.get(metric.name).and_then(|family| family.series.get(labels));
        if let Some(Series { cell: Cell::Histogram(cell), .. }) = series {
            cell.keep(exemplar);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Families> {
        // Nothing panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series of `key`, which is of the kind that its metric was first said to be of.
    fn cell(&self, key: &Key, kind: Kind) -> Cell {
        let mut families = self.lock();
        let family = match families.get_mut(key.name()) {
            Some(family) => family,
            None => families.entry(key.name().to_owned()).or_insert_with(|| Family::new(kind)),
        };
        let kind = family.kind;
        let series = family
            .series
            .entry(labels(key))
            .or_insert_with(|| Series { cell: Cell::new(kind), gone_since: None });
        series.gone_since = None;
        series.cell.clone()
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(name.as_str(), Kind::Counter, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(name.as_str(), Kind::Gauge, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(name.as_str(), Kind::Histogram(SECONDS_BUCKETS), unit, help);
    }

    fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
        match self.cell(key, Kind::Counter) {
            Cell::Counter(cell) => Counter::from_arc(cell),
            other => {
                other.refuse(key);
                Counter::noop()
            }
        }
    }

    fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        match self.cell(key, Kind::Gauge) {
            Cell::Gauge(cell) => Gauge::from_arc(cell),
            other => {
                other.refuse(key);
                Gauge::noop()
            }
        }
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        match self.cell(key, Kind::Histogram(SECONDS_BUCKETS)) {
            Cell::Histogram(cell) => Histogram::from_arc(cell),
            other => {
                other.refuse(key);
                Histogram::noop()
            }
        }
    }
}

// === impl Family ===

impl Family {
    fn new(kind: Kind) -> Family {
        Family { kind, unit: None, help: SharedString::const_str(""), series: BTreeMap::new() }
    }
}

// === impl Cell ===

impl Cell {
    fn new(kind: Kind) -> Cell {
        match kind {
            Kind::Counter => Cell::Counter(Arc::default()),
            Kind::Gauge => Cell::Gauge(Arc::default()),
            Kind::Histogram(bounds) => Cell::Histogram(Arc::new(HistogramCell::new(bounds))),
        }
    }

    fn has_handles(&self) -> bool {
        let owners = match self {
            Cell::Counter(cell) => Arc::strong_count(cell),
            Cell::Gauge(cell) => Arc::strong_count(cell),
            Cell::Histogram(cell) => Arc::strong_count(cell),
        };
        owners > 1
    }

    fn refuse(&self, key: &Key) {
        tracing::error!(metric = key.name(), series = ?self, "a metric is of one kind; this is a bug");
    }
}

/// Labels as the text formats write them between braces.
pub(super) fn labels(key: &Key) -> String {
    let mut text = String::new();
    for label in key.labels() {
        let separator = if text.is_empty() { "" } else { "," };
        let (name, value) = (sanitize_label_key(label.key()), sanitize_label_value(label.value()));
        write!(text, "{separator}{name}=\"{value}\"")
            .expect("writing to a string does not fail; this is a bug");
    }
    text
}

#[cfg(test)]
mod tests {
    use metrics::Level;
    use metrics::{Label, Recorder as _};

    use super::*;

    const METADATA: Metadata<'static> = Metadata::new("test", Level::INFO, None);

    fn key(version: &str) -> Key {
        Key::from_parts("requests_total", vec![Label::new("version", version.to_owned())])
    }

    fn shown(recorder: &Recorder) -> Vec<String> {
        let families = recorder.lock();
        let of_family = |family: &Family| family.series.keys().cloned().collect::<Vec<_>>();
        families.values().flat_map(of_family).collect()
    }

    #[test]
    fn a_series_outlives_its_last_handle_for_a_while() {
        let recorder = Recorder::default();
        let start = Instant::now();
        let handle = recorder.register_counter(&key("1"), &METADATA);
        recorder.sweep(start + 10 * KEPT);
        assert_eq!(shown(&recorder), ["version=\"1\""], "it has a handle");
        drop(handle);
        let gone = start + 11 * KEPT;
        recorder.sweep(gone);
        recorder.sweep(gone + KEPT - Duration::from_secs(1));
        assert_eq!(shown(&recorder), ["version=\"1\""]);
        recorder.sweep(gone + KEPT);
        assert_eq!(shown(&recorder), [""; 0]);
    }

    #[test]
    fn a_series_that_comes_back_goes_on_counting() {
        let recorder = Recorder::default();
        let start = Instant::now();
        recorder.register_counter(&key("1"), &METADATA).increment(3);
        recorder.sweep(start);
        let again = recorder.register_counter(&key("1"), &METADATA);
        recorder.sweep(start + 2 * KEPT);
        again.increment(4);
        let Cell::Counter(cell) = recorder.cell(&key("1"), Kind::Counter) else { panic!("it is a counter") };
        assert_eq!(cell.value(), 7);
    }

    #[test]
    fn a_metric_is_of_one_kind() {
        let recorder = Recorder::default();
        recorder.register_counter(&key("1"), &METADATA).increment(1);
        recorder.register_gauge(&key("1"), &METADATA).set(5.0);
        let Cell::Counter(cell) = recorder.cell(&key("1"), Kind::Gauge) else { panic!("it is a counter") };
        assert_eq!(cell.value(), 1);
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(labels(&key("a\"b\\c\nd")), r#"version="a\"b\\c\nd""#);
    }
}
