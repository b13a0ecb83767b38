//! Which requests are traced, and how that is changed while the server runs: by Triton's names for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::request::VersionSelector;

use super::Traces;

/// What is sampled now. Requests read the atomics, each by itself: one that comes while settings change may see one
/// of them before and one after.
#[derive(Debug)]
pub(super) struct Sampling {
    is_on: AtomicBool,
    /// Of 2^64, how many of the ids of new traces are sampled.
    threshold: AtomicU64,
    start: Settings,
    now: Mutex<Settings>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Settings {
    /// Otherwise nothing is traced, whatever callers say.
    is_on: bool,
    /// The share of traces that begin here, from 0 to 1.
    ratio: f64,
}

/// A setting as Triton names it, and its values as text; for a change, no value takes back what was set.
pub(crate) type Setting = (String, Vec<String>);

const NAMES: &str = "trace_level, trace_rate, trace_count or trace_mode";
/// Traces are not counted down.
const NO_LIMIT: &str = "-1";
/// Triton's name for spans that are sent to an OTLP receiver.
const MODE: &str = "opentelemetry";

/// Changes the settings, all that is named or nothing, and says how they are then. They hold for all models: which
/// one a request is for is not known yet when its span begins.
///
/// # Errors
/// `NotFound` for a model that does not serve, and `InvalidInput` for changes of one model, for changes where there is
/// nowhere to send traces, and for what a setting cannot be.
pub(crate) fn settings(
    engine: &Engine,
    traces: Option<&Traces>,
    model: &str,
    changes: &[Setting],
) -> Result<Vec<Setting>, InferError> {
    if !model.is_empty() {
        engine.model(model, &VersionSelector::Default)?;
        if !changes.is_empty() {
            return Err(InferError::InvalidInput(format!(
                "trace settings hold for all models, got changes for model '{model}': leave the model out"
            )));
        }
    }
    match traces {
        Some(traces) => traces.sampling.update(changes),
        None if changes.is_empty() => Ok(Settings { is_on: false, ratio: 0.0 }.list()),
        None => Err(InferError::InvalidInput(
            "there is nowhere to send traces: start the server with --otlp-endpoint".into(),
        )),
    }
}

// === impl Sampling ===

impl Sampling {
    pub(super) fn new(ratio: f64) -> Sampling {
        let start = Settings { is_on: true, ratio: ratio.clamp(0.0, 1.0) };
        Sampling {
            is_on: AtomicBool::new(start.is_on),
            threshold: AtomicU64::new(start.threshold()),
            start,
            now: Mutex::new(start),
        }
    }

    /// Whether anything is traced.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Of 2^64, how many of the ids of new traces are sampled.
    pub(super) fn threshold(&self) -> u64 {
        self.threshold.load(Ordering::Relaxed)
    }

    fn update(&self, changes: &[Setting]) -> Result<Vec<Setting>, InferError> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = *now;
        for (name, values) in changes {
            wanted.set(name, values, self.start).map_err(InferError::InvalidInput)?;
        }
        *now = wanted;
        self.is_on.store(wanted.is_on, Ordering::Relaxed);
        self.threshold.store(wanted.threshold(), Ordering::Relaxed);
        Ok(wanted.list())
    }
}

// === impl Settings ===

impl Settings {
    fn set(&mut self, name: &str, values: &[String], start: Settings) -> Result<(), String> {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let expected = match (name, values.as_slice()) {
            ("trace_level", []) => {
                self.is_on = start.is_on;
                return Ok(());
            }
            ("trace_level", ["OFF" | "TIMESTAMPS"]) => {
                self.is_on = values == ["TIMESTAMPS"];
                return Ok(());
            }
            ("trace_level", _) => "OFF or TIMESTAMPS",
            ("trace_rate", []) => {
                self.ratio = start.ratio;
                return Ok(());
            }
            ("trace_rate", values) => {
                if let [text] = values
                    && let Ok(rate) = text.parse::<u32>()
                {
                    self.ratio = if rate == 0 { 0.0 } else { 1.0 / f64::from(rate) };
                    return Ok(());
                }
                "a whole number: one of so many requests is traced, 0 for those alone whose callers trace them"
            }
            ("trace_count", [] | [NO_LIMIT]) | ("trace_mode", [] | [MODE]) => return Ok(()),
            ("trace_count", _) => "-1: traces are not counted",
            ("trace_mode", _) => MODE,
            ("trace_file" | "log_frequency", _) => {
                return Err(format!(
                    "there is no trace setting {name}: traces go to --otlp-endpoint, not to a file"
                ));
            }
            _ => return Err(format!("unknown trace setting '{name}': expected {NAMES}")),
        };
        Err(format!("trace setting {name} must be {expected}; got '{}'", values.join("', '")))
    }

    fn list(self) -> Vec<Setting> {
        let level = if self.is_on { "TIMESTAMPS" } else { "OFF" };
        // A share that is no whole number's is told as the nearest that is.
        let rate = if self.ratio > 0.0 { (1.0 / self.ratio).round() as u64 } else { 0 };
        let rate = rate.to_string();
        [
            ("trace_level", level),
            ("trace_rate", rate.as_str()),
            ("trace_count", NO_LIMIT),
            ("trace_mode", MODE),
        ]
        .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
        .into()
    }

    fn threshold(self) -> u64 {
        // A ratio of 1 is every id but one.
        (self.ratio * u64::MAX as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn change(sampling: &Sampling, name: &str, values: &[&str]) -> String {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        match sampling.update(&[(name.to_owned(), values)]) {
            Ok(settings) => settings.iter().map(|(_, values)| values.join(",")).collect::<Vec<_>>().join(" "),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn a_rate_is_one_of_so_many() {
        let sampling = Sampling::new(0.01);
        expect!["TIMESTAMPS 4 -1 opentelemetry"].assert_eq(&change(&sampling, "trace_rate", &["4"]));
        assert_eq!(sampling.threshold(), u64::MAX / 4 + 1);
        expect!["TIMESTAMPS 1 -1 opentelemetry"].assert_eq(&change(&sampling, "trace_rate", &["1"]));
        assert_eq!(sampling.threshold(), u64::MAX);
        expect!["TIMESTAMPS 0 -1 opentelemetry"].assert_eq(&change(&sampling, "trace_rate", &["0"]));
        assert_eq!((sampling.threshold(), sampling.is_on()), (0, true));
        expect!["TIMESTAMPS 100 -1 opentelemetry"].assert_eq(&change(&sampling, "trace_rate", &[]));
        assert_eq!(sampling.threshold(), Sampling::new(0.01).threshold());
    }

    #[test]
    fn nothing_is_traced_while_it_is_off() {
        let sampling = Sampling::new(0.5);
        expect!["OFF 2 -1 opentelemetry"].assert_eq(&change(&sampling, "trace_level", &["OFF"]));
        assert!(!sampling.is_on());
        expect!["TIMESTAMPS 2 -1 opentelemetry"].assert_eq(&change(
            &sampling,
            "trace_level",
            &["TIMESTAMPS"],
        ));
        assert!(sampling.is_on());
        change(&sampling, "trace_level", &["OFF"]);
        expect!["TIMESTAMPS 2 -1 opentelemetry"].assert_eq(&change(&sampling, "trace_level", &[]));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let sampling = Sampling::new(0.5);
        let mut refusals = String::new();
        for (name, values) in [
            ("trace_level", ["TIMESTAMPS", "TENSORS"].as_slice()),
            ("trace_rate", &["often"]),
            ("trace_rate", &["-1"]),
            ("trace_count", &["10"]),
            ("trace_mode", &["triton"]),
            ("trace_file", &["trace.json"]),
            ("log_frequency", &["0"]),
            ("trace_colour", &[]),
        ] {
            refusals += &change(&sampling, name, values);
            refusals += "\n";
        }
        expect![[r#"
            trace setting trace_level must be OFF or TIMESTAMPS; got 'TIMESTAMPS', 'TENSORS'
            trace setting trace_rate must be a whole number: one of so many requests is traced, 0 for those alone whose callers trace them; got 'often'
            trace setting trace_rate must be a whole number: one of so many requests is traced, 0 for those alone whose callers trace them; got '-1'
            trace setting trace_count must be -1: traces are not counted; got '10'
            trace setting trace_mode must be opentelemetry; got 'triton'
            there is no trace setting trace_file: traces go to --otlp-endpoint, not to a file
            there is no trace setting log_frequency: traces go to --otlp-endpoint, not to a file
            unknown trace setting 'trace_colour': expected trace_level, trace_rate, trace_count or trace_mode
        "#]]
        .assert_eq(&refusals);
        let changes = [("trace_rate", "7"), ("trace_colour", "red")];
        let changes = changes.map(|(name, value)| (name.to_owned(), vec![value.to_owned()]));
        sampling.update(&changes).unwrap_err();
        expect!["TIMESTAMPS 2 -1 opentelemetry"].assert_eq(&change(&sampling, "trace_count", &["-1"]));
    }
}
